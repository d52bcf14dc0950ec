"""Whose key it is, how often it may ask, for whom it sends and where its mail goes: one for all doors.

The HTTP API and the SMTP door ask the same questions, and where Redis is the broker they count together: who
guesses keys at the one is shut out of the other, and a key's rate is that of both (AK1 to AK5).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TypeVar

from limits import RateLimitItem, parse
from limits.strategies import SlidingWindowCounterRateLimiter

from mailer import keys
from mailer.counts import Counts, place
from mailer.message import Message
from mailer.origin import SIMULATOR, TEST, Origin
from mailer.services import Services
from mailer.store.keys import KeyRow
from mailer.transports.simulator import simulates

WRONG_KEYS = parse("30/minute")
"""From one address. Then it is not even looked whether a key is right."""
MAX_TOKEN = 200
"""Characters that are looked at."""
KNOWN_SECONDS = 0.5
"""How long a key that was good is not looked up again, and a revoked one still opens the door; and an address
that may try is not counted anew.
"""
_MOST_KNOWN = 1_000
_Value = TypeVar("_Value")


class NotAdmitted(Exception):
    """The caller has no key that opens this door."""


class WrongKey(NotAdmitted):
    """The key is wrong, unknown, revoked or over."""


class TooManyWrongKeys(NotAdmitted):
    """So many came from this address that no further one is looked at for a minute."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Whether a key may ask now; how many more of how many requests, and in how many seconds more of them."""

    granted: bool
    amount: int
    left: int
    seconds: float


class Admission:
    """The counts of one application. Its calls ask the store and, where that is the broker, Redis."""

    def __init__(self, services: Services) -> None:
        url = services.settings.broker_url
        self._services = services
        self.rate: RateLimitItem = parse(services.settings.api_rate)
        self.requests = Counts(url, "api.limits_in_memory", SlidingWindowCounterRateLimiter)
        self.failures = Counts(url, "api.limits_in_memory")
        self._known: dict[str, tuple[float, KeyRow]] = {}
        self._may_try: dict[str, float] = {}
        self._allowances: dict[str, tuple[float, Allowance]] = {}

    def identify(self, token: str, ip: str | None) -> KeyRow:
        """Whose key this is. Raises TooManyWrongKeys, WrongKey or StoreError."""
        from_here = place(ip)
        if self._is_shut_out(from_here):
            raise TooManyWrongKeys
        found = self._whose(token[:MAX_TOKEN])
        if found is None:
            self.failures.hit(WRONG_KEYS, "api.wrong", from_here)
            self._may_try.pop(from_here, None)
            raise WrongKey
        return found

    def _is_shut_out(self, from_here: str) -> bool:
        now = time.monotonic()
        if now < self._may_try.get(from_here, 0.0):
            return False
        if not self.failures.test(WRONG_KEYS, "api.wrong", from_here):
            return True
        _room_in(self._may_try)[from_here] = now + KNOWN_SECONDS
        return False

    def _whose(self, token: str) -> KeyRow | None:
        hashed, now = keys.digest(token), time.monotonic()
        until, known = self._known.get(hashed, (0.0, None))
        if known is not None and now < until and known.is_good(self._services.now()):
            return known
        found = keys.who(self._services, token)
        if found is not None:
            _room_in(self._known)[hashed] = (now + KNOWN_SECONDS, found)
        return found

    def count(self, key: KeyRow) -> Allowance:
        """Count one request of this key.

        How many more it may make was asked at most `KNOWN_SECONDS` ago; what this process granted since is
        taken off.
        """
        granted, now = self.requests.hit(self.rate, "api", key.id), time.monotonic()
        asked_at, known = self._allowances.get(key.id, (0.0, None))
        if granted and known is not None and known.left and now - asked_at < KNOWN_SECONDS:
            known = replace(known, left=known.left - 1)
        else:
            left, seconds = self.requests.left(self.rate, "api", key.id)
            known, asked_at = Allowance(granted, self.rate.amount, left if granted else 0, seconds), now
        _room_in(self._allowances)[key.id] = (asked_at, known)
        return known


def _room_in(known: dict[str, _Value]) -> dict[str, _Value]:
    if len(known) >= _MOST_KNOWN:
        known.clear()
    return known


def may_send_for(key: KeyRow, message: Message) -> bool:
    """Whether the message's sender is of a domain that the key is good for."""
    return not key.domains or message.sender.domain in key.domains


def origin_of(services: Services, message: Message, key: KeyRow, fingerprint: str | None = None) -> Origin:
    """Where a message goes that this key asked for. Raises InvalidMessage."""
    recipients = [address.addr_spec for address, _kind in message.envelope()]
    if simulates(recipients, services.settings.simulator_domain):
        return Origin(key.project, SIMULATOR, fingerprint)
    return Origin(key.project, TEST if key.is_test else None, fingerprint)
