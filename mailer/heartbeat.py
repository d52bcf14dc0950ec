"""A worker's heartbeat: that it is alive, and that it consumes. The second is what matters.

A broker's connection can die in a way that lets the worker wait for ever for what never comes. So each
worker notes when it last took a wake-up, and while there are none it publishes one that means nothing.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from datetime import datetime, timedelta

import uuid_utils

from mailer import outbox
from mailer.services import Services
from mailer.store import workers
from mailer.store.deliveries import Wakeup
from mailer.store.workers import WorkerRow
from mailer.telemetry import log

BEAT_SECONDS = 5
PROBE_SECONDS = 15
MISSED = 4
"""A worker that took none of so many probes, a minute's worth, is stalled: the broker did take them."""


def consuming(worker: WorkerRow, now: datetime) -> bool:
    """Whether a worker is alive and wake-ups reach it."""
    alive = now - worker.seen_at < timedelta(seconds=6 * BEAT_SECONDS)
    patience = timedelta(seconds=PROBE_SECONDS * MISSED)
    return alive and worker.consumed_at is not None and now - worker.consumed_at < patience


class Heartbeat:
    """The beat of one worker; its sweeper drives it. ``lane`` is one that it serves."""

    def __init__(self, services: Services, lane: str) -> None:
        now, name = services.now(), f"{socket.gethostname()}:{os.getpid()}"
        self._services, self._lane = services, lane
        self._row = WorkerRow(str(uuid_utils.uuid7()), name[:200], now, now, None)
        self._beaten, self._heard, self._probed = float("-inf"), time.monotonic(), 0

    def consumed(self) -> None:
        """A wake-up was taken, or a batch attempted."""
        self._heard, self._probed = time.monotonic(), 0
        self._row = replace(self._row, consumed_at=self._services.now())

    @property
    def silence(self) -> float:
        """Seconds since a wake-up reached this worker."""
        return time.monotonic() - self._heard

    @property
    def stalled(self) -> bool:
        """The broker takes wake-ups, and none reaches this worker."""
        return self._probed >= MISSED

    def beat(self) -> None:
        """Write the row, and probe, if it is time. Raises StoreError."""
        if time.monotonic() - self._beaten < BEAT_SECONDS:
            return
        self._beaten, self._row = time.monotonic(), replace(self._row, seen_at=self._services.now())
        with self._services.store.begin() as connection:
            workers.beat(connection, self._row)
        new = self._row.consumed_at is None and not self._probed
        if new or self.silence > PROBE_SECONDS * (self._probed + 1):
            taken = outbox.wake(self._services, [Wakeup(self._row.id, self._lane)])
            self._probed += taken
            if self.stalled:
                log.error("worker.stalled", worker=self._row.name, hint="it goes on by itself; restart it")

    def leave(self) -> None:
        """Take the row away. Raises StoreError."""
        with self._services.store.begin() as connection:
            workers.leave(connection, self._row.id)
