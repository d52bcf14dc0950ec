"""Moving what is sealed to the first key, so that the keys behind it can go.

Reading and sealing hold no lock. What is written back replaces the very value that was read: a value that
was erased, moved or replaced meanwhile is left alone, and whoever calls looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.sealing import HEAD, Sealer
from mailer.store.models import messages

m = messages.c
_SEALED = (m.content, m.secrets, m.rendered, m.preview)


@dataclass(frozen=True, slots=True)
class Resealed:
    """One message's values by column: how each began as it was read, and what takes its place."""

    message: str
    heads: dict[str, bytes]
    values: dict[str, bytes]

    @property
    def octets(self) -> int:
        return sum(map(len, self.values.values()))


def stale(connection: Connection, sealer: Sealer, after: str, limit: int) -> tuple[list[str], str | None]:
    """Of the next messages by id those with a value under an older key, and the last id looked at.

    Only the beginning of each value is read. (…, None): there are no more.
    """
    heads = [_head(column) for column in _SEALED]
    rows = connection.execute(sa.select(m.id, *heads).where(m.id > after).order_by(m.id).limit(limit)).all()
    old = [id_ for id_, *found in rows if any(head and not sealer.is_current(head) for head in found)]
    return old, rows[-1].id if rows else None


def reseal(connection: Connection, sealer: Sealer, message: str) -> Resealed | None:
    """A message's values under the first key; None if they are already, or gone.

    Raises ConfigError if no configured key opens one of them.
    """
    row = connection.execute(sa.select(*_SEALED).where(m.id == message)).mappings().one_or_none()
    old = {k: bytes(v) for k, v in (row or {}).items() if v is not None and not sealer.is_current(v)}
    if not old:
        return None
    fresh = {name: sealer.seal(sealer.open(value, message), message) for name, value in old.items()}
    return Resealed(message, {name: value[:HEAD] for name, value in old.items()}, fresh)


def write_back(connection: Connection, found: Sequence[Resealed], *, wait: bool = False) -> set[str]:
    """Write those that are as they were read; answer which. Without ``wait``, what is locked is left out.

    Several rows are locked together and none is waited for, so that no two can wait for each other.
    """
    ids = sa.select(m.id).where(m.id.in_([one.message for one in found])).order_by(m.id)
    free = set(connection.scalars(ids if wait else ids.with_for_update(skip_locked=True)))
    return {one.message for one in found if one.message in free and _write_one(connection, one)}


def _write_one(connection: Connection, one: Resealed) -> bool:
    as_read = [_head(m[name], HEAD) == head for name, head in one.heads.items()]
    replaced = sa.update(messages).where(m.id == one.message, *as_read).values(**one.values)
    return connection.execute(replaced).rowcount == 1


def _head(column: sa.ColumnElement[bytes | None], octets: int = HEAD) -> sa.ColumnElement[bytes]:
    return sa.func.substr(column, 1, octets, type_=sa.LargeBinary)
