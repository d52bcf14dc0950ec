"""A backlog, made in bulk: accepted messages as a busy day leaves them, without a call for each."""

from __future__ import annotations

import uuid_utils

from mailer.message import Message, content_of
from mailer.services import Services
from mailer.store import messages as message_rows
from mailer.store.deliveries import Wakeup
from mailer.store.messages import NewMessage


def fill(services: Services, count: int, lane: str, *, each: int = 500) -> None:
    """Accept so many small mails in few transactions, and publish a wake-up for every one."""
    for first in range(0, count, each):
        rows = [_row(services, n, lane) for n in range(first, min(first + each, count))]
        with services.store.begin() as connection:
            for row in rows:
                message_rows.accept(connection, row, services.store.sealer)
        services.publish([Wakeup(row.id, lane) for row in rows])


def _row(services: Services, number: int, lane: str) -> NewMessage:
    id_, now, person = str(uuid_utils.uuid7()), services.now(), f"reader{number}@x.test"
    message = Message.create(
        to=person, sender="news@x.test", subject="News", text="Hello", lane=lane, now=now
    )
    content, secrets = content_of(message)
    return NewMessage(
        id=id_,
        created_at=now,
        message_id=f"<{id_}@x.test>",
        template=None,
        locale=None,
        lane=lane,
        sender="news@x.test",
        subject="News",
        tags=(),
        metadata={},
        idempotency_scope="",
        idempotency_key=None,
        fingerprint=None,
        resent_from=None,
        send_at=None,
        expires_at=None,
        on_uncertain="retry",
        recipients=[(person, "to")],
        content=content,
        secrets=secrets,
    )
