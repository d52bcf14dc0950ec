"""Rendered parts to the bytes that go out: 7-bit clean, CRLF, the same for the same input, always.

Structure (RFC 2046 section 5.1, RFC 2387, MF9)::

    multipart/mixed            where there are attachments
    ├── multipart/alternative  where there are text and html
    │   ├── text/plain
    │   └── multipart/related  where there are inline images
    │       ├── text/html
    │       └── image/…
    └── attachments

Only one thing is not 7-bit: an address with a local part beyond ASCII stands as it is in its header, since
no encoding of it is allowed there (RFC 6532). Such a mail needs SMTPUTF8: see `Address.needs_smtputf8`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

from mailer.address import Address
from mailer.attachment import Attachment
from mailer.encoding import (
    address_list,
    base64_body,
    base64_length,
    crlf,
    custom,
    parameter,
    text_body,
    unstructured,
)
from mailer.errors import RenderError
from mailer.headers import MAX_HEADER_VALUE, check_header_name, check_header_text
from mailer.message import Message
from mailer.secret import ErasedSecret, Secret
from mailer.timing import aware_utc


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
    """The finished mail: header, empty line, body, every line ended by CRLF.

    ``message_id`` is the whole header value, angle brackets included; ``date`` an aware instant. Inline
    images are related to ``html``; without html they are attachments like any other. Neither text nor html
    makes an empty text. Equal arguments give equal bytes.

    Raises InvalidMessage if a control character, or a header that is not the caller's to set, got as far
    as here.
    """
    top = [
        address_list("From", [sender]),
        address_list("To", to) if to else "To: undisclosed-recipients:;",
        *([address_list("Cc", cc)] if cc else []),
        *([address_list("Reply-To", reply_to)] if reply_to else []),
        unstructured("Subject", check_header_text(subject, "subject")),
        f"Date: {format_datetime(aware_utc(date, 'date'))}",
        f"Message-ID: {check_header_text(message_id, 'message_id')}",
        "Auto-Submitted: auto-generated",  # RFC 3834 section 5: no vacation notes back, please
        "X-Auto-Response-Suppress: All",  # the same for Exchange
        *(_own_header(name, value) for name, value in headers),
        "MIME-Version: 1.0",
    ]
    content = _content(text, html, attachments, message_id)
    return "\r\n".join(top).encode() + b"\r\n" + content.joined() + b"\r\n"


def encoded_size(message: Message) -> int:
    """An upper bound, in octets, for what the parts given in the call will take, without building it (MF20).

    A text that is to be derived from html is taken to be as long. What a template adds is not in it.
    """
    text, html = _body(message.text), _body(message.html)
    bodies = (html if message.text is None else text) + html
    files = sum(
        900
        + 6 * len(item.filename.encode())
        + len(item.content_type or "")
        + len(item.content_id or "")
        # A mail is attached as it is, at most with a CR for every LF.
        + (
            len(item.content) + item.content.count(b"\n")
            if item.is_mail
            else base64_length(len(item.content))
        )
        for item in message.attachments
    )
    people = sum(
        12 + len(a.addr_spec.encode()) + _header_length(a.name)
        for a in (message.sender, *message.to, *message.cc, *message.reply_to)
    )
    own = sum(len(name) + _header_length(value) for name, value in message.headers)
    return 2_000 + bodies + files + people + own + _header_length(message.subject or "")


def _body(body: str | Secret | None) -> int:
    """The octets of an encoded body: base64 is the longest it gets."""
    if body is None or isinstance(body, ErasedSecret):
        return 0
    value = body.reveal() if isinstance(body, Secret) else body
    return base64_length(len(value.encode("utf-8", "replace")) + value.count("\n") + value.count("\r"))


def _header_length(text: str) -> int:
    """The octets of an encoded header text: each octet as ``=XX``, a word's wrapping for every 40 of them."""
    octets = len(text.encode())
    return 3 * octets + (octets // 12 + 1) * 18


def _own_header(name: str, value: str) -> str:
    return custom(check_header_name(name), check_header_text(value, f"headers[{name!r}]", MAX_HEADER_VALUE))


def _content(text: str | None, html: str | None, attachments: Sequence[Attachment], seed: str) -> _Part:
    inline = [item for item in attachments if item.is_inline and html is not None]
    others = [item for item in attachments if not (item.is_inline and html is not None)]
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
    name = ";\r\n ".join(parameter("filename", item.filename))
    lines = [f"Content-Type: {_media_type(item)}", f"Content-Disposition: {kind};\r\n {name}"]
    if item.content_id is not None:
        lines.append(f"Content-ID: <{item.content_id}>")
    if item.is_mail:
        # Never base64 (RFC 2046 section 5.2.1); `Attachment` made sure that it is 7-bit.
        lines.append("Content-Transfer-Encoding: 7bit")
        body = crlf(item.content)
    else:
        lines.append("Content-Transfer-Encoding: base64")
        body = base64_body(item.content)
    return _Part("\r\n".join(lines), body)


def _media_type(item: Attachment) -> str:
    kind = str(item.content_type)
    if not kind.lower().startswith("text/"):
        return kind
    try:
        item.content.decode()
    except UnicodeDecodeError:
        return kind
    return f"{kind}; charset=utf-8"


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
    raise RenderError("an attached mail holds every boundary this message could have; send it as a file")
