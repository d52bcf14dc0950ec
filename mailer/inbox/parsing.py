"""Take a received mail apart, within bounds, without ever raising.

Mail is written by strangers. The standard library's parser is given only what it takes in linear time:
three cheap counts over the raw bytes (lines, lines that look like boundaries, nested containers) decide
beforehand, every header value is cut, and the number of parts is limited. A mail beyond the bounds is kept
whole and shown as source, with ``complete`` false, instead of being half understood.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import Compat32

from mailer.inbox.headers import clean, decode_words

MAX_HEAD_BYTES = 256 * 1024
MAX_HEADER_CHARS = 32 * 1024
MAX_PARAMETERS = 64
MAX_PARTS = 1_000
MAX_LINES = 500_000
MAX_BOUNDARY_LINES = 5_000
MAX_CONTAINERS = 30

_CONTAINER = re.compile(rb"multipart/|message/", re.IGNORECASE)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
# Codecs that are not character sets of mail, and of which some take quadratic time.
_NOT_CHARSETS = {"punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"}


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
    if not _is_tractable(raw):
        return _heads_only(raw)
    try:
        return _assemble(_PARSER.parsebytes(raw))
    except Exception:  # whatever a stranger found that the bounds missed must not stop the server
        return _heads_only(raw)


def safe_filename(part: Part) -> str:
    """Return a name fit for a download: no path, no control or direction characters, never empty."""
    name = re.split(r"[/\\]", part.filename)[-1]
    name = "".join(char for char in name if unicodedata.category(char)[0] != "C")
    name = re.sub(r'[<>:"|?*]', "_", name).strip(" .")
    return name[-150:] or f"part-{part.part_id}.bin"


class _BoundedPolicy(Compat32):
    """The parser's oldest and fastest policy, with every header decoded from UTF-8 and cut.

    Parameters are limited because the library's search for the end of a quoted one is quadratic.
    """

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        value = value[:MAX_HEADER_CHARS].encode("ascii", "surrogateescape").decode("utf-8", "replace")
        if name.lower().startswith("content-"):
            value = ";".join(value[:4096].split(";")[:MAX_PARAMETERS])
        return name, value


_PARSER = BytesParser(policy=_BoundedPolicy())


def _is_tractable(raw: bytes) -> bool:
    head_end = _HEAD_END.search(raw[: MAX_HEAD_BYTES + 4])
    return (
        (head_end is not None or len(raw) <= MAX_HEAD_BYTES)
        and raw.count(b"\n") <= MAX_LINES
        and raw.count(b"\n--") <= MAX_BOUNDARY_LINES
        and sum(1 for _ in zip(_CONTAINER.finditer(raw), range(MAX_CONTAINERS + 1), strict=False))
        <= MAX_CONTAINERS
    )


def _heads_only(raw: bytes) -> Content:
    """Return headers and the beginning of the raw body: all that is shown of a mail beyond the bounds."""
    head, *rest = _HEAD_END.split(raw[:MAX_HEAD_BYTES], maxsplit=1)
    try:
        message = _PARSER.parsebytes(head, headersonly=True)
        headers = _headers_of(message)
    except Exception:  # as in `parse`
        headers = ()
    text = rest[0].decode("utf-8", "replace") if rest else ""
    return Content(headers, text, "", (), (), complete=False)


def _headers_of(message: Message) -> tuple[tuple[str, str], ...]:
    return tuple((name, clean(str(value))) for name, value in message.raw_items())


def _assemble(message: Message) -> Content:
    texts: list[str] = []
    htmls: list[str] = []
    attachments: list[Part] = []
    inline: list[Part] = []
    count = 0
    for part_id, leaf in _leaves(message, "", 0):
        count += 1
        if count > MAX_PARTS:
            break
        kind = leaf.get_content_type()
        if kind in ("text/plain", "text/html") and not _is_file(leaf):
            (htmls if kind == "text/html" else texts).append(_text_of(leaf))
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


def _leaves(message: Message, prefix: str, depth: int) -> Iterator[tuple[str, Message]]:
    """Yield each part that holds content, with its place in the tree. An attached mail is one leaf."""
    children = message.get_payload()
    if (
        not isinstance(children, list)
        or message.get_content_maintype() != "multipart"
        or depth > MAX_CONTAINERS
    ):
        yield prefix.rstrip(".") or "1", message
        return
    for number, child in enumerate(children, 1):
        if isinstance(child, Message):
            yield from _leaves(child, f"{prefix}{number}.", depth + 1)


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
        data=_bytes_of(leaf),
    )


def _bytes_of(leaf: Message) -> bytes:
    payload = leaf.get_payload()
    if isinstance(payload, list):  # an attached mail
        return b"\n".join(child.as_bytes() for child in payload if isinstance(child, Message))
    decoded = leaf.get_payload(decode=True)
    return decoded if isinstance(decoded, bytes) else b""


def _text_of(leaf: Message) -> str:
    charset = str(leaf.get_content_charset() or "utf-8")
    return decode_text(_bytes_of(leaf), charset).replace("\r\n", "\n")


def decode_text(data: bytes, charset: str) -> str:
    """Decode bytes of a named character set; an unknown or unsuitable name is read as UTF-8."""
    try:
        name = codecs.lookup(charset).name
        if name in _NOT_CHARSETS:
            raise LookupError(name)
        return data.decode(name, "replace")
    except (LookupError, ValueError):
        return data.decode("utf-8", "replace")
