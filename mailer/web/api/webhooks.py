"""Endpoints that are told what becomes of a project's messages, in the shape of Resend's."""

from __future__ import annotations

from typing import Any

from mailer import webhooks
from mailer.store import webhooks as rows
from mailer.store.webhooks import CallView, WebhookRow
from mailer.web.api.errors import ApiError
from mailer.web.api.gate import key
from mailer.web.api.reading import body, checked, query, warn_unknown
from mailer.web.api.webhook_models import CallsQuery, WebhookChange, WebhookIn
from mailer.web.console_login import services

Json = dict[str, Any]


def get_many() -> Json:
    """The webhooks of the project, the newest first."""
    with services().store.read() as connection:
        found = rows.of_project(connection, key().project)
    return {"object": "list", "has_more": False, "data": [_shown(each) for each in found]}


def create() -> Json:
    """Tell an address of events. The answer has the secret that signs them."""
    wanted = checked(WebhookIn, body())
    warn_unknown(wanted.unknown())
    made, secret = webhooks.create(services(), wanted.endpoint, wanted.events, project=key().project_name)
    return {"object": "webhook", "id": made.id, "signing_secret": secret}


def get(id_: str) -> Json:
    """One webhook, with the secret that signs what it is told."""
    found = _look_up(id_)
    return {"object": "webhook", **_shown(found), "signing_secret": webhooks.secret_of(services(), found)}


def change(id_: str) -> Json:
    """Another address, other events, or whether it is told at all."""
    wanted, found = checked(WebhookChange, body()), _look_up(id_)
    warn_unknown(name for name in wanted.unknown() if name not in ("id", "webhook_id"))
    enabled = None if wanted.status is None else wanted.status == "enabled"
    webhooks.change(services(), found.id, url=wanted.endpoint, types=wanted.events, enabled=enabled)
    return {"object": "webhook", "id": id_}


def remove(id_: str) -> Json:
    """Forget a webhook, and what it is owed."""
    found = _look_up(id_)
    with services().store.begin() as connection:
        rows.remove(connection, found.id)
    return {"object": "webhook", "id": id_, "deleted": True}


def rotate(id_: str) -> Json:
    """Make a new secret; the old one signs as well for a day."""
    secret = webhooks.rotate(services(), _look_up(id_))
    return {"object": "webhook", "id": id_, "signing_secret": secret}


def calls(id_: str) -> Json:
    """What it was and is told, the newest event first."""
    wanted, found = query(CallsQuery), _look_up(id_)
    with services().store.read() as connection:
        page = rows.calls(connection, found.id, wanted.limit + 1, wanted.after)
    shown = [_call(each) for each in page[: wanted.limit]]
    return {"object": "list", "has_more": len(page) > wanted.limit, "data": shown}


def replay(id_: str, event: int) -> Json:
    """Tell it of an event once more."""
    found, done = _look_up(id_), 0
    if event < 2**63:  # else no row can have it
        with services().store.begin() as connection:
            done = rows.again(connection, found.id, services().now(), event)
    if not done:
        raise ApiError(404, "not_found", "no such event has ended for this webhook; see its calls")
    return {"object": "webhook_call", "event": event}


def _look_up(id_: str) -> WebhookRow:
    """Another project's is none."""
    with services().store.read() as connection:
        found = rows.find(connection, id_)
    if found is None or found.project != key().project:
        raise ApiError(404, "not_found", "there is no such webhook; check the id and the project of the key")
    return found


def _shown(webhook: WebhookRow) -> Json:
    return {
        "id": webhook.id,
        "created_at": webhook.created_at.isoformat(),
        "status": "enabled" if webhook.disabled_at is None else "disabled",
        "endpoint": webhook.url,
        "events": list(webhook.types),
        "disabled_why": webhook.disabled_why,
        "failures": webhook.failures,
    }


def _call(call: CallView) -> Json:
    return {
        "event": call.event,
        "name": call.name,
        "email_id": call.message,
        "at": call.at.isoformat(),
        "attempts": call.attempts,
        "ended_at": None if call.ended_at is None else call.ended_at.isoformat(),
        "answer": call.answer,
    }
