"""What a sweeper does with deliveries: takes back lost ones, ends late ones, finds who must be told.

Each statement touches a bounded number of rows and finds them by a partial index, so that a sweep costs the
same whether a hundred deliveries wait or a million.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.events import Event
from mailer.states import TRANSITIONS, State
from mailer.store.deliveries import Wakeup
from mailer.store.models import deliveries
from mailer.store.transitions import CLAIMABLE_NOW, close, in_state, may, picked, tell
from mailer.timing import SLACK

d = deliveries.c
_WINDOW = 50
"""How many of the longest due of a lane are looked at: a backlog of a million must not be walked through."""


# SQLite would rather go by the index on states, and read the whole backlog.
_CLAIMABLE_UNINDEXED = sa.func.coalesce(d.state, "").in_(sorted(TRANSITIONS["expire"][0]))


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
    a person if its policy is ``hold``, or if the tries are over: ``unknown_limit`` of them may have made a
    copy, or ``crash_limit`` lost their worker. Any other delivery ends as failed then.
    """
    lost = sa.select(d.id).where(may("reap"), d.lease_until < now).order_by(d.lease_until).limit(limit)
    unknown = d.marked_at.is_not(None)
    used_up = d.crashes + 1 >= crash_limit
    enough = sa.or_(d.on_uncertain == "hold", d.unknowns + 1 >= unknown_limit, used_up)
    held = sa.and_(unknown, enough)
    rows = connection.execute(
        sa.update(deliveries)
        .where(d.id.in_(picked(lost)))
        .values(
            crashes=d.crashes + 1,
            lease_token=None,
            lease_until=None,
            published_at=None,
            reason="worker_lost",
            code=None,
            reply=None,
            unknowns=d.unknowns + sa.case((unknown, 1), else_=0),
            not_before=now - SLACK,
            state=sa.case((held, State.UNCERTAIN), (used_up, State.FAILED), else_=State.DEFERRED),
            ended_at=sa.case((held, None), (used_up, now.timestamp()), else_=None),
        )
        .returning(d.message, d.recipient, d.state, d.attempts, d.crashes, d.marked_at)
    ).all()
    for row in rows:
        base = {"recipient": row.recipient, "attempt": row.attempts}
        lost_data = {**base, "crashes": row.crashes, "text_may_have_gone_out": row.marked_at is not None}
        after = {**base, "reason": "worker_lost"}
        tell(
            connection,
            now,
            [(row.message, Event.WORKER_LOST, lost_data), (row.message, Event(row.state), after)],
        )
    close(connection, {row.message for row in rows if row.state == State.FAILED}, now)
    return len(rows)


def expire(connection: Connection, now: datetime, limit: int = 500) -> int:
    """End what was not sent before its deadline; answer how many."""
    over = (
        sa.select(d.id)
        .where(d.ended_at.is_(None), d.expires_at <= now, _CLAIMABLE_UNINDEXED)
        .order_by(d.expires_at)
        .limit(limit)
    )
    rows = connection.execute(
        sa.update(deliveries)
        .where(d.id.in_(picked(over)))
        .values(state=State.EXPIRED, reason="deadline_passed", ended_at=now)
        .returning(d.message, d.recipient, d.expires_at)
    ).all()
    told = [
        (r.message, Event.EXPIRED, {"recipient": r.recipient, "expires_at": r.expires_at.isoformat()})
        for r in rows
    ]
    tell(connection, now, told)
    close(connection, {row.message for row in rows}, now)
    return len(rows)


def due(
    connection: Connection, lane: str, now: datetime, republish_after: timedelta, limit: int
) -> list[Wakeup]:
    """Note as published, and answer, what is due longest in a lane and has no recent wake-up.

    A few are enough: a worker that is woken goes on until nothing of its lane is left.
    """
    head = (
        sa.select(d.id, d.published_at)
        .where(CLAIMABLE_NOW, d.lane == lane, d.not_before <= now)
        .order_by(d.not_before)
        .limit(_WINDOW)
        .with_for_update(skip_locked=True)
        .cte("head")
    )
    # A note from the future is of a clock that was set back since.
    recent = head.c.published_at.between(now - republish_after, now + SLACK)
    unheard = sa.or_(head.c.published_at.is_(None), ~recent)
    rows = connection.execute(
        sa.update(deliveries)
        .where(d.id.in_(sa.select(head.c.id).where(unheard).limit(limit)))
        .values(published_at=now)
        .returning(d.message, d.lane)
    )
    return list(dict.fromkeys(Wakeup(row.message, row.lane) for row in rows))


def adopt(connection: Connection, lanes: Collection[str]) -> int:
    """Move what waits in lanes that are configured no longer to ``default``; answer how many."""
    stray = sa.update(deliveries).where(CLAIMABLE_NOW, d.lane.not_in(list(lanes)))
    return connection.execute(stray.values(lane="default")).rowcount


def heal(connection: Connection, now: datetime, lease: timedelta, longest_wait: timedelta) -> None:
    """After a clock was set back: bring times that lie too far ahead back to what they can be at most."""
    sending = in_state(frozenset({State.SENDING}))
    leased = sa.update(deliveries).where(sending, d.lease_until > now + lease)
    connection.execute(leased.values(lease_until=now + lease))
    queued = sa.update(deliveries).where(in_state(frozenset({State.QUEUED})), d.not_before > now)
    connection.execute(queued.values(not_before=now - SLACK, published_at=None))
    deferred = in_state(frozenset({State.DEFERRED}))
    waiting = sa.update(deliveries).where(deferred, d.not_before > now + longest_wait)
    connection.execute(waiting.values(not_before=now + longest_wait, published_at=None))


def unpublish(connection: Connection, ids: Iterable[str]) -> None:
    """Take back the note that a wake-up is under way: the broker did not take it."""
    waiting = (d.message.in_(list(ids)), CLAIMABLE_NOW)
    connection.execute(sa.update(deliveries).where(*waiting).values(published_at=None))
