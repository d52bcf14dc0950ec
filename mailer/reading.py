"""Take the bytes of a mail apart, within bounds: the one place that calls the standard library's parser.

A mail, or one that is attached to ours, may be written by a stranger. The parser is given only what it takes
in linear time: three cheap counts over the raw bytes (lines, lines that look like boundaries, containers)
decide beforehand, and every header value is cut. What is read may hold anything: whoever shows it escapes it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from email.policy import Compat32
from email.quoprimime import header_decode

MAX_HEAD_BYTES = 256 * 1024
MAX_HEADER_CHARS = 32 * 1024
MAX_PARAMETERS = 64
MAX_LINES = 500_000
MAX_BOUNDARY_LINES = 5_000
MAX_CONTAINERS = 30
MAX_WORDS_CHARS = 4 * 1024

_CONTAINER = re.compile(rb"content-type:\s*(?:multipart|message)/", re.IGNORECASE)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
# Codecs that are not character sets of mail, and of which some take quadratic time.
_NOT_CHARSETS = {"punycode", "idna", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"}
_WORD = re.compile(r"=\?([^?\s]{1,40})\?([bBqQ])\?([^?\s]{0,2000})\?=")
_BETWEEN_WORDS = re.compile(r"(\?=)\s{1,20}(?==\?)")
_FOLD = re.compile(r"(?<![\r\n])[\r\n]+(?=[ \t])")  # RFC 5322 section 2.2.3
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def parsed(raw: bytes) -> Message | None:
    """The mail, or None if it is too intricate to be taken apart. Never raises."""
    if not _is_tractable(raw):
        return None
    try:
        return _PARSER.parsebytes(raw)
    except Exception:  # whatever a stranger found that the bounds missed
        return None


def head_of(raw: bytes) -> tuple[Message, bytes]:
    """The headers alone and the beginning of the body, as far as `MAX_HEAD_BYTES` reach. Never raises."""
    head, *rest = _HEAD_END.split(raw[:MAX_HEAD_BYTES], maxsplit=1)
    try:
        return _PARSER.parsebytes(head, headersonly=True), rest[0] if rest else b""
    except Exception:  # as above
        return Message(), rest[0] if rest else b""


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


def leaves(message: Message, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Message]]:
    """Each part that holds content, with its place in the tree (``"2.1"``). An attached mail is one leaf."""
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
            yield from leaves(child, f"{prefix}{number}.", depth + 1)


def bodies(message: Message) -> tuple[Message | None, Message | None]:
    """The first plain text and the first HTML that are not attached; None where there is none."""
    found: dict[str, Message] = {}
    for _, leaf in leaves(message):
        if leaf.get_content_disposition() != "attachment":
            found.setdefault(leaf.get_content_type(), leaf)
    return found.get("text/plain"), found.get("text/html")


def octets_of(leaf: Message) -> bytes:
    """What a part holds, decoded; of an attached mail, its bytes. Never raises."""
    try:
        payload = leaf.get_payload()
        if isinstance(payload, list):
            return b"\n".join(child.as_bytes() for child in payload if isinstance(child, Message))
        decoded = leaf.get_payload(decode=True)
    except Exception:  # a broken encoding, or what cannot be written out again
        return b""
    return decoded if isinstance(decoded, bytes) else b""


def text_of(leaf: Message) -> str:
    """What a part says, its lines ended by LF."""
    charset = str(leaf.get_content_charset() or "utf-8")
    return decode_text(octets_of(leaf), charset).replace("\r\n", "\n")


def decode_text(data: bytes, charset: str) -> str:
    """Decode bytes of a named character set; an unknown or unsuitable name is read as UTF-8."""
    try:
        return data.decode(codec_of(charset), "replace")
    except (LookupError, ValueError):
        return data.decode("utf-8", "replace")


def codec_of(charset: str) -> str:
    """Python's name for a character set. Raises LookupError, also for codecs that are none, or ValueError."""
    name = codecs.lookup(charset).name
    if name in _NOT_CHARSETS:
        raise LookupError(name)
    return name


def clean(value: str) -> str:
    """Unfold a header value and drop control characters, so that it is one harmless line."""
    return _CONTROLS.sub("", re.sub(r"[\r\n\t]+", " ", _FOLD.sub("", value))).strip()


def decode_words(value: str) -> str:
    """Decode the encoded words of a value (RFC 2047); a word that cannot be decoded stays as it is."""
    return clean(_WORD.sub(_decode_word, _BETWEEN_WORDS.sub(r"\1", value[:MAX_WORDS_CHARS])))


def _decode_word(match: re.Match[str]) -> str:
    charset, encoding, text = match.groups()
    try:
        if encoding in "bB":
            data = base64.b64decode(text + "=" * (-len(text) % 4))
        else:
            data = header_decode(text).encode("latin-1")
        return data.decode("utf-8" if charset.lower() in ("idna", "punycode") else charset, "replace")
    except (LookupError, ValueError, binascii.Error):
        return match[0]
