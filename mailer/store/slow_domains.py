"""Domains that asked for less, as all workers know it: how often what may go there was halved, and when."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from mailer.store.models import slow_domains

s = slow_domains.c
_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def halve(
    connection: Connection, transport: str, domain: str, now: datetime, recovery: timedelta, pause: timedelta
) -> int | None:
    """Halve once more what may go to a domain; answer how often it is halved now.

    One halving is over after each ``recovery``. None, with nothing changed, within ``pause`` of the last one:
    what a batch was told all at once is one plea.
    """
    insert: Any = _INSERT[connection.dialect.name](slow_domains)
    mine = {"transport": transport, "domain": domain}
    fresh = insert.values(**mine, halvings=1, since=now).on_conflict_do_nothing().returning(s.domain)
    if connection.execute(fresh).first():
        return 1
    row = sa.select(s.halvings, s.since).filter_by(**mine).with_for_update()
    halvings, since = connection.execute(row).one()
    if now - since < pause:
        return None
    halvings = _remaining(halvings, since, now, recovery) + 1
    connection.execute(sa.update(slow_domains).filter_by(**mine).values(halvings=halvings, since=now))
    return halvings


def slow(connection: Connection, now: datetime, recovery: timedelta) -> dict[tuple[str, str], int]:
    """How often what may go is halved now, by transport and domain; only those with any."""
    rows = connection.execute(sa.select(slow_domains))
    found = {(r.transport, r.domain): _remaining(r.halvings, r.since, now, recovery) for r in rows}
    return {key: halvings for key, halvings in found.items() if halvings}


def forget(connection: Connection, now: datetime, recovery: timedelta) -> None:
    """Drop those that have recovered."""
    over = s.since + s.halvings * recovery.total_seconds() <= now.timestamp()
    connection.execute(sa.delete(slow_domains).where(over))


def _remaining(halvings: int, since: datetime, now: datetime, recovery: timedelta) -> int:
    """How many of so many halvings are not over yet."""
    return max(0, halvings - max(0, (now - since) // recovery))
