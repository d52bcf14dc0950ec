"""The sweeper: a thread in every worker that finds due, unpublished and abandoned rows.

Any number may run at once and none has to: each sweep is a few guarded statements. It is a loop and
not a task, because a task would have to be published through the very broker that may be down. And while
it is down, or brings this worker nothing, the sweeper sends what is due by itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from mailer import outbox
from mailer.drain import Drain
from mailer.errors import StoreError
from mailer.heartbeat import Heartbeat
from mailer.retention import Tidying
from mailer.services import Services
from mailer.store import sweeps
from mailer.telemetry import log

ADOPT_SECONDS = 600
"""How often lanes are looked for that are configured no longer: web processes may be older than workers."""
JUMP_SECONDS = 5
"""A clock that is off by more than this since the last sweep was set."""


class Sweeper:
    """Sweeps every ``MAILER_SWEEP_SECONDS`` until stopped."""

    def __init__(self, services: Services, drain: Drain, patience_seconds: float = 2) -> None:
        """``patience_seconds`` is how long wake-ups may fail to come before the sweeper sends by itself.

        In a worker that serves none of our lanes it sends nothing, and the worker does not count as one.
        """
        self._services, self._drain, self._patience = services, drain, patience_seconds
        self.heartbeat = Heartbeat(services, drain.lanes[-1]) if drain.lanes else None
        self._hand: threading.Thread | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mailer-sweeper", daemon=True)
        self._tidying = Tidying(services)
        self._adopted = self._trusted = float("-inf")
        self._ticked: tuple[float, float] | None = None
        self._heal_at: float | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 60) -> None:
        """End after this sweep, and a mail that is being sent from here."""
        give_up = time.monotonic() + timeout_seconds
        self._stop.set()
        for thread in (self._thread, self._hand):
            if thread is not None and thread.is_alive():
                thread.join(max(0, give_up - time.monotonic()))
        with contextlib.suppress(StoreError):  # it is forgotten within the hour
            if self.heartbeat:
                self.heartbeat.leave()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.sweep()
            self._stop.wait(self._services.settings.sweep_seconds)

    def sweep(self) -> None:
        """Everything once; what fails is left for the next time."""
        for step in (self._look_at_clock, self._reap, self._wake, self._beat, self._adopt, self._tidy):
            self._do(step)

    def _do(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as exc:  # whatever happened, the next sweep may find it gone
            log.error("sweeper.failed", error=type(exc).__name__, why=str(exc)[:200])

    def _look_at_clock(self) -> None:
        """A clock set forward makes living workers' leases look over; one set back makes lost ones last.

        So after a jump nothing is taken back until whoever is alive has renewed its leases.
        """
        now, steady = self._services.now().timestamp(), time.monotonic()
        before, self._ticked = self._ticked, (now, steady)
        if self._heal_at is not None and steady >= self._heal_at:  # calls that began before the clock was set
            self._heal_at = None
            self._heal()
        if before is None:
            return
        jumped = (now - before[0]) - (steady - before[1])
        if abs(jumped) <= JUMP_SECONDS:
            return
        log.warning("clock.jumped", seconds=round(jumped, 1))
        self._trusted = steady + self._services.settings.lease_seconds
        if jumped < 0:
            self._heal_at = self._trusted
            self._heal()

    def _heal(self) -> None:
        lease = timedelta(seconds=self._services.settings.lease_seconds)
        longest = timedelta(seconds=max(self._services.policy.backoff_max_seconds, lease.total_seconds()))
        with self._services.store.begin() as connection:
            sweeps.heal(connection, self._services.now(), lease, longest)

    def _reap(self) -> None:
        if time.monotonic() >= self._trusted:
            outbox.reap_and_expire(self._services)

    def _wake(self) -> None:
        """Tell the broker what is due; if it does not listen or brings nothing here, send it from here.

        A broker that is back is heard of at once by whoever publishes, by a consumer only at its next try.
        """
        heard = outbox.wake(self._services, outbox.due(self._services))
        if self.heartbeat is None:
            return
        if not heard or self.heartbeat.stalled or self.heartbeat.silence > self._patience:
            self._lend_a_hand()

    def _lend_a_hand(self) -> None:
        """Send in a thread of its own: a server that is silent must not keep the sweeper from its work."""
        idle = self._hand is None or not self._hand.is_alive()
        if idle and self._drain.waiting():
            self._hand = threading.Thread(
                target=self._do, args=(self._send,), name="mailer-hand", daemon=True
            )
            self._hand.start()

    def _send(self) -> None:
        with self._services.app_context():
            self._drain.run()

    def _beat(self) -> None:
        if self.heartbeat is not None:
            self.heartbeat.beat()

    def _adopt(self) -> None:
        if time.monotonic() - self._adopted < ADOPT_SECONDS:
            return
        self._adopted = time.monotonic()
        with self._services.store.begin() as connection:
            sweeps.adopt(connection, self._services.settings.lane_names)

    def _tidy(self) -> None:
        if time.monotonic() >= self._trusted:  # a clock set to next year must not erase this one
            self._tidying.step()
