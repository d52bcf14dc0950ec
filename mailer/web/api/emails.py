"""Sending, looking at and changing messages."""

from __future__ import annotations

import re
from typing import Any

import flask

from mailer import outbox, scheduling
from mailer.admission import origin_of
from mailer.errors import BodyErased, MailerError
from mailer.message import message_from
from mailer.store import listing, queries
from mailer.store import messages as message_rows
from mailer.store.batches import BatchRow
from mailer.store.messages import NewMessage
from mailer.store.queries import MessageView
from mailer.web.api import shown
from mailer.web.api.asking import Fetcher, message_of
from mailer.web.api.errors import ApiError, as_api_error, not_found
from mailer.web.api.gate import key, sight
from mailer.web.api.models import BatchIn, ListQuery, Reschedule
from mailer.web.api.reading import body, checked, fingerprint, idempotency_key, query, warn_unknown
from mailer.web.console_login import services

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Json = dict[str, Any]


def send() -> Json:
    """Accept one message. It is committed when this answers."""
    value, wanted = body(), idempotency_key()
    digest = None if wanted is None else fingerprint(value)
    message = message_of(value, key(), Fetcher(), wanted)
    origin, scope = origin_of(services(), message, key(), digest), _scope("emails")
    return {"id": outbox.accept(services(), message, session=None, scope=scope, origin=origin)}


def send_batch() -> Json:
    """Accept up to 100 messages in one transaction: all, or the good with x-batch-validation: permissive."""
    value, wanted, permissive = body(), idempotency_key(), _is_permissive()
    emails = checked(BatchIn, {"emails": value}).emails
    ours, by = services(), key()
    good, errors, fetcher = list[NewMessage](), list[Json](), Fetcher()
    for index, email in enumerate(emails):
        try:
            message = message_of(email, by, fetcher)
            good.append(outbox.prepared(ours, message, origin=origin_of(ours, message, by)))
        except (ApiError, MailerError) as exc:
            error = as_api_error(exc) if isinstance(exc, MailerError) else exc
            if not permissive or error.status >= 500:
                raise ApiError(error.status, error.name, f"emails.{index}: {error.message}") from None
            errors.append({"index": index, "message": error.message})

    def answer(ids: list[str]) -> Json:
        return {"data": [{"id": id_} for id_ in ids], **({"errors": errors} if permissive else {})}

    batch = None
    if wanted is not None:
        digest = fingerprint(value, "permissive" if permissive else "strict")
        batch = BatchRow(_scope("batch"), wanted, digest, ours.now(), None)
    told: Json = outbox.accept_many(ours, good, batch=batch, answer=answer)
    return told


def _scope(kind: str) -> str:
    """Whose idempotency keys: a test key must not be answered with a message that it may not see."""
    return f"{'test-' if key().is_test else ''}{kind}:{key().project}"


def _is_permissive() -> bool:
    mode = flask.request.headers.get("x-batch-validation", "strict")
    if mode not in ("strict", "permissive"):
        raise ApiError(422, "invalid_parameter", "x-batch-validation must be strict or permissive")
    return mode == "permissive"


def get(id_: str) -> Json:
    """One message. What it says is shown to keys that may read bodies."""
    found = _look_up(id_)
    with services().store.read() as connection:
        try:
            stored = message_rows.open_content(connection, id_, services().store.sealer)
        except BodyErased:
            return shown.email(found, None, None)
        preview = message_rows.open_preview(connection, id_, services().store.sealer)
    return shown.email(found, message_from(*stored), preview)


def get_many() -> Json:
    """A page of messages, newest first."""
    wanted = query(ListQuery)
    if wanted.after is not None and wanted.before is not None:
        raise ApiError(422, "invalid_parameter", "`after` and `before` exclude each other; give one of them")
    for cursor in (wanted.after, wanted.before):
        if cursor is not None and _ID.fullmatch(cursor) is None:
            raise ApiError(422, "invalid_parameter", "`after` and `before` are ids of messages")
    with services().store.read() as connection:
        page = listing.page(connection, sight(), wanted.limit, wanted.after, wanted.before)
    return {"object": "list", "has_more": page.has_more, "data": [shown.row(view) for view in page.found]}


def reschedule(id_: str) -> Json:
    """Give a message that has not left another time to leave."""
    wanted = checked(Reschedule, body())
    warn_unknown(name for name in wanted.unknown() if name != "id")  # Resend's Python client repeats it
    _look_up(id_)
    at = scheduling.instant(wanted.scheduled_at, services().now())
    outbox.reschedule(services(), id_, send_at=at, by=_by())
    return {"object": "email", "id": id_}


def cancel(id_: str) -> Json:
    """Withdraw what has not left."""
    _look_up(id_)
    outbox.cancel(services(), id_, by=_by())
    return {"object": "email", "id": id_}


def resend(id_: str) -> Json:
    """Send a stored message anew."""
    wanted = idempotency_key()
    _look_up(id_)
    return {"id": outbox.resend(services(), id_, by=_by(), idempotency_key=wanted)}


def events(id_: str) -> Json:
    """The timeline of a message, oldest first."""
    return {"object": "list", "has_more": False, "data": [shown.event(each) for each in _look_up(id_).events]}


def _by() -> str:
    """For timelines: the key as people know it."""
    return f"API key {key().prefix}…"


def _look_up(id_: str) -> MessageView:
    """Another project's message is no message (AK4): the query is the same for both."""
    found = None
    if _ID.fullmatch(id_):
        with services().store.read() as connection:
            if listing.sees(connection, sight(), id_):
                found = queries.show(connection, id_)
    if found is None:
        raise not_found()
    return found
