"""Read header values: addresses and dates. Every function takes text of any length and is linear.

The standard library's own reader of addresses is slower than a hostile value allows, so values are cut before
they are given to it.
"""

from __future__ import annotations

import email.utils
from dataclasses import dataclass
from datetime import UTC, datetime

from mailer.reading import clean, decode_words

MAX_ADDRESS_CHARS = 32 * 1024
MAX_ADDRESSES = 1_000


@dataclass(frozen=True, slots=True)
class Party:
    """A name and an address as a header has them; either may be empty."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} <{self.address}>" if self.name and self.address else self.name or self.address


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
