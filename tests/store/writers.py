"""Processes that write to one store as fast as they can, and tell how long their transactions waited.

``python -m tests.store.writers URL SECONDS THREADS [sqlite]`` is one of them, and prints a line of JSON when
it is done. With ``sqlite`` it waits for the write lock as SQLite does by itself, for comparison.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import uuid_utils
from sqlalchemy.engine import Connection

from mailer.errors import StoreError
from mailer.sealing import Sealer
from mailer.store import Store, create_engine
from mailer.store import messages as message_rows
from mailer.store.write_lock import WriteLock
from tests.store.conftest import new_message

ROOT = Path(__file__).parents[2]


def write(store: Store, until: float, waits: list[float], errors: list[str]) -> None:
    """Accept messages until it is time."""
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            with store.begin() as connection:
                message_rows.accept(connection, new_message(id=str(uuid_utils.uuid7())), store.sealer)
        except StoreError as exc:
            errors.append(str(exc))
        waits.append(time.monotonic() - began)


def compete(url: str, processes: int, threads: int, seconds: float, whose: str = "ours") -> Waits:
    """Let so many processes write at once."""
    command = [sys.executable, "-m", "tests.store.writers", url, str(seconds), str(threads), whose]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(processes)]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in running]
    waits = sorted(wait for one in told for wait in one["waits"])
    errors = [error for one in told for error in one["errors"]]
    return Waits(len(waits), waits[-1], waits[-1] * len(waits) / seconds, errors)


@dataclass(frozen=True)
class Waits:
    """What came of it. ``turns`` is the longest wait by what one transaction takes on average."""

    transactions: int
    longest: float
    turns: float
    errors: list[str]


def as_sqlite_does(_lock: WriteLock, connection: Connection, *_: object) -> None:
    """Leave the waiting to SQLite."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def main(url: str, seconds: str, threads: str, whose: str = "ours") -> None:
    """One of the processes."""
    if whose == "sqlite":
        WriteLock.take = as_sqlite_does
    store = Store(create_engine(url), Sealer([b"k" * 32]))
    waits: list[float] = []
    errors: list[str] = []
    given = (store, time.monotonic() + float(seconds), waits, errors)
    writers = [threading.Thread(target=write, args=given) for _ in range(int(threads))]
    [writer.start() for writer in writers]
    [writer.join() for writer in writers]
    print(json.dumps({"waits": sorted(waits), "errors": errors}))


if __name__ == "__main__":
    main(*sys.argv[1:])
