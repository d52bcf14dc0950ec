"""SQLite under several processes: one write lock, and everybody gets it in turn."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from mailer.errors import StoreError
from mailer.sealing import Sealer
from mailer.store import Store, create_engine
from mailer.store.migrations import upgrade
from mailer.store.write_lock import WriteLock
from tests.store.writers import compete

PROCESSES, THREADS, SECONDS = 4, 3, 3


@pytest.fixture
def url(tmp_path) -> str:
    found = f"sqlite:///{tmp_path / 'store.db'}"
    engine = create_engine(found)
    upgrade(engine)
    engine.dispose()
    return found


def test_nobody_is_told_that_the_database_is_locked(url):
    """Twelve writers in four processes: no error, and nobody is passed over for long.

    A turn is what one transaction takes, so that a slow machine does not look like an unfair lock. With
    SQLite's own wait it is over 1,000 turns: ``python3 make.py bench lock`` shows both.
    """
    waits = compete(url, PROCESSES, THREADS, SECONDS)
    assert waits.errors == []
    assert waits.transactions > 200
    assert waits.turns < 400


def test_a_new_database_is_its_owners_only(url):
    """Addresses are in it: neither the file nor the one with the last writes is readable by others."""
    folder = Path(url.removeprefix("sqlite:///")).parent
    store = Store(create_engine(url), Sealer([b"k" * 32]))
    with store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM mailer_workers")
        modes = {path.name: path.stat().st_mode & 0o077 for path in folder.glob("store.db*")}
    assert set(modes) >= {"store.db", "store.db-wal"}
    assert set(modes.values()) == {0}


def test_a_child_waits_in_a_line_of_its_own():
    """A process that forks while one of its threads waits leaves no child waiting for that thread."""
    lock = WriteLock()
    lock._first_in_line.acquire()
    child = os.fork()
    if child == 0:
        lock._wait(_Free(), 1, (0, 0))
        os._exit(0 if lock._first_in_line.acquire(blocking=False) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_does_not_take_its_parents_locks_for_its_own(url):
    """SQLite knows its locks by process: a child forked while a thread commits would never write again."""
    store = Store(create_engine(url), Sealer([b"k" * 32]))
    writing = threading.Event()

    def write() -> None:
        with store.begin():
            writing.set()
            time.sleep(0.3)

    thread = threading.Thread(target=write)
    thread.start()
    writing.wait()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.engine.dispose(close=False)
            with store.begin_soon(1):
                status = 0
        finally:
            os._exit(status)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with store.begin_soon():  # and the parent goes on
        pass


class _Free:
    """A driver whose lock is free."""

    def execute(self, _statement: str) -> None:
        pass


def test_what_can_be_left_out_does_not_wait(url):
    """begin_soon gives up after a tenth of a second, and says so in plain words."""
    store, other = (Store(create_engine(url), Sealer([b"k" * 32])) for _ in range(2))
    began = time.monotonic()
    with store.begin(), pytest.raises(StoreError, match="busy"), other.begin_soon():
        pass
    assert time.monotonic() - began < 0.5
