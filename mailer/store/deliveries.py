"""Delivery rows: one function per transition, guarded by the states it may leave and by the lease.

Every transition is one ``UPDATE … RETURNING`` that means the same on SQLite and Postgres; the events it
tells of are added in the same transaction, and a message whose last delivery ended is closed with it.
The lease token is a fencing token: a worker that comes back late changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mailer.events import Event
from mailer.states import CLAIMABLE, FINAL, TRANSITIONS, State
from mailer.store import messages as message_rows
from mailer.store.models import deliveries, events

d = deliveries.c


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery this worker holds until ``lease_until``. ``attempt`` counts from 1.

    ``unknowns`` is how many earlier tries ended without an answer to the text.
    """

    id: int
    message: str
    recipient: str
    attempt: int
    unknowns: int
    on_uncertain: str
    expires_at: datetime | None
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Finish:
    """How one attempt ended. ``not_before`` is due for DEFERRED only.

    ``counts`` False gives the attempt back: it ended through no fault of this message. ``unknown`` adds
    to the tries that may have made a copy.
    """

    id: int
    message: str
    state: State
    reason: str
    code: int | None = None
    reply: str | None = None
    not_before: datetime | None = None
    counts: bool = True
    unknown: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wakeup:
    """A message some worker should be told of, and the lane that says which queue."""

    message: str
    lane: str


def _may(transition: str) -> sa.ColumnElement[bool]:
    return d.state.in_(sorted(TRANSITIONS[transition][0]))


def _not_expired(now: sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    return sa.or_(d.expires_at.is_(None), d.expires_at > now)


def _picked(ids: sa.Select[Any]) -> sa.Select[Any]:
    """Rows of a limited selection, locked against other pickers.

    A common table expression, since Postgres may run a plain subselect more than once and then picks
    more than the limit.
    """
    picked = ids.with_for_update(skip_locked=True).cte("picked")
    return sa.select(picked.c.id)


_NOW = sa.bindparam("now", type_=d.not_before.type)
_CLAIM = (
    sa.update(deliveries)
    .where(_may("claim"), d.not_before <= _NOW, _not_expired(_NOW))
    .values(
        state=State.SENDING,
        lease_token=sa.bindparam("token"),
        lease_until=sa.bindparam("until", type_=d.lease_until.type),
        attempts=d.attempts + 1,
        marked_at=None,
    )
    .returning(
        d.id, d.message, d.recipient, d.attempts, d.unknowns, d.on_uncertain, d.expires_at, d.lease_until
    )
)
_CLAIM_ONE = _CLAIM.where(d.message == sa.bindparam("of_message"))
_DUE_IDS = (
    sa.select(d.id)
    .where(_may("claim"), d.not_before <= _NOW, _not_expired(_NOW))
    .order_by(d.not_before)
    .limit(sa.bindparam("limit"))
)
_CLAIM_DUE = _CLAIM.where(d.id.in_(_picked(_DUE_IDS)))


def claim(connection: Connection, message: str, token: str, now: datetime, lease: timedelta) -> list[Claimed]:
    """Take every delivery of ``message`` that is due. [] if it is done, not due, unknown or taken."""
    found = {"of_message": message, "token": token, "now": now, "until": now + lease}
    return [_claimed(row) for row in connection.execute(_CLAIM_ONE, found)]


def claim_due(
    connection: Connection, limit: int, token: str, now: datetime, lease: timedelta
) -> list[Claimed]:
    """Take up to ``limit`` due deliveries, the longest due first. [] if nothing is due."""
    found = {"limit": limit, "token": token, "now": now, "until": now + lease}
    return [_claimed(row) for row in connection.execute(_CLAIM_DUE, found)]


def _claimed(row: Row[Any]) -> Claimed:
    return Claimed(
        row.id,
        row.message,
        row.recipient,
        row.attempts,
        row.unknowns,
        row.on_uncertain,
        row.expires_at,
        row.lease_until,
    )


def mark(connection: Connection, ids: Sequence[int], token: str, now: datetime) -> bool:
    """Note that the text is about to go out. False if any of the leases is lost: send nothing."""
    held = (d.id.in_(ids), d.lease_token == token, d.state == State.SENDING, d.lease_until > now)
    return connection.execute(sa.update(deliveries).where(*held).values(marked_at=now)).rowcount == len(ids)


def renew(connection: Connection, tokens: Iterable[str], until: datetime) -> None:
    """Extend the leases of a worker that is alive and still at it."""
    held = (d.lease_token.in_(list(tokens)), d.state == State.SENDING)
    connection.execute(sa.update(deliveries).where(*held).values(lease_until=until))


def finish(connection: Connection, outcomes: Sequence[Finish], token: str, now: datetime) -> list[Finish]:
    """Record how attempts ended. Answers those recorded; a lost lease leaves its row untouched."""
    recorded = [outcome for outcome in outcomes if _finish_one(connection, outcome, token, now)]
    _tell(connection, now, [(o.message, Event(o.state.value), o.data) for o in recorded])
    _close(connection, {o.message for o in recorded if o.state in FINAL}, now)
    return recorded


def _finish_one(connection: Connection, outcome: Finish, token: str, now: datetime) -> bool:
    changed = connection.execute(
        sa.update(deliveries)
        .where(d.id == outcome.id, d.lease_token == token, _may("finish"))
        .values(
            state=outcome.state,
            lease_token=None,
            lease_until=None,
            published_at=None,
            attempts=d.attempts - (0 if outcome.counts else 1),
            unknowns=d.unknowns + (1 if outcome.unknown else 0),
            not_before=outcome.not_before if outcome.not_before is not None else d.not_before,
            code=outcome.code,
            reply=None if outcome.reply is None else outcome.reply[:1000],
            reason=outcome.reason,
            ended_at=now if outcome.state in FINAL else None,
        )
    )
    return changed.rowcount == 1


def reap(
    connection: Connection,
    now: datetime,
    *,
    crash_limit: int,
    unknown_limit: int,
    limit: int = 500,
) -> int:
    """Take back deliveries whose lease ran out; answer how many.

    The next try is due at once: the lease was waited for already. A text that may have gone out waits for
    a person if its policy is ``hold`` or it may have made ``unknown_limit`` copies. Any other delivery that
    lost its worker ``crash_limit`` times ends as failed.
    """
    lost = sa.select(d.id).where(_may("reap"), d.lease_until < now).limit(limit)
    unknown = d.marked_at.is_not(None)
    held = sa.and_(unknown, sa.or_(d.on_uncertain == "hold", d.unknowns + 1 >= unknown_limit))
    used_up = d.crashes + 1 >= crash_limit
    rows = connection.execute(
        sa.update(deliveries)
        .where(d.id.in_(_picked(lost)), _may("reap"), d.lease_until < now)
        .values(
            crashes=d.crashes + 1,
            lease_token=None,
            lease_until=None,
            published_at=None,
            reason="worker_lost",
            code=None,
            reply=None,
            unknowns=d.unknowns + sa.case((unknown, 1), else_=0),
            not_before=now,
            state=sa.case((held, State.UNCERTAIN), (used_up, State.FAILED), else_=State.DEFERRED),
            ended_at=sa.case((held, None), (used_up, now.timestamp()), else_=None),
        )
        .returning(d.message, d.recipient, d.state, d.attempts, d.crashes, d.marked_at)
    ).all()
    for row in rows:
        base = {"recipient": row.recipient, "attempt": row.attempts}
        lost_data = {**base, "crashes": row.crashes, "text_may_have_gone_out": row.marked_at is not None}
        after = {**base, "reason": "worker_lost"}
        _tell(
            connection,
            now,
            [(row.message, Event.WORKER_LOST, lost_data), (row.message, Event(row.state), after)],
        )
    _close(connection, {row.message for row in rows if row.state == State.FAILED}, now)
    return len(rows)


def expire(connection: Connection, now: datetime, limit: int = 500) -> int:
    """End what was not sent before its deadline; answer how many."""
    over = sa.select(d.id).where(_may("expire"), d.expires_at <= now).limit(limit)
    rows = connection.execute(
        sa.update(deliveries)
        .where(d.id.in_(_picked(over)), _may("expire"))
        .values(state=State.EXPIRED, reason="deadline_passed", ended_at=now)
        .returning(d.message, d.recipient, d.expires_at)
    ).all()
    told = [
        (r.message, Event.EXPIRED, {"recipient": r.recipient, "expires_at": r.expires_at.isoformat()})
        for r in rows
    ]
    _tell(connection, now, told)
    _close(connection, {row.message for row in rows}, now)
    return len(rows)


def due(connection: Connection, now: datetime, republish_after: timedelta, limit: int) -> list[Wakeup]:
    """Note as published, and answer, what is due and has no recent wake-up; the longest due first."""
    unheard = sa.or_(d.published_at.is_(None), d.published_at < now - republish_after)
    ids = (
        sa.select(d.id).where(_may("claim"), d.not_before <= now, unheard).order_by(d.not_before).limit(limit)
    )
    rows = connection.execute(
        sa.update(deliveries)
        .where(d.id.in_(_picked(ids)))
        .values(published_at=now)
        .returning(d.message, d.lane)
    )
    return list(dict.fromkeys(Wakeup(row.message, row.lane) for row in rows))


def unpublish(connection: Connection, ids: Iterable[str]) -> None:
    """Take back the note that a wake-up is under way: the broker did not take it."""
    waiting = (d.message.in_(list(ids)), d.state.in_(sorted(CLAIMABLE)))
    connection.execute(sa.update(deliveries).where(*waiting).values(published_at=None))


def cancel(connection: Connection, message: str, by: str, now: datetime) -> int:
    """Withdraw what has not left and is not leaving; answer how many deliveries that were."""
    values = {"state": State.CANCELLED, "reason": "cancelled", "ended_at": now}
    recipients = _by_hand(connection, "cancel", message, values)
    _tell(connection, now, [(message, Event.CANCELLED, {"recipient": r, "by": by}) for r in recipients])
    _close(connection, {message}, now)
    return len(recipients)


def retry(connection: Connection, message: str, by: str, now: datetime) -> int:
    """Queue again what failed, waits for its next try or for a person; answer how many deliveries.

    Attempts and crashes start afresh, and a passed deadline no longer counts: a person has decided.
    """
    values = {
        "state": State.QUEUED,
        "not_before": now,
        "published_at": now,
        "attempts": 0,
        "crashes": 0,
        "unknowns": 0,
        "ended_at": None,
        "expires_at": sa.case((d.expires_at <= now, None), else_=d.expires_at),
    }
    recipients = _by_hand(connection, "retry", message, values)
    if recipients:
        message_rows.reopen(connection, message)
    _tell(connection, now, [(message, Event.RETRIED, {"recipient": r, "by": by}) for r in recipients])
    return len(recipients)


def settle(connection: Connection, message: str, outcome: State, by: str, now: datetime) -> int:
    """A person's word on what is uncertain: it was ``sent``, or it ``failed``. Answers how many."""
    values = {"state": outcome, "reason": "settled_by_a_person", "ended_at": now}
    recipients = _by_hand(connection, "settle", message, values)
    told = {"by": by, "as": outcome.value}
    _tell(connection, now, [(message, Event.SETTLED, {"recipient": r, **told}) for r in recipients])
    _close(connection, {message}, now)
    return len(recipients)


def _by_hand(connection: Connection, transition: str, message: str, values: dict[str, Any]) -> list[str]:
    changed = sa.update(deliveries).where(d.message == message, _may(transition)).values(**values)
    return list(connection.scalars(changed.returning(d.recipient)))


def _tell(
    connection: Connection, at: datetime, entries: Sequence[tuple[str, Event, Mapping[str, Any]]]
) -> None:
    if entries:
        rows = [{"message": m, "at": at, "name": name, "data": dict(data)} for m, name, data in entries]
        connection.execute(sa.insert(events), rows)


def _close(connection: Connection, ids: set[str], now: datetime) -> None:
    if ids:
        message_rows.close_ended(connection, ids, now)
