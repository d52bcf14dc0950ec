"""What people do with deliveries: cancel, reschedule, retry, settle. Guarded like a worker's transitions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.events import Event
from mailer.states import State
from mailer.store import messages as message_rows
from mailer.store.forgetting import PSEUDONYMS
from mailer.store.models import deliveries
from mailer.store.transitions import close, may, tell
from mailer.timing import SLACK

d = deliveries.c


def cancel(connection: Connection, message: str, by: str, now: datetime) -> int:
    """Withdraw what has not left and is not leaving; answer how many deliveries that were."""
    values = {"state": State.CANCELLED, "reason": "cancelled", "ended_at": now}
    recipients = _by_hand(connection, "cancel", message, values)
    tell(connection, now, [(message, Event.CANCELLED, {"recipient": r, "by": by}) for r in recipients])
    close(connection, {message}, now)
    return len(recipients)


def retry(connection: Connection, message: str, by: str, now: datetime) -> int:
    """Queue again what failed, waits for its next try or for a person; answer how many deliveries.

    Attempts and crashes start afresh, and a passed deadline no longer counts: a person has decided.
    """
    values = {
        "state": State.QUEUED,
        "not_before": now - SLACK,
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
    tell(connection, now, [(message, Event.RETRIED, {"recipient": r, "by": by}) for r in recipients])
    return len(recipients)


def reschedule(connection: Connection, message: str, send_at: datetime, by: str, now: datetime) -> int:
    """Give what has not been tried yet another time to leave; answer how many deliveries."""
    later = send_at > now
    values = {
        "state": State.SCHEDULED if later else State.QUEUED,
        "not_before": send_at if later else now - SLACK,
        "published_at": None,
    }
    recipients = _by_hand(connection, "reschedule", message, values)
    if recipients:
        message_rows.move(connection, message, send_at)
    told = {"by": by, "send_at": send_at.isoformat()}
    tell(connection, now, [(message, Event.RESCHEDULED, {"recipient": r, **told}) for r in recipients])
    return len(recipients)


def deadline(connection: Connection, message: str) -> datetime | None:
    """The earliest deadline of what could be rescheduled; a retry by hand may have lifted it for some."""
    movable = sa.select(sa.func.min(d.expires_at)).where(d.message == message, may("reschedule"))
    return cast("datetime | None", connection.scalar(movable))


def settle(connection: Connection, message: str, outcome: State, by: str, now: datetime) -> int:
    """A person's word on what is uncertain: it was ``sent``, or it ``failed``. Answers how many."""
    values = {"state": outcome, "reason": "settled_by_a_person", "ended_at": now}
    recipients = _by_hand(connection, "settle", message, values)
    told = {"by": by, "as": outcome.value}
    tell(connection, now, [(message, Event.SETTLED, {"recipient": r, **told}) for r in recipients])
    close(connection, {message}, now)
    return len(recipients)


def _by_hand(connection: Connection, transition: str, message: str, values: dict[str, Any]) -> list[str]:
    somebody = d.recipient.not_like(PSEUDONYMS)
    changed = sa.update(deliveries).where(d.message == message, may(transition), somebody).values(**values)
    return list(connection.scalars(changed.returning(d.recipient)))
