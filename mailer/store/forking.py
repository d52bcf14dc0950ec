"""Forking between SQLite's transactions, not in the midst of one.

SQLite remembers for a whole process which locks it holds. A child forked while another thread commits would
believe for ever that the file is locked, by a thread it does not have (https://sqlite.org/howtocorrupt.html,
section 2.6). So a fork waits for what is under way, and what is about to begin waits for the fork.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any

PATIENCE_SECONDS = 2.0
"""A fork waits no longer: a transaction may be as long as the application that opened it likes."""


class Transactions:
    """Those of one SQLite engine that are open in this process."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}  # the driver's connection: the thread that began
        self._begin_or_fork, self._forking = threading.Lock(), False
        _ENGINES.add(self)

    def begun(self, driver: Any) -> None:
        """Say that a transaction is about to begin on a connection."""
        with self._begin_or_fork:
            self._open[id(driver)] = threading.get_ident()

    def ended(self, driver: Any, _record: Any) -> None:
        """Say that it is over."""
        self._open.pop(id(driver), None)

    def await_end(self) -> None:
        """Before a fork: keep others from beginning, and wait for those that began."""
        self._forking = self._begin_or_fork.acquire(timeout=PATIENCE_SECONDS)
        give_up = time.monotonic() + PATIENCE_SECONDS
        while self._others() and time.monotonic() < give_up:
            time.sleep(0.0005)

    def go_on(self) -> None:
        """After it, in the parent."""
        if self._forking:
            self._forking = False
            self._begin_or_fork.release()

    def forget(self) -> None:
        """After it, in the child: it has none of the parent's threads."""
        self._open, self._begin_or_fork, self._forking = {}, threading.Lock(), False

    def _others(self) -> bool:
        # What this thread has begun, no other will end.
        return any(thread != threading.get_ident() for thread in list(self._open.values()))


_ENGINES: weakref.WeakSet[Transactions] = weakref.WeakSet()


def _before() -> None:
    for transactions in list(_ENGINES):
        transactions.await_end()


def _in_parent() -> None:
    for transactions in list(_ENGINES):
        transactions.go_on()


def _in_child() -> None:
    for transactions in list(_ENGINES):
        transactions.forget()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
