"""Who is compared: how each is set up, how its workers start, how it is called."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.sink import PASSWORD, USER
from bench.usage import Usage, usage
from tests import servers

START_SECONDS = 30
CELERY = ["-m", "celery", "-A", "bench.recipe:celery", "worker", "--loglevel", "INFO", "--concurrency"]
PRODUCT = ["-m", "flask", "--app", "bench.product", "mailer", "worker"]


@dataclass(frozen=True)
class Contender:
    """``worker`` is the command that sends, for Python; ``ready`` is what its log says once it does."""

    name: str
    program: str
    worker: Sequence[str]
    mails: int
    ready: str = " ready."
    database: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    processes: int = 1
    """How many say that they are ready."""


RECIPE_4 = Contender("recipe, prefork -c 4", "recipe", [*CELERY, "4"], 1_500)
RECIPE_8 = Contender("recipe, prefork -c 8", "recipe", [*CELERY, "8"], 1_500)
KEPT = Contender("recipe, kept connection", "recipe", [*CELERY, "2"], 1_500, environment={"BENCH_KEPT": "1"})
_PEER = ["-m", "bench.post_office", "work"]
PEER = Contender("django-post-office, tuned", "post_office", _PEER, 3_000, "ready", "sqlite")
PEER_POSTGRES = Contender(
    "django-post-office, tuned, Postgres", "post_office", _PEER, 3_000, "ready", "postgres"
)
_TWO = [*PRODUCT, "--processes", "2", "--concurrency", "1"]
SQLITE = Contender("Mailer, SQLite", "product", _TWO, 8_000, database="sqlite", processes=2)
POSTGRES = Contender("Mailer, Postgres", "product", _TWO, 8_000, database="postgres", processes=2)
# Far away one process has connections enough.
FAR = replace(SQLITE, worker=[*PRODUCT, "--processes", "1", "--concurrency", "4"], processes=1)
FAR_POSTGRES = replace(FAR, name=POSTGRES.name, database="postgres")


@dataclass(frozen=True)
class Server:
    """Where mail goes: a port of this machine, and whose certificate to trust if it wants TLS and log-in."""

    port: int
    ca_file: str | None = None


@dataclass
class Setting:
    """One contender set up anew: its database is empty, and so is Redis."""

    contender: Contender
    environment: dict[str, str]
    folder: Path
    supporters: Sequence[int]
    """The processes beside it that it uses: Redis, Postgres."""
    worker: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str) -> str:
        """Run a Python program to its end; answer what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    def produce(self, number: int, *options: str) -> dict[str, Any]:
        """Call so often in a process of its own; see `bench.produce`."""
        told: dict[str, Any] = json.loads(
            self.run("-m", "bench.produce", self.contender.program, str(number), *options)
        )
        return told

    @contextmanager
    def working(self) -> Iterator[None]:
        """Workers that are ready, until the block ends."""
        log = self.folder / f"{time.monotonic_ns()}.log"
        command = servers.launched([sys.executable, *self.contender.worker], None, signal.SIGTERM)
        with log.open("wb") as out:
            self.worker = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
        try:
            give_up = time.monotonic() + START_SECONDS
            while log.read_text("utf-8", "replace").count(self.contender.ready) < self.contender.processes:
                if self.worker.poll() is not None or time.monotonic() > give_up:
                    raise SystemExit(f"{self.contender.name} did not start:\n{log.read_text()[-2_000:]}")
                time.sleep(0.02)
            yield
        finally:
            self.worker.terminate()
            try:
                self.worker.wait(20)
            except subprocess.TimeoutExpired:
                self.worker.kill()
            self.worker = None

    def workers(self) -> Usage:
        """What the workers used since they started."""
        assert self.worker
        return usage([self.worker.pid])

    def beside(self) -> float:
        """CPU seconds that Redis and Postgres used so far."""
        return usage(self.supporters).cpu


def environment(
    contender: Contender, redis: str, database: str, folder: Path, server: Server
) -> dict[str, str]:
    """What the programs of a contender find in their environment."""
    smtp: dict[str, str] = {"BENCH_SMTP_PORT": str(server.port)}
    url = f"smtp://127.0.0.1:{server.port}"
    if server.ca_file:
        smtp |= {"BENCH_USER": USER, "BENCH_PASSWORD": PASSWORD, "SSL_CERT_FILE": server.ca_file}
        url = f"smtp://{USER}:{PASSWORD}@127.0.0.1:{server.port}?ca_file={server.ca_file}&connections=100"
    common = {name: value for name, value in os.environ.items() if not name.startswith(("MAILER_", "MAIL_"))}
    common["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    match contender.program:
        case "recipe":
            own = {"BENCH_REDIS": redis}
        case "post_office":
            own = {"BENCH_DATABASE": database}
        case _:
            own = {
                "MAILER_SMTP_URL": url,
                "MAILER_DEFAULT_SENDER": "Acme Outfitters <orders@acme.example>",
                "MAILER_DATA_DIR": str(folder),
                "MAILER_DATABASE_URL": database,
                "MAILER_BROKER_URL": redis,
                "MAILER_SECRET_KEYS": "k" * 40,
            }
    return common | smtp | own | contender.environment
