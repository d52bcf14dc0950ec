"""Rows of the second factor: what an authenticator app shares with us, and log-ins that wait for its code.

The secret must be readable, or no code could be checked; it is sealed, and bound to its person. Functions
take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from mailer.errors import ConfigError
from mailer.sealing import Sealer
from mailer.store.models import half_logins, operators, second_factors

f, h = second_factors.c, half_logins.c

StepOf = Callable[[str], int | None]
"""Answers, for a secret, the time step whose code was brought; None for a wrong code."""


@dataclass(frozen=True, slots=True)
class Factor:
    """Somebody's second factor; not asked for until ``confirmed``."""

    secret: str
    confirmed: bool


def _offering(insert: sqlite.Insert | postgresql.Insert) -> sqlite.Insert | postgresql.Insert:
    new = {"secret": insert.excluded.secret}
    return insert.on_conflict_do_update(index_elements=["operator"], set_=new, where=f.confirmed_at.is_(None))


_OFFER = {
    "sqlite": _offering(sqlite.insert(second_factors)),
    "postgresql": _offering(postgresql.insert(second_factors)),
}


def offer(connection: Connection, id_: int, secret: str, sealer: Sealer) -> None:
    """Keep a secret until a code confirms it, in place of one offered before. A confirmed one stays."""
    row = {"operator": id_, "secret": _sealed(sealer, id_, secret), "last_step": 0}
    connection.execute(_OFFER[connection.dialect.name], row)


def factor(connection: Connection, id_: int, sealer: Sealer) -> Factor | None:
    """What a person has, confirmed or not. Raises ConfigError if the key it was sealed with is gone."""
    row = connection.execute(sa.select(f.secret, f.confirmed_at).where(f.operator == id_)).one_or_none()
    if row is None:
        return None
    try:
        secret = sealer.open(row.secret, _binding(id_)).decode()
    except ConfigError as exc:
        what = "lacks the key of a second factor; put it back, or run: mailer user reset-2fa NAME"
        raise ConfigError("MAILER_SECRET_KEYS", what) from exc
    return Factor(secret, row.confirmed_at is not None)


def is_confirmed(connection: Connection, id_: int) -> bool:
    """Whether a log-in by password must ask for a code."""
    query = sa.select(f.operator).where(f.operator == id_, f.confirmed_at.is_not(None))
    return connection.execute(query).one_or_none() is not None


def confirm(connection: Connection, id_: int, step_of: StepOf, now: datetime, sealer: Sealer) -> bool:
    """Let an offered secret count from now on, and use up the code; False if the code is none of it."""
    found = factor(connection, id_, sealer)
    return (
        found is not None
        and not found.confirmed
        and _use_step(connection, id_, found, step_of(found.secret), sealer, confirmed_at=now)
    )


def use(connection: Connection, id_: int, step_of: StepOf, sealer: Sealer) -> bool:
    """Use up a code; False if it is none, or one of this or a later time step was used before."""
    found = factor(connection, id_, sealer)
    return (
        found is not None
        and found.confirmed
        and _use_step(connection, id_, found, step_of(found.secret), sealer)
    )


def _use_step(
    connection: Connection, id_: int, used: Factor, step: int | None, sealer: Sealer, **values: datetime
) -> bool:
    if step is None:
        return False
    # One guarded UPDATE: of several that bring a code at the same moment, one is right. The secret is sealed
    # anew, so that a new first key reaches it and the old one can go some day.
    as_found = f.confirmed_at.is_not(None) if used.confirmed else f.confirmed_at.is_(None)
    done = connection.execute(
        sa.update(second_factors)
        .where(f.operator == id_, f.last_step < step, as_found)
        .values(last_step=step, secret=_sealed(sealer, id_, used.secret), **values)
    )
    return done.rowcount == 1


def reseal(connection: Connection, sealer: Sealer) -> tuple[int, int]:
    """Seal every secret with the first key; answer how many that were, and how many no key opens."""
    rows = connection.execute(sa.select(f.operator, f.secret)).all()
    old = [row for row in rows if not sealer.is_current(row.secret)]
    done = lost = 0
    for id_, secret in old:
        try:
            fresh = sealer.seal(sealer.open(secret, _binding(id_)), _binding(id_))
        except ConfigError:
            lost += 1
            continue
        as_read = (f.operator == id_, f.secret == secret)
        done += connection.execute(sa.update(second_factors).where(*as_read).values(secret=fresh)).rowcount
    return done, lost


def remove(connection: Connection, id_: int) -> bool:
    """Ask for no code any more; False if there was nothing to remove."""
    return connection.execute(sa.delete(second_factors).where(f.operator == id_)).rowcount == 1


def start_half(connection: Connection, id_: int, token_hash: str, now: datetime, lifetime: timedelta) -> None:
    """Note that a person's password was right and the code is to come; forget those who never came."""
    connection.execute(sa.delete(half_logins).where(h.expires_at <= now))
    row = {"token_hash": token_hash, "operator": id_, "expires_at": now + lifetime}
    connection.execute(sa.insert(half_logins), row)


def half(connection: Connection, token_hash: str, now: datetime) -> tuple[int, str] | None:
    """The id and name of who has half logged in, or None: unknown, over, or disabled meanwhile."""
    query = (
        sa.select(operators.c.id, operators.c.name)
        .join(half_logins, h.operator == operators.c.id)
        .where(h.token_hash == token_hash, h.expires_at > now, operators.c.disabled_at.is_(None))
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.id, row.name)


def end_half(connection: Connection, token_hash: str) -> bool:
    """Use a half log-in up; of several that do so at the same moment, True for one."""
    return connection.execute(sa.delete(half_logins).where(h.token_hash == token_hash)).rowcount == 1


def _sealed(sealer: Sealer, id_: int, secret: str) -> bytes:
    return sealer.seal(secret.encode(), _binding(id_))


def _binding(id_: int) -> str:
    return f"operator:{id_}"
