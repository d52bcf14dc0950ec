"""Rows of the people who may enter the console: who they are, their sessions, their one-time links.

What opens a door (a cookie, a link) is 256 random bits that only its holder has; here are SHA-256 hashes
of it, so reading this table lets nobody in. Functions take a connection and never commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from mailer.store.models import half_logins, login_links, operators, sessions

IDLE = timedelta(minutes=30)
"""A session that long without a deed has ended."""

LIFETIME = timedelta(hours=12)
"""A session ends then, however busy the person is."""

# Writing at every click would make each reader wait for the one write lock of SQLite.
_SEEN_EVERY = timedelta(minutes=1)


class Role(StrEnum):
    """What a person may do; each role may also do what the ones before it may."""

    VIEWER = "viewer"  # see states, recipients and timelines, never a body
    SUPPORT = "support"  # read bodies; resend, retry, cancel
    ADMIN = "admin"  # everything

    def includes(self, other: Role) -> bool:
        """Whether this role may do what ``other`` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Operator:
    """A person of the console, without the password's hash."""

    id: int
    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None
    last_login_at: datetime | None
    failed_logins: int


o, s, links = operators.c, sessions.c, login_links.c
_PERSON = (o.id, o.name, o.role, o.created_at, o.disabled_at, o.last_login_at, o.failed_logins)
_CREATE = {
    "sqlite": sqlite.insert(operators).on_conflict_do_nothing(index_elements=["name"]).returning(o.id),
    "postgresql": postgresql.insert(operators)
    .on_conflict_do_nothing(index_elements=["name"])
    .returning(o.id),
}


def create_operator(
    connection: Connection, name: str, role: Role, password_hash: str | None, now: datetime
) -> bool:
    """Add a person. False, with nothing written, if the name is taken. ``name`` is in lower case."""
    row = {"name": name, "role": role, "password_hash": password_hash, "created_at": now, "failed_logins": 0}
    return connection.scalar(_CREATE[connection.dialect.name], row) is not None


def operator(connection: Connection, name: str) -> Operator | None:
    """The person of that name, disabled or not, or None."""
    return _operator(connection.execute(sa.select(*_PERSON).where(o.name == name)).mappings().one_or_none())


def all_operators(connection: Connection) -> list[Operator]:
    """Everybody, by name."""
    rows = connection.execute(sa.select(*_PERSON).order_by(o.name)).mappings()
    return [found for row in rows if (found := _operator(row))]


def password_hash(connection: Connection, name: str) -> tuple[int, str] | None:
    """The id and the password's hash of a person who may log in with one, or None."""
    query = sa.select(o.id, o.password_hash).where(
        o.name == name, o.disabled_at.is_(None), o.password_hash.is_not(None)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.id, row.password_hash)


def set_password(connection: Connection, id_: int, password_hash: str | None) -> None:
    """Replace the hash (None: links only). Sessions are another matter: see `end_sessions`."""
    connection.execute(sa.update(operators).where(o.id == id_).values(password_hash=password_hash))


def set_role(connection: Connection, id_: int, role: Role) -> None:
    """Give another role; it counts from the next request on."""
    connection.execute(sa.update(operators).where(o.id == id_).values(role=role))


def disable(connection: Connection, id_: int, now: datetime) -> None:
    """Close every door at once: password, links and living sessions."""
    connection.execute(sa.update(operators).where(o.id == id_).values(disabled_at=now))
    end_sessions(connection, id_)


def enable(connection: Connection, id_: int) -> None:
    """Undo `disable`."""
    connection.execute(sa.update(operators).where(o.id == id_).values(disabled_at=None))


def note_failure(connection: Connection, name: str) -> None:
    """Count a wrong password; nothing happens if nobody has the name."""
    connection.execute(sa.update(operators).where(o.name == name).values(failed_logins=o.failed_logins + 1))


def start_session(connection: Connection, id_: int, token_hash: str, now: datetime) -> None:
    """Let a person in, and forget what ended long ago. Their count of failures starts afresh."""
    connection.execute(sa.delete(sessions).where(s.expires_at <= now))
    connection.execute(
        sa.insert(sessions),
        {"token_hash": token_hash, "operator": id_, "created_at": now, "seen_at": now,
         "expires_at": now + LIFETIME},
    )  # fmt: skip
    connection.execute(sa.update(operators).where(o.id == id_).values(failed_logins=0, last_login_at=now))


def person_of_session(connection: Connection, token_hash: str, now: datetime) -> Operator | None:
    """Who holds this session, or None if it ended, idled out, or its person was disabled."""
    query = (
        sa.select(*_PERSON)
        .join(sessions, s.operator == o.id)
        .where(
            s.token_hash == token_hash, s.expires_at > now, s.seen_at > now - IDLE, o.disabled_at.is_(None)
        )
    )
    return _operator(connection.execute(query).mappings().one_or_none())


def session_is_stale(connection: Connection, token_hash: str, now: datetime) -> bool:
    """Whether `touch` would write: a person did something more than a minute after the last note of it."""
    query = sa.select(s.seen_at).where(s.token_hash == token_hash, s.seen_at <= now - _SEEN_EVERY)
    return connection.execute(query).one_or_none() is not None


def touch(connection: Connection, token_hash: str, now: datetime) -> None:
    """Note that the person is still there. A session that idled out meanwhile stays ended."""
    held = (s.token_hash == token_hash, s.seen_at > now - IDLE, s.seen_at < now)
    connection.execute(sa.update(sessions).where(*held).values(seen_at=now))


def end_session(connection: Connection, token_hash: str) -> None:
    """Log out: the token opens nothing any more."""
    connection.execute(sa.delete(sessions).where(s.token_hash == token_hash))


def end_sessions(connection: Connection, id_: int, keep: str | None = None) -> int:
    """Log a person out everywhere; answer how many sessions that were. ``keep`` is the hash of one to spare.

    A log-in that waits for its code ends as well.
    """
    connection.execute(sa.delete(half_logins).where(half_logins.c.operator == id_))
    ended = (s.operator == id_, s.token_hash != keep) if keep else (s.operator == id_,)
    return connection.execute(sa.delete(sessions).where(*ended)).rowcount


def add_link(connection: Connection, id_: int, token_hash: str, now: datetime, lifetime: timedelta) -> None:
    """Keep a one-time link, and forget those that ended."""
    connection.execute(sa.delete(login_links).where(links.expires_at <= now))
    row = {"token_hash": token_hash, "operator": id_, "expires_at": now + lifetime}
    connection.execute(sa.insert(login_links), row)


def redeem_link(connection: Connection, token_hash: str, now: datetime) -> int | None:
    """Use a link up; answer whose it was, or None if it is unknown, used, over, or theirs who was disabled.

    One guarded UPDATE: of several that redeem it at the same moment, one gets in.
    """
    allowed = sa.select(o.id).where(o.disabled_at.is_(None))
    whose: int | None = connection.scalar(
        sa.update(login_links)
        .where(
            links.token_hash == token_hash,
            links.used_at.is_(None),
            links.expires_at > now,
            links.operator.in_(allowed),
        )
        .values(used_at=now)
        .returning(links.operator)
    )
    return whose


def _operator(row: sa.RowMapping | None) -> Operator | None:
    return None if row is None else Operator(**{**row, "role": Role(row["role"])})
