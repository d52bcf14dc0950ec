"""A stored mail taken apart for looking at it: HTML for a sandbox, text, source, names of attachments.

`HTML_POLICY` and the frame's ``sandbox`` forbid scripts and requests whatever the mail says (UI1);
`mailer.framing` takes out what they do not cover.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage

from mailer.framing import disarmed, with_images

HTML_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
MAX_BYTES = 25_000_000
"""Of a mail; what is beyond is not looked at."""
MAX_PARTS = 200
MAX_TEXT = 200_000
"""Characters of text or source on a page."""


@dataclass(frozen=True, slots=True)
class File:
    """An attachment as its label says: the name may be anything."""

    name: str
    content_type: str
    octets: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What can be looked at. ``text`` and ``html`` are None if the mail has no such part."""

    html: str | None
    text: str | None
    source: str
    cut: bool
    files: tuple[File, ...]


def take_apart(data: bytes) -> Preview:
    """Parse the bytes of a mail, masked already. Never raises on a mail that is no good."""
    mail = email.message_from_bytes(data[:MAX_BYTES], _class=EmailMessage, policy=email.policy.default)
    parts = list(_leaves(mail))
    page, text = _body(parts, "text/html"), _body(parts, "text/plain")
    inline = [part for part in parts if part["content-id"] and part is not page and part is not text]
    source = data[: MAX_TEXT * 4].decode("utf-8", "replace")
    words = None if text is None else _text(text)
    return Preview(
        html=None if page is None else _framed(_text(page), inline),
        text=None if words is None else words[:MAX_TEXT],
        source=source[:MAX_TEXT],
        cut=len(source) > MAX_TEXT or len(words or "") > MAX_TEXT,
        files=tuple(_file(part) for part in parts if part is not page and part is not text),
    )


def _leaves(mail: EmailMessage) -> Iterator[EmailMessage]:
    # An attached mail is one file: what is inside it is not this mail's body.
    if mail.get_content_maintype() == "multipart" and isinstance(mail.get_payload(), list):
        waiting = [part for part in mail.get_payload() if isinstance(part, EmailMessage)]
        for part in waiting[:MAX_PARTS]:
            yield from _leaves(part)
    else:
        yield mail


def _body(parts: list[EmailMessage], content_type: str) -> EmailMessage | None:
    found = (p for p in parts if p.get_content_type() == content_type and not p.is_attachment())
    return next(found, None)


def _octets(part: EmailMessage) -> bytes:
    try:
        content = part.get_payload(decode=True)
        return content if isinstance(content, bytes) else part.as_bytes()
    except (ValueError, LookupError):
        return b""


def _text(part: EmailMessage) -> str:
    charset = part.get_content_charset("utf-8")
    try:
        return _octets(part).decode(charset, "replace")
    except (LookupError, ValueError):
        return _octets(part).decode("utf-8", "replace")


def _file(part: EmailMessage) -> File:
    return File(part.get_filename() or "(no name)", part.get_content_type(), len(_octets(part)))


def _framed(markup: str, inline: list[EmailMessage]) -> str:
    images = {
        str(part["content-id"]).strip().strip("<>"): (part.get_content_type(), _octets(part))
        for part in inline
    }
    # The base makes links ask for a new tab, which the sandbox does not give: a click leads nowhere.
    return with_images(disarmed(markup), images) + '<base target="_blank">'
