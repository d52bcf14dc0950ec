"""From a mail and its envelope to a message and where it goes.

The envelope says who gets it, the header what they read: who stands in To or Cc and in the envelope is sent
to under that name, who stands in the envelope only is a Bcc, and who stands in the header only is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import getaddresses

from mailer import control_headers, scheduling
from mailer.address import Address
from mailer.calls import message_for
from mailer.errors import InvalidAddress, InvalidMessage
from mailer.message import Message, fingerprint
from mailer.services import Services
from mailer.submission import entity
from mailer.submission.contents import contents_of
from mailer.submission.entity import Entity, Unsupported

KEY_HEADERS = ("idempotency-key", "resend-idempotency-key")
_FOR_US = (*KEY_HEADERS, "x-tags", "x-metadata", "x-mailer-lane", "x-scheduled-at", "x-expires-at")
_PEOPLE = ("from", "to", "cc", "bcc", "reply-to", "sender", "subject")
# Said anew for each mail by Mailer, or said by servers on the way here; what they say of this mail is over.
_REPLACED = frozenset(
    {"date", "message-id", "mime-version", "auto-submitted", "x-auto-response-suppress", "return-path"}
    | {"received", "received-spf", "authentication-results", "dkim-signature", "domainkey-signature"}
    | {"content-type", "content-transfer-encoding", "content-disposition", "content-id"}
    | {"content-description", "content-language", "content-length"}
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A message, and 64 hex digits that are the same if the same is asked for again."""

    message: Message
    fingerprint: str


def message_of(services: Services, raw: bytes, recipients: Sequence[Address]) -> Asked:
    """What a mail to these people means. Raises InvalidMessage; nothing is stored."""
    mail = entity.mail(raw)
    now, contents = services.now(), contents_of(mail)
    sender, people = _sender(mail), {name: _addresses(mail, name) for name in ("to", "cc", "reply-to")}
    shown = {address.key for address in (*people["to"], *people["cc"])}
    wanted = {address.key for address in recipients}
    send_at, expires_at = mail.one("x-scheduled-at"), mail.one("x-expires-at")
    message = message_for(
        services,
        sender=sender,
        to=people["to"],
        cc=people["cc"],
        bcc=[address for address in recipients if address.key not in shown],
        reply_to=people["reply-to"],
        subject=_text(mail, "subject"),
        text=contents.text,
        html=contents.html,
        headers=_others(mail),
        attachments=contents.attachments,
        tags=_tags(mail),
        metadata=_metadata(mail),
        lane=mail.one("x-mailer-lane"),
        send_at=_instant(send_at, now, "x-scheduled-at"),
        expires_at=_instant(expires_at, now, "x-expires-at"),
        idempotency_key=_idempotency_key(mail),
    )
    message = replace(message, not_sent_to=frozenset(shown - wanted))
    # As written: "in 5 minutes" is another instant when it is asked again.
    as_written = replace(message, timing=f"{send_at} {expires_at}")
    return Asked(message, fingerprint(as_written, services.store.sealer.fingerprint_key))


def _idempotency_key(mail: Entity) -> str | None:
    given = [value for name in KEY_HEADERS if (value := mail.one(name)) is not None]
    if len(given) > 1:
        raise InvalidMessage("idempotency_key", "is given under two names; give one")
    return given[0] if given else None


# People


def _sender(mail: Entity) -> Address:
    found = _addresses(mail, "from")
    if len(found) != 1:
        raise InvalidAddress("From", "is not one address; give one")
    said = _addresses(mail, "sender")
    if said and [each.key for each in said] != [found[0].key]:
        raise Unsupported("Sender", "is not the address in From, and would not be kept; leave it out")
    return found[0]


def _addresses(mail: Entity, name: str) -> list[Address]:
    """Those of a header, each once. A group without members, "undisclosed-recipients:;", is nobody."""
    value = mail.one(name) or ""
    try:
        pairs = getaddresses([value])
    except RecursionError:  # comments in comments
        raise InvalidAddress(name.title(), "cannot be read; give addresses") from None
    found: dict[str, Address] = {}
    for display, addr_spec in pairs:
        if not addr_spec and not display and _is_nobody(value):
            continue
        address = Address.parse((entity.words(display), addr_spec), name.title())
        found.setdefault(address.key, address)
    return list(found.values())


def _is_nobody(value: str) -> bool:
    return not value or (value.endswith(":;") and not set(value[:-2]) & set('@<>,:;"'))


# Headers


def _text(mail: Entity, name: str) -> str | None:
    value = mail.one(name)
    return None if value is None else entity.words(value)


def _others(mail: Entity) -> list[tuple[str, str]]:
    """What goes on as it is, for `mailer.headers` to check."""
    left_out = {*_FOR_US, *_PEOPLE, *_REPLACED}
    return [(name, entity.words(value)) for name, value in mail.fields if name.lower() not in left_out]


def _tags(mail: Entity) -> list[str] | None:
    value = _text(mail, "x-tags")
    return None if value is None else control_headers.tags("X-Tags", value)


def _metadata(mail: Entity) -> dict[str, str] | None:
    value = _text(mail, "x-metadata")
    return None if value is None else control_headers.metadata("X-Metadata", value)


def _instant(value: str | None, now: datetime, name: str) -> datetime | None:
    return None if value is None else scheduling.instant(value, now, name.title())
