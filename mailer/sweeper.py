"""The sweeper: a thread in every worker that finds due, unpublished and abandoned rows.

Any number may run at once and none has to: each sweep is a few guarded statements. It is a loop and
not a task, because a task would have to be published through the very broker that may be down.
"""

from __future__ import annotations

import threading

from mailer import outbox
from mailer.services import Services
from mailer.telemetry import log


class Sweeper:
    """Sweeps every ``MAILER_SWEEP_SECONDS`` until stopped."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mailer-sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 5) -> None:
        self._stop.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                outbox.sweep(self._services)
            except Exception as exc:  # whatever happened, the next sweep may find it gone
                log.error("sweeper.failed", error=type(exc).__name__, why=str(exc)[:200])
            self._stop.wait(self._services.settings.sweep_seconds)
