"""A dispatcher of real processes: an application here, workers beside it, a peer that can misbehave."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import flask
import pytest

from mailer import outbox
from mailer.store import queries
from tests import servers
from tests.conftest import clear_environment, not_had
from tests.faults.host import create_app

ROOT = Path(__file__).parents[2]
QUICK = {
    "MAILER_LEASE_SECONDS": "2",
    "MAILER_SWEEP_SECONDS": "0.2",
    "MAILER_REPUBLISH_SECONDS": "2",
    "MAILER_UNCERTAIN_DELAY": "0.2",
    "MAILER_DEFAULT_SENDER": "me@x.test",
    "MAILER_SECRET_KEYS": "k" * 40,
}


READY = " ready."
"""What Celery's worker logs once it consumes."""


@dataclass
class Dispatcher:
    """The application of this process, and the workers it has started."""

    environment: dict[str, str]
    folder: Path
    workers: list[subprocess.Popen] = field(default_factory=list)
    host: str = "tests.faults.host"

    def app(self) -> flask.Flask:
        return create_app()

    def set(self, name: str, value: str) -> None:
        """A setting, for the application of this process and for workers to come."""
        os.environ[name] = self.environment[name] = value

    def start_worker(self, *options: str) -> subprocess.Popen:
        """A worker in a process group of its own, which ends with us even if we are killed."""
        command = [sys.executable, "-m", "flask", "--app", self.host, "mailer", "worker", *options]
        log = (self.folder / f"worker-{len(self.workers)}.log").open("w")
        with log:
            self.workers.append(
                subprocess.Popen(
                    servers.launched(command, None, signal.SIGKILL),
                    cwd=ROOT,
                    env={**os.environ, **self.environment},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            )
        return self.workers[-1]

    def kill(self, worker: subprocess.Popen, number: int = signal.SIGKILL) -> None:
        """End a worker with everything it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, number)
        worker.wait(10)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("worker-*.log")))


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    return request.getfixturevalue("fresh_postgres_url")


@pytest.fixture
def any_broker(request, database_url, tmp_path, monkeypatch):
    """Settings for both sides, on the broker of that name or URL; workers are ended with the test."""
    started: list[Dispatcher] = []

    def on(broker: str, kind: type[Dispatcher] = Dispatcher, **more: str) -> Dispatcher:
        environment = QUICK | {
            "MAILER_DATABASE_URL": database_url,
            "MAILER_BROKER_URL": _broker_url(request, broker),
            "MAILER_QUEUE_PREFIX": f"test-{os.getpid()}",  # a RabbitMQ is not ours alone
            "MAILER_DATA_DIR": str(tmp_path / "data"),
        } | more  # fmt: skip
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        started.append(kind(environment, tmp_path))
        return started[-1]

    yield on
    clear_environment()  # of what `Dispatcher.set` has set
    for found in started:
        for worker in found.workers:
            if worker.poll() is None:
                found.kill(worker)


def _broker_url(request, broker: str) -> str:
    if broker == "rabbitmq":
        return os.environ.get("TEST_RABBITMQ_URL") or not_had(
            "no RabbitMQ: start one and set TEST_RABBITMQ_URL=amqp://guest:guest@127.0.0.1:5672//"
        )
    if "://" in broker:
        return broker
    return "memory://" if broker == "embedded" else request.getfixturevalue("redis_url")


@pytest.fixture
def dispatcher(any_broker) -> Dispatcher:
    """On a real Redis."""
    return any_broker("redis")


def until(condition: Callable[[], object], seconds: float = 20, what: str = "") -> None:
    """Wait for another process; polls, since nothing can be waited on across processes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what or condition}"
        time.sleep(0.02)


def view(app, id_):
    with app.extensions["mailer"].store.read() as connection:
        return queries.show(connection, id_)


def wait(app, id_, seconds: float = 20) -> str:
    return outbox.wait(app.extensions["mailer"], id_, seconds).value
