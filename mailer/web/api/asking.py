"""From the JSON of a request to a message and where it goes: Resend's fields, and django-anymail's."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mailer import control_headers, fetching, scheduling
from mailer.admission import may_send_for
from mailer.attachment import FIELD, Attachment
from mailer.calls import message_for
from mailer.errors import InvalidMessage
from mailer.message import Message
from mailer.store.keys import KeyRow
from mailer.web.api.errors import ApiError, missing
from mailer.web.api.models import AttachmentIn, Buffer, EmailIn
from mailer.web.api.reading import checked, warn, warn_unknown
from mailer.web.console_login import services

FETCH_SECONDS = 30.0
"""For all files of one request."""
MAX_FETCHED = 20
_ASCII_SPACE = re.compile(r"[ \t\r\n]+")


class Fetcher:
    """Gets the files that a request only names, within what one request may take."""

    def __init__(self) -> None:
        self._until = time.monotonic() + FETCH_SECONDS
        self._left = MAX_FETCHED

    def get(self, url: str) -> bytes:
        """Raises InvalidMessage."""
        self._left -= 1
        seconds = fetching.remaining(self._until)
        if self._left < 0 or seconds <= 0:
            raise InvalidMessage(FIELD, f"has more than {MAX_FETCHED} paths, or slow ones; send the content")
        settings = services().settings
        return fetching.fetch(url, settings.max_message_bytes, local=settings.fetch_local, seconds=seconds)


def message_of(value: Any, by: KeyRow, fetcher: Fetcher, idempotency_key: str | None = None) -> Message:
    """The message that one email of a request means. Raises ApiError or MailerError; nothing is stored."""
    email = checked(EmailIn, value)
    _check_complete(email)
    warn_unknown(email.unknown())
    headers, labels, metadata = _headers(email.headers or {})
    message = message_for(
        services(),
        email.template.id if email.template else None,
        context=email.template.variables if email.template else None,
        sender=email.from_,
        to=email.to,
        cc=email.cc,
        bcc=email.bcc,
        reply_to=email.reply_to,
        subject=email.subject,
        text=email.text,
        html=email.html,
        headers=headers,
        tags=labels or None,
        metadata=metadata | _tags(email),
        lane=email.lane,
        locale=email.locale,
        on_uncertain=email.on_uncertain,
        send_at=_instant(email.scheduled_at, "scheduled_at"),
        expires_at=_instant(email.expires_at, "expires_at"),
        idempotency_key=idempotency_key,
        attachments=_attachments(email.attachments or (), fetcher),
    )
    if not may_send_for(by, message):
        raise ApiError(403, "validation_error", "`from` has a domain that this API key may not send for")
    return message


def _check_complete(email: EmailIn) -> None:
    if email.template is not None:
        return
    if email.from_ is None:
        raise missing("from")
    if email.subject is None:
        raise missing("subject")
    if email.html is None and email.text is None:
        raise ApiError(422, "missing_required_field", "Missing `html` or `text` field.")


def _instant(given: str | None, field: str) -> datetime | None:
    return None if given is None else scheduling.instant(given, services().now(), field)


# Tags


def _tags(email: EmailIn) -> dict[str, str]:
    found: dict[str, str] = {}
    for tag in email.tags or ():
        if tag.name in found:
            raise InvalidMessage("tags", "has a name twice; give each its own")
        found[tag.name] = tag.value
    return found


def _headers(given: dict[str, str]) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """The headers for the mail, and what django-anymail says in two others that are for us."""
    kept, labels, metadata = dict[str, str](), list[str](), dict[str, str]()
    for name, value in given.items():
        if name.lower() == "x-tags":
            labels = control_headers.tags(name, value)
        elif name.lower() == "x-metadata":
            metadata = control_headers.metadata(name, value)
        else:
            kept[name] = value
    return kept, labels, metadata


# Files


def _attachments(given: Sequence[AttachmentIn], fetcher: Fetcher) -> list[Attachment]:
    return [_attachment(each, place, fetcher) for place, each in enumerate(given)]


def _attachment(given: AttachmentIn, place: int, fetcher: Fetcher) -> Attachment:
    if (given.content is None) == (given.path is None):
        raise InvalidMessage(FIELD, f"entry {place + 1} needs content or path, and not both")
    content = fetcher.get(given.path) if given.path is not None else _octets(given.content, place)
    name = given.filename or fetching.name_of(given.path or "")
    kind, semicolon, _ = (given.content_type or "").partition(";")
    if semicolon:
        warn([f"parameters left out: attachments.{place}.content_type"])
    return Attachment(name, content, kind.strip() or None, given.content_id or None)


def _octets(content: str | list[int] | Buffer | None, place: int) -> bytes:
    if isinstance(content, Buffer):
        return bytes(content.data)
    if isinstance(content, list):
        return bytes(content)
    try:
        return base64.b64decode(_ASCII_SPACE.sub("", content or ""), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMessage(FIELD, f"entry {place + 1} has content that is not base64") from None
