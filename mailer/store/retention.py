"""What goes when its time is over: bodies first, then the whole message. Only of messages that have ended.

Each function changes at most ``limit`` rows, found by a partial index, so that no transaction is long and
an hour's backlog costs what an hour's mail costs. Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.store.models import messages, tags
from mailer.store.transitions import picked

m = messages.c
LIMIT = 200
NOTHING_LEFT: dict[str, None] = dict.fromkeys(("content", "secrets", "rendered", "preview", "subject"))
"""What erasing a body sets: all that a mail said. The subject is among it, since it often names somebody."""

_UNTAG = sa.delete(tags).where(
    tags.c.tag == sa.bindparam("of_tag"), tags.c.message == sa.bindparam("of_message")
)


def erase_bodies(connection: Connection, ended_before: datetime, now: datetime, limit: int = LIMIT) -> int:
    """Erase what messages said that ended by then, those that ended first; answer how many."""
    ids = sa.select(m.id).where(*_with_body(ended_before)).order_by(m.ended_at).limit(limit)
    over = sa.update(messages).where(m.id.in_(picked(ids)))
    return _done(connection, over.values(**NOTHING_LEFT, body_erased_at=now))


def purge(connection: Connection, ended_before: datetime, limit: int = LIMIT) -> int:
    """Delete messages that ended by then, with their deliveries and events; answer how many.

    One whose idempotency key is still kept stays: a repeated call must find it.
    """
    over = (m.ended_at <= ended_before, m.idempotency_key.is_(None))
    ids = sa.select(m.id).where(*over).order_by(m.ended_at).limit(limit)
    gone = connection.execute(sa.delete(messages).where(m.id.in_(picked(ids))).returning(m.id, m.tags)).all()
    untag(connection, {row.id: row.tags for row in gone})
    return len(gone)


def untag(connection: Connection, tagged: Mapping[str, Sequence[str]]) -> None:
    """Forget by which tags these messages are found; by id, the tags that each of them has."""
    pairs = [{"of_tag": tag, "of_message": id_} for id_, its in tagged.items() for tag in its]
    if pairs:
        connection.execute(_UNTAG, pairs)


def count(
    connection: Connection, accepted_before: datetime, bodies_before: datetime, ended_before: datetime
) -> tuple[int, int, int]:
    """How many keys, bodies and messages would go. A body that goes with its message is not counted."""
    released = sa.and_(m.idempotency_key.is_not(None), m.created_at < accepted_before)
    keyless = sa.or_(m.idempotency_key.is_(None), m.created_at < accepted_before)
    goes = sa.and_(m.ended_at <= ended_before, keyless)
    body = sa.and_(*_with_body(bodies_before), ~goes)
    keys, bodies, whole = (_number(connection, which) for which in (released, body, goes))
    return keys, bodies, whole


def _done(connection: Connection, change: sa.Update | sa.Delete) -> int:
    # Python's sqlite3 counts no rows of a statement that begins with WITH.
    return len(connection.execute(change.returning(m.id)).all())


def _with_body(ended_before: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return m.ended_at <= ended_before, m.body_erased_at.is_(None)


def _number(connection: Connection, which: sa.ColumnElement[Any]) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(messages).where(which)) or 0
