"""A circuit breaker for each transport, shared by all workers through the store.

A transport with which no conversation comes about rests, with the reason in words that a person understands,
and longer each time in a row. When its rest is over one mail finds out; if it gets through, everything that
waits is due at once. A process reads how transports stand about once a second, and writes only when that
changes: while all is well a mail costs nothing here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from mailer.errors import StoreError
from mailer.replies import explain
from mailer.store import Store
from mailer.store import transports as rows
from mailer.store.transports import PAUSED, WORKING, TransportRow
from mailer.telemetry import log
from mailer.transports import Result
from mailer.transports.gates import PROBE_SECONDS, Standing
from mailer.transports.ways import Way

KNOWN_SECONDS = 0.8
"""For so long a process goes by what it read last."""
PATIENCE = timedelta(seconds=120)
"""A probe that says nothing for so long has lost its worker, or its server takes too long anyway."""
PAUSED_SECONDS = 300
"""What waits for a paused transport is looked at again after so long, in case nobody made it due."""


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a transport rests: ``first`` seconds, twice as long each time in a row, at most ``most``."""

    first: float
    most: float

    def seconds(self, faults: int) -> float:
        """After so many faults in a row, counted from 1."""
        return min(self.first * 2.0 ** min(faults - 1, 30), self.most)


SHORT, LONG = Rest(5, 300), Rest(15, 900)
"""After a fault that may pass by itself, and after one that somebody has to mend: log-in, certificate."""


class Breaker:
    """The `mailer.transports.gates.Gates` of an application. Safe to use from several threads."""

    def __init__(self, store: Store, now: Callable[[], datetime], at_most: Rest | None = None) -> None:
        """No rest is longer than ``at_most``: with quick retries a transport is tried again as quickly."""
        self._store, self._now, self._at_most = store, now, at_most or LONG
        self._known: dict[str, TransportRow] = {}
        self._read_at = float("-inf")

    def standing(self, way: Way) -> Standing:
        """How it stands, at most a second ago."""
        row = self._rows().get(way.name)
        if row is None or row.state == WORKING:
            return Standing()
        why = row.words or ""
        if row.state == PAUSED or row.until is None:
            return Standing(open=False, seconds=PAUSED_SECONDS, why=f"{way.name} is paused: {why}")
        now, why = self._now(), f"{way.name} rests: {why}"
        if row.until > now:
            return Standing(open=False, seconds=(row.until - now).total_seconds(), why=why)
        probed = row.probed_at is not None and row.probed_at > now - PATIENCE
        return Standing(open=False, due=not probed, seconds=PROBE_SECONDS, why=why)

    def probe(self, way: Way) -> bool:
        """Whether this caller may try with one parcel."""
        try:
            with self._store.begin() as connection:
                return rows.probe(connection, way.name, self._now(), PATIENCE)
        except StoreError:
            return False
        finally:
            self._read_at = float("-inf")

    def passed(self, way: Way) -> None:
        """It works: if it rested, it works again, and what waits is due."""
        row = self._rows().get(way.name)
        if row is None or row.state in (WORKING, PAUSED):
            return
        try:
            with self._store.begin() as connection:
                again = rows.work(connection, way.name, self._now())
        except StoreError as exc:
            log.warning("store.away", error=str(exc))
            return
        self._read_at = float("-inf")
        if again:
            log.info("transport.works_again", transport=way.name)
            threading.Thread(target=self._wake, name="mailer-wake", daemon=True).start()

    def failed(self, way: Way, result: Result) -> None:
        """Put it to rest, unless somebody did."""
        reason, words, rest = diagnosis(way, result)
        try:
            with self._store.begin() as connection:
                seconds = rows.rest(connection, way.name, self._now(), reason, words, self._bounded(rest))
        except StoreError as exc:
            log.warning("store.away", error=str(exc))
            return
        self._read_at = float("-inf")
        if seconds is not None:
            code = result.reply.code if result.reply else None
            log.error("transport.rests", transport=way.name, reason=reason, code=code, seconds=seconds)

    def _bounded(self, rest: Rest) -> Callable[[int], float]:
        return lambda faults: min(rest.seconds(faults), self._at_most.seconds(faults))

    def untold(self, way: Way) -> None:
        """The one parcel did not get far enough to tell."""
        try:
            with self._store.begin() as connection:
                rows.give_up_probe(connection, way.name)
        except StoreError:  # it is taken for lost after a while
            pass
        self._read_at = float("-inf")

    def _wake(self) -> None:
        try:
            wake_all(self._store, self._now)
        except StoreError as exc:
            log.warning("store.away", error=str(exc))

    def _rows(self) -> dict[str, TransportRow]:
        if time.monotonic() - self._read_at > KNOWN_SECONDS:
            self._read_at = time.monotonic()  # first: other threads go by what is known meanwhile
            try:
                with self._store.read() as connection:
                    self._known = rows.all_transports(connection)
            except StoreError:  # then nothing can be sent either
                pass
        return self._known


def wake_all(store: Store, now: Callable[[], datetime]) -> None:
    """Make due at once what waits for a transport, in short transactions. Raises StoreError."""
    last: str | None = ""
    while last is not None:
        with store.begin() as connection:
            last = rows.wake(connection, now(), last)


def diagnosis(way: Way, result: Result) -> tuple[str, str, Rest]:
    """Why no conversation came about: a stable word, a sentence with what to do, and how long to rest."""
    said = f"{result.reply.code} {result.reply.text}".strip() if result.reply else result.problem
    found = explain(result)
    words = f"{found.means} ({said[:300]}); {found.step(way.setting)}"
    passing = found.reason not in _TO_MEND or (result.reply is not None and result.reply.code // 100 == 4)
    return found.reason, words, SHORT if passing else LONG


_TO_MEND = ("tls_failed", "auth_failed")
"""What somebody has to mend, unless the server says that it may pass."""
