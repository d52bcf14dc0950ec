"""Lanes: which mails go first, and how much of a worker each of them may take.

A *lane* has a weight and a share. Where several lanes have mails waiting, they are served in proportion
to their weights. A lane and those after it together hold at most its share of what a worker does at
once, so that newsletters at a slow provider never take the place that a password reset needs.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane. ``weight`` counts against those of other lanes; ``share`` is in percent of a worker."""

    name: str
    weight: int = 1
    share: int = 100

    @classmethod
    def parse(cls, text: str) -> Lane:
        """Read ``name``, ``name:weight`` or ``name:weight:share``. Raises ValueError in plain words."""
        name, *given = (part.strip() for part in text.split(":"))
        if not name.isidentifier() or len(name) > 32:
            raise ValueError("must be plain words of at most 32 letters, digits and _")
        if len(given) > 2 or not all(part.isascii() and part.isdigit() for part in given):
            raise ValueError("must look like critical:8:100 (name, weight, share in percent)")
        usual = _USUAL.get(name, cls(name))
        numbers = [int(part) for part in given]
        weight, share = numbers + [usual.weight, usual.share][len(numbers) :]
        if not (1 <= weight <= 1000 and 1 <= share <= 100):
            raise ValueError("must have weights from 1 to 1000 and shares from 1 to 100 percent")
        return cls(name, weight, share)

    def __str__(self) -> str:
        return f"{self.name}:{self.weight}:{self.share}"


LANES = (Lane("critical", 8, 100), Lane("default", 4, 75), Lane("bulk", 1, 50))
"""Most urgent first."""

_USUAL = {lane.name: lane for lane in LANES}


class Turns:
    """Whose turn it is in one worker that does ``at_once`` things at a time. Safe to use from threads."""

    def __init__(self, lanes: Sequence[Lane], at_once: int) -> None:
        self._lanes = list(lanes)
        self._limit = {lane.name: max(1, at_once * lane.share // 100) for lane in lanes}
        self._running: Counter[str] = Counter()
        self._credit: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, waiting: Collection[str]) -> str | None:
        """Begin a turn for one of the lanes that have mails waiting; None if no place is free for them."""
        with self._lock:
            ready = [lane for lane in self._lanes if lane.name in waiting and self._has_room(lane)]
            if not ready:
                return None
            # Smooth weighted round robin: each earns its weight, the richest pays for all.
            for lane in ready:
                self._credit[lane.name] += lane.weight
            chosen = max(ready, key=lambda lane: self._credit[lane.name])
            self._credit[chosen.name] -= sum(lane.weight for lane in ready)
            self._running[chosen.name] += 1
            return chosen.name

    def give_back(self, name: str) -> None:
        """End a turn."""
        with self._lock:
            self._running[name] -= 1

    def _has_room(self, lane: Lane) -> bool:
        """Whether the limits of this lane, and of those before it, allow one more."""
        place = self._lanes.index(lane)
        return all(
            sum(self._running[later.name] for later in self._lanes[n:]) < self._limit[self._lanes[n].name]
            for n in range(place + 1)
        )
