"""How each transport stands, as all workers see it: working, resting after a fault, or paused by a person.

A transport without a row works. One that rests has an end of its rest; then one delivery at a time may find
out whether it works again. And what each of them carried lately, by the minute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from mailer.states import State
from mailer.store.models import deliveries, transport_counts, transports
from mailer.store.transitions import in_state, picked
from mailer.timing import SLACK

t, k, d = transports.c, transport_counts.c, deliveries.c
WORKING, RESTING, PAUSED = "working", "resting", "paused"
KEEP_COUNTS = timedelta(days=1)
WAITED_FOR = ("transport_down", "connect_failed", "greeting_refused", "tls_failed", "auth_failed")
"""Reasons of deliveries that wait for nothing but a transport."""
_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_ALL = sa.select(transports)


@dataclass(frozen=True, slots=True)
class TransportRow:
    """How one transport stands. ``until`` and ``probed_at`` are of one that rests, ``by`` of one paused.

    ``since`` is None for one that always worked.
    """

    name: str
    state: str
    faults: int
    since: datetime | None
    until: datetime | None = None
    probed_at: datetime | None = None
    reason: str | None = None
    words: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Recipients that a transport's server took, put off, and refused for good."""

    sent: int = 0
    deferred: int = 0
    failed: int = 0


def all_transports(connection: Connection) -> dict[str, TransportRow]:
    """Those that ever had a fault or were paused, by name."""
    return {row.name: TransportRow(*row) for row in connection.execute(_ALL)}


def rest(
    connection: Connection,
    name: str,
    now: datetime,
    reason: str,
    words: str,
    seconds: Callable[[int], float],
) -> float | None:
    """Put a transport to rest after a fault, for ``seconds`` of how many it had in a row; answer these.

    None, with nothing changed, if it rests already or is paused: one fault is seen by many workers.
    """
    row = _locked(connection, name, now)
    if row.state == PAUSED or (row.until is not None and row.until > now):
        return None
    span = seconds(row.faults + 1)
    _set(
        connection,
        name,
        state=RESTING,
        faults=row.faults + 1,
        since=now if row.state == WORKING else row.since,
        until=now + timedelta(seconds=span),
        probed_at=None,
        reason=reason,
        words=words[:1000],
    )
    return span


def probe(connection: Connection, name: str, now: datetime, patience: timedelta) -> bool:
    """Whether the caller may find out if a transport works again; whoever did not come back is waited for
    so long.
    """
    nobody = sa.or_(t.probed_at.is_(None), t.probed_at <= now - patience)
    mine = sa.update(transports).where(t.name == name, t.state == RESTING, t.until <= now, nobody)
    return connection.execute(mine.values(probed_at=now)).rowcount == 1


def give_up_probe(connection: Connection, name: str) -> None:
    """The caller could not find out."""
    connection.execute(sa.update(transports).where(t.name == name).values(probed_at=None))


def work(connection: Connection, name: str, now: datetime) -> bool:
    """It works again; False if it did already or is paused by hand."""
    rested = sa.update(transports).where(t.name == name, t.state == RESTING)
    return connection.execute(rested.values(**_working(now))).rowcount == 1


def pause(connection: Connection, name: str, now: datetime, by: str, words: str) -> None:
    """Let nothing through until somebody resumes it."""
    _locked(connection, name, now)
    held = {"state": PAUSED, "until": None, "probed_at": None, "reason": "paused", "words": words[:1000]}
    _set(connection, name, since=now, by=by[:320], **held)


def resume(connection: Connection, name: str, now: datetime) -> bool:
    """End a pause or a rest at once; False if there was none."""
    stopped = sa.update(transports).where(t.name == name, t.state != WORKING)
    return connection.execute(stopped.values(**_working(now))).rowcount == 1


def wake(connection: Connection, now: datetime, after: str = "", limit: int = 1000) -> str | None:
    """Make due at once what waits for a transport, in the order of message ids after ``after``.

    Answers the last id, to go on with; None if that was all.
    """
    waiting = (
        sa.select(d.id)
        .where(in_state(frozenset({State.DEFERRED})), d.message > after, d.not_before > now)
        .where(d.reason.in_(WAITED_FOR))
        .order_by(d.message)
        .limit(limit)
    )
    due = sa.update(deliveries).where(d.id.in_(picked(waiting)))
    woken = connection.execute(due.values(not_before=now - SLACK, published_at=None).returning(d.message))
    return max(woken.scalars(), default=None)


def count(connection: Connection, minute: datetime, carried: Mapping[str, Counts]) -> None:
    """Add to what transports carried in a minute, and forget what is older than a day."""
    insert: Any = _INSERT[connection.dialect.name](transport_counts)
    added = {name: getattr(k, name) + insert.excluded[name] for name in ("sent", "deferred", "failed")}
    rows = [
        {"name": name, "minute": minute, "sent": c.sent, "deferred": c.deferred, "failed": c.failed}
        for name, c in sorted(carried.items())
    ]
    connection.execute(insert.on_conflict_do_update(index_elements=["name", "minute"], set_=added), rows)
    connection.execute(sa.delete(transport_counts).where(k.minute < minute - KEEP_COUNTS))


def counted(connection: Connection, since: datetime) -> dict[str, Counts]:
    """What each transport carried since then."""
    sums = [sa.func.sum(column) for column in (k.sent, k.deferred, k.failed)]
    asked = sa.select(k.name, *sums).where(k.minute >= since).group_by(k.name)
    return {row[0]: Counts(*row[1:]) for row in connection.execute(asked)}


def _working(now: datetime) -> dict[str, Any]:
    nothing = dict.fromkeys(("until", "probed_at", "reason", "words", "by"))
    return {"state": WORKING, "faults": 0, "since": now, **nothing}


def _locked(connection: Connection, name: str, now: datetime) -> TransportRow:
    """The row, made if there was none, so that nobody else changes it within this transaction."""
    insert: Any = _INSERT[connection.dialect.name](transports)
    connection.execute(insert.values(name=name, **_working(now)).on_conflict_do_nothing())
    return TransportRow(*connection.execute(_ALL.where(t.name == name).with_for_update()).one())


def _set(connection: Connection, name: str, **values: Any) -> None:
    connection.execute(sa.update(transports).where(t.name == name).values(**values))
