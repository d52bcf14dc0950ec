"""Draining: a worker that is awake goes on until nothing is due, lane by lane.

A wake-up only says that there is something to do. Who hears it looks which lanes have mails due, takes a
turn for one of them, attempts a batch, and looks again. So one wake-up serves any number of messages,
most wake-ups find nothing to do, and none has to arrive for a message to be sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from mailer import delivery
from mailer.lanes import Lane, Turns
from mailer.services import Services
from mailer.store import deliveries as rows

BATCH_SECONDS = 0.5
"""What a batch should take: after it the worker looks again which lane is next."""
MOST = 50
"""Deliveries in a batch. A worker that is lost leaves so many to wait for the end of its lease."""


class Drain:
    """One worker's hands: ``at_once`` batches at a time, of these ``lanes``; None: of all."""

    def __init__(self, services: Services, at_once: int = 1, lanes: Sequence[str] | None = None) -> None:
        self._services = services
        known = services.settings.lanes
        self._lanes: list[Lane] = [lane for lane in known if lanes is None or lane.name in lanes]
        self._turns = Turns(self._lanes, at_once)
        self._suspect = threading.Lock()
        self._pace = BATCH_SECONDS / 10
        self.stopping = False

    @property
    def lanes(self) -> list[str]:
        """The names of the lanes this worker serves."""
        return [lane.name for lane in self._lanes]

    def run(self, seconds: float = 5) -> tuple[int, str | None]:
        """Attempt what is due, for about so long; answer how many deliveries, and a lane that has more.

        None for the lane: nothing is left, or others of this process are at it.
        """
        made, idle, until = 0, set[str](), time.monotonic() + seconds
        while True:
            waiting = [lane for lane in self.waiting() if lane not in idle]
            if self.stopping or time.monotonic() >= until:
                return made, waiting[0] if waiting else None
            lane = self._turns.take(waiting)
            if lane is None:
                return made, None
            try:
                attempted = self._round(lane)
            finally:
                self._turns.give_back(lane)
            made += attempted
            if not attempted:  # another worker was quicker, or only suspects are left and one is at work
                idle.add(lane)

    def waiting(self) -> list[str]:
        """Which of its lanes have something due."""
        services = self._services
        with services.store.read() as connection:
            return rows.waiting(connection, self.lanes, services.now())

    def _round(self, lane: str) -> int:
        """One batch, or one suspect: of those a process has only one in hand at a time."""
        began = time.monotonic()
        size = max(1, min(MOST, int(BATCH_SECONDS / self._pace)))
        may_be_suspect = self._suspect.acquire(blocking=False)
        try:
            made = delivery.deliver_due(self._services, lane, size, suspects=may_be_suspect)
        finally:
            if may_be_suspect:
                self._suspect.release()
        if made:
            self._pace += ((time.monotonic() - began) / made - self._pace) / 2
        return made
