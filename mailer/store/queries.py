"""What people ask of the store: one message whole, and lists that answer "did she get it?".

Lists page by key, not by offset: ids are UUIDv7, so the newest comes first and page 1,000 costs what
page 1 costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.events import Event
from mailer.states import State, summarise
from mailer.store.models import deliveries, events, messages
from mailer.store.searching import Search as Search
from mailer.store.searching import look

MOST_COUNTED = 10_000
"""Numbers are exact below this. One that has reached it stands for itself and everything above."""


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """One recipient of a message, with the server's last words.

    ``unknowns`` is how many tries ended without an answer to the text: each may have made a copy.
    """

    recipient: str
    kind: str
    state: State
    attempts: int
    unknowns: int
    code: int | None
    reply: str | None
    reason: str | None
    not_before: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventView:
    """One timeline entry."""

    at: datetime
    name: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MessageView:
    """One message as people see it. ``events`` is empty in lists. ``state`` sums up its deliveries."""

    id: str
    created_at: datetime
    state: State
    template: str | None
    lane: str
    sender: str
    subject: str | None
    message_id: str
    resent_from: str | None
    resent_as: Sequence[str]
    locale: str | None
    tags: Sequence[str]
    metadata: dict[str, str]
    project: str | None
    carrier: str | None
    send_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    has_secrets: bool
    erased_at: datetime | None
    body_erased_at: datetime | None
    deliveries: Sequence[DeliveryView]
    events: Sequence[EventView]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, in the shape every door answers with: ids as text, instants in ISO 8601."""
        described = {
            name: _plain(getattr(self, name))
            for name in self.__dataclass_fields__
            if name not in ("deliveries", "events")
        }
        told = [{"at": e.at.isoformat(), "name": e.name, **e.data} for e in self.events]
        reached = [{k: _plain(getattr(d, k)) for k in d.__dataclass_fields__} for d in self.deliveries]
        return {**described, "deliveries": reached, "events": told}


class Found(list[MessageView]):
    """A page of messages, newest first, without their timelines.

    ``next`` is the ``before`` of the page behind it, None if there is none. ``looked_back_to`` is None, or
    when the oldest message was accepted that was looked at, if it took too long to look at all of them.
    """

    def __init__(
        self, messages: Iterable[MessageView], next_: str | None, looked_back_to: datetime | None
    ) -> None:
        super().__init__(messages)
        self.next, self.looked_back_to = next_, looked_back_to


def _at_most(state: State) -> sa.Select[str, int]:
    # In the order of an index, so that both databases stop at the limit.
    d = deliveries.c
    some = sa.select(d.message).where(d.state == state).distinct().order_by(d.message).limit(MOST_COUNTED)
    return sa.select(sa.literal(state.value), sa.func.count()).select_from(some.subquery())


def _each_template() -> sa.Select[Any]:
    """From one name to the next by the index, as many steps as there are names."""
    m = messages.c
    first = sa.select(sa.func.min(m.template).label("name")).where(m.template.is_not(None))
    names = first.cte("names", recursive=True)
    following = sa.select(sa.func.min(m.template)).where(m.template > names.c.name).scalar_subquery()
    names = names.union_all(sa.select(following).where(names.c.name.is_not(None)))
    return sa.select(names.c.name).where(names.c.name.is_not(None)).limit(sa.bindparam("limit"))


_COUNTS = sa.union_all(*(_at_most(state) for state in State))
_TEMPLATES = _each_template()


def show(connection: Connection, message: str) -> MessageView | None:
    """One message with its deliveries and timeline, or None."""
    row = (
        connection.execute(sa.select(*_all_but_sealed()).where(messages.c.id == message))
        .mappings()
        .one_or_none()
    )
    if row is None:
        return None
    resent = sa.select(messages.c.id).where(messages.c.resent_from == message).order_by(messages.c.id)
    reached = _deliveries(connection, [message])[message]
    return _view(row, reached, _timeline(connection, row, len(reached)), list(connection.scalars(resent)))


def _timeline(connection: Connection, row: sa.RowMapping, recipients: int) -> list[EventView]:
    """What is told of a message. That it was accepted is its own row: nothing is written twice for it."""
    told = sa.select(events.c.at, events.c.name, events.c.data).where(events.c.message == row["id"])
    later = [EventView(*e) for e in connection.execute(told.order_by(events.c.id))]
    if later and later[0].name == Event.ACCEPTED:  # by a version that wrote it down
        return later
    accepted = {"recipients": recipients, "lane": row["lane"]}
    return [EventView(row["created_at"], Event.ACCEPTED.value, accepted), *later]


def search(connection: Connection, wanted: Search) -> Found:
    """The newest messages that match, and how to go on behind them."""
    page = look(connection, wanted)
    return Found(of_ids(connection, page.ids), page.next, page.looked_back_to)


def of_ids(connection: Connection, ids: Sequence[str]) -> list[MessageView]:
    """These messages, newest first, without their timelines."""
    query = sa.select(*_all_but_sealed()).where(messages.c.id.in_(ids)).order_by(messages.c.id.desc())
    rows = connection.execute(query).mappings().all()
    found = _deliveries(connection, ids)
    return [_view(row, found[row["id"]], (), ()) for row in rows]


def states(connection: Connection, message: str) -> list[State]:
    """The states of a message's deliveries; [] if there is no such message."""
    query = sa.select(deliveries.c.state).where(deliveries.c.message == message)
    return [State(state) for state in connection.scalars(query)]


def templates_in_use(connection: Connection, limit: int = 200) -> list[str]:
    """Names for a filter, in alphabetical order."""
    return list(connection.scalars(_TEMPLATES, {"limit": limit}))


def counts(connection: Connection) -> dict[State, int]:
    """How many messages have a recipient in each state, counted up to `MOST_COUNTED`; none are left out."""
    found = {State(state): number for state, number in connection.execute(_COUNTS)}
    return {state: number for state, number in found.items() if number}


def total(connection: Connection) -> int:
    """How many messages there are, counted up to `MOST_COUNTED`."""
    some = sa.select(messages.c.id).order_by(messages.c.id).limit(MOST_COUNTED).subquery()
    return connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0


def ping(connection: Connection) -> None:
    """Touch the tables. Raises StoreError through the connection's block if they are not there."""
    connection.execute(sa.select(messages.c.id).limit(1))


def clock(connection: Connection) -> datetime | None:
    """What time the database's machine has, aware; None on SQLite, which has no other machine."""
    if connection.dialect.name != "postgresql":
        return None
    return connection.scalar(sa.select(sa.func.clock_timestamp()))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def _all_but_sealed() -> list[sa.Column[Any]]:
    return [c for c in messages.c if c.name not in ("content", "secrets", "rendered", "preview")]


def _deliveries(connection: Connection, ids: Sequence[str]) -> dict[str, list[DeliveryView]]:
    d = deliveries.c
    query = (
        sa.select(d.message, d.recipient, d.kind, d.state, d.attempts, d.unknowns, d.code, d.reply, d.reason,
                  d.not_before, d.ended_at)
        .where(d.message.in_(ids))
        .order_by(d.id)
    )  # fmt: skip
    found: dict[str, list[DeliveryView]] = {message: [] for message in ids}
    for message, recipient, kind, state, *rest in connection.execute(query):
        found[message].append(DeliveryView(recipient, kind, State(state), *rest))
    return found


def _view(
    row: sa.RowMapping, found: list[DeliveryView], told: Sequence[EventView], resent_as: Sequence[str]
) -> MessageView:
    kept = {k: v for k, v in row.items() if k not in ("idempotency_scope", "idempotency_key", "fingerprint")}
    state = summarise(delivery.state for delivery in found)
    return MessageView(**kept, state=state, deliveries=found, events=told, resent_as=resent_as)
