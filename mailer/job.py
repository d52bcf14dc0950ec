"""One message of a batch on its way, and the lease under which it is held."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mailer.store.deliveries import Claimed


@dataclass(frozen=True, slots=True)
class Lease:
    """The fencing token of one claim, and how long a lease lasts without renewal."""

    token: str
    duration: timedelta


@dataclass(slots=True)
class Job:
    """A message and those of its deliveries that are claimed.

    ``marked``: its text may have gone out. ``expired``: its deadline passed right before. ``settled``: what
    became of every delivery is known.
    """

    message: str
    claimed: list[Claimed]
    accepted_at: datetime | None = None
    sender: str = ""
    lane: str = "default"
    carrier: str | None = None
    data: bytes = b""
    expired: bool = False
    marked: bool = False
    settled: bool = False
