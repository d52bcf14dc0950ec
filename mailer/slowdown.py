"""Slowing down for a domain that asks for it, and getting faster again slowly, for all workers alike (SR6).

A busy mailbox provider says 421, or 4xx with 4.7.x: too much from you. What may go there is halved then, and
halved again if it goes on saying so. One halving is over after each minute without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from mailer.errors import StoreError
from mailer.replies import rule_for
from mailer.store import Store
from mailer.store import slow_domains as rows
from mailer.telemetry import log
from mailer.transports import Result
from mailer.transports.ways import Way, domain_of

RECOVERY, PAUSE = timedelta(seconds=60), timedelta(seconds=10)
"""A halving is over after so long; pleas within so long are one."""
MOST_HALVINGS = 8
KNOWN_SECONDS = 0.8
BASE_RATE, BASE_CONCURRENCY = 8.0, 8
"""What is halved where the transport has no limit for each domain: mails a second, mails at a time."""


class Slowdowns:
    """Which domains are slowed down, by transport. Nothing here raises. Safe to use from several threads."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store, self._now = store, now
        self._known: dict[tuple[str, str], int] = {}
        self._read_at = float("-inf")

    def halvings(self, way: Way) -> dict[str, int]:
        """How often what may go to a domain by this transport is halved, at most a second ago."""
        if time.monotonic() - self._read_at > KNOWN_SECONDS:
            self._read_at = time.monotonic()
            try:
                with self._store.read() as connection:
                    self._known = rows.slow(connection, self._now(), RECOVERY)
            except StoreError:  # then nothing can be sent either
                pass
        known = self._known
        return (
            {domain: number for (name, domain), number in known.items() if name == way.name} if known else {}
        )

    def learn(self, way: Way, results: Mapping[str, Result]) -> None:
        """Slow down for the domains whose servers ask for it."""
        for domain in {domain_of(recipient) for recipient, result in results.items() if is_plea(result)}:
            if self.halvings(way).get(domain, 0) < MOST_HALVINGS:
                self._halve(way, domain)

    def _halve(self, way: Way, domain: str) -> None:
        try:
            with self._store.begin() as connection:
                now = self._now()
                rows.forget(connection, now, RECOVERY)
                halvings = rows.halve(connection, way.name, domain, now, RECOVERY, PAUSE)
        except StoreError:  # it will be asked for again
            return
        if halvings is not None:
            self._read_at = float("-inf")
            log.warning("transport.slows_down", transport=way.name, domain=domain, halvings=halvings)


def is_plea(result: Result) -> bool:
    """Whether a recipient's server asked for less (4.7.x of RFC 3463, or 421), and not just goes down."""
    return result.reply is not None and result.reply.code >= 400 and rule_for(result).slows
