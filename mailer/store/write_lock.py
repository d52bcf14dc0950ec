"""How a transaction waits for SQLite's one write lock: in short naps, and one thread of a process at a time.

A deferred transaction that turns from reading to writing fails at once when another one wrote in between,
whatever the timeout; so the lock is taken first. SQLite's own wait for it naps up to a tenth of a second, so
that whoever waits long sees the lock go to those who came just now. ``python3 make.py bench lock`` compares.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

BUSY_SECONDS = 30
"""Writers queue so long; "database is locked" is no answer to a caller."""
NAP, LONG_NAP = (0.0003, 0.001), (0.002, 0.006)
"""Seconds between two looks for the lock: of a caller, and of a worker, which gives way."""


class WriteLock:
    """The lock of one database, as the threads of this process see it."""

    def __init__(self) -> None:
        self._stand_in_line()

    def _stand_in_line(self) -> None:
        # Looking costs time, too: of a process's threads one looks, the others wait for it.
        self._first_in_line, self._process = threading.Lock(), os.getpid()

    def take(self, connection: Connection, wait_seconds: float, nap: tuple[float, float]) -> None:
        """Begin a transaction that may write. Raises OperationalError if the lock was not to be had."""
        driver: Any = connection.connection.dbapi_connection
        driver.execute("PRAGMA busy_timeout=0")
        try:
            if not (_begun(driver) or self._wait(driver, wait_seconds, nap)):
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # for SQLAlchemy's error
        finally:
            driver.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")

    def _wait(self, driver: Any, seconds: float, nap: tuple[float, float]) -> bool:
        if self._process != os.getpid():  # forked while a thread of the parent was the first
            self._stand_in_line()
        give_up = time.monotonic() + seconds
        if not self._first_in_line.acquire(timeout=seconds):
            return False
        try:
            while time.monotonic() < give_up:
                time.sleep(random.uniform(*nap))
                if _begun(driver):
                    return True
        finally:
            self._first_in_line.release()
        return False


def _begun(driver: Any) -> bool:
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as exc:
        if "locked" in str(exc):
            return False
        raise OperationalError("BEGIN IMMEDIATE", None, exc) from exc
    return True
