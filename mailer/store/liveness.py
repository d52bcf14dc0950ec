"""Whether a kept connection to Postgres still leads anywhere, without asking the server each time.

A server that ended a connection has closed it, or said why: its socket has something to read. That is seen
without a round trip, where SQLAlchemy's ``pool_pre_ping`` pays one for each transaction. A connection that
was not used for a while may have been forgotten on the way, which leaves no trace; such a one is asked.
"""

from __future__ import annotations

import select
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import InvalidatePoolError

ASK_AFTER_SECONDS = 10
_USED = "mailer_used"


def look_before_use(engine: Engine) -> None:
    """Replace connections that have ended before a transaction begins on them."""

    @sa.event.listens_for(engine, "checkin")
    def _used(_driver: Any, record: Any) -> None:
        record.info[_USED] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def _look(driver: Any, record: Any, _proxy: Any) -> None:
        used = record.info.get(_USED)
        if used is None:
            return  # a new one
        if time.monotonic() - used < ASK_AFTER_SECONDS and not _has_something_to_read(driver):
            return
        if not _answers(engine, driver):
            raise InvalidatePoolError("the connection has ended")


def _has_something_to_read(driver: Any) -> bool:
    poll = select.poll()
    poll.register(driver.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _answers(engine: Engine, driver: Any) -> bool:
    try:
        return engine.dialect.do_ping(driver)
    except engine.dialect.loaded_dbapi.Error:
        return False
