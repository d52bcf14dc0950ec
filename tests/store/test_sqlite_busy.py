"""SQLite under several processes: one write lock, and everybody gets it in turn."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mailer.errors import StoreError
from mailer.sealing import Sealer
from mailer.store import Store, create_engine
from mailer.store.migrations import upgrade

ROOT = Path(__file__).parents[2]
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
    SQLite's own wait the longest was over 800 turns.
    """
    command = [sys.executable, "-m", "tests.store.writers", url, str(SECONDS), str(THREADS)]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
    told = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    waits = sorted(wait for one in told for wait in one["waits"])
    turn = SECONDS / len(waits)
    print(f"{len(waits)} transactions, longest wait {waits[-1]:.3f} s, {waits[-1] / turn:.0f} turns")
    assert [one["errors"] for one in told] == [[]] * PROCESSES
    assert waits[-1] < 400 * turn


def test_a_new_database_is_its_owners_only(url):
    """Addresses are in it: neither the file nor the one with the last writes is readable by others."""
    folder = Path(url.removeprefix("sqlite:///")).parent
    store = Store(create_engine(url), Sealer([b"k" * 32]))
    with store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM mailer_workers")
        modes = {path.name: path.stat().st_mode & 0o077 for path in folder.glob("store.db*")}
    assert set(modes) >= {"store.db", "store.db-wal"}
    assert set(modes.values()) == {0}


def test_what_can_be_left_out_does_not_wait(url):
    """begin_soon gives up after a tenth of a second, and says so in plain words."""
    store, other = (Store(create_engine(url), Sealer([b"k" * 32])) for _ in range(2))
    began = time.monotonic()
    with store.begin(), pytest.raises(StoreError, match="busy"), other.begin_soon():
        pass
    assert time.monotonic() - began < 0.5
