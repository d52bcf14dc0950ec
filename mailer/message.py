"""`Message`: what a caller asks for, every field checked when it is made, so that mistakes surface there."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from mailer.address import Address, AddressLike, parse_list
from mailer.attachment import MAX_ATTACHMENTS, Attachment
from mailer.errors import InvalidMessage, InvalidTemplate
from mailer.headers import check_header_text, check_headers
from mailer.secret import ErasedSecret, Secret

MARKER = "$secret"
MAX_SUBJECT = 988  # characters: RFC 5322's 998 less "Subject: "
MAX_DEPTH = 20
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Message:
    """A checked message. Build one with `Message.create`; fields are as documented there."""

    template: str | None
    context: Mapping[str, Any]
    subject: str | None
    text: str | Secret | None
    html: str | Secret | None
    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    headers: tuple[tuple[str, str], ...]
    attachments: tuple[Attachment, ...]
    locale: str | None
    lane: str
    send_at: datetime | None
    expires_at: datetime | None
    idempotency_key: str | None
    on_uncertain: str
    tags: tuple[str, ...]
    metadata: Mapping[str, str]

    @classmethod
    def create(
        cls,
        template: str | None = None,
        *,
        to: AddressLike | Iterable[AddressLike] | None = None,
        sender: AddressLike,
        now: datetime,
        cc: AddressLike | Iterable[AddressLike] | None = None,
        bcc: AddressLike | Iterable[AddressLike] | None = None,
        reply_to: AddressLike | Iterable[AddressLike] | None = None,
        context: Mapping[str, Any] | None = None,
        subject: str | None = None,
        text: str | Secret | None = None,
        html: str | Secret | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        attachments: Iterable[Attachment] = (),
        locale: str | None = None,
        lane: str = "default",
        lanes: Sequence[str] = ("critical", "default", "bulk"),
        send_at: datetime | None = None,
        countdown: float | timedelta | None = None,
        eta: datetime | None = None,
        expires_at: datetime | None = None,
        expires_in: float | timedelta | None = None,
        idempotency_key: str | None = None,
        on_uncertain: str = "retry",
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        max_recipients: int = 50,
    ) -> Message:
        """Check everything that can be checked without the application. Raises InvalidMessage.

        ``countdown`` and ``expires_in`` are seconds or a timedelta from ``now`` (the deadline from
        ``send_at`` where there is one); ``eta`` is another name for ``send_at``; instants must be aware.
        """
        starts = _start(send_at, countdown, eta, now)
        message = cls(
            template=_checked_template(template, subject, text, html),
            context=_checked_context(context),
            subject=None if subject is None else _checked_subject(subject),
            text=_checked_body(text, "text"),
            html=_checked_body(html, "html"),
            sender=Address.parse(sender, "sender"),
            to=parse_list(to, "to"),
            cc=parse_list(cc, "cc"),
            bcc=parse_list(bcc, "bcc"),
            reply_to=parse_list(reply_to, "reply_to"),
            headers=check_headers(headers),
            attachments=_checked_attachments(attachments),
            locale=_checked_locale(locale),
            lane=_one_of(lane, lanes, "lane"),
            send_at=starts,
            expires_at=_deadline(expires_at, expires_in, now, starts),
            idempotency_key=_checked_key(idempotency_key),
            on_uncertain=_one_of(on_uncertain, ("retry", "hold"), "on_uncertain"),
            tags=_checked_tags(tags),
            metadata=_checked_metadata(metadata),
        )
        message._check_recipients(max_recipients)
        return message

    def envelope(self) -> tuple[tuple[Address, str], ...]:
        """Every envelope recipient once, with the header it stands in first: to, cc or bcc."""
        seen: dict[str, tuple[Address, str]] = {}
        for kind, addresses in (("to", self.to), ("cc", self.cc), ("bcc", self.bcc)):
            for address in addresses:
                seen.setdefault(address.addr_spec, (address, kind))
        return tuple(seen.values())

    def _check_recipients(self, most: int) -> None:
        number = len(self.envelope())
        if not number:
            raise InvalidMessage("to", "is empty; a message needs a recipient")
        if number > most:
            raise InvalidMessage("to", f"{number} recipients with cc and bcc; the most is {most}")


def content_of(message: Message) -> tuple[dict[str, Any], dict[str, str]]:
    """The message as JSON-able content, and apart from it the values of its secrets by marker number."""
    secrets: dict[str, str] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Secret):
            secrets[str(len(secrets))] = value.reveal()
            return {MARKER: str(len(secrets) - 1)}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    pairs = {
        field: [[a.name, a.addr_spec] for a in getattr(message, field)]
        for field in ("to", "cc", "bcc", "reply_to")
    }
    content = {
        **pairs,
        "sender": [message.sender.name, message.sender.addr_spec],
        **{
            name: plain(getattr(message, name))
            for name in ("context", "text", "html", "headers", "tags", "metadata")
        },
        **{
            name: getattr(message, name) for name in ("template", "subject", "locale", "lane", "on_uncertain")
        },
        "send_at": message.send_at and message.send_at.isoformat(),
        "expires_at": message.expires_at and message.expires_at.isoformat(),
        "attachments": [
            [a.filename, base64.b64encode(a.content).decode(), a.content_type, a.content_id]
            for a in message.attachments
        ],
    }
    return content, secrets


def message_from(content: Mapping[str, Any], secrets: Mapping[str, str] | None) -> Message:
    """The inverse of `content_of`, without an idempotency key. ``secrets`` None: they were erased."""

    def live(value: Any) -> Any:
        if isinstance(value, dict):
            if MARKER in value:
                return ErasedSecret() if secrets is None else Secret(secrets[value[MARKER]])
            return {key: live(item) for key, item in value.items()}
        return [live(item) for item in value] if isinstance(value, list) else value

    def addresses(field: str) -> tuple[Address, ...]:
        return tuple(Address(spec, name) for name, spec in content[field])

    def instant(field: str) -> datetime | None:
        return datetime.fromisoformat(content[field]) if content[field] else None

    name, spec = content["sender"]
    return Message(
        **{field: content[field] for field in ("template", "subject", "locale", "lane", "on_uncertain")},
        **{field: live(content[field]) for field in ("context", "text", "html")},
        **{field: addresses(field) for field in ("to", "cc", "bcc", "reply_to")},
        sender=Address(spec, name),
        headers=tuple((name, value) for name, value in content["headers"]),
        attachments=tuple(
            Attachment(filename, base64.b64decode(data), kind, cid)
            for filename, data, kind, cid in content["attachments"]
        ),
        send_at=instant("send_at"),
        expires_at=instant("expires_at"),
        idempotency_key=None,
        tags=tuple(content["tags"]),
        metadata=content["metadata"],
    )


def fingerprint(message: Message) -> str:
    """SHA-256 of the content, equal for two calls that mean the same mail.

    The key itself and the times are left out: ``countdown`` and ``expires_in`` differ between two calls
    that mean the same.
    """
    content, secrets = content_of(message)
    for field in ("send_at", "expires_at"):
        del content[field]
    canonical = json.dumps([content, secrets], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def contains_secret(value: Any) -> bool:
    """Whether a `Secret` stands anywhere in it."""
    if isinstance(value, Mapping):
        return any(map(contains_secret, value.values()))
    if isinstance(value, list | tuple):
        return any(map(contains_secret, value))
    return isinstance(value, Secret)


def _checked_template(template: str | None, subject: Any, text: Any, html: Any) -> str | None:
    if template is None:
        if subject is None or (text is None and html is None):
            raise InvalidMessage("template", "is missing; name one, or give subject with text or html")
        return None
    if not isinstance(template, str):
        raise InvalidTemplate("template", f"is a {type(template).__name__}; give its name")
    if text is not None or html is not None:
        raise InvalidMessage("template", "was given together with text or html; give one or the other")
    return template


def _checked_subject(subject: str) -> str:
    check_header_text(subject, "subject")
    if not subject.strip():
        raise InvalidMessage("subject", "is empty")
    if len(subject) > MAX_SUBJECT:
        raise InvalidMessage("subject", f"is longer than {MAX_SUBJECT} characters")
    return subject


def _checked_body(body: str | Secret | None, field: str) -> str | Secret | None:
    if body is None:
        return None
    if not isinstance(body, str | Secret):
        raise InvalidMessage(field, f"is a {type(body).__name__}; give text")
    value = body.reveal() if isinstance(body, Secret) else body
    if "\x00" in value or _SURROGATE.search(value):
        raise InvalidMessage(field, "holds a NUL or half a character; remove it")
    return body


def _checked_context(context: Mapping[str, Any] | None) -> dict[str, Any]:
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise InvalidMessage("context", f"is a {type(context).__name__}; give a mapping of names to values")
    checked: dict[str, Any] = _as_json(context, "context", 0)
    return checked


def _as_json(value: Any, where: str, depth: int) -> Any:
    """A copy that JSON can carry. Instants, numbers of money and UUIDs become text; objects are refused."""
    if value is None or isinstance(value, bool | int | Secret):
        return value
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise InvalidMessage(where, "holds half a character (a lone surrogate)")
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    if depth >= MAX_DEPTH:
        raise InvalidMessage(where.split("[")[0], f"is nested deeper than {MAX_DEPTH}, or contains itself")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key == MARKER:
                raise InvalidMessage(where, "has a key that is not text, or is reserved")
        return {key: _as_json(item, f"{where}[{key!r}]", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item, f"{where}[{n}]", depth + 1) for n, item in enumerate(value)]
    raise InvalidMessage(where, f"is a {type(value).__name__}, which cannot be stored; pass its values")


def _checked_attachments(attachments: Iterable[Attachment]) -> tuple[Attachment, ...]:
    checked = tuple(attachments)
    if not all(isinstance(item, Attachment) for item in checked):
        raise InvalidMessage("attachments", "must be a list of mailer.Attachment")
    if len(checked) > MAX_ATTACHMENTS:
        raise InvalidMessage("attachments", f"are more than {MAX_ATTACHMENTS}")
    ids = [item.content_id for item in checked if item.content_id]
    if len(ids) != len(set(ids)):
        raise InvalidMessage("attachments", "use a content id twice")
    return checked


def _checked_locale(locale: str | None) -> str | None:
    if locale is not None and (not isinstance(locale, str) or not _LOCALE.fullmatch(locale)):
        raise InvalidMessage("locale", "is not a language tag such as de or pt-BR")
    return locale


def _one_of(value: str, known: Sequence[str], field: str) -> str:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
        raise InvalidMessage(field, f"is not known; {hint}")
    return value


def _start(
    send_at: datetime | None, countdown: float | timedelta | None, eta: datetime | None, now: datetime
) -> datetime | None:
    given = [x for x in (send_at, countdown, eta) if x is not None]
    if len(given) > 1:
        raise InvalidMessage("send_at", "only one of send_at, countdown and eta can say when")
    if countdown is not None:
        return _after(now, countdown, "countdown")
    instant = send_at if send_at is not None else eta
    return None if instant is None else _aware(instant, "send_at" if send_at is not None else "eta")


def _deadline(
    at: datetime | None, within: float | timedelta | None, now: datetime, starts: datetime | None
) -> datetime | None:
    if at is not None and within is not None:
        raise InvalidMessage("expires_at", "only one of expires_at and expires_in can say when")
    begins = max(now, starts or now)
    if within is not None:
        at = _after(begins, within, "expires_in")
    if at is None:
        return None
    at = _aware(at, "expires_at")
    if at <= begins:
        raise InvalidMessage("expires_at", "lies before the message could be sent")
    return at


def _after(start: datetime, wait: float | timedelta, field: str) -> datetime:
    try:
        span = wait if isinstance(wait, timedelta) else timedelta(seconds=wait)
        if span < timedelta(0):
            raise InvalidMessage(field, "is negative")
        return start + span
    except (TypeError, ValueError, OverflowError):
        raise InvalidMessage(field, "is not a number of seconds or a timedelta within reason") from None


def _aware(instant: datetime, field: str) -> datetime:
    if not isinstance(instant, datetime):
        raise InvalidMessage(field, f"is a {type(instant).__name__}; give a datetime")
    if instant.tzinfo is None:
        raise InvalidMessage(field, "has no time zone; use datetime.now(timezone.utc) or .astimezone()")
    return instant.astimezone(UTC)


def _checked_key(key: str | None) -> str | None:
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= 256 or not key.isprintable()):
        raise InvalidMessage("idempotency_key", "must be 1 to 256 printable characters")
    return key


def _checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    checked = (tags,) if isinstance(tags, str) else tuple(tags)
    if len(checked) > 20:
        raise InvalidMessage("tags", "are more than 20")
    for tag in checked:
        check_header_text(tag, "tags")
        if not 1 <= len(tag) <= 64:
            raise InvalidMessage("tags", "must have 1 to 64 characters each")
    return checked


def _checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or len(metadata) > 50:
        raise InvalidMessage("metadata", "must be a mapping of at most 50 names to text")
    for key, value in metadata.items():
        check_header_text(key, "metadata")
        check_header_text(value, "metadata")
        if not 1 <= len(key) <= 64 or len(value) > 500:
            raise InvalidMessage("metadata", "takes names of 1 to 64 and values of up to 500 characters")
    return dict(metadata)
