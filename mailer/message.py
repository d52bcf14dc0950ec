"""`Message`: what a caller asks for, every field checked when it is made, so that mistakes surface there.

An error names the field, what is wrong with it and what to do; it never shows an address or a value.
What the caller passed is copied, never changed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pydantic_core

from mailer.address import Address, AddressLike, parse_list
from mailer.attachment import BLOCKED_TYPES, MAX_ATTACHMENTS, MAX_FILE_BYTES, Attachment, is_blocked
from mailer.context import MARKER, checked_context, storable
from mailer.context import contains_secret as contains_secret
from mailer.errors import InvalidMessage, InvalidTemplate
from mailer.headers import check_header_name as check_header_name
from mailer.headers import check_header_text, check_headers, did_you_mean, kind_of
from mailer.labels import checked_metadata, checked_tags
from mailer.lanes import LANES
from mailer.secret import ErasedSecret, Secret
from mailer.timing import Span, aware_utc, deadline, seconds, start

LANE_NAMES = tuple(lane.name for lane in LANES)
MAX_KEY = 256  # characters of an idempotency key

_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8}){0,4}")
_TEMPLATE = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*")

Addresses = AddressLike | Iterable[AddressLike] | None


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """A checked message. Build one with `Message.create`; fields are as documented there.

    Instants are in UTC. ``timing`` holds the times as the caller wrote them, for `fingerprint` only.
    ``not_sent_to`` are people whom the header names and who do not get it, by `Address.key`.
    """

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
    timing: str = field(default="", compare=False)
    not_sent_to: frozenset[str] = frozenset()
    _envelope: tuple[tuple[Address, str], ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        seen: dict[str, tuple[Address, str]] = {}
        for kind, addresses in (("to", self.to), ("cc", self.cc), ("bcc", self.bcc)):
            for address in addresses:
                if (key := address.key) not in self.not_sent_to:
                    seen.setdefault(key, (address, kind))
        object.__setattr__(self, "_envelope", tuple(seen.values()))

    @classmethod
    def create(
        cls,
        template: str | None = None,
        *,
        to: Addresses = None,
        sender: AddressLike,
        now: datetime,
        cc: Addresses = None,
        bcc: Addresses = None,
        reply_to: Addresses = None,
        context: Mapping[str, Any] | None = None,
        subject: str | None = None,
        text: str | Secret | None = None,
        html: str | Secret | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        attachments: Iterable[Attachment] | Attachment = (),
        locale: str | None = None,
        lane: str = "default",
        lanes: Sequence[str] = LANE_NAMES,
        send_at: datetime | None = None,
        countdown: Span | None = None,
        eta: datetime | None = None,
        expires_at: datetime | None = None,
        expires_in: Span | None = None,
        idempotency_key: str | None = None,
        on_uncertain: str = "retry",
        tags: Iterable[str] = (),
        metadata: Mapping[str, str] | None = None,
        max_recipients: int = 50,
        blocked_types: Collection[str] = BLOCKED_TYPES,
    ) -> Message:
        """Check everything that can be checked without the application. Raises InvalidMessage.

        Either ``template`` with ``context``, whose subject ``subject`` may replace; or ``subject`` with
        ``text``, ``html`` or both. ``to``, ``cc`` and ``bcc`` together name 1 to ``max_recipients`` people.

        ``countdown`` is seconds or a timedelta from ``now``, ``expires_in`` from the moment the message
        may leave; ``eta`` is another name for ``send_at``; instants must be aware.

        ``headers`` may not repeat what Mailer sets; ``attachments`` may not end in one of
        ``blocked_types`` (see `mailer.attachment`); an empty set allows all.
        """
        now = aware_utc(now, "now")
        starts = start(send_at, countdown, eta, now)
        ends = deadline(expires_at, expires_in, starts, now)
        message = cls(
            template=_checked_template(template, subject, text, html),
            context=checked_context(context),
            subject=_checked_subject(subject),
            text=_checked_body(text, "text"),
            html=_checked_body(html, "html"),
            sender=Address.parse(sender, "sender"),
            to=parse_list(to, "to"),
            cc=parse_list(cc, "cc"),
            bcc=parse_list(bcc, "bcc"),
            reply_to=parse_list(reply_to, "reply_to"),
            headers=check_headers(headers),
            attachments=_checked_attachments(attachments, blocked_types),
            locale=_checked_locale(locale),
            lane=_one_of(lane, lanes, "lane"),
            send_at=starts,
            expires_at=ends,
            idempotency_key=_checked_key(idempotency_key),
            on_uncertain=_one_of(on_uncertain, ("retry", "hold"), "on_uncertain"),
            tags=checked_tags(tags),
            metadata=checked_metadata(metadata),
            timing=f"{seconds(countdown) or starts} {seconds(expires_in) or ends}",
        )
        message._check_recipients(max_recipients)
        return message

    def envelope(self) -> tuple[tuple[Address, str], ...]:
        """Every envelope recipient once, with the header it stands in first: to, cc or bcc.

        Two addresses are one recipient if their `Address.key` is the same.
        """
        return self._envelope

    def __repr__(self) -> str:
        # Tracebacks and trackers collect it: it tells which message, and nothing a person wrote.
        return f"Message(template={self.template!r}, lane={self.lane!r}, recipients={len(self.envelope())})"

    def _check_recipients(self, most: int) -> None:
        number = len(self.envelope())
        if not number:
            raise InvalidMessage("to", "is empty; name at least one recipient in to, cc or bcc")
        if number > most:
            raise InvalidMessage("to", f"has {number} recipients with cc and bcc; at most {most} are allowed")


def content_of(message: Message) -> tuple[bytes, dict[str, str]]:
    """The message as JSON, and apart from it the values of its secrets by marker number.

    In the JSON ``{"$secret": "0"}`` stands for the secret "0". An erased secret keeps its marker and
    has no value. The idempotency key is in neither.
    """
    secrets: dict[str, str] = {}
    number = 0

    def mark(secret: Secret) -> dict[str, str]:
        nonlocal number
        marker, number = str(number), number + 1
        if not isinstance(secret, ErasedSecret):
            secrets[marker] = secret.reveal()
        return {MARKER: marker}

    content = {
        "template": message.template,
        "context": message.context,
        "subject": message.subject,
        "text": message.text,
        "html": message.html,
        "sender": [message.sender.name, message.sender.addr_spec],
        "to": _stored(message.to),
        "cc": _stored(message.cc),
        "bcc": _stored(message.bcc),
        "reply_to": _stored(message.reply_to),
        "headers": [list(pair) for pair in message.headers],
        "attachments": [
            [a.filename, base64.b64encode(a.content).decode(), a.content_type, a.content_id]
            for a in message.attachments
        ],
        "locale": message.locale,
        "lane": message.lane,
        "send_at": message.send_at and message.send_at.isoformat(),
        "expires_at": message.expires_at and message.expires_at.isoformat(),
        "on_uncertain": message.on_uncertain,
        "tags": list(message.tags),
        "metadata": dict(message.metadata),
    }
    if message.not_sent_to:  # hardly ever, and a fingerprint stays what it was
        content["not_sent_to"] = sorted(message.not_sent_to)
    return pydantic_core.to_json(content, fallback=mark), secrets


def message_from(content: Mapping[str, Any], secrets: Mapping[str, str] | None) -> Message:
    """The inverse of `content_of`, of what its JSON says, without an idempotency key.

    A marker without a value, or ``secrets`` None, becomes an `ErasedSecret`, whose ``reveal`` raises.
    """
    values = secrets or {}

    def live(value: Any) -> Any:
        if isinstance(value, dict):
            if MARKER in value:
                marker = value[MARKER]
                return Secret(values[marker]) if marker in values else ErasedSecret()
            return {key: live(item) for key, item in value.items()}
        return [live(item) for item in value] if isinstance(value, list) else value

    def instant(name: str) -> datetime | None:
        return datetime.fromisoformat(content[name]) if content[name] else None

    return Message(
        template=content["template"],
        context=live(content["context"]),
        subject=content["subject"],
        text=live(content["text"]),
        html=live(content["html"]),
        sender=_restored([content["sender"]])[0],
        to=_restored(content["to"]),
        cc=_restored(content["cc"]),
        bcc=_restored(content["bcc"]),
        reply_to=_restored(content["reply_to"]),
        headers=tuple((name, value) for name, value in content["headers"]),
        attachments=tuple(
            Attachment(filename, base64.b64decode(data), kind, cid)
            for filename, data, kind, cid in content["attachments"]
        ),
        locale=content["locale"],
        lane=content["lane"],
        send_at=instant("send_at"),
        expires_at=instant("expires_at"),
        idempotency_key=None,
        on_uncertain=content["on_uncertain"],
        tags=tuple(content["tags"]),
        metadata=dict(content["metadata"]),
        not_sent_to=frozenset(content.get("not_sent_to", ())),
    )


def fingerprint(message: Message, key: bytes = b"") -> str:
    """64 hex digits, equal for two calls that ask for the same mail.

    Everything the caller gave counts, secrets included, but not the idempotency key; times count as they
    were written, so that ``expires_in=900`` twice is the same and two instants are not. With ``key`` it is
    an HMAC-SHA256: without one, who reads a stored fingerprint could try all six-digit codes against it.
    """
    written, secrets = content_of(message)
    content = pydantic_core.from_json(written, cache_strings="keys")
    content["send_at"], content["expires_at"] = message.timing, None
    canonical = json.dumps([content, secrets], sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(key, canonical, hashlib.sha256).hexdigest()


def _stored(addresses: Iterable[Address]) -> list[list[str]]:
    return [[address.name, address.addr_spec] for address in addresses]


def _restored(pairs: Iterable[Sequence[str]]) -> tuple[Address, ...]:
    return tuple(Address(addr_spec, name) for name, addr_spec in pairs)


def _checked_template(template: object, subject: object, text: object, html: object) -> str | None:
    if template is None:
        if subject is None or (text is None and html is None):
            raise InvalidMessage("template", "is missing; name one, or give subject with text or html")
        return None
    if text is not None or html is not None:
        raise InvalidMessage("template", "is given together with text or html; give one or the other")
    if not isinstance(template, str):
        raise InvalidTemplate("template", f"is {kind_of(template)}; give the name of a template")
    if len(template) > 200 or _TEMPLATE.fullmatch(template) is None:
        raise InvalidTemplate("template", "is no template name: letters, digits, '_', '-' and inner '.', '/'")
    return template


def _checked_subject(subject: object) -> str | None:
    if subject is None:
        return None
    checked = check_header_text(subject, "subject")
    if not checked.strip():
        raise InvalidMessage("subject", "is empty; give a text")
    return checked


def _checked_body(body: object, name: str) -> str | Secret | None:
    if body is None:
        return None
    if not isinstance(body, str | Secret):
        raise InvalidMessage(name, f"is {kind_of(body)}; give text (str) or a Secret")
    return storable(body) if isinstance(body, Secret) else storable(str.__str__(body))


def _checked_attachments(attachments: object, blocked: Collection[str]) -> tuple[Attachment, ...]:
    if isinstance(attachments, Attachment):
        attachments = (attachments,)
    if not isinstance(attachments, Iterable) or isinstance(attachments, str | bytes | Mapping):
        raise InvalidMessage("attachments", f"is {kind_of(attachments)}; give a list of mailer.Attachment")
    checked = tuple(attachments)
    if len(checked) > MAX_ATTACHMENTS:
        raise InvalidMessage(
            "attachments", f"has {len(checked)} entries; at most {MAX_ATTACHMENTS} are allowed"
        )
    for place, item in enumerate(checked, 1):
        if not isinstance(item, Attachment):
            raise InvalidMessage("attachments", f"entry {place} is {kind_of(item)}; give a mailer.Attachment")
        _check_attachment(item, place, blocked)
    ids = [item.content_id for item in checked if item.content_id is not None]
    if len(ids) != len(set(ids)):
        raise InvalidMessage("attachments", "has a content id twice; give each inline image its own")
    return checked


def _check_attachment(item: Attachment, place: int, blocked: Collection[str]) -> None:
    if len(item.content) > MAX_FILE_BYTES:
        problem = f"entry {place} has more than {MAX_FILE_BYTES:,} bytes; send a link instead"
        raise InvalidMessage("attachments", problem)
    if is_blocked(item.filename, blocked):
        problem = (
            f"entry {place} is of a type that runs when opened, which mail providers refuse; send a link"
        )
        raise InvalidMessage("attachments", problem)


def _checked_locale(locale: object) -> str | None:
    if locale is None:
        return None
    if not isinstance(locale, str) or _LOCALE.fullmatch(locale) is None:
        raise InvalidMessage("locale", "is no language tag; give one such as 'de' or 'pt-BR'")
    return locale


def _one_of(value: object, known: Sequence[str], name: str) -> str:
    if isinstance(value, str) and value in known:
        return value
    hint = did_you_mean(value, known) if isinstance(value, str) else f"known: {', '.join(known)}"
    raise InvalidMessage(name, f"is not known; {hint}")


def _checked_key(key: object) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise InvalidMessage(
            "idempotency_key", f"is not 1 to {MAX_KEY} printable characters; give such a text"
        )
    return key
