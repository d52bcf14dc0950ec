"""What this machine could send if making a mail cost nothing: the same octets again and again, no store.

By Postfix's ``smtp-source`` over eight kept connections where it is installed, and by our own transport.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence

from bench.sink import Sink
from bench.usage import usage
from mailer.transports import Parcel, Receipt
from mailer.transports.factory import build_transport
from tests import servers

SIZE = 11_000
BATCH = 100


def smtp_source() -> str | None:
    """The program of Postfix, if it is installed."""
    return shutil.which("smtp-source", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def by_postfix(program: str, sink: Sink, mails: int) -> tuple[float, float]:
    """Mails a second, and CPU seconds for a thousand."""
    where = f"inet:127.0.0.1:{sink.port}"
    options = ["-d", "-s", "8", "-m", str(mails), "-l", str(SIZE), "-t", "a@example.org", where]
    return _measured([program, *options], sink, mails)


def by_ourselves(sink: Sink, mails: int) -> tuple[float, float]:
    """The same by one process of `mailer.transports`, whose recipients differ."""
    return _measured([sys.executable, "-m", "bench.limit", str(sink.port), str(mails)], sink, mails)


def _measured(command: Sequence[str], sink: Sink, mails: int) -> tuple[float, float]:
    sink.forget()
    process = subprocess.Popen(servers.launched(command, None, signal.SIGTERM))
    try:
        while sink.count() < mails // 10 and process.poll() is None:
            pass
        first, before = sink.count(), usage([process.pid]).cpu
        while sink.count() < mails * 0.9 and process.poll() is None:
            pass
        last, cpu = sink.count(), usage([process.pid]).cpu - before
    finally:
        process.wait(60)
    times = sink.times()
    return (last - first) / (times[last - 1] - times[first]), cpu / (last - first) * 1_000


class _Everything:
    """A ledger for which every text may go out."""

    def update(self, _settled: Sequence[tuple[Parcel, Receipt]], asking: Sequence[Parcel]) -> Collection[str]:
        return [parcel.id for parcel in asking]


def _send(port: int, mails: int) -> None:
    transport = build_transport(f"smtp://127.0.0.1:{port}")
    data = b"Subject: Limit\r\n\r\n" + (b"x" * 70 + b"\r\n") * (SIZE // 72)
    batches = [
        [Parcel(str(n), "a@example.com", (f"p{n}@example.org",), data) for n in range(start, start + BATCH)]
        for start in range(0, mails, BATCH)
    ]

    def work() -> None:
        while batches:
            transport.transmit(batches.pop(), _Everything())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    transport.close()


if __name__ == "__main__":
    _send(int(sys.argv[1]), int(sys.argv[2]))
