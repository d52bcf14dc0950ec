"""A backlog, made in bulk: accepted messages as a busy day leaves them, without a call for each."""

from __future__ import annotations

from datetime import datetime

import uuid_utils

from mailer.message import Message, content_of
from mailer.services import Services
from mailer.store import messages as message_rows
from mailer.store.deliveries import Wakeup
from mailer.store.messages import NewMessage


def fill(services: Services, count: int, lane: str, *, each: int = 500) -> None:
    """Accept so many small mails in few transactions, and publish a wake-up for every one."""
    for first in range(0, count, each):
        rows = [
            small(services, f"reader{n}@x.test", lane=lane) for n in range(first, min(first + each, count))
        ]
        accept_together(services, rows)
        services.publish([Wakeup(row.id, lane) for row in rows])


def accept_together(services: Services, rows: list[NewMessage]) -> None:
    """Accept these in one transaction, and tell nobody."""
    with services.store.begin() as connection:
        for row in rows:
            message_rows.accept(connection, row, services.store.sealer)


def small(
    services: Services,
    recipient: str,
    *,
    lane: str = "default",
    send_at: datetime | None = None,
    on_uncertain: str = "retry",
) -> NewMessage:
    """A small mail to one person, ready to be accepted."""
    id_, now = str(uuid_utils.uuid7()), services.now()
    said = {"sender": "me@x.test", "subject": "News", "text": "Hello"}
    content, secrets = content_of(Message.create(to=recipient, **said, send_at=send_at, now=now))
    return NewMessage(
        id=id_,
        created_at=now,
        message_id=f"<{id_}@x.test>",
        template=None,
        locale=None,
        lane=lane,
        sender="me@x.test",
        subject="News",
        tags=(),
        metadata={},
        idempotency_scope="",
        idempotency_key=None,
        fingerprint=None,
        resent_from=None,
        send_at=send_at,
        expires_at=None,
        on_uncertain=on_uncertain,
        recipients=[(recipient, "to")],
        content=content,
        secrets=secrets,
    )
