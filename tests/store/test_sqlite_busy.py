"""SQLite under several processes: one write lock, and everybody gets it in turn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mailer.store import create_engine
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
    """Twelve writers in four processes: no error, and none of them waits as long as a second."""
    command = [sys.executable, "-m", "tests.store.writers", url, str(SECONDS), str(THREADS)]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(PROCESSES)]
    told = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    waits = sorted(wait for one in told for wait in one["waits"])
    print(f"{len(waits)} transactions, median {waits[len(waits) // 2]:.4f} s, longest {waits[-1]:.3f} s")
    assert [one["errors"] for one in told] == [[]] * PROCESSES
    assert len(waits) > 200
    assert waits[-1] < 1
