"""Read header values: addresses, encoded words, dates. Every function takes text of any length and is linear.

The standard library's own readers of encoded words and addresses are older or slower than a hostile value
allows, so values are cut before they are given to it, and words are decoded here (RFC 2047).
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.quoprimime import header_decode

MAX_ADDRESS_CHARS = 32 * 1024
MAX_ADDRESSES = 1_000
MAX_WORDS_CHARS = 4 * 1024

_WORD = re.compile(r"=\?([^?\s]{1,40})\?([bBqQ])\?([^?\s]{0,2000})\?=")
_BETWEEN_WORDS = re.compile(r"(\?=)\s{1,20}(?==\?)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Party:
    """A name and an address as a header has them; either may be empty."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} <{self.address}>" if self.name and self.address else self.name or self.address


def clean(value: str) -> str:
    """Unfold a header value and drop control characters, so that it is one harmless line."""
    return _CONTROLS.sub("", re.sub(r"[\r\n\t]+", " ", value)).strip()


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


def parse_addresses(value: str) -> tuple[Party, ...]:
    """Return the addresses of a header value, at most a thousand; what is no address is left out."""
    try:
        pairs = email.utils.getaddresses([value[:MAX_ADDRESS_CHARS]])
    except (RecursionError, ValueError, IndexError):  # nested comments without end
        return ()
    found = (Party(decode_words(name), clean(address)) for name, address in pairs[:MAX_ADDRESSES])
    return tuple(party for party in found if party.address or party.name)


def parse_date(value: str) -> datetime | None:
    """Return the instant a Date header names, in UTC, or ``None`` if it names none."""
    try:
        instant = email.utils.parsedate_to_datetime(value[:200])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
