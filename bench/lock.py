"""How long somebody waits for SQLite's write lock among twelve writers, with our naps and with SQLite's own.

Prints the longest wait in seconds and in turns (what one transaction takes on average), the two ways of
waiting one after the other in the same run::

    python3 make.py bench lock
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from mailer.store import create_engine
from mailer.store.migrations import upgrade
from tests.store.writers import compete

PROCESSES, THREADS, SECONDS = 4, 3, 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    rounds = parser.parse_args().rounds
    print("| wait | transactions | longest, s | longest, turns |\n| --- | --- | --- | --- |")
    for whose in ("sqlite", "ours") * rounds:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'store.db'}"
            upgrade(create_engine(url))
            waits = compete(url, PROCESSES, THREADS, SECONDS, whose)
        print(f"| {whose} | {waits.transactions} | {waits.longest:.2f} | {waits.turns:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
