"""Take a received mail apart, within bounds, without ever raising.

Mail is written by strangers, so `mailer.reading` parses only what is within bounds, and the number of parts
is limited. A mail beyond the bounds is kept whole and shown as source, with ``complete`` false, instead of
being half understood.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from email.message import Message

from mailer.reading import clean, decode_words, head_of, leaves, octets_of, parsed, text_of

MAX_PARTS = 1_000


@dataclass(frozen=True, slots=True)
class Part:
    """One attachment or inline image. ``part_id`` is its place in the tree, such as ``"2.1"``.

    ``filename`` is what the sender wrote, decoded, and may be empty or hostile: see `safe_filename`.
    """

    part_id: str
    filename: str
    content_type: str
    content_id: str
    data: bytes

    @property
    def sha256(self) -> str:
        """The SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Content:
    """A mail, taken apart. ``headers`` are undecoded but clean text, in the order of the mail.

    ``html`` and ``text`` are empty when the mail has no such part. ``complete`` is false when the mail was
    too intricate to be taken apart; then ``text`` holds the beginning of the raw body.
    """

    headers: tuple[tuple[str, str], ...]
    text: str
    html: str
    attachments: tuple[Part, ...]
    inline: tuple[Part, ...]
    complete: bool

    def header(self, name: str) -> str:
        """Return the first header of that name, undecoded, or ``""``."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def part(self, part_id: str) -> Part | None:
        """Return the attachment or inline part with this id, or ``None``."""
        return next((part for part in (*self.attachments, *self.inline) if part.part_id == part_id), None)


def parse(raw: bytes) -> Content:
    """Return the mail in parts. Garbage gives an empty or incomplete `Content`, never an exception."""
    message = parsed(raw)
    if message is None:
        return _heads_only(raw)
    try:
        return _assemble(message)
    except Exception:  # whatever a stranger found that the bounds missed must not stop the server
        return _heads_only(raw)


def safe_filename(part: Part) -> str:
    """Return a name fit for a download: no path, no control or direction characters, never empty."""
    name = re.split(r"[/\\]", part.filename)[-1]
    name = "".join(char for char in name if unicodedata.category(char)[0] != "C")
    name = re.sub(r'[<>:"|?*]', "_", name).strip(" .")
    return name[-150:] or f"part-{part.part_id}.bin"


def _heads_only(raw: bytes) -> Content:
    """Return headers and the beginning of the raw body: all that is shown of a mail beyond the bounds."""
    message, rest = head_of(raw)
    return Content(_headers_of(message), rest.decode("utf-8", "replace"), "", (), (), complete=False)


def _headers_of(message: Message) -> tuple[tuple[str, str], ...]:
    return tuple((name, clean(str(value))) for name, value in message.raw_items())


def _assemble(message: Message) -> Content:
    texts: list[str] = []
    htmls: list[str] = []
    attachments: list[Part] = []
    inline: list[Part] = []
    count = 0
    for part_id, leaf in leaves(message):
        count += 1
        if count > MAX_PARTS:
            break
        kind = leaf.get_content_type()
        if kind in ("text/plain", "text/html") and not _is_file(leaf):
            (htmls if kind == "text/html" else texts).append(text_of(leaf))
        else:
            part = _part_of(part_id, kind, leaf)
            (inline if _is_inline(leaf, part) else attachments).append(part)
    return Content(
        headers=_headers_of(message),
        text="\n".join(texts),
        html="\n".join(htmls),
        attachments=tuple(attachments),
        inline=tuple(inline),
        complete=count <= MAX_PARTS,
    )


def _is_file(leaf: Message) -> bool:
    return leaf.get_content_disposition() == "attachment" or bool(leaf.get_filename())


def _is_inline(leaf: Message, part: Part) -> bool:
    disposition = leaf.get_content_disposition()
    return disposition != "attachment" and (disposition == "inline" or bool(part.content_id))


def _part_of(part_id: str, kind: str, leaf: Message) -> Part:
    filename = clean(decode_words(str(leaf.get_filename() or "")))
    if not filename and leaf.get_content_maintype() == "message":
        filename = "message.eml"
    return Part(
        part_id=part_id,
        filename=filename[:255],
        content_type=clean(kind)[:255],
        content_id=clean(str(leaf.get("Content-ID", ""))).strip("<> ")[:255],
        data=octets_of(leaf),
    )
