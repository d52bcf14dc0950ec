"""Rendered parts to the bytes that go out: 7-bit clean, CRLF, the same for the same input, always.

Structure (RFC 2046 section 5.1, RFC 2387, MF9)::

    multipart/mixed            where there are attachments
    ├── multipart/alternative  where there are text and html
    │   ├── text/plain
    │   └── multipart/related  where there are inline images
    │       ├── text/html
    │       └── image/…
    └── attachments
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from mailer.address import Address
from mailer.attachment import Attachment
from mailer.encoding import address_list, base64_body, crlf, custom, disposition, text_body, unstructured
from mailer.headers import check_header_text
from mailer.message import Message
from mailer.secret import Secret


@dataclass(frozen=True, slots=True)
class _Part:
    """A MIME part: header lines without the last line end, and the body without it."""

    headers: str
    body: bytes

    def joined(self) -> bytes:
        return self.headers.encode() + b"\r\n\r\n" + self.body


def build(
    *,
    message_id: str,
    date: datetime,
    sender: Address,
    to: Sequence[Address],
    cc: Sequence[Address] = (),
    reply_to: Sequence[Address] = (),
    subject: str,
    text: str | None,
    html: str | None,
    headers: Sequence[tuple[str, str]] = (),
    attachments: Sequence[Attachment] = (),
) -> bytes:
    """The finished mail. ``message_id`` is the whole header value, angle brackets included.

    Raises InvalidMessage if a control character got as far as here.
    """
    top = [
        address_list("From", [sender]),
        address_list("To", to) if to else "To: undisclosed-recipients:;",
        *([address_list("Cc", cc)] if cc else []),
        *([address_list("Reply-To", reply_to)] if reply_to else []),
        unstructured("Subject", check_header_text(subject, "subject")),
        f"Date: {format_datetime(date)}",
        f"Message-ID: {check_header_text(message_id, 'message_id')}",
        "MIME-Version: 1.0",
        "Auto-Submitted: auto-generated",  # RFC 3834 section 5: no vacation notes back, please
        "X-Auto-Response-Suppress: All",  # the same for Exchange
        *(custom(name, check_header_text(value, name)) for name, value in headers),
    ]
    content = _content(text, html, attachments, message_id)
    return "\r\n".join(top).encode() + b"\r\n" + content.joined() + b"\r\n"


def encoded_size(message: Message) -> int:
    """An upper bound, in octets, for what the parts given in the call will take, cheaply (MF20)."""
    bodies = sum(_length(body) for body in (message.text, message.html))
    files = sum(len(item.content) for item in message.attachments)
    people = sum(len(str(a)) for field in (message.to, message.cc, message.reply_to) for a in field)
    lines = 2_000 + 1_000 * len(message.attachments) + 3 * sum(len(n) + len(v) for n, v in message.headers)
    return bodies * 3 // 2 + files * 7 // 5 + 3 * people + lines


def _length(body: str | Secret | None) -> int:
    value = body.reveal() if isinstance(body, Secret) else body
    return len(value.encode()) if value else 0


def _content(text: str | None, html: str | None, attachments: Sequence[Attachment], seed: str) -> _Part:
    inline = [item for item in attachments if item.is_inline and html is not None]
    others = [item for item in attachments if item not in inline]
    bodies = []
    if text is not None or html is None:
        bodies.append(_text("plain", text or ""))
    if html is not None:
        page = _text("html", html)
        related = [page, *(_file(item, "inline") for item in inline)]
        bodies.append(_multipart('related; type="text/html"', related, seed) if inline else page)
    content = bodies[0] if len(bodies) == 1 else _multipart("alternative", bodies, seed)
    if others:
        content = _multipart("mixed", [content, *(_file(item, "attachment") for item in others)], seed)
    return content


def _text(subtype: str, text: str) -> _Part:
    encoding, body = text_body(text)
    headers = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}"
    return _Part(headers, body)


def _file(item: Attachment, kind: str) -> _Part:
    lines = [f"Content-Type: {item.content_type}", disposition(kind, item.filename)]
    if item.content_id:
        lines.append(f"Content-ID: <{item.content_id}>")
    if str(item.content_type).lower().startswith("message/rfc822"):
        # MF10: never base64; `Attachment` made sure that it is 7-bit.
        lines.append("Content-Transfer-Encoding: 7bit")
        body = crlf(item.content.decode("ascii")).encode()
    else:
        lines.append("Content-Transfer-Encoding: base64")
        body = base64_body(item.content)
    return _Part("\r\n".join(lines), body)


def _multipart(subtype: str, parts: Sequence[_Part], seed: str) -> _Part:
    joined = [part.joined() for part in parts]
    boundary = _boundary(f"{subtype}{seed}", joined)
    between = f"--{boundary}".encode()
    body = b"".join(between + b"\r\n" + part + b"\r\n" for part in joined) + between + b"--"
    return _Part(f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"', body)


def _boundary(seed: str, parts: Sequence[bytes]) -> str:
    """Derived from the Message-ID, so that it is the same in every attempt (MF7), and in no part."""
    digest = hashlib.sha256(seed.encode()).hexdigest()
    for start in range(0, 40, 4):
        # "=_" occurs in no quoted-printable or base64 text; only an attached 7-bit mail can hold it.
        boundary = f"=_{digest[start : start + 24]}"
        if not any(boundary.encode() in part for part in parts):
            return boundary
    raise AssertionError("a part holds ten hashes of its own message's id")
