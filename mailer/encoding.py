"""Header text and bodies as 7-bit lines: encoded words, folding, quoted-printable, base64.

Our own because a mail's bytes must be the same in every attempt and on every Python, and because the
standard library's assembly costs more than everything else in a send together.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence

from mailer.address import Address, quoted

LINE = 76  # characters of a header line where it can be folded: RFC 2047 section 2; RFC 5322 has 78
_WORD = 75  # characters of an encoded word: RFC 2047 section 2
_WRAPPING = len("=?utf-8?q??=")
_LEAST = _WRAPPING + 12  # one character of four octets as Q
_PARAMETER = 76  # characters of one parameter with its value on a line of its own: blank, parameter, ";"

# What may stand for itself in a Q word anywhere, also in a display name: RFC 2047 section 5 (3).
_Q_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q = [chr(octet) if octet in _Q_PLAIN else f"={octet:02X}" for octet in range(256)]
_Q[ord(" ")] = "_"

# RFC 8187 attr-char, a subset of what RFC 2231 section 7 allows.
_ATTRIBUTE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`|~")
_PERCENT = [chr(octet) if octet in _ATTRIBUTE else f"%{octet:02X}" for octet in range(256)]

_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")  # atoms and blanks: needs no quotes
# Names that every reader takes for the same in quotes. Backslashes, quotes and runs of blanks are not
# among them: the standard library of Python 3.11 returns those changed.
_QUOTABLE_FILENAME = re.compile(
    r"[A-Za-z0-9!#$&'()+,.;=@^_`{}~\[\]-]+(?: [A-Za-z0-9!#$&'()+,.;=@^_`{}~\[\]-]+)*"
)

_ENCODED_BLANK = re.compile(rb"=(?:20|09)\r\n")
_OVERLONG = re.compile(rb"^([^\r\n]{74,})(=(?:20|09))(?=\r\n)", re.MULTILINE)


def unstructured(name: str, text: str) -> str:
    """A header such as Subject, folded. What is not plain ASCII, or too long to fold, is encoded (MF11)."""
    words = text.split(" ")
    if _is_plain(text, words) and max(map(len, words)) <= LINE - len(name) - 2:
        return _folded(f"{name}:", words)
    return _folded(f"{name}:", encoded_words(text, len(name) + 2))


def custom(name: str, text: str) -> str:
    """A caller's header: plain ASCII stays as it is, token for token, since its grammar is not ours."""
    words = text.split(" ")
    return _folded(f"{name}:", words if _is_plain(text, words) else encoded_words(text, len(name) + 2))


def address_list(name: str, addresses: Sequence[Address]) -> str:
    """A header of addresses, names quoted or encoded as each needs (MF15)."""
    tokens: list[str] = []
    for address in addresses:
        tokens += _mailbox(address, len(name) + 2)
        tokens[-1] += ","
    tokens[-1] = tokens[-1][:-1]
    return _folded(f"{name}:", tokens)


def encoded_words(text: str, column: int = 1) -> list[str]:
    """``text`` as RFC 2047 words for lines of at most 76 characters, never split inside a character.

    The first one starts at ``column`` or at the start of a line; no line gets a header's name alone, since
    Python's own parser then takes the blank of the next line for part of the text.

    Q or B, whichever is shorter for all of it. No words for no text. Readers drop the blank between two
    words (RFC 2047 section 6.2); the parser of Python 3.11's ``email.policy.default`` keeps it in names.
    """
    room = min(max(LINE - column, _LEAST), _WORD) - _WRAPPING
    octets = text.encode()
    if sum(len(_Q[octet]) for octet in octets) <= (len(octets) + 2) // 3 * 4:
        characters = ("".join(_Q[octet] for octet in character.encode()) for character in text)
        return [f"=?utf-8?q?{piece}?=" for piece in _pieces(characters, room)]
    raw = _pieces(text, room // 4 * 3)
    return [f"=?utf-8?b?{base64.b64encode(piece.encode()).decode()}?=" for piece in raw]


def parameter(name: str, value: str) -> list[str]:
    """A parameter of a MIME header, or its pieces, each to stand on a line of its own (RFC 2231).

    Quoted where that is beyond doubt, else ``name*=UTF-8''…``; in numbered pieces where it is too long.
    """
    if _QUOTABLE_FILENAME.fullmatch(value) is not None and len(name) + len(value) + 3 <= _PARAMETER:
        return [f"{name}={quoted(value)}"]
    characters = ["".join(_PERCENT[octet] for octet in character.encode()) for character in value]
    whole = "".join(characters)
    if len(f"{name}*=UTF-8''{whole}") <= _PARAMETER:
        return [f"{name}*=UTF-8''{whole}"]
    room = _PARAMETER - len(f"{name}*99*=UTF-8''")
    pieces = _pieces(characters, room)
    pieces[0] = f"UTF-8''{pieces[0]}"
    return [f"{name}*{n}*={piece}" for n, piece in enumerate(pieces)]


def crlf(octets: bytes) -> bytes:
    """Every line end as CRLF (MF4)."""
    if b"\r" in octets:
        octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return octets.replace(b"\n", b"\r\n")


def text_body(text: str) -> tuple[str, bytes]:
    """The transfer encoding and the encoded lines, without the last line end, of a text (MF3).

    Quoted-printable or base64, whichever is shorter: lines of at most 76, no octet but 9, 10, 13 and 32 to
    126, no blank at the end of a line, no line that is a lone dot, nothing that looks like a boundary.
    """
    octets = crlf(text.encode("utf-8", "replace"))
    lines = _quoted_printable(octets)
    if len(lines) <= base64_length(len(octets)):
        return "quoted-printable", lines
    return "base64", base64_body(octets)


def _quoted_printable(octets: bytes) -> bytes:
    # The line end added here tells b2a_qp to end its soft breaks in CRLF; it goes again afterwards.
    lines = binascii.b2a_qp(octets + b"\r\n", istext=True)
    if _ENCODED_BLANK.search(lines) is not None:
        # b2a_qp makes room for a blank at the end of a line, not for the three octets that encode it.
        lines = _OVERLONG.sub(rb"\1=\r\n\2", lines)
    # A soft break can leave a dot on a line of its own, which a careless relay takes for the end (IN4).
    return lines.replace(b"\r\n.\r\n", b"\r\n=2E\r\n")[:-2]


def base64_body(content: bytes) -> bytes:
    """Base64 in lines of 76, without the last line end."""
    encoded = binascii.b2a_base64(content, newline=False)
    return b"\r\n".join([encoded[start : start + 76] for start in range(0, len(encoded), 76)])


def base64_length(octets: int) -> int:
    """The length of ``base64_body`` for so many octets, line ends included."""
    encoded = (octets + 2) // 3 * 4
    return encoded + max(encoded - 1, 0) // 76 * 2


def _mailbox(address: Address, column: int) -> list[str]:
    spec, name = f"<{address.addr_spec}>", address.name
    if not name:
        return [address.addr_spec]
    words = name.split(" ")
    if not _is_plain(name, words):
        return [*encoded_words(name, column), spec]
    if _PHRASE.fullmatch(name) is not None and max(map(len, words)) <= LINE - column:
        return [*words, spec]
    quotation = quoted(name)
    return [quotation, spec] if len(quotation) <= LINE - column else [*encoded_words(name, column), spec]


def _is_plain(text: str, words: Sequence[str]) -> bool:
    """Whether a reader gets it back as it is: ASCII, no ``=?``, no blank at an end or beside another."""
    return text.isascii() and text.isprintable() and "=?" not in text and "" not in words


def _folded(start: str, words: Iterable[str]) -> str:
    """The words behind ``start``, one blank apart, on lines of 76 where words allow it.

    The first line keeps its first word: some readers stumble over a header that begins with an empty line.
    """
    lines, length, fresh = [start], len(start), True
    for word in words:
        if length + 1 + len(word) > LINE and not fresh:
            lines.append("")
            length = 0
        lines[-1] += f" {word}"
        length += 1 + len(word)
        fresh = False
    return "\r\n".join(lines)


def _pieces(characters: Iterable[str], room: int) -> list[str]:
    """The characters joined to texts of at most ``room`` octets each, in order."""
    pieces: list[str] = []
    piece: list[str] = []
    used = 0
    for character in characters:
        size = len(character) if character.isascii() else len(character.encode())
        if piece and used + size > room:
            pieces.append("".join(piece))
            piece, used = [], 0
        piece.append(character)
        used += size
    return [*pieces, "".join(piece)] if piece else pieces
