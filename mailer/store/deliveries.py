"""A worker's transitions of deliveries, each guarded by the states it may leave and by the lease.

Every transition is one ``UPDATE … RETURNING`` that means the same on SQLite and Postgres; the events it
tells of are added in the same transaction, and a message whose last delivery ended is closed with it.
The lease token is a fencing token: a worker that comes back late changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from mailer.events import Event
from mailer.states import FINAL, State
from mailer.store.models import deliveries
from mailer.store.prepared import Prepared
from mailer.store.transitions import close, may, picked, tell

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
    to the tries that may have made a copy. ``told`` False leaves the timeline as it is: nothing was tried.
    ``then`` is what happened right after it, told with the recipient.
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
    told: bool = True
    data: Mapping[str, Any] = field(default_factory=dict)
    then: Event | None = None

    def events(self) -> Iterator[tuple[str, Event, Mapping[str, Any]]]:
        """What the timeline says of it."""
        if self.told:
            yield self.message, Event(self.state.value), self.data
        if self.then is not None:
            yield self.message, self.then, {"recipient": self.data["recipient"]}


@dataclass(frozen=True, slots=True)
class Wakeup:
    """A message some worker should be told of, and the lane that says which queue."""

    message: str
    lane: str


_NOW = sa.bindparam("now", type_=d.not_before.type)
_CLAIM = (
    sa.update(deliveries)
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
_IS_DUE = (may("claim"), d.not_before <= _NOW)
_IN_TIME = sa.or_(d.expires_at.is_(None), d.expires_at > _NOW)
_CLAIM_ONE = _CLAIM.where(d.message == sa.bindparam("of_message"), *_IS_DUE, _IN_TIME)
_OF_LANE = d.lane == sa.bindparam("of_lane")
_DUE = sa.select(d.id).where(*_IS_DUE, _OF_LANE, _IN_TIME).order_by(d.not_before).limit(sa.bindparam("limit"))
_CRASHED = d.crashes > sa.literal_column("0")
_CLAIM_DUE = _CLAIM.where(d.id.in_(picked(_DUE.where(~_CRASHED))))
_CLAIM_SUSPECT = _CLAIM.where(d.id.in_(picked(_DUE.where(_CRASHED))))
_THESE = d.id.in_(sa.bindparam("ids", expanding=True))
_IN_ORDER = sa.select(d.id).where(_THESE).order_by(d.id).with_for_update()
_MARK = sa.update(deliveries).where(_THESE).values(marked_at=_NOW)
_HELD = (
    sa.select(d.id, d.lease_until)
    .where(_THESE, d.lease_token == sa.bindparam("token"), may("finish"))
    .order_by(d.id)
    .with_for_update()
)
_FINISH = Prepared(
    sa.update(deliveries)
    .where(d.id == sa.bindparam("of_id"))
    .values(
        state=sa.bindparam("to_state"),
        lease_token=None,
        lease_until=None,
        published_at=None,
        attempts=d.attempts - sa.bindparam("given_back"),
        unknowns=d.unknowns + sa.bindparam("one_more"),
        not_before=sa.func.coalesce(sa.bindparam("due", type_=d.not_before.type), d.not_before),
        code=sa.bindparam("code"),
        reply=sa.bindparam("reply"),
        reason=sa.bindparam("reason"),
        ended_at=sa.bindparam("ended_at"),
    )
)
_ANYTHING_DUE = sa.select(sa.exists().where(*_IS_DUE, _OF_LANE))


def claim(connection: Connection, message: str, token: str, now: datetime, lease: timedelta) -> list[Claimed]:
    """Take every delivery of ``message`` that is due. [] if it is done, not due, unknown or taken."""
    found = {"of_message": message, "token": token, "now": now, "until": now + lease}
    return [_claimed(row) for row in connection.execute(_CLAIM_ONE, found)]


def claim_due(
    connection: Connection, lane: str, limit: int, token: str, now: datetime, lease: timedelta
) -> list[Claimed]:
    """Take up to ``limit`` due deliveries of a lane, the longest due first. [] if there are none.

    Those that lost a worker before are left out: see `claim_suspect`.
    """
    found = {"of_lane": lane, "limit": limit, "token": token, "now": now, "until": now + lease}
    return [_claimed(row) for row in connection.execute(_CLAIM_DUE, found)]


def claim_suspect(
    connection: Connection, lane: str, token: str, now: datetime, lease: timedelta
) -> list[Claimed]:
    """Take one due delivery that lost a worker before, alone: it may be what killed it."""
    found = {"of_lane": lane, "limit": 1, "token": token, "now": now, "until": now + lease}
    return [_claimed(row) for row in connection.execute(_CLAIM_SUSPECT, found)]


def waiting(connection: Connection, lanes: Sequence[str], now: datetime) -> list[str]:
    """Which of the lanes have something due."""
    return [lane for lane in lanes if connection.scalar(_ANYTHING_DUE, {"of_lane": lane, "now": now})]


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


def hold(connection: Connection, ids: Sequence[int], token: str) -> dict[int, datetime]:
    """Those of these deliveries that are under this lease, with its end. Until the commit nobody moves them.

    They are taken in the order in which everybody takes them: the thread that renews leases wants the same
    ones, and on Postgres they would otherwise wait for each other. SQLite has one writer.
    """
    held = connection.execute(_HELD, {"ids": ids, "token": token})
    return {row.id: row.lease_until for row in held}


def mark(
    connection: Connection, jobs: Mapping[str, Sequence[int]], held: Mapping[int, datetime], now: datetime
) -> frozenset[str]:
    """Note that these texts are about to go out: the deliveries of each job, by its name.

    Answers the names of those that may. Of a job that lost any of its leases nothing is noted.
    """
    in_time = {id_ for id_, until in held.items() if until > now}
    whole = frozenset(name for name, job in jobs.items() if in_time.issuperset(job))
    if whole:
        connection.execute(_MARK, {"ids": [id_ for name in whole for id_ in jobs[name]], "now": now})
    return whole


def renew(connection: Connection, tokens: Iterable[str], until: datetime) -> None:
    """Extend the leases of a worker that is alive and still at it."""
    held = (d.lease_token.in_(list(tokens)), d.state == State.SENDING)
    if connection.dialect.name == "postgresql":
        connection.execute(_IN_ORDER, {"ids": list(connection.scalars(sa.select(d.id).where(*held)))})
    connection.execute(sa.update(deliveries).where(*held).values(lease_until=until))


def finish(
    connection: Connection, outcomes: Sequence[Finish], held: Collection[int], now: datetime
) -> list[Finish]:
    """Record how attempts ended. Answers those recorded; a lost lease leaves its row untouched."""
    recorded = [outcome for outcome in outcomes if outcome.id in held]
    if recorded:
        _FINISH.run(connection, [_finished(outcome, now) for outcome in recorded])
        tell(connection, now, [event for outcome in recorded for event in outcome.events()])
        close(connection, {o.message for o in recorded if o.state in FINAL}, now)
    return recorded


def _finished(outcome: Finish, now: datetime) -> dict[str, Any]:
    return {
        "of_id": outcome.id,
        "to_state": outcome.state,
        "given_back": 0 if outcome.counts else 1,
        "one_more": 1 if outcome.unknown else 0,
        "due": outcome.not_before,
        "code": outcome.code,
        "reply": None if outcome.reply is None else outcome.reply[:1000],
        "reason": outcome.reason,
        "ended_at": now if outcome.state in FINAL else None,
    }
