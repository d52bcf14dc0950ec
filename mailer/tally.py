"""What each transport carried, gathered in this process and added to the store once a second at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from mailer.errors import StoreError
from mailer.store import Store
from mailer.store import transports as rows
from mailer.store.transports import Counts
from mailer.transports import Result
from mailer.transports.route import is_fault

FLUSH_SECONDS = 1.0


class Tally:
    """Counts recipients by what servers said. A gauge: what a process had not added yet dies with it."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store, self._now = store, now
        self._counts: dict[str, Counts] = {}
        self._flushed_at = float("-inf")
        self._later: threading.Timer | None = None
        self._lock = threading.Lock()

    def count(self, name: str, results: Iterable[Result]) -> None:
        """Count results of a transport; those that were not tried are left out. Never raises."""
        seen = [_as_counts(result) for result in results]
        self._add({name: sum_of(counts for counts in seen if counts is not None)})
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self.flush()
        else:
            self._flush_later()

    def flush(self) -> None:
        """Add to the store what was counted since; if it has no time for us, later."""
        with self._lock:
            counts, self._counts = self._counts, {}
            self._flushed_at, self._later = time.monotonic(), None
        if not counts:
            return
        try:
            with self._store.begin_soon() as connection:
                rows.count(connection, self._now().replace(second=0, microsecond=0), counts)
        except StoreError:
            self._add(counts)

    def _flush_later(self) -> None:
        with self._lock:
            if self._later is None:
                self._later = threading.Timer(FLUSH_SECONDS, self.flush)
                self._later.daemon = True
                self._later.start()

    def _add(self, more: dict[str, Counts]) -> None:
        with self._lock:
            for name, counts in more.items():
                total = sum_of((self._counts.get(name, Counts()), counts))
                if total != Counts():
                    self._counts[name] = total


def sum_of(counts: Iterable[Counts]) -> Counts:
    """All of them together."""
    triples = [(c.sent, c.deferred, c.failed) for c in counts]
    return Counts(*(sum(numbers) for numbers in zip(*triples, strict=True))) if triples else Counts()


def _as_counts(result: Result) -> Counts | None:
    if result.wait_seconds is not None:
        return None
    if result.accepted:
        return Counts(sent=1)
    refused = result.reply is not None and result.reply.code >= 500 and not is_fault(result)
    return Counts(failed=1) if refused else Counts(deferred=1)
