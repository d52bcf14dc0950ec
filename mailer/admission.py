"""Whose key it is, how often it may ask, for whom it sends and where its mail goes: one for all doors.

The HTTP API and the SMTP door ask the same questions, and where Redis is the broker they count together: who
guesses keys at the one is shut out of the other, and a key's rate is that of both (AK1 to AK5).
"""

from __future__ import annotations

from dataclasses import dataclass

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

    def identify(self, token: str, ip: str | None) -> KeyRow:
        """Whose key this is. Raises TooManyWrongKeys, WrongKey or StoreError."""
        from_here = place(ip)
        if not self.failures.test(WRONG_KEYS, "api.wrong", from_here):
            raise TooManyWrongKeys
        found = keys.who(self._services, token[:MAX_TOKEN])
        if found is None:
            self.failures.hit(WRONG_KEYS, "api.wrong", from_here)
            raise WrongKey
        return found

    def count(self, key: KeyRow) -> Allowance:
        """Count one request of this key."""
        granted = self.requests.hit(self.rate, "api", key.id)
        left, seconds = self.requests.left(self.rate, "api", key.id)
        return Allowance(granted, self.rate.amount, left if granted else 0, seconds)


def may_send_for(key: KeyRow, message: Message) -> bool:
    """Whether the message's sender is of a domain that the key is good for."""
    return not key.domains or message.sender.domain in key.domains


def origin_of(services: Services, message: Message, key: KeyRow, fingerprint: str | None = None) -> Origin:
    """Where a message goes that this key asked for. Raises InvalidMessage."""
    recipients = [address.addr_spec for address, _kind in message.envelope()]
    if simulates(recipients, services.settings.simulator_domain):
        return Origin(key.project, SIMULATOR, fingerprint)
    return Origin(key.project, TEST if key.is_test else None, fingerprint)
