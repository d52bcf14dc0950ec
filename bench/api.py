"""What it costs to ask for a mail by HTTP: ``python3 make.py bench api``.

The API under gunicorn, two processes of eight threads, with clients on the same two cores that keep their
connections; beside it `.delay()` in one process. Trust the ratios of one run.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench import contenders as c
from bench.contenders import Contender, Server, Setting
from bench.place import Place
from bench.usage import usage
from tests import servers

CLIENTS, BATCH = (1, 8, 64), 100
GUNICORN = ["-m", "gunicorn", "bench.served:create_app()", "-k", "gthread", "-w", "2", "--threads", "8"]
GUNICORN += ["-c", str(Path(__file__).with_name("gunicorn.conf.py"))]
START_SECONDS = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="medians are over so many rounds")
    parser.add_argument("--requests", type=int, default=500, metavar="N", help="in each measurement")
    args = parser.parse_args()
    unlimited = {"MAILER_API_RATE": "100000000/second"}
    with Place() as place:
        for contender in (c.SQLITE, c.POSTGRES):
            who = replace(contender, environment=unlimited)
            measure(place, who, args.rounds, args.requests)
    return 0


def measure(place: Place, who: Contender, rounds: int, requests: int) -> None:
    """Print a table for one store."""
    calls, singles, batches = list[float](), list[Asked](), list[Asked]()
    with place.setting(who, Server(9)) as setting, serving(setting) as served:
        for _ in range(rounds):
            calls.append(_calls(setting, requests))
            singles += [served.ask(clients, requests) for clients in CLIENTS]
            batches.append(served.ask(1, max(10, requests // BATCH), BATCH))
    print(f"{who.name}\n\n{'':34}{'mails/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU ms':>9}")
    print(f"{'.delay(), one process':34}{statistics.median(calls):9,.0f}")
    for clients in CLIENTS:
        _row(f"POST /emails, clients: {clients}", [one for one in singles if one.clients == clients])
    _row(f"POST /emails/batch of {BATCH}, clients: 1", batches)
    alone = [one.rate for one in singles if one.clients == 1]
    ratios = [batch.rate / single for batch, single in zip(batches, alone, strict=True)]
    print(f"\nA mail in a batch is {statistics.median(ratios):.1f} times as fast as one by itself,")
    print(f"with one client ({min(ratios):.1f} to {max(ratios):.1f} in the rounds).\n", flush=True)


def _calls(setting: Setting, number: int) -> float:
    return number / float(setting.produce(number)["seconds"])


class Asked:
    """One measurement: mails a second, milliseconds of each request, CPU of the servers for each mail."""

    def __init__(self, clients: int, rate: float, milliseconds: Sequence[float], cpu: float) -> None:
        self.clients, self.rate, self.cpu = clients, rate, cpu
        cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
        self.p50, self.p99 = cuts[49], cuts[98]


class Served:
    """A server that runs."""

    def __init__(self, setting: Setting, process: subprocess.Popen[bytes], port: int) -> None:
        self._setting, self._process, self._port = setting, process, port
        self._token = setting.run("-m", "bench.served").strip()

    def ask(self, clients: int, requests: int, batch: int = 0) -> Asked:
        """Let clients ask so often, all together."""
        mails, before = requests * max(batch, 1), usage([self._process.pid]).cpu
        numbers = [str(number) for number in (clients, requests, *([batch] if batch else []))]
        told = json.loads(self._setting.run("-m", "bench.clients", str(self._port), self._token, *numbers))
        cpu = (usage([self._process.pid]).cpu - before) / mails * 1000
        return Asked(clients, told["rate"] * max(batch, 1), told["ms"], cpu)


@contextmanager
def serving(setting: Setting) -> Iterator[Served]:
    """The API under gunicorn, until the block ends."""
    port, log = servers.free_port(), setting.folder / f"{time.monotonic_ns()}.log"
    command = [sys.executable, *GUNICORN, "-b", f"127.0.0.1:{port}", "--log-level", "info"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            servers.launched(command, None, signal.SIGTERM), env=setting.environment, stdout=out, stderr=out
        )
    try:
        give_up = time.monotonic() + START_SECONDS
        while log.read_text("utf-8", "replace").count("Booting worker") < 2:
            if process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"gunicorn did not start:\n{log.read_text()[-2_000:]}")
            time.sleep(0.05)
        served = Served(setting, process, port)
        served.ask(8, 50)  # what only the first requests cost
        yield served
    finally:
        process.terminate()
        process.wait(20)


def _row(name: str, found: Sequence[Asked]) -> None:
    rate, p50, p99, cpu = (
        statistics.median(getattr(one, what) for one in found) for what in ("rate", "p50", "p99", "cpu")
    )
    print(f"{name:34}{rate:9,.0f}{p50:9.1f}{p99:9.1f}{cpu:9.2f}")


if __name__ == "__main__":
    sys.exit(main())
