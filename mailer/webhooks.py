"""Webhooks: where events are told, what is told, and how it is signed.

The signature is that of Standard Webhooks (https://www.standardwebhooks.com), under its own header names and
under Svix's, so that either library checks it. The payload is in the shape of Resend's
(https://resend.com/docs/dashboard/webhooks/event-types). It holds no body, no secret, no words of a server.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import uuid_utils

from mailer.errors import InvalidMessage
from mailer.events import Event
from mailer.headers import did_you_mean
from mailer.services import Services
from mailer.store import keys as key_rows
from mailer.store import webhooks as rows
from mailer.store.webhooks import Call, WebhookRow
from mailer.telemetry import log

TYPES: Mapping[str, frozenset[Event]] = {
    "email.scheduled": frozenset({Event.SCHEDULED, Event.RESCHEDULED}),
    "email.sent": frozenset({Event.SENT, Event.SETTLED}),
    "email.delivered": frozenset({Event.DELIVERED}),
    "email.delivery_delayed": frozenset({Event.DEFERRED}),
    "email.bounced": frozenset({Event.FAILED}),
    "email.failed": frozenset({Event.FAILED, Event.SETTLED}),
    "email.uncertain": frozenset({Event.UNCERTAIN}),
    "email.expired": frozenset({Event.EXPIRED}),
    "email.canceled": frozenset({Event.CANCELLED}),
    "email.suppressed": frozenset({Event.SUPPRESSED}),
    "email.complained": frozenset({Event.COMPLAINED}),
}
"""What can be subscribed to, and the events of the timeline that it is made of."""
ROTATION = timedelta(hours=24)
"""How long the secret of before signs, too."""
SECRET_OCTETS = 32
BY_HAND, GONE, FAILING = "by_hand", "gone", "failing"
"""Why an endpoint is disabled: somebody did, it answered 410, or it took nothing for days."""
_TYPE_OF = {
    Event.SCHEDULED: "email.scheduled",
    Event.RESCHEDULED: "email.scheduled",
    Event.SENT: "email.sent",
    Event.DELIVERED: "email.delivered",
    Event.DEFERRED: "email.delivery_delayed",
    Event.UNCERTAIN: "email.uncertain",
    Event.EXPIRED: "email.expired",
    Event.CANCELLED: "email.canceled",
    Event.SUPPRESSED: "email.suppressed",
    Event.COMPLAINED: "email.complained",
}
_TOLD = ("attempt", "code", "reason", "cause", "not_before", "send_at", "expires_at")
"""Of an event's data. Replies and names of people who did something are not told."""


# Endpoints


def create(
    services: Services, url: str, types: Iterable[str] = (), *, project: str | None = None
) -> tuple[WebhookRow, str]:
    """Tell this address of events of these types, of all without any; the second is its secret, this once.

    ``project`` is the name of one that there is; None: messages that the application itself asked for.
    Raises InvalidMessage.
    """
    secret = _new_secret()
    id_, now = str(uuid_utils.uuid7()), services.now()
    wanted = _checked_types(types)
    with services.store.begin() as connection:
        owner = None if project is None else key_rows.project(connection, project)
        if project is not None and owner is None:
            raise InvalidMessage("project", "is not known; mailer keys list shows those that are")
        new = WebhookRow(
            id=id_,
            project=owner,
            project_name=project,
            url=_checked_url(services, url),
            types=wanted,
            secret=services.store.sealer.seal(secret.encode(), id_),
            old_secret=None,
            old_until=None,
            created_at=now,
            disabled_at=None,
            disabled_why=None,
            failures=0,
            failing_since=None,
            rest_until=None,
        )
        rows.add(connection, new, _names(wanted))
    log.info("webhook.created", webhook=id_)
    return new, secret


def change(
    services: Services,
    id_: str,
    *,
    url: str | None = None,
    types: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> None:
    """Write what is given of an endpoint; what waited while it was disabled is told then.

    Raises InvalidMessage.
    """
    values: dict[str, Any] = {}
    if url is not None:
        values["url"] = _checked_url(services, url)
    if types is not None:
        values["types"] = _checked_types(types)
    if enabled is not None:
        values |= {"disabled_at": None if enabled else services.now()}
        values |= {"disabled_why": None if enabled else BY_HAND, "failures": 0}
        values |= {"failing_since": None, "rest_until": None}
    names = _names(values["types"]) if types is not None else None
    with services.store.begin() as connection:
        rows.change(connection, id_, values, names)


def secret_of(services: Services, webhook: WebhookRow) -> str:
    """What signs, for whoever has lost it."""
    return services.store.sealer.open(webhook.secret, webhook.id).decode()


def rotate(services: Services, webhook: WebhookRow) -> str:
    """A new secret, which signs from now on; the one of before signs as well for `ROTATION`."""
    secret = _new_secret()
    values = {
        "secret": services.store.sealer.seal(secret.encode(), webhook.id),
        "old_secret": webhook.secret,
        "old_until": services.now() + ROTATION,
    }
    with services.store.begin() as connection:
        rows.change(connection, webhook.id, values)
    log.info("webhook.rotated", webhook=webhook.id)
    return secret


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(SECRET_OCTETS)).decode()


def _checked_url(services: Services, url: str) -> str:
    from mailer import outward  # most processes never need what it brings

    try:
        outward.check(url, local=services.settings.fetch_local)
    except outward.NotAllowed as exc:
        raise InvalidMessage("endpoint", str(exc)) from None
    return url


def _checked_types(types: Iterable[str]) -> list[str]:
    given = list(dict.fromkeys(types)) or list(TYPES)
    for name in given:
        if name not in TYPES:
            raise InvalidMessage("events", f"has one that is not known; {did_you_mean(name, list(TYPES))}")
    return given


def _names(types: Iterable[str]) -> set[str]:
    return {event.value for name in types for event in TYPES[name]}


# What they are told


def type_of(call: Call) -> str:
    """The type under which an event is told."""
    event = Event(call.name)
    if event is Event.FAILED:
        return "email.bounced" if (call.data.get("code") or 0) >= 500 else "email.failed"
    if event is Event.SETTLED:
        return "email.sent" if call.data.get("as") == "sent" else "email.failed"
    return _TYPE_OF[event]


def body_of(call: Call) -> bytes:
    """The payload as JSON."""
    recipient = call.data.get("recipient")
    data: dict[str, Any] = {
        "email_id": call.message,
        "message_id": call.message_id,
        "created_at": call.accepted_at.isoformat(),
        "from": call.sender,
        "to": [recipient] if recipient else list(call.recipients),
        "subject": call.subject,
        "tags": call.metadata,
        "sequence": call.event,
        **{name: call.data[name] for name in _TOLD if call.data.get(name) is not None},
    }
    whole = {"type": type_of(call), "created_at": call.at.isoformat(), "data": data}
    return json.dumps(whole, separators=(",", ":"), ensure_ascii=True).encode()


def headers_for(services: Services, webhook: WebhookRow, call: Call, body: bytes) -> dict[str, str]:
    """The id, which stays the same over all attempts, the time of this one, and the signatures."""
    id_, at = f"msg_{webhook.id}_{call.event}", services.now()
    signed = " ".join(signature(secret, id_, at, body) for secret in _secrets(services, webhook, at))
    values = {"id": id_, "timestamp": str(int(at.timestamp())), "signature": signed}
    names = [f"{family}-{name}" for family in ("webhook", "svix") for name in values]
    return dict(zip(names, [*values.values()] * 2, strict=True))


def _secrets(services: Services, webhook: WebhookRow, now: datetime) -> list[str]:
    sealed = [webhook.secret]
    if webhook.old_secret is not None and webhook.old_until is not None and now < webhook.old_until:
        sealed.append(webhook.old_secret)
    return [services.store.sealer.open(one, webhook.id).decode() for one in sealed]


def signature(secret: str, id_: str, at: datetime, body: bytes) -> str:
    """``v1,`` and HMAC-SHA256 over ``id.timestamp.body`` in base64, as Standard Webhooks has it."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join([id_.encode(), str(int(at.timestamp())).encode(), body])
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
