"""Who works: a row for each worker, with when it last took a wake-up from the broker.

A worker can be alive and consume nothing, with its connection to the broker half dead. So it says both.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from mailer.store.models import workers

w = workers.c
FORGET_AFTER = timedelta(hours=1)
_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker. ``consumed_at`` is when it last took a wake-up, None if it never did."""

    id: str
    name: str
    started_at: datetime
    seen_at: datetime
    consumed_at: datetime | None

    def as_dict(self) -> dict[str, str | None]:
        """JSON-able: instants in ISO 8601."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in values.items()}


def beat(connection: Connection, worker: WorkerRow) -> None:
    """Say that a worker is there, and forget those that said nothing for an hour."""
    row = {name: getattr(worker, name) for name in worker.__dataclass_fields__}
    changed = {"seen_at": worker.seen_at, "consumed_at": worker.consumed_at}
    insert: Any = _INSERT[connection.dialect.name](workers)
    connection.execute(insert.values(**row).on_conflict_do_update(index_elements=["id"], set_=changed))
    connection.execute(sa.delete(workers).where(w.seen_at < worker.seen_at - FORGET_AFTER))


def leave(connection: Connection, id_: str) -> None:
    """A worker ends."""
    connection.execute(sa.delete(workers).where(w.id == id_))


def present(connection: Connection) -> list[WorkerRow]:
    """All that were seen within the hour, the longest at work first."""
    asked = sa.select(w.id, w.name, w.started_at, w.seen_at, w.consumed_at).order_by(w.started_at)
    return [WorkerRow(*row) for row in connection.execute(asked)]
