"""How long a claim and a sweep take with a thousand messages waiting, and with a million.

The store's own statements on real tables, on SQLite and Postgres; nothing is sent. Prints medians in
milliseconds, and how much longer the large backlog takes::

    python3 make.py bench backlog
    python3 make.py bench backlog --rows 200000 --store sqlite
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.engine import Connection

from mailer.sealing import Sealer
from mailer.store import Store, create_engine, sweeps
from mailer.store import deliveries as rows
from mailer.store.migrations import upgrade
from tests import servers
from tests.store.backlog import pile_up

SMALL, ROUNDS = 1_000, 50
LEASE = timedelta(seconds=60)
NOW = datetime.now(UTC)
STEPS: dict[str, Callable[[Connection], object]] = {
    "look which lanes have mails": lambda c: rows.waiting(c, ["critical", "default", "bulk"], NOW),
    "claim one message": lambda c: rows.claim(c, "backlog-000000500", "t", NOW, LEASE),
    "claim a batch of 10": lambda c: rows.claim_due(c, "bulk", 10, "t", NOW, LEASE),
    "sweep: find whom to wake": lambda c: sweeps.due(c, "bulk", NOW + 2 * LEASE, LEASE, 8),
    "sweep: take back lost leases": lambda c: sweeps.reap(c, NOW, crash_limit=3, unknown_limit=3),
    "sweep: end what is too late": lambda c: sweeps.expire(c, NOW),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--store", choices=["sqlite", "postgres", "both"], default="both")
    options = parser.parse_args()
    print(f"| | store | {SMALL:,} wait, ms | {options.rows:,} wait, ms | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for kind in ["sqlite", "postgres"] if options.store == "both" else [options.store]:
        small, large = (measured(kind, count) for count in (SMALL, options.rows))
        for step in STEPS:
            ratio = large[step] / small[step]
            print(f"| {step} | {kind} | {small[step]:.2f} | {large[step]:.2f} | {ratio:.1f} |", flush=True)
    return 0


def measured(kind: str, count: int) -> dict[str, float]:
    """Milliseconds for each step, each rolled back, with so many messages waiting."""
    with store_of(kind) as store:
        upgrade(store.engine)
        pile_up(store, count, NOW)
        return {step: median(store, act) for step, act in STEPS.items()}


def median(store: Store, act: Callable[[Connection], object]) -> float:
    figures = []
    for _ in range(ROUNDS):
        with store.engine.connect() as connection, connection.begin() as transaction:
            began = time.perf_counter()
            act(connection)
            figures.append((time.perf_counter() - began) * 1000)
            transaction.rollback()
    return statistics.median(figures)


@contextmanager
def store_of(kind: str) -> Iterator[Store]:
    """An empty store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            yield Store(create_engine(f"sqlite:///{Path(folder) / 'store.db'}"), Sealer([b"k" * 32]))
            return
        with servers.postgres() as url:
            store = Store(create_engine(url), Sealer([b"k" * 32]))
            yield store
            store.engine.dispose()


if __name__ == "__main__":
    raise SystemExit(main())
