"""Header text and bodies as 7-bit lines: encoded words, folding, quoted-printable, base64.

Our own because a mail's bytes must be the same in every attempt and on every Python, and because the
standard library's assembly costs more than everything else in a send together.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from urllib.parse import quote

from mailer.address import Address, quoted

LINE = 78  # RFC 5322 section 2.1.1: where a line should end
_WORD_LINE = 76  # RFC 2047 section 2: where a line with an encoded word must end
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")  # a phrase that needs no quotes
_FILENAME_CHUNK = 60


def unstructured(name: str, text: str) -> str:
    """A header such as Subject, folded. Anything but plain ASCII becomes encoded words (MF11)."""
    words = text.split(" ")
    plain = text.isascii() and text.isprintable() and "=?" not in text and "" not in words
    if plain and max(map(len, words)) < LINE - len(name) - 2:
        return _folded(f"{name}:", words)
    return f"{name}: {encoded_words(text, len(name) + 2)}"


def custom(name: str, text: str) -> str:
    """A caller's header: plain ASCII stays as it is, token for token, since its grammar is not ours."""
    if text.isascii() and "" not in text.split(" "):
        return _folded(f"{name}:", text.split(" "))
    return unstructured(name, text)


def address_list(name: str, addresses: Sequence[Address]) -> str:
    """A header of addresses, one on each line where several do not fit (MF15)."""
    lines = [f"{name}:"]
    for n, address in enumerate(addresses):
        text = _mailbox(address, len(name) + 2) + ("," if n < len(addresses) - 1 else "")
        first_line = text.split("\r\n", 1)[0]
        if lines[-1] != f"{name}:" and len(lines[-1].rsplit("\r\n", 1)[-1]) + len(first_line) + 1 > LINE:
            lines.append("")
        lines[-1] += f" {text}"
    return "\r\n".join(lines)


def encoded_words(text: str, column: int) -> str:
    """``text`` as RFC 2047 words of at most 75 characters, never split inside a character."""
    words, chunk, room = [], bytearray(), _room(column)
    for character in text:
        octets = character.encode()
        if len(chunk) + len(octets) > room:
            words.append(bytes(chunk))
            chunk, room = bytearray(), _room(1)
        chunk += octets
    words.append(bytes(chunk))
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(word).decode()}?=" for word in words)


def _room(column: int) -> int:
    """Octets that fit an encoded word which starts at ``column``."""
    return max((min(75, _WORD_LINE - column) - len("=?utf-8?b??=")) // 4 * 3, 6)


def _folded(start: str, words: Sequence[str]) -> str:
    lines = [start]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > LINE and lines[-1] != start:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines)


def _mailbox(address: Address, column: int) -> str:
    if not address.name:
        return address.addr_spec
    name = address.name
    if not name.isascii() or "=?" in name or len(name) > 60:
        # The address goes on a line of its own: after encoded words there may be no room for it.
        return f"{encoded_words(name, column)}\r\n <{address.addr_spec}>"
    plain = _ATOMS.fullmatch(name) and "" not in name.split(" ")
    shown = name if plain else quoted(name)
    gap = "\r\n " if len(shown) + len(address.addr_spec) > LINE - column - 4 else " "
    return f"{shown}{gap}<{address.addr_spec}>"


def disposition(kind: str, filename: str) -> str:
    """Content-Disposition with the file's name, by RFC 2183 and, beyond ASCII or long, RFC 2231 (MF12)."""
    if filename.isascii() and len(filename) <= _FILENAME_CHUNK:
        return f"Content-Disposition: {kind};\r\n filename={quoted(filename)}"
    escaped = "utf-8''" + quote(filename, safe="")
    if len(escaped) <= _FILENAME_CHUNK:
        return f"Content-Disposition: {kind};\r\n filename*={escaped}"
    pieces = re.findall(rf"(?:%..|[^%]){{1,{_FILENAME_CHUNK // 3}}}", escaped)
    numbered = ";\r\n ".join(f"filename*{n}*={piece}" for n, piece in enumerate(pieces))
    return f"Content-Disposition: {kind};\r\n {numbered}"


def crlf(text: str) -> str:
    """Every line end as CRLF (MF4)."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def text_body(text: str) -> tuple[str, bytes]:
    """The transfer encoding and the encoded lines, without the last line end, of a text (MF3)."""
    octets = crlf(text).encode()
    foreign = len(octets.translate(None, _ASCII))
    if foreign * 6 > len(octets):
        return "base64", base64_body(octets)
    # The line end added here tells b2a_qp to end its soft breaks in CRLF; it goes again afterwards.
    return "quoted-printable", binascii.b2a_qp(octets + b"\r\n", istext=True)[:-2]


_ASCII = bytes(range(128))


def base64_body(content: bytes) -> bytes:
    """Base64 in lines of 76, without the last line end."""
    return base64.encodebytes(content).replace(b"\n", b"\r\n")[:-2]
