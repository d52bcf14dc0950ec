"""Running workers: on the broker until told to stop, or once over what is due."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import flask
from celery import Celery, signals
from celery.app import trace

from mailer import outbox
from mailer.broker import is_memory
from mailer.drain import Drain
from mailer.errors import ConfigError
from mailer.memory import count_what_comes, share_one_heap
from mailer.services import Services
from mailer.supervisor import stop_without_supervisor
from mailer.telemetry import log


def work(
    app: flask.Flask,
    *,
    concurrency: int,
    pool: str = "prefork",
    log_level: str = "INFO",
    lanes: Sequence[str] | None = None,
) -> int:
    """Consume wake-ups until SIGTERM or SIGINT, then finish what is held; answer the exit code.

    With a broker in memory nobody else can publish to this process; its sweeper finds new rows all the
    same, within ``MAILER_SWEEP_SECONDS``. Forked children would share no memory, so that pool is refused.
    """
    share_one_heap()
    for ready in (signals.worker_ready, signals.worker_process_init):
        ready.connect(_loaded)
    celery = celery_of(app)
    if pool == "prefork":
        check_broker(app, "use --pool threads")
    stop_without_supervisor()
    if os.geteuid() == 0:
        log.warning("worker.runs_as_root", hint="run it as a user who owns nothing but the data folder")
    queues = app.extensions["mailer.send_email"].queues
    only = None if lanes is None else [queues.name(lane) for lane in lanes]
    app.extensions["mailer"].store.give_way()
    worker = build(celery, concurrency=concurrency, pool=pool, log_level=log_level, queues=only)
    worker.start()
    # Celery 5.7 answers 1 after one Ctrl-C although it stopped warm and lost nothing, and 1 after a crash.
    asked = app.extensions["mailer.send_email"].drain.stopping
    return 0 if asked and worker.exitcode == 1 else int(worker.exitcode or 0)


def _loaded(**_: Any) -> None:
    count_what_comes()


def check_broker(app: flask.Flask, instead: str) -> None:
    """Raises ConfigError, with what to do ``instead``, if several processes cannot share the broker."""
    if is_memory(str(celery_of(app).conf.broker_url or "")):
        raise ConfigError("MAILER_BROKER_URL", f"is memory://, which processes cannot share; {instead}")


def celery_of(app: flask.Flask) -> Celery:
    """The Celery that carries an application's wake-ups."""
    celery: Celery = app.extensions["mailer.send_email"].app
    return celery


def build(
    celery: Celery,
    *,
    concurrency: int,
    pool: str,
    log_level: str = "INFO",
    queues: Sequence[str] | None = None,
) -> Any:
    """A Celery worker over these queues, or every one this application knows."""
    return celery.Worker(
        pool=pool,
        concurrency=concurrency,
        hostname=f"mailer-{os.getpid()}@%h",
        loglevel=log_level,
        queues=queues,
        # No chatter between workers: its pub/sub socket is the first thing to die half-open.
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )


def work_once(services: Services) -> int:
    """Deliver what is due now, without a broker; answer how many attempts were made."""
    outbox.reap_and_expire(services)
    return Drain(services).run(seconds=math.inf)[0]


def _controller(celery: Celery) -> Any:
    """A worker without Celery's program around it: that one takes over signals and logging."""

    class Controller(celery.WorkController):  # type: ignore[misc]
        def on_before_init(self, **_: Any) -> None:
            # Without it tasks are looked up in Celery's default app, which is nobody's.
            trace.setup_worker_optimizations(self.app, self.hostname)

        def on_consumer_ready(self, consumer: Any) -> None:
            signals.worker_ready.send(sender=consumer)

    return Controller


class EmbeddedWorker:
    """A worker in a thread of this process, for the broker in memory: threads, never forks.

    A forked child's publishes would vanish, since memory is not shared. Time limits do nothing under
    threads, which is why every socket has a timeout of its own.
    """

    def __init__(self, app: flask.Flask, concurrency: int = 4) -> None:
        self._worker = _controller(celery_of(app))(
            pool="threads",
            concurrency=concurrency,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mailer-worker", daemon=True)

    def start(self, timeout_seconds: float = 10) -> None:
        """Start, and return once it consumes."""
        signals.worker_ready.connect(self._on_ready, weak=True)
        self._thread.start()
        if not self._ready.wait(timeout_seconds):
            raise RuntimeError("the worker did not become ready")

    def stop(self, timeout_seconds: float = 4) -> bool:
        """Finish what is held, for as long as the timeout allows; answer whether all of it was finished."""

        def end() -> None:
            signals.worker_shutdown.send(sender=self._worker)
            self._worker.stop()

        stopping = threading.Thread(target=end, daemon=True)
        stopping.start()
        stopping.join(timeout_seconds)
        return not stopping.is_alive()

    def _on_ready(self, sender: Any = None, **_: Any) -> None:
        if sender is not None and sender.app is self._worker.app:
            self._ready.set()

    def _run(self) -> None:
        try:
            self._worker.start()
        except SystemExit:
            pass
        except Exception as exc:
            log.error("worker.died", error=type(exc).__name__, why=str(exc)[:200])
            raise
