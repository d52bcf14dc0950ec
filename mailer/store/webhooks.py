"""Rows of webhooks and of the calls they are owed. Functions take a connection and never commit.

A call is a webhook and an event of the timeline, which holds what there is to tell: what is forgotten there
is told no more, and what is purged there is no longer owed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.store.models import PREFIX, Instant, deliveries, events, messages, metadata, projects

webhooks = sa.Table(
    f"{PREFIX}webhooks",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column(
        "project",
        sa.String(36),
        sa.ForeignKey(projects.c.id, ondelete="CASCADE"),
        comment="whose messages; null: the application's",
    ),
    sa.Column("url", sa.String(2000), nullable=False),
    sa.Column("types", sa.JSON, nullable=False, comment="names of events as they are told"),
    sa.Column("secret", sa.LargeBinary, nullable=False, comment="sealed"),
    sa.Column("old_secret", sa.LargeBinary, comment="sealed; signs too, for a while"),
    sa.Column("old_until", Instant),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("disabled_at", Instant, comment="since then nothing is told"),
    sa.Column("disabled_why", sa.String(32), comment="stable word"),
    sa.Column("failures", sa.Integer, nullable=False, comment="in a row"),
    sa.Column("failing_since", Instant),
    sa.Column("rest_until", Instant),
    sa.CheckConstraint("failures >= 0", name="counts"),
    sa.Index(None, "project"),
)

webhook_interests = sa.Table(
    f"{PREFIX}webhook_interests",
    metadata,
    sa.Column("webhook", sa.String(36), sa.ForeignKey(webhooks.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("name", events.c.name.type, primary_key=True, comment="of an event; see mailer.events"),
)

webhook_calls = sa.Table(
    f"{PREFIX}webhook_calls",
    metadata,
    sa.Column("webhook", sa.String(36), sa.ForeignKey(webhooks.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column(
        "event",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        sa.ForeignKey(events.c.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        comment="told once",
    ),
    sa.Column("due_at", Instant, nullable=False, comment="a courier that has it in hand moves it"),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("ended_at", Instant),
    sa.Column("answer", sa.String(32), comment="of the last attempt: a status or a word"),
    sa.CheckConstraint("attempts >= 0", name="counts"),
    sa.Index(None, "event"),
    sa.Index(
        f"ix_{PREFIX}webhook_calls_due",
        "webhook",
        "due_at",
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
)


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """One endpoint. ``project`` None: of the application itself. The secrets are sealed."""

    id: str
    project: str | None
    project_name: str | None
    url: str
    types: Sequence[str]
    secret: bytes
    old_secret: bytes | None
    old_until: datetime | None
    created_at: datetime
    disabled_at: datetime | None
    disabled_why: str | None
    failures: int
    failing_since: datetime | None
    rest_until: datetime | None


@dataclass(frozen=True, slots=True)
class Call:
    """One event that one endpoint is to be told of. ``attempts`` counts this one."""

    event: int
    attempts: int
    name: str
    at: datetime
    data: dict[str, Any]
    message: str
    message_id: str
    accepted_at: datetime
    sender: str
    subject: str | None
    metadata: dict[str, str]
    recipients: Sequence[str]


@dataclass(frozen=True, slots=True)
class CallView:
    """How the telling of one event goes."""

    event: int
    name: str
    message: str
    at: datetime
    attempts: int
    due_at: datetime
    ended_at: datetime | None
    answer: str | None


w, c, e, m = webhooks.c, webhook_calls.c, events.c, messages.c
_ROW = (w.id, w.project, projects.c.name.label("project_name"), w.url, w.types, w.secret, w.old_secret,
        w.old_until, w.created_at, w.disabled_at, w.disabled_why, w.failures, w.failing_since,
        w.rest_until)  # fmt: skip
_ROWS = sa.select(*_ROW).select_from(webhooks.outerjoin(projects, projects.c.id == w.project))
# Webhooks first: where there is none this costs nothing. SQLite takes CROSS JOIN for an order.
_OWE = sa.text("""
    INSERT INTO mailer_webhook_calls (webhook, event, due_at, attempts)
    SELECT w.id, e.id, e.at, 0
    FROM mailer_webhooks AS w CROSS JOIN mailer_messages AS m CROSS JOIN mailer_events AS e
    CROSS JOIN mailer_webhook_interests AS i
    WHERE w.disabled_at IS NULL AND m.id IN :ids AND (m.project = w.project OR m.project IS NULL
    AND w.project IS NULL) AND e.message = m.id AND e.at = :at AND i.webhook = w.id AND i.name = e.name
    ON CONFLICT DO NOTHING
""").bindparams(sa.bindparam("ids", expanding=True), sa.bindparam("at", type_=e.at.type))


def owe(connection: Connection, ids: Collection[str], at: datetime) -> None:
    """Note whom to call about what was just added to the timelines of these messages, in its transaction."""
    connection.execute(_OWE, {"ids": list(ids), "at": at})


# Endpoints


def add(connection: Connection, new: WebhookRow, names: Iterable[str]) -> None:
    """Keep an endpoint that is interested in events of these names."""
    row = {name: getattr(new, name) for name in new.__dataclass_fields__ if name != "project_name"}
    connection.execute(sa.insert(webhooks), {**row, "types": list(new.types)})
    _be_interested(connection, new.id, names)


def change(
    connection: Connection, id_: str, values: dict[str, Any], names: Iterable[str] | None = None
) -> None:
    """Write these columns of an endpoint; with ``names``, be interested in those events from now on."""
    if values:
        connection.execute(sa.update(webhooks).where(w.id == id_).values(**values))
    if names is not None:
        connection.execute(sa.delete(webhook_interests).where(webhook_interests.c.webhook == id_))
        _be_interested(connection, id_, names)


def _be_interested(connection: Connection, id_: str, names: Iterable[str]) -> None:
    connection.execute(sa.insert(webhook_interests), [{"webhook": id_, "name": name} for name in names])


def remove(connection: Connection, id_: str) -> None:
    """Forget an endpoint, and all that it is owed."""
    connection.execute(sa.delete(webhooks).where(w.id == id_))


def find(connection: Connection, id_: str) -> WebhookRow | None:
    """The endpoint of that id."""
    row = connection.execute(_ROWS.where(w.id == id_)).mappings().one_or_none()
    return None if row is None else WebhookRow(**row)


def every(connection: Connection) -> list[WebhookRow]:
    """All endpoints, the newest first."""
    return [WebhookRow(**row) for row in connection.execute(_ROWS.order_by(w.id.desc())).mappings()]


def of_project(connection: Connection, project: str) -> list[WebhookRow]:
    """The endpoints of a project, the newest first."""
    rows = connection.execute(_ROWS.where(w.project == project).order_by(w.id.desc()))
    return [WebhookRow(**row) for row in rows.mappings()]


# What they are owed


def with_due(connection: Connection, now: datetime) -> list[str]:
    """Ids of endpoints that are to be called now."""
    due = sa.exists().where(c.webhook == w.id, c.ended_at.is_(None), c.due_at <= now)
    rested = sa.or_(w.rest_until.is_(None), w.rest_until <= now)
    return list(connection.scalars(sa.select(w.id).where(w.disabled_at.is_(None), rested, due)))


def claim(connection: Connection, webhook: str, now: datetime, lease: timedelta, limit: int) -> list[Call]:
    """Take up to ``limit`` calls that are due, those due longest first. A lost courier's are due anew."""
    due = (
        sa.select(c.event)
        .where(c.webhook == webhook, c.ended_at.is_(None), c.due_at <= now)
        .order_by(c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("picked")
    )
    taken = connection.execute(
        sa.update(webhook_calls)
        .where(c.webhook == webhook, c.event.in_(sa.select(due.c.event)))
        .values(attempts=c.attempts + 1, due_at=now + lease)
        .returning(c.event, c.attempts)
    )
    return _told(connection, {row.event: row.attempts for row in taken})


def _told(connection: Connection, attempts: dict[int, int]) -> list[Call]:
    told = (
        sa.select(
            e.id, e.name, e.at, e.data, e.message, m.message_id, m.created_at, m.sender, m.subject, m.metadata
        )
        .select_from(events.join(messages, m.id == e.message))
        .where(e.id.in_(attempts))
        .order_by(e.id)
    )
    rows = connection.execute(told).all()
    to = _recipients(connection, {row.message for row in rows})
    return [
        Call(
            event=row.id,
            attempts=attempts[row.id],
            name=row.name,
            at=row.at,
            data=row.data,
            message=row.message,
            message_id=row.message_id,
            accepted_at=row.created_at,
            sender=row.sender,
            subject=row.subject,
            metadata=row.metadata,
            recipients=to.get(row.message, []),
        )
        for row in rows
    ]


def _recipients(connection: Connection, ids: Collection[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    d = deliveries.c
    named = sa.select(d.message, d.recipient).where(d.message.in_(ids), d.kind == "to").order_by(d.id)
    for row in connection.execute(named):
        found.setdefault(row.message, []).append(row.recipient)
    return found


def end(connection: Connection, webhook: str, call: Call, answer: str, now: datetime) -> bool:
    """Note that it was told, or will not be; False if the courier lost it meanwhile."""
    return _finish(connection, webhook, call, {"ended_at": now, "answer": answer})


def put_off(connection: Connection, webhook: str, call: Call, answer: str, due_at: datetime) -> bool:
    """Note that it is to be tried again then; False if the courier lost it meanwhile."""
    return _finish(connection, webhook, call, {"due_at": due_at, "answer": answer})


def give_back(connection: Connection, webhook: str, call: Call, now: datetime) -> bool:
    """Note that it was not tried after all; False if the courier lost it meanwhile."""
    return _finish(connection, webhook, call, {"due_at": now, "attempts": c.attempts - 1})


def drop(connection: Connection, webhook: str, call: Call) -> None:
    """Owe it no longer, and do not tell."""
    connection.execute(sa.delete(webhook_calls).where(c.webhook == webhook, c.event == call.event))


def _finish(connection: Connection, webhook: str, call: Call, values: dict[str, Any]) -> bool:
    held = (c.webhook == webhook, c.event == call.event, c.attempts == call.attempts, c.ended_at.is_(None))
    return connection.execute(sa.update(webhook_calls).where(*held).values(**values)).rowcount == 1


def calls(connection: Connection, webhook: str, limit: int, before: int | None = None) -> list[CallView]:
    """What an endpoint was and is owed, the newest event first."""
    found = (
        sa.select(c.event, e.name, e.message, e.at, c.attempts, c.due_at, c.ended_at, c.answer)
        .select_from(webhook_calls.join(events, e.id == c.event))
        .where(c.webhook == webhook)
        .order_by(c.event.desc())
        .limit(limit)
    )
    if before is not None:
        found = found.where(c.event < before)
    return [CallView(*row) for row in connection.execute(found)]


def again(connection: Connection, webhook: str, now: datetime, event: int | None = None) -> int:
    """Owe what has ended once more: one event, or all that failed; answer how many."""
    which = [c.webhook == webhook, c.ended_at.is_not(None)]
    which.append(c.event == event if event is not None else c.answer.not_like("2__"))
    anew = sa.update(webhook_calls).where(*which).values(attempts=0, due_at=now, ended_at=None)
    return connection.execute(anew).rowcount


def went_well(connection: Connection, id_: str) -> None:
    """An endpoint answered."""
    fine = {"failures": 0, "failing_since": None, "rest_until": None}
    connection.execute(sa.update(webhooks).where(w.id == id_, w.failures > 0).values(**fine))


def went_wrong(connection: Connection, id_: str, now: datetime, rest_until: datetime) -> None:
    """An endpoint did not take a call: it is left alone until then."""
    since = sa.func.coalesce(w.failing_since, sa.bindparam("since", now, type_=w.failing_since.type))
    worse = {"failures": w.failures + 1, "failing_since": since, "rest_until": rest_until}
    connection.execute(sa.update(webhooks).where(w.id == id_).values(**worse))
