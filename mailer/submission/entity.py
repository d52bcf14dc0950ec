"""A mail taken apart strictly: what two readers could read differently is refused, and nothing is repaired.

The standard library's parser repairs what it can and writes attached mails out anew, so it is not used: here
every leaf keeps its octets. Each level is searched once, and levels and parts are limited.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message as Fields

from mailer.errors import InvalidMessage
from mailer.reading import codec_of

FIELD = "message"
MAX_DEPTH = 8
MAX_PARTS = 200
MAX_LINE = 998
"""Octets, without the line end: RFC 5322 section 2.1.1."""
MAX_HEAD_LINES = 2_000
MAX_VALUE = 32_000
"""Octets of one header, folds included; a list of a thousand addresses fits."""
MAX_PARAMETERS_VALUE = 4_000
"""Octets of a header with parameters: reading those takes quadratic time."""
MAX_WORDS_VALUE = 8_000
"""Octets of a header with encoded words, for the same reason."""

_FIELD = re.compile(rb"([!-9;-~]{1,76}):(.*)", re.DOTALL)
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_BLANKS = re.compile(rb"[ \t\r\n]+")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 section 5.1.1
_PLAIN_ENCODINGS = ("7bit", "8bit", "binary")


class Unsupported(InvalidMessage):
    """It is a mail, and one that cannot be sent on as it is (RFC 3463, X.6.1)."""


@dataclass(frozen=True, slots=True)
class Entity:
    """A mail or a part of one (RFC 2045 section 2.4): its header fields in order, and its body as it came.

    ``place`` is where it stands, such as "2.1"; "1" for the mail itself.
    """

    place: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def one(self, name: str) -> str | None:
        """The value of a field that may stand there once, or None. Raises InvalidMessage."""
        found = [value for known, value in self.fields if known.lower() == name]
        if len(found) > 1:
            raise InvalidMessage(FIELD, f"has more than one {name.title()} header; give one")
        return found[0] if found else None

    def with_parameters(self, name: str) -> Fields:
        """A structured field, for the standard library to read its parameters (RFC 2045, RFC 2231)."""
        value, fields = self.one(name), Fields()
        if value is not None:
            if len(value) > MAX_PARAMETERS_VALUE:
                raise InvalidMessage(FIELD, f"has too long a {name.title()} header in part {self.place}")
            fields[name] = value
            given = [parameter.lower() for parameter, _value in fields.get_params([], header=name)]
            if any(given.count(parameter) > 1 for parameter in ("boundary", "charset")):
                raise InvalidMessage(FIELD, f"has a parameter twice in part {self.place}")
        return fields

    @property
    def kind(self) -> str:
        """Its media type, in lower case; text/plain where none is named (RFC 2045 section 5.2)."""
        return self.with_parameters("content-type").get_content_type()

    @property
    def charset(self) -> str | None:
        """As the header names it."""
        return self.with_parameters("content-type").get_content_charset()

    @property
    def filename(self) -> str:
        """Decoded, "" where there is none. Raises InvalidMessage."""
        both = Fields()
        for name in ("content-disposition", "content-type"):
            if (value := self.with_parameters(name).get(name)) is not None:
                both[name] = value
        return words(both.get_filename() or "")

    @property
    def disposition(self) -> str:
        """ "attachment", "inline", another word, or "" where none is named."""
        return self.with_parameters("content-disposition").get_content_disposition() or ""

    @property
    def encoding(self) -> str:
        """Of its body, in lower case. Raises Unsupported for one that is not of RFC 2045 section 6.1."""
        encoding = (self.one("content-transfer-encoding") or "7bit").lower()
        if encoding not in (*_PLAIN_ENCODINGS, "quoted-printable", "base64"):
            raise Unsupported(FIELD, f"has a transfer encoding that is not known in part {self.place}")
        return encoding

    def content(self) -> bytes:
        """Its octets, decoded. Raises InvalidMessage for what is not encoded as it says."""
        encoding = self.encoding
        if encoding == "quoted-printable":
            return binascii.a2b_qp(self.body)
        if encoding != "base64":
            return self.body
        try:
            return base64.b64decode(_BLANKS.sub(b"", self.body), validate=True)
        except (binascii.Error, ValueError):
            raise InvalidMessage(FIELD, f"is not the base64 it says it is in part {self.place}") from None

    def text(self) -> str:
        """Its text, every line ended by LF. Raises InvalidMessage for octets not of its character set."""
        octets, charset = self.content(), self.charset
        # Who names none, or ASCII, and uses other octets, means UTF-8 wherever that is what it is.
        charset = "utf-8" if charset in (None, "us-ascii", "ascii") else charset
        try:
            text = octets.decode(codec_of(charset or "utf-8"))
        except (LookupError, ValueError):
            raise InvalidMessage(
                FIELD, f"is not in the character set it names in part {self.place}"
            ) from None
        return text.replace("\r\n", "\n")

    def children(self, depth: int = 0) -> list[Entity]:
        """The parts of a multipart. Raises InvalidMessage if it has no boundary, or no end."""
        if depth >= MAX_DEPTH:
            raise InvalidMessage(FIELD, f"has parts in each other more than {MAX_DEPTH} deep")
        if self.encoding not in _PLAIN_ENCODINGS:  # RFC 2045 section 6.4: only its parts may be
            raise InvalidMessage(FIELD, f"is a multipart that is encoded in part {self.place}")
        boundary = str(self.with_parameters("content-type").get_boundary() or "")
        if _BOUNDARY.fullmatch(boundary) is None:
            raise InvalidMessage(FIELD, f"has no good boundary in part {self.place}")
        bodies = list(_between(self.body, b"--" + boundary.encode(), self.place))
        prefix = "" if self.place == "1" and depth == 0 else f"{self.place}."
        return [entity(body, f"{prefix}{number}") for number, body in enumerate(bodies, 1)]


def mail(raw: bytes) -> Entity:
    """A whole mail. Raises InvalidMessage."""
    found = _BARE.search(raw)
    if found is not None:
        what = "a NUL" if found[0] == b"\0" else "a bare CR or LF; end lines with CR LF"
        raise InvalidMessage(FIELD, f"holds {what}")
    if max(map(len, raw.split(b"\r\n"))) > MAX_LINE:
        raise InvalidMessage(FIELD, f"has a line of more than {MAX_LINE} octets; encode it")
    return entity(raw, "1")


def entity(raw: bytes, place: str) -> Entity:
    """A header, an empty line, a body. Raises InvalidMessage."""
    if raw.startswith(b"\r\n"):
        return Entity(place, (), raw[2:])
    head, _, body = raw.partition(b"\r\n\r\n")
    return Entity(place, tuple(_fields(head.removesuffix(b"\r\n"), place)), body)


def words(value: str) -> str:
    """A header text with its encoded words decoded (RFC 2047). Raises InvalidMessage if one cannot be."""
    if "=?" not in value:
        return value
    if len(value) > MAX_WORDS_VALUE:
        raise InvalidMessage(FIELD, f"has an encoded header of more than {MAX_WORDS_VALUE:,} octets")
    try:
        return str(make_header(decode_header(value)))
    except (LookupError, ValueError, HeaderParseError):
        raise InvalidMessage(FIELD, "has a header with an encoded word that cannot be decoded") from None


def _fields(head: bytes, place: str) -> Iterator[tuple[str, str]]:
    if not head:
        return
    if head.count(b"\r\n") > MAX_HEAD_LINES:
        raise InvalidMessage(FIELD, f"has a header of more than {MAX_HEAD_LINES:,} lines in part {place}")
    for line in re.split(rb"\r\n(?![ \t])", head):
        found = _FIELD.fullmatch(line)
        if found is None or len(line) > MAX_VALUE:
            raise InvalidMessage(FIELD, f"has a line that is no header in the header of part {place}")
        try:
            value = found[2].replace(b"\r\n", b"").replace(b"\t", b" ").decode()
        except UnicodeDecodeError:
            raise InvalidMessage(FIELD, f"has a header that is not UTF-8 in part {place}") from None
        yield found[1].decode(), value.strip(" ")


def _between(body: bytes, delimiter: bytes, place: str) -> Iterator[bytes]:
    """What stands between the delimiters, up to the one that closes (RFC 2046 section 5.1.1)."""
    lines = re.compile(rb"(?:\A|\r\n)" + re.escape(delimiter) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    start, number = None, 0
    for found in lines.finditer(body):
        if start is not None:
            number += 1
            if number > MAX_PARTS:
                raise InvalidMessage(FIELD, f"has more than {MAX_PARTS} parts")
            yield body[start : max(start, found.start())]
        if found[1]:
            return
        start = found.end() + 2
    raise InvalidMessage(FIELD, f"has no closing boundary in part {place}")
