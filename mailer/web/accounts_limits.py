"""How often who may ask: per account, per IP address and in all, counted for unknown accounts too (AU11).

Two kinds of answer. Too many requests from one place get 429, which depends on that place only. Too many
mails to one address get the usual answer and no mail, so nobody learns whether the address is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import time
import unicodedata
from collections.abc import Mapping
from typing import Any

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import MovingWindowRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

from mailer.address import Address
from mailer.broker import is_redis
from mailer.telemetry import log

DEFAULTS = {
    "login.account": "10/15 minutes",
    "login.device": "20/15 minutes",
    "login.ip": "40/minute",
    "login.all": "1200/minute",
    "ask.ip": "40/minute",
    "ask.all": "600/minute",
    "redeem.ip": "60/minute",
    "redeem.all": "1200/minute",
    "mail.verify": "5/hour",
    "mail.reset": "3/hour",
    "mail.exists": "1/hour",
}
"""``ACCOUNTS_LIMITS`` in the Flask configuration changes some of them, ``RATELIMIT_ENABLED = False`` all."""

AWAY_SECONDS = 30.0
"""How long a Redis that did not answer is left alone; this process counts by itself meanwhile."""


class AccountLimits:
    """Counts in Redis where that is the broker, so that all web processes count together; else in here."""

    def __init__(self, broker_url: str, changed: Mapping[str, str], enabled: bool = True) -> None:
        rates = DEFAULTS | dict(changed)
        self._items: dict[str, RateLimitItem] = {name: parse(rate) for name, rate in rates.items()}
        self._shared = MovingWindowRateLimiter(_storage(broker_url))
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._own_until = 0.0
        self._enabled = enabled

    def may(self, deed: str, ip: str | None) -> bool:
        """Count a ``login``, ``ask`` or ``redeem`` from this place; False if there were too many."""
        # Both are counted, also when the first says no.
        return all([self._hit(f"{deed}.ip", _place(ip)), self._hit(f"{deed}.all", "")])

    def may_try(self, email_key: str, known_device: bool) -> bool:
        """Count a password for this account. A browser that was in before counts by itself, so a stranger
        who uses up the others' tries does not lock its owner out."""
        return self._hit("login.device" if known_device else "login.account", email_key)

    def forget_tries(self, email_key: str, known_device: bool) -> None:
        """The right password: the count starts afresh."""
        name = "login.device" if known_device else "login.account"
        for limiter in (self._shared, self._own):
            with contextlib.suppress(Exception):  # a Redis that is away forgets by itself
                limiter.clear(self._items[name], name, _digest(email_key))

    def may_mail(self, kind: str, address: Address) -> bool:
        """Count a ``verify``, ``reset`` or ``exists`` mail to this address; False: send none."""
        return self._hit(f"mail.{kind}", mailbox(address))

    def _hit(self, name: str, key: str) -> bool:
        if not self._enabled:
            return True
        item, key = self._items[name], _digest(key)
        if time.monotonic() >= self._own_until:
            try:
                return self._shared.hit(item, name, key)
            except Exception as exc:  # whatever Redis does, sign-up works and is not left unchecked
                log.warning("accounts.limits_in_memory", error=type(exc).__name__)
                self._own_until = time.monotonic() + AWAY_SECONDS
        return self._own.hit(item, name, key)


def mailbox(address: Address) -> str:
    """The mailbox that an address most likely ends in: spellings with a tag or other dots are the same."""
    local = unicodedata.normalize("NFKC", address.local_part).casefold()
    return local.partition("+")[0].replace(".", "") + "@" + address.domain


def _storage(broker_url: str) -> Storage:
    if not is_redis(broker_url):
        return MemoryStorage()
    url = broker_url.replace("valkey", "redis", 1)
    # One short try: a person waits for the answer.
    once: Any = Retry(NoBackoff(), 0)
    return RedisStorage(url, wrap_exceptions=True, socket_timeout=0.2, socket_connect_timeout=0.2, retry=once)


def _place(ip: str | None) -> str:
    """One customer's place: an IPv6 network of 64 bits belongs to one, a single IPv4 address too."""
    try:
        found = ipaddress.ip_address(ip or "")
    except ValueError:
        return "unknown"
    return str(found) if found.version == 4 else str(ipaddress.ip_network(f"{found}/64", strict=False))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
