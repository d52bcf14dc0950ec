"""The transports as people see them: how each stands, what it carried lately, and pausing one by hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from mailer.breaker import wake_all
from mailer.errors import InvalidMessage
from mailer.providers import ways_of
from mailer.services import Services
from mailer.slowdown import RECOVERY
from mailer.store import slow_domains
from mailer.store import transports as rows
from mailer.store.transports import PAUSED, RESTING, WORKING, Counts, TransportRow
from mailer.transports.ways import Routing, Way

LATELY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Carrier:
    """One configured transport. ``why`` is empty while it works; ``carried`` is of the last hour.

    ``slow`` are domains that asked for less, and how often what may go there is halved now.
    """

    name: str
    setting: str
    routing: Routing
    state: str
    since: datetime | None
    until: datetime | None
    reason: str | None
    why: str
    by: str | None
    carried: Counts
    slow: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: instants in ISO 8601."""
        limits = {
            name: sorted(value) if isinstance(value, frozenset) else value
            for name, value in asdict(self.routing).items()
        }
        return {
            "name": self.name,
            "state": self.state,
            "since": self.since.isoformat() if self.since else None,
            "until": self.until.isoformat() if self.until else None,
            "reason": self.reason,
            "why": self.why or None,
            "by": self.by,
            "last_hour": asdict(self.carried),
            "slow_domains": self.slow,
            "routing": limits,
        }


def carriers(services: Services) -> list[Carrier]:
    """All configured transports, in the order of naming."""
    since = services.now() - LATELY
    with services.store.read() as connection:
        known, carried = rows.all_transports(connection), rows.counted(connection, since)
        halved = slow_domains.slow(connection, services.now(), RECOVERY)
    return [
        _carrier(
            way,
            known.get(way.name) or TransportRow(way.name, WORKING, 0, None),
            carried.get(way.name, Counts()),
            {domain: number for (name, domain), number in sorted(halved.items()) if name == way.name},
        )
        for way in ways_of(services.transport)
    ]


def _carrier(way: Way, row: TransportRow, carried: Counts, slow: dict[str, int]) -> Carrier:
    return Carrier(
        way.name,
        way.setting,
        way.routing,
        row.state,
        row.since,
        row.until,
        row.reason,
        row.words or "",
        row.by,
        carried,
        slow,
    )


def terms(routing: Routing, limits_only: bool = False) -> list[str]:
    """What its URL says about routing and limits, as it is written there."""
    names = ["rate", "concurrency", "domain_rate", "domain_concurrency"]
    names += [] if limits_only else ["weight", "senders", "lanes"]
    given = ((name, getattr(routing, name)) for name in names)
    return [f"{name}={_written(value)}" for name, value in given if value not in (None, frozenset())]


def slowed(carrier: Carrier) -> str:
    """The domains it is slower to, and what part of the usual goes there: "x.example at 1/4"."""
    return ", ".join(f"{domain} at 1/{2**halvings}" for domain, halvings in carrier.slow.items())


def _written(value: object) -> str:
    return ",".join(sorted(value)) if isinstance(value, frozenset) else f"{value:g}"


def pause(services: Services, name: str, *, by: str, why: str = "") -> None:
    """Let nothing through a transport until somebody resumes it. Raises InvalidMessage for another name."""
    check(services, name)
    with services.store.begin() as connection:
        rows.pause(connection, name, services.now(), by, why)


def resume(services: Services, name: str) -> bool:
    """End a pause or a rest, and make due what waits; False if it worked anyway. Raises InvalidMessage."""
    check(services, name)
    with services.store.begin() as connection:
        stopped = rows.resume(connection, name, services.now())
    if stopped:
        wake_all(services.store, services.now)
    return stopped


def check(services: Services, name: str) -> None:
    """Raises InvalidMessage if no transport is called so."""
    names = [way.name for way in ways_of(services.transport)]
    if name not in names:
        raise InvalidMessage("name", f"is none of the transports; there are: {', '.join(names)}")


__all__ = [
    "PAUSED",
    "RESTING",
    "WORKING",
    "Carrier",
    "carriers",
    "check",
    "pause",
    "resume",
    "slowed",
    "terms",
]
