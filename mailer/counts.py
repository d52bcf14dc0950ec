"""Counting deeds in spans of time: in Redis where that is the broker, so that web processes count together.

Whatever Redis does, pages work and are not left unchecked: while it is away each process counts by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import time
from collections.abc import Callable
from typing import Any, TypeVar

from limits import RateLimitItem
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import MovingWindowRateLimiter, RateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

from mailer.broker import is_redis
from mailer.telemetry import log

AWAY_SECONDS = 30.0
"""How long a Redis that did not answer is left alone; this process counts by itself meanwhile."""

_Answer = TypeVar("_Answer")


class Counts:
    """A limiter of the ``limits`` package that outlives its storage. Safe to use from several threads."""

    def __init__(
        self, broker_url: str, event: str, strategy: type[RateLimiter] = MovingWindowRateLimiter
    ) -> None:
        """``event`` names the log line that says that this process counts by itself for a while."""
        self._shared, self._own = strategy(_storage(broker_url)), strategy(MemoryStorage())
        self._event, self._own_until = event, 0.0

    def hit(self, item: RateLimitItem, name: str, key: str) -> bool:
        """Count one; False if there were too many."""
        return self._ask(lambda limiter: limiter.hit(item, name, digest(key)))

    def test(self, item: RateLimitItem, name: str, key: str) -> bool:
        """Whether one more would be counted; this does not."""
        return self._ask(lambda limiter: limiter.test(item, name, digest(key)))

    def left(self, item: RateLimitItem, name: str, key: str) -> tuple[int, float]:
        """How many more may come, and in how many seconds more of them."""
        stats = self._ask(lambda limiter: limiter.get_window_stats(item, name, digest(key)))
        return max(stats.remaining, 0), max(stats.reset_time - time.time(), 0.0)

    def clear(self, item: RateLimitItem, name: str, key: str) -> None:
        """Begin afresh."""
        for limiter in (self._shared, self._own):
            with contextlib.suppress(Exception):  # a Redis that is away forgets by itself
                limiter.clear(item, name, digest(key))

    def _ask(self, question: Callable[[RateLimiter], _Answer]) -> _Answer:
        if time.monotonic() >= self._own_until:
            try:
                return question(self._shared)
            except Exception as exc:
                log.warning(self._event, error=type(exc).__name__)
                self._own_until = time.monotonic() + AWAY_SECONDS
        return question(self._own)


def place(ip: str | None) -> str:
    """One customer's place: an IPv6 network of 64 bits belongs to one, a single IPv4 address too."""
    try:
        found = ipaddress.ip_address(ip or "")
    except ValueError:
        return "unknown"
    return str(found) if found.version == 4 else str(ipaddress.ip_network(f"{found}/64", strict=False))


def digest(key: str) -> str:
    """What stands for a key in the storage."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _storage(broker_url: str) -> Storage:
    if not is_redis(broker_url):
        return MemoryStorage()
    url = broker_url.replace("valkey", "redis", 1)
    # One short try: a person waits for the answer.
    once: Any = Retry(NoBackoff(), 0)
    return RedisStorage(url, wrap_exceptions=True, socket_timeout=0.2, socket_connect_timeout=0.2, retry=once)
