"""A process that writes to a store as fast as it can, and tells how long its transactions waited.

``python -m tests.store.writers URL SECONDS THREADS`` prints a line of JSON when it is done.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import uuid_utils

from mailer.errors import StoreError
from mailer.sealing import Sealer
from mailer.store import Store, create_engine
from mailer.store import messages as message_rows
from tests.store.conftest import new_message


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


def main(url: str, seconds: str, threads: str) -> None:
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
