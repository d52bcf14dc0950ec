"""What a route asks of whoever knows: which transports work, how much they may take, and what they carried.

Each of the three is shared by all workers elsewhere. Here is what is asked, and the answers of nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailer.transports import Parcel, Result
from mailer.transports.ways import Way

PROBE_SECONDS = 5
"""How long somebody else's look at a transport is waited for."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a transport may be used now.

    ``due``: its rest is over, and one parcel may find out. Else it is to be asked again in ``seconds``.
    """

    open: bool = True
    due: bool = False
    seconds: float = 0.0
    why: str = ""


class Gates(Protocol):
    """Which transports work, as all workers see it. Nothing here raises."""

    def standing(self, way: Way) -> Standing:
        """How it stands, known for about a second."""

    def probe(self, way: Way) -> bool:
        """Whether this caller may try with one parcel: nobody else may until it says what came of it."""

    def passed(self, way: Way) -> None:
        """It works."""

    def failed(self, way: Way, result: Result) -> None:
        """No conversation came about."""

    def untold(self, way: Way) -> None:
        """The one parcel did not get far enough to tell; somebody else may try."""


@dataclass(slots=True)
class Hold:
    """What may go now, what may not for so many seconds and why, and what to ask for afterwards."""

    going: Sequence[Parcel]
    put_off: Sequence[tuple[Parcel, Result]] = ()
    later: Sequence[Parcel] = ()


class Limits(Protocol):
    """How much may go at once, as all workers count it. Nothing here raises."""

    def hold(self, way: Way, parcels: Sequence[Parcel]) -> contextlib.AbstractContextManager[Hold]:
        """Take places for as many as may go; they are given back at the end of the block."""

    def learn(self, way: Way, results: Mapping[str, Result]) -> None:
        """Look at what was answered to whom: whether a domain wants less."""


class AlwaysOpen:
    """The `Gates` of who shares nothing: every transport is tried every time."""

    def standing(self, way: Way) -> Standing:
        """It may be used."""
        return Standing()

    def probe(self, way: Way) -> bool:
        """Nobody has to."""
        return True

    def passed(self, way: Way) -> None:
        """Nothing is remembered."""

    def failed(self, way: Way, result: Result) -> None:
        """Nothing is remembered."""

    def untold(self, way: Way) -> None:
        """Nothing is remembered."""


class NoLimits:
    """The `Limits` of who has none."""

    @contextlib.contextmanager
    def hold(self, way: Way, parcels: Sequence[Parcel]) -> Iterator[Hold]:
        """All may go."""
        yield Hold(parcels)

    def learn(self, way: Way, results: Mapping[str, Result]) -> None:
        """Nothing is learnt."""


class Tally(Protocol):
    """Who counts what was carried. Nothing here raises."""

    def count(self, name: str, results: Iterable[Result]) -> None:
        """Count the results of a transport."""


class NoTally:
    """The `Tally` of who is not asked."""

    def count(self, name: str, results: Iterable[Result]) -> None:
        """Nothing is counted."""
