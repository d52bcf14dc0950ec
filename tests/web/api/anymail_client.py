"""django-anymail's Resend backend, unmodified, as a Django application uses it; prints what it was told."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta

import django
from django.conf import settings

settings.configure(
    EMAIL_BACKEND="anymail.backends.resend.EmailBackend",
    ANYMAIL={"RESEND_API_URL": os.environ["SERVICE"], "RESEND_API_KEY": os.environ["KEY"]},
    DEFAULT_CHARSET="utf-8",
)
django.setup()

from anymail.exceptions import AnymailRequestsAPIError  # noqa: E402
from anymail.message import AnymailMessage  # noqa: E402

LATER = datetime.now(UTC) + timedelta(hours=1)


def send(subject: str, to: list[str], **options: object) -> AnymailMessage:
    mail = AnymailMessage(subject, "text", "Acme <a@acme.test>", to, **options)
    mail.send()
    return mail


whole = AnymailMessage(
    "From anymail", "text", "Acme <a@acme.test>", ["ada@example.test"], cc=["c@example.test"],
    bcc=["d@example.test"], reply_to=["r@acme.test"], headers={"X-A": "1"},
    tags=["confirm"], metadata={"user": "1"}, esp_extra={"idempotency_key": "x"},
)  # fmt: skip
whole.attach_alternative("<p>html</p>", "text/html")
whole.attach("a.txt", "hello", "text/plain")
whole.send()
batch = send(
    "Batch", ["b@example.test", "c@example.test"],
    merge_metadata={"b@example.test": {"u": "b"}, "c@example.test": {"u": "c"}},
)  # fmt: skip
later = send("Later", ["ada@example.test"], send_at=LATER)
try:
    error = None
    send("Refused", ["ada%home@example.test"])
except AnymailRequestsAPIError as exc:
    error = exc.status_code

print(
    json.dumps(
        {
            "id": whole.anymail_status.message_id,
            "status": sorted(whole.anymail_status.status),
            "warning": whole.anymail_status.esp_response.headers["Mailer-Warning"],
            "batch": {to: each.message_id for to, each in batch.anymail_status.recipients.items()},
            "later": later.anymail_status.message_id,
            "error": error,
        }
    )
)
