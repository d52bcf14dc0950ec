"""What time it is, for everybody alike: by the database's clock where that is another machine's.

Leases, schedules and deadlines are compared by many processes. On Postgres each of them asks the server now
and then, and counts on from there with a clock that nobody can set. SQLite's processes share one machine.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from mailer.store import queries

ASK_AGAIN_SECONDS = 10


def wall() -> float:
    """This machine's clock, in seconds since 1970."""
    return time.time()


class Clock:
    """Call it for the current instant, aware. It never raises: without its database it counts on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shared = engine.dialect.name != "sqlite"
        self._ahead: float | None = None
        self._asked = float("-inf")
        self._asking = threading.Lock()

    def __call__(self) -> datetime:
        if not self._shared:
            return datetime.fromtimestamp(wall(), UTC)
        if time.monotonic() - self._asked > ASK_AGAIN_SECONDS and self._asking.acquire(blocking=False):
            try:
                self._ask()
            finally:
                self._asking.release()
        ahead = wall() - time.monotonic() if self._ahead is None else self._ahead
        return datetime.fromtimestamp(time.monotonic() + ahead, UTC)

    def _ask(self) -> None:
        self._asked = began = time.monotonic()
        try:
            with self._engine.connect() as connection:
                theirs = queries.clock(connection)
                if theirs is not None:
                    self._ahead = theirs.timestamp() - (began + time.monotonic()) / 2
        except SQLAlchemyError:  # nothing can be written now either; ask again later
            pass
