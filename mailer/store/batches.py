"""Batches that were accepted under an idempotency key, so that asking again gives the same answer.

Functions take a connection and never commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from mailer.store.models import batches


@dataclass(frozen=True, slots=True)
class BatchRow:
    """``answer`` is JSON-able: what the caller was told."""

    scope: str
    key: str
    fingerprint: str
    created_at: datetime
    answer: Any


b = batches.c
_COLUMNS = [b.scope, b.key, b.fingerprint, b.created_at, b.answer]
_NEW = {
    "sqlite": sqlite.insert(batches).on_conflict_do_nothing().returning(b.key),
    "postgresql": postgresql.insert(batches).on_conflict_do_nothing().returning(b.key),
}


def claim(connection: Connection, new: BatchRow, kept_since: datetime) -> BatchRow | None:
    """Take the key for this batch; None if that was done, or the batch that has it.

    Of several that claim one key at the same moment, one gets it; the others wait for its commit. One that
    was accepted before ``kept_since`` gives its key up.
    """
    over = (b.scope == new.scope, b.key == new.key, b.created_at < kept_since)
    connection.execute(sa.delete(batches).where(*over))
    row = {name: getattr(new, name) for name in new.__dataclass_fields__}
    if connection.scalar(_NEW[connection.dialect.name], row) is not None:
        return None
    held = sa.select(*_COLUMNS).where(b.scope == new.scope, b.key == new.key)
    return BatchRow(*connection.execute(held).one())


def drop_old(connection: Connection, accepted_before: datetime, limit: int) -> int:
    """Forget batches whose key need not be kept any longer; answer how many."""
    old = sa.select(b.scope, b.key).where(b.created_at < accepted_before).order_by(b.created_at).limit(limit)
    found = connection.execute(old).all()
    for scope, key in found:
        connection.execute(sa.delete(batches).where(b.scope == scope, b.key == key))
    return len(found)
