"""Draining: a worker that is awake goes on until nothing is due, lane by lane.

A wake-up only says that there is something to do. Who hears it looks which lanes have mails due, takes a
turn for one of them, attempts a batch, and looks again. So one wake-up serves any number of messages,
most wake-ups find nothing to do, and none has to arrive for a message to be sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from mailer import delivery
from mailer.broker import LINGER_SECONDS
from mailer.lanes import Lane, Turns
from mailer.services import Services
from mailer.store import deliveries as rows

BATCH_SECONDS = 0.5
"""What a batch should take: after it the worker looks again which lane is next."""
MOST = 200
"""Deliveries in a batch. A worker that is lost leaves so many to wait for the end of its lease."""

FEW, PAUSE_SECONDS, LONGEST_PAUSE = 50, 0.01, 0.05
"""What a batch costs beside its mails is as much for one as for ten: after a few there is a pause, in which
more come, of so long for each of them. The first mail waits for nothing, nor does one that comes alone.
"""


class Drain:
    """One worker's hands: ``at_once`` batches at a time, of these ``lanes``; None: of all."""

    def __init__(self, services: Services, at_once: int = 1, lanes: Sequence[str] | None = None) -> None:
        self._services = services
        known = services.settings.lanes
        self._lanes: list[Lane] = [lane for lane in known if lanes is None or lane.name in lanes]
        self._turns = Turns(self._lanes, at_once)
        self._suspect, self._looking = threading.Lock(), threading.Lock()
        self._look_until = 0.0
        self._pace = BATCH_SECONDS / 10
        self.stopping = False

    @property
    def lanes(self) -> list[str]:
        """The names of the lanes this worker serves."""
        return [lane.name for lane in self._lanes]

    def attend(self, call_for_help: Callable[[str], object]) -> tuple[int, str | None]:
        """`run` for a wake-up, and look again until no mail can be there that relied on this wake-up.

        One of the process's threads looks for all of them.
        """
        self._look_until = time.monotonic() + LINGER_SECONDS
        made, more = self.run(call_for_help=call_for_help, pause_seconds=PAUSE_SECONDS)
        while more is None and self._look_until > time.monotonic() and self._looking.acquire(blocking=False):
            try:
                found, more = self._look(call_for_help)
            finally:
                self._looking.release()
            made += found
        return made, more

    def _look(self, call_for_help: Callable[[str], object]) -> tuple[int, str | None]:
        made, more = 0, None
        while more is None and (left := self._look_until - time.monotonic()) > 0:
            time.sleep(min(left, LINGER_SECONDS / 2))
            found, more = self.run(call_for_help=call_for_help, pause_seconds=PAUSE_SECONDS)
            made += found
        return made, more

    def run(
        self,
        seconds: float = 5,
        call_for_help: Callable[[str], object] | None = None,
        pause_seconds: float = 0.0,
    ) -> tuple[int, str | None]:
        """Attempt what is due, for about so long; answer how many deliveries, and a lane that has more.

        None for the lane: nothing is left, or others of this process are at it. ``call_for_help`` is called
        once, with a lane that has more than one batch. After a small batch there is a pause, so that callers
        who are at it right now fill the next one.
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
                attempted, size = self._round(lane)
            finally:
                self._turns.give_back(lane)
            made += attempted
            if attempted >= size and call_for_help is not None:
                call_for_help(lane)
                call_for_help = None
            if pause_seconds and attempted < FEW:
                time.sleep(min(LONGEST_PAUSE, pause_seconds * attempted))
            if not attempted:  # another worker was quicker, or only suspects are left and one is at work
                idle.add(lane)

    def waiting(self) -> list[str]:
        """Which of its lanes have something due."""
        services = self._services
        with services.store.read() as connection:
            return rows.waiting(connection, self.lanes, services.now())

    def _round(self, lane: str) -> tuple[int, int]:
        """One batch, or one suspect: of those a process has only one in hand at a time.

        Answers how many deliveries that was, and how many it could have been.
        """
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
        return made, size
