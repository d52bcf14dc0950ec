"""Where a storm takes place: a store and a broker that can be killed, workers, callers, a counting sink."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import flask
import redis
import sqlalchemy as sa

from mailer import send_email
from mailer.errors import StoreError
from mailer.states import CLAIMABLE, State
from mailer.store.models import deliveries
from mailer.timing import SLACK
from tests import servers
from tests.conftest import clear_environment
from tests.faults.conftest import QUICK, READY, Dispatcher, until
from tests.faults.disk import Disk, small_disk
from tests.peer import Copy, Drip, Script, SmtpPeer

SETTINGS = QUICK | {
    "MAILER_LEASE_SECONDS": "3",
    "MAILER_RETRY_BACKOFF": "0.2",
    "MAILER_RETRY_BACKOFF_MAX": "2",
    "MAILER_CRASH_LIMIT": "20",  # kills hit whom they hit; that poison ends is another test's matter
}
CALLERS = 4
LEASE_SECONDS = float(SETTINGS["MAILER_LEASE_SECONDS"])
SLOW = Script(text=Drip(b"250 ok\r\n", 0.007))
"""Takes the copy, then needs 50 ms to say so: a kill is likely to hit just that."""


class Broker:
    """A Redis that keeps nothing, on a port of its own, so that it comes back empty where it was."""

    def __init__(self) -> None:
        self.port = servers.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._running = contextlib.ExitStack()
        self._pid = 0

    def start(self) -> None:
        self._running.enter_context(servers.redis(self.port))
        with redis.Redis.from_url(self.url) as client:
            self._pid = client.info("server")["process_id"]

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._running.close()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stopped, as a machine that swaps: it takes connections and answers nothing."""
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)

    def end(self) -> None:
        self._running.close()


class Postgres:
    """A Postgres whose commits survive the kill of its processes, unlike those of `tests.servers`."""

    def __init__(self, ends: contextlib.ExitStack) -> None:
        self._user = "nobody" if os.geteuid() == 0 else None
        self._folder = ends.enter_context(servers.scratch_folder(self._user))
        programs = ends.enter_context(servers.postgres_programs(self._user))
        data = self._folder / "data"
        options = "-U postgres -A trust -E UTF8 --no-sync --locale=C"
        initdb = [programs / "initdb", "-D", data, *options.split()]
        servers.run_once(initdb, self._folder, self._user)
        self._command = [programs / "postgres", "-D", data, "-k", self._folder, "-h", "", "-F"]
        self._running = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql+psycopg://postgres@/postgres?host={self._folder}"
        ends.callback(self._running.close)

    def start(self) -> None:
        """Start, or start again on the same data; the last one's children may take a moment to be gone."""
        give_up = time.monotonic() + 20
        while True:
            server = servers.running(self._command, self._folder, user=self._user, stop=signal.SIGINT)
            self._process = self._running.enter_context(server)
            try:
                servers.wait_until(
                    lambda: servers.accepts_connections(self._folder), self._process, self._folder
                )
                return
            except RuntimeError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.2)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._running.close()


@dataclass
class Sink:
    """Counts every copy that a peer answered for, across peers on one port."""

    port: int = field(default_factory=servers.free_port)
    copies: dict[str, list[Copy]] = field(default_factory=dict)
    first_at: dict[str, float] = field(default_factory=dict)

    def listening(self, script: Script | None = None) -> SmtpPeer:
        """A peer with this script whose copies are counted here."""
        return SmtpPeer(script or Script(), self.port, self._keep)

    def _keep(self, copy: Copy) -> None:
        now = time.monotonic()
        for recipient in copy.recipients:
            self.first_at.setdefault(recipient, now)
            self.copies.setdefault(recipient, []).append(copy)


@dataclass
class Ground:
    """One storm's surroundings. ``windows`` is how many copies too many its faults can excuse.

    ``persistent`` callers call again when the store was away; others give up: ``refused`` has their mails.
    """

    messages: int
    store: str
    broker: Broker
    postgres: Postgres | None
    dispatcher: Dispatcher
    app: flask.Flask
    sink: Sink
    say: Callable[[str], None]
    disk: Disk | None = None
    windows: int = 0
    persistent: bool = True
    accepted: dict[str, float] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    slowest_call: float = 0.0
    refused: set[str] = field(default_factory=set)
    refusals: set[str] = field(default_factory=set)
    overdue: float = 0.0
    problems: list[str] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)

    # Workers

    def start_workers(self, count: int, *, pool: str = "threads", concurrency: int = 3) -> None:
        """Start workers and wait until all of them consume. Of three places a lane gets two."""
        wanted = self.consuming() + count
        for _ in range(count):
            self.dispatcher.start_worker("--pool", pool, "--concurrency", str(concurrency))
        until(lambda: self.consuming() >= wanted, 90, "the workers to consume")

    def consuming(self) -> int:
        """How many workers are alive and have come so far as to consume."""
        logs = [self.dispatcher.folder / f"worker-{n}.log" for n in range(len(self.dispatcher.workers))]
        pairs = zip(self.dispatcher.workers, logs, strict=True)
        return sum(worker.poll() is None and READY in log.read_text() for worker, log in pairs)

    def replace_oldest_worker(self, *, windows: int = 2) -> None:
        """Kill a worker with everything it started; another takes its place."""
        victim = next(worker for worker in self.dispatcher.workers if worker.poll() is None)
        self.killed.add(victim.pid)
        self.windows += windows
        self.dispatcher.kill(victim)
        self.dispatcher.start_worker("--pool", "threads", "--concurrency", "3")

    def work_once(self) -> None:
        """Let a worker send what is due, without a broker, and end."""
        worker = self.dispatcher.start_worker("--once")
        self.killed.add(worker.pid)
        if worker.wait(60):
            self.problems.append(f"a worker that was to work once ended with {worker.returncode}")

    def fallen(self) -> list[str]:
        """The workers that ended although nobody killed them."""
        return [
            f"a worker ended by itself with {worker.returncode}"
            for worker in self.dispatcher.workers
            if worker.poll() is not None and worker.pid not in self.killed
        ]

    # Callers

    def call(self, number: int, **options: Any) -> None:
        """Have one mail accepted, as a careful caller does: with a key, again if the store was away."""
        recipient = f"a{number}@x.test"
        policy = "hold" if number % 2 else "retry"
        fields = {"subject": f"Storm {number}", "text": "Hello", "on_uncertain": policy}
        key = f"storm-{number}"
        while True:
            began = time.monotonic()
            try:
                send_email.delay(to=recipient, idempotency_key=key, **fields, **options)
                break
            except StoreError as exc:
                self.refusals.add(str(exc))
                if not self.persistent:
                    self.refused.add(recipient)
                    return
                time.sleep(0.1)
            finally:
                self.slowest_call = max(self.slowest_call, time.monotonic() - began)
        self.accepted[recipient] = time.monotonic()

    @contextlib.contextmanager
    def calling(self, count: int, seconds: float, **options: Any) -> Iterator[Callable[[], bool]]:
        """Accept so many mails, spread over so many seconds, while the block runs; then wait for the rest.

        The block is given a function that answers whether callers are still at it.
        """
        first, began = len(self.accepted) + len(self.refused), time.monotonic()
        turns = itertools.count()

        def go_on() -> None:
            with self.app.app_context():
                while (turn := next(turns)) < count:
                    time.sleep(max(0.0, began + turn * seconds / count - time.monotonic()))
                    try:
                        self.call(first + turn, **options)
                    except Exception as exc:  # a caller was answered with what it must never see
                        self.problems.append(f"a call raised {type(exc).__name__}: {exc}")

        callers = [threading.Thread(target=go_on, daemon=True) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        yield lambda: any(caller.is_alive() for caller in callers)
        for caller in callers:
            caller.join(60)

    # The store

    def rows(self) -> dict[str, Any]:
        """What the store says of each recipient."""
        d = deliveries.c
        asked = sa.select(d.recipient, d.state, d.on_uncertain, d.unknowns, d.attempts, d.marked_at)
        with self.app.extensions["mailer"].store.read() as connection:
            return {row.recipient: row for row in connection.execute(asked)}

    def settle(self, seconds: float = 60) -> bool:
        """Wait until every mail has ended or awaits a person, unless nothing moves for so long."""
        give_up, last = time.monotonic() + seconds, -1
        while time.monotonic() < give_up:
            rows = self.rows().values()
            open_ = sum(row.state in CLAIMABLE or row.state == State.SENDING for row in rows)
            if not open_:
                return True
            if open_ // 100 != last:
                last, give_up = open_ // 100, time.monotonic() + seconds
                self.say(f"{open_} to go")
            time.sleep(0.25)
        return False

    def finish(self) -> None:
        """Wait for the end of every mail while the sink still listens."""
        if not self.settle():
            self.problems.append("not all mails came to an end")
        self.problems += self.fallen()

    def callers_were_quick(self) -> None:
        """A second at most, whatever the broker does; on SQLite they may wait for the write lock, too."""
        if self.slowest_call >= (1 if self.postgres else 3):
            self.problems.append(f"a call took {self.slowest_call:.1f} s")

    @contextlib.contextmanager
    def nobody_waits(self, at_most: float = 2.0) -> Iterator[None]:
        """Watch meanwhile how long mails wait whose lease is over, until a worker has them again.

        The lease itself is waited for in any case: it is how a worker's end is noticed.
        """
        over = threading.Event()
        d, services = deliveries.c, self.app.extensions["mailer"]
        lost = sa.and_(d.state == State.DEFERRED, d.reason == "worker_lost")
        seconds = partial(sa.type_coerce, type_=sa.Double)
        since = sa.case((lost, seconds(d.not_before) + SLACK.total_seconds()), else_=seconds(d.lease_until))
        asked = sa.select(sa.func.min(since)).where(sa.or_(d.state == State.SENDING, lost))

        def watch() -> None:
            while not over.wait(0.2):
                with contextlib.suppress(StoreError), services.store.read() as connection:
                    now = services.now().timestamp()
                    first = connection.scalar(asked)
                    if first is not None:
                        self.overdue = max(self.overdue, now - float(first))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        yield
        over.set()
        watcher.join(10)
        if self.overdue > at_most:
            self.problems.append(f"a mail waited {self.overdue:.1f} s longer than its lease")


@contextlib.contextmanager
def prepared(
    store: str, messages: int, say: Callable[[str], None], *, smtp: str = "", with_disk: bool = False
) -> Iterator[Ground]:
    """A ground with nothing on it yet but the servers; everything ends with the block, Ctrl-C included.

    ``smtp`` are options of the transport's URL. ``with_disk``: SQLite's file is on one that can be filled.
    """
    before = dict(os.environ)
    clear_environment()
    with contextlib.ExitStack() as ends:
        ends.callback(_restore, before)
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="mailer-storm-")))
        broker, sink, postgres = Broker(), Sink(), None
        ends.callback(broker.end)
        broker.start()
        disk = ends.enter_context(small_disk(folder)) if with_disk else None
        url = f"sqlite:///{(disk.folder if disk else folder) / 'store.db'}"
        if store == "postgres":
            postgres = Postgres(ends)
            postgres.start()
            url = postgres.url
        environment = SETTINGS | (disk.settings if disk else {}) | {
            "MAILER_DATABASE_URL": url,
            "MAILER_BROKER_URL": broker.url,
            "MAILER_SMTP_URL": f"smtp://127.0.0.1:{sink.port}{smtp}",
            "MAILER_DATA_DIR": str(folder / "data"),
        }  # fmt: skip
        os.environ.update(environment)
        dispatcher = Dispatcher(environment, folder)
        ends.callback(_end_workers, dispatcher)
        app = dispatcher.app()
        ends.callback(app.extensions["mailer"].store.engine.dispose)
        yield Ground(messages, store, broker, postgres, dispatcher, app, sink, say, disk)


def _restore(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _end_workers(dispatcher: Dispatcher) -> None:
    for worker in dispatcher.workers:
        if worker.poll() is None:
            dispatcher.kill(worker)


def children_of(pid: int) -> list[int]:
    """The processes a process has started. Linux only."""
    if sys.platform != "linux":
        raise RuntimeError("child-kill needs Linux: it reads /proc")
    found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return sorted(int(child) for children in found for child in children)


def datetime_in(seconds: float, services: Any) -> datetime:
    """The whole second that begins at least so many seconds from now."""
    return datetime.fromtimestamp(int(services.now().timestamp() + seconds) + 1, services.now().tzinfo)
