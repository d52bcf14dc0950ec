"""Messages as answers show them: Resend's shape, and its words for what happened last."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from mailer.events import Event
from mailer.keys import Scope, may
from mailer.message import Message
from mailer.reading import bodies, parsed, text_of
from mailer.secret import Secret
from mailer.states import State
from mailer.store.queries import DeliveryView, EventView, MessageView
from mailer.web.api.gate import key

LAST_EVENT = {
    State.SCHEDULED: "scheduled",
    State.QUEUED: "queued",
    State.SENDING: "queued",
    State.DEFERRED: "delivery_delayed",
    State.SENT: "sent",
    State.FAILED: "failed",
    State.UNCERTAIN: "uncertain",
    State.EXPIRED: "expired",
    State.CANCELLED: "canceled",
    State.SUPPRESSED: "suppressed",
}
"""``bounced`` is a failure by a server's 5xx, ``complained`` is sent and unwanted, ``delivered`` is sent and
known to have arrived; ``uncertain`` and ``expired`` are words of our own.
"""


def row(view: MessageView) -> dict[str, Any]:
    """A message as it stands in a list: nothing that is sealed is opened for it."""
    return {
        "id": view.id,
        "message_id": view.message_id,
        "to": _recipients(view, "to"),
        "from": view.sender,
        "created_at": view.created_at.isoformat(),
        "subject": view.subject,
        "bcc": _recipients(view, "bcc"),
        "cc": _recipients(view, "cc"),
        "reply_to": None,
        "last_event": _last_event(view),
        "scheduled_at": _iso(view.send_at),
        "tags": [{"name": name, "value": value} for name, value in view.metadata.items()],
        "labels": list(view.tags),
    }


def email(view: MessageView, message: Message | None, preview: bytes | None) -> dict[str, Any]:
    """A message whole, as far as the key may see it. ``message`` is None once its content was erased."""
    html = text = None
    if may(key(), Scope.READ_BODIES):
        html, text = _bodies(message, preview)
    described = {"object": "email", **row(view), "html": html, "text": text}
    if message is not None:
        named = {"to": message.to, "cc": message.cc, "bcc": message.bcc, "reply_to": message.reply_to}
        described |= {name: [str(address) for address in addresses] for name, addresses in named.items()}
    return described


def event(told: EventView) -> dict[str, Any]:
    """One line of a timeline."""
    return {**told.data, "at": told.at.isoformat(), "name": told.name}


def _bodies(message: Message | None, preview: bytes | None) -> tuple[str | None, str | None]:
    """What was given; of a template, what was rendered, secrets masked."""
    if message is not None and message.template is None:
        return _masked(message.html), _masked(message.text)
    mail = None if preview is None else parsed(preview)
    text, page = (None, None) if mail is None else bodies(mail)
    return (None if page is None else text_of(page)), (None if text is None else text_of(text))


def _masked(given: str | Secret | None) -> str | None:
    return None if given is None else str(given)


def _recipients(view: MessageView, kind: str) -> list[str]:
    return [delivery.recipient for delivery in view.deliveries if delivery.kind == kind]


def _last_event(view: MessageView) -> str:
    if view.state is State.FAILED and any(map(_is_bounce, view.deliveries)):
        return "bounced"
    if view.state is State.SENT:
        for known in (Event.COMPLAINED, Event.DELIVERED):  # the ``reason`` of a delivery that was sent
            if any(d.reason == known for d in view.deliveries):
                return known.value
    return LAST_EVENT[view.state]


def _is_bounce(delivery: DeliveryView) -> bool:
    return delivery.state is State.FAILED and (delivery.code or 0) >= 500


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
