"""Where the time of one mail goes, in the caller and in the worker: ``python3 make.py bench shares``.

On SQLite, in one process, under Python's profiler: that slows small functions down more than large ones, so
trust the order of the shares and not their last digit.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.sink import Sink

CALL = {
    "copying and checking the arguments": ("message.py", "create"),
    "checking template and size": ("outbox.py", "check"),
    "sealing and the rows": ("messages.py", "_row"),
    "the statements": ("prepared.py", "run"),
    "taking the write lock": ("write_lock.py", "take"),
    "the commit, which waits for the disk": ("default.py", "do_commit"),
}
WORK = {
    "claiming": ("deliveries.py", "claim_due"),
    "opening what was asked for": ("message.py", "message_from"),
    "Jinja": ("template_env.py", "pieces_of"),
    "inlining styles": ("inlining.py", "finish"),
    "encoding the mail": ("mime.py", "build"),
    "freezing its bytes": ("delivery.py", "_freeze"),
    "asking and telling the store": ("ledger.py", "update"),
    "reading the server's answers": ("attempt.py", "hear"),
    "the log": ("outcomes.py", "announce"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mails", type=int, default=3_000, metavar="N")
    mails = parser.parse_args().mails
    sink = Sink()
    try:
        with tempfile.TemporaryDirectory(prefix="mailer-bench-") as folder:
            _measure(folder, sink, mails)
    finally:
        sink.end()
    return 0


def _measure(folder: str, sink: Sink, mails: int) -> None:
    os.environ |= {
        "MAILER_SMTP_URL": f"smtp://127.0.0.1:{sink.port}",
        "MAILER_DEFAULT_SENDER": "Acme Outfitters <orders@acme.example>",
        "MAILER_DATA_DIR": folder,
        "MAILER_SECRET_KEYS": "k" * 40,
        "MAILER_LOG_LEVEL": "ERROR",
    }
    from bench.product import create_app, send
    from mailer.drain import Drain
    from mailer.store.migrations import upgrade

    app = create_app()
    services = app.extensions["mailer"]
    upgrade(services.store.engine)
    services.publish = lambda wakeups: None  # this process sends by itself, later
    with app.app_context():
        send(0, "first@example.org")  # what only the first call costs

        def call() -> None:
            for number in range(mails):
                send(number, f"p{number}@example.org")

        drain = Drain(services)
        _show("send_email.delay()", call, CALL, mails)
        _show("a worker", lambda: drain.run(seconds=600), WORK, mails)


def _show(title: str, act: Callable[[], object], parts: Mapping[str, tuple[str, str]], mails: int) -> None:
    profile, began, cpu = cProfile.Profile(), time.perf_counter(), time.process_time()
    profile.runcall(act)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    found = _cumulative(profile)
    print(f"{title}: {cpu / mails * 1e3:.2f} ms of a CPU a mail under the profiler\n")
    for name, where in sorted(parts.items(), key=lambda part: -found.get(part[1], 0.0)):
        print(f"    {name:40}{found[where] / seconds:6.1%}")
    print()


def _cumulative(profile: cProfile.Profile) -> dict[tuple[str, str], float]:
    """Seconds within each function and what it calls, by its file's name and its own."""
    found: dict[tuple[str, str], float] = {}
    for (file, _, name), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        place = (Path(file).name, name)
        found[place] = found.get(place, 0.0) + cumulative
    return found


if __name__ == "__main__":
    raise SystemExit(main())
