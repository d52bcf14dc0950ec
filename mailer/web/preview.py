"""A stored mail taken apart for looking at it: HTML for a sandbox, text, source, names of attachments.

`HTML_POLICY` and the frame's ``sandbox`` forbid scripts and requests whatever the mail says (UI1);
`mailer.framing` takes out what they do not cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from itertools import islice

from mailer.framing import disarmed, with_images
from mailer.reading import bodies, clean, decode_words, leaves, octets_of, parsed, text_of

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
    """Parse the bytes of a mail, masked already. Never raises on a mail that is no good.

    One that is too intricate, by a mail that is attached to it, has its source only.
    """
    mail = parsed(data[:MAX_BYTES])
    parts = [] if mail is None else [part for _, part in islice(leaves(mail), MAX_PARTS)]
    text, page = (None, None) if mail is None else bodies(mail)
    inline = [part for part in parts if part["content-id"] and part is not page and part is not text]
    source = data[: MAX_TEXT * 4].decode("utf-8", "replace")
    words = None if text is None else text_of(text)
    return Preview(
        html=None if page is None else _framed(text_of(page), inline),
        text=None if words is None else words[:MAX_TEXT],
        source=source[:MAX_TEXT],
        cut=len(source) > MAX_TEXT or len(words or "") > MAX_TEXT,
        files=tuple(_file(part) for part in parts if part is not page and part is not text),
    )


def _file(part: Message) -> File:
    name = decode_words(str(part.get_filename() or ""))
    return File(name or "(no name)", clean(part.get_content_type()), len(octets_of(part)))


def _framed(markup: str, inline: Sequence[Message]) -> str:
    images = {
        str(part["content-id"]).strip().strip("<>"): (part.get_content_type(), octets_of(part))
        for part in inline
    }
    # The base makes links ask for a new tab, which the sandbox does not give: a click leads nowhere.
    return with_images(disarmed(markup), images) + '<base target="_blank">'
