"""How much may go to a provider, and to a domain by it, counted over all workers.

A mail that finds no place under a limit waits in the store, at no cost to itself: it is due again when its
turn may have come, those of a lane one after the other. So a backlog is not looked at again and again. Only a
wait that is hardly one is waited for on the spot.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import redis

from mailer.errors import StoreError
from mailer.places import LEASE_SECONDS, Limit, Places, RedisPlaces, Refused, StorePlaces, Taken
from mailer.retry import LIMITED
from mailer.slowdown import BASE_CONCURRENCY, BASE_RATE, Slowdowns
from mailer.telemetry import log
from mailer.transports import Parcel, Result, Stage
from mailer.transports.gates import Hold
from mailer.transports.ways import Way, domain_of

ON_THE_SPOT_SECONDS = 0.2
"""What is waited for here: less than it costs to put a mail off and take it up again."""
MOST_WAIT_SECONDS = 900
"""A place far behind is looked at again after so long; limits may have been raised since."""
AGAIN_SECONDS = 60
"""How long Redis is left alone after it did not answer."""
_MOST_TURNS = 10_000


class SharedLimits:
    """The `mailer.transports.gates.Limits` of an application. Safe to use from several threads."""

    def __init__(
        self,
        stored: StorePlaces,
        slowdowns: Slowdowns,
        client: Callable[[], redis.Redis | None],
        prefix: str,
    ) -> None:
        """``client`` answers the Redis that all workers share, None if there is none; it may raise."""
        self._stored, self._slowdowns = stored, slowdowns
        self._client, self._prefix = client, prefix
        self._redis: RedisPlaces | None = None
        self._redis_away_until = float("-inf")
        self._turns = Turns()

    @contextlib.contextmanager
    def hold(self, way: Way, parcels: Sequence[Parcel]) -> Iterator[Hold]:
        """Take places for as many as may go; they are given back at the end of the block."""
        wanted = limits_of(way, parcels, self._slowdowns.halvings(way))
        if not any(wanted):
            yield Hold(parcels)
            return
        some, later = parcels[: _at_once(way, parcels)], parcels[_at_once(way, parcels) :]
        taken, answers = self._take(wanted[: len(some)])
        with self._held(taken):
            yield self._sorted_out(way, some, answers, later)

    def learn(self, way: Way, results: Mapping[str, Result]) -> None:
        """Slow down for the domains whose servers ask for it."""
        self._slowdowns.learn(way, results)

    # Taking places

    def _take(self, wanted: Sequence[Sequence[Limit]]) -> tuple[_Holding, list[Refused | None]]:
        holding, answers = self._try(wanted)
        soonest = min((a.seconds for a in answers if a is not None), default=math.inf)
        if None in answers or soonest > ON_THE_SPOT_SECONDS:
            return holding, answers
        time.sleep(max(soonest, 0.005))
        return self._try(wanted)

    def _try(self, wanted: Sequence[Sequence[Limit]]) -> tuple[_Holding, list[Refused | None]]:
        taken = Taken(secrets.token_hex(8))
        if (places := self._in_redis()) is not None:
            try:
                return _Holding(places, taken), places.take(taken, wanted)
            except redis.RedisError as exc:
                self._leave_redis(exc)
        try:
            return _Holding(self._stored, taken), self._stored.take(taken, wanted)
        except StoreError as exc:  # then nothing can be marked as sent either
            log.warning("store.away", error=str(exc))
            return _Holding(self._stored, taken), [
                Refused(limits[0], 1.0) if limits else None for limits in wanted
            ]

    def _in_redis(self) -> RedisPlaces | None:
        if self._redis is None and time.monotonic() >= self._redis_away_until:
            try:
                client = self._client()
                self._redis_away_until = math.inf if client is None else float("-inf")
                self._redis = None if client is None else RedisPlaces(client, self._prefix)
            except Exception as exc:  # whatever the broker's driver raises
                self._leave_redis(exc)
        return self._redis

    def _leave_redis(self, exc: Exception) -> None:
        """Count in the store for a while: every worker that finds Redis away does the same."""
        self._redis, self._redis_away_until = None, time.monotonic() + AGAIN_SECONDS
        log.warning("limits.redis_away", error=type(exc).__name__)

    @contextlib.contextmanager
    def _held(self, holding: _Holding) -> Iterator[None]:
        if not holding.taken.numbers and not holding.taken.members:
            yield
            return
        done = threading.Event()
        threading.Thread(target=holding.keep_until, args=(done,), name="mailer-places", daemon=True).start()
        try:
            yield
        finally:
            done.set()
            holding.give_back()

    # Who goes, who waits

    def _sorted_out(
        self, way: Way, some: Sequence[Parcel], answers: Sequence[Refused | None], later: Sequence[Parcel]
    ) -> Hold:
        refused = [(parcel, answer) for parcel, answer in zip(some, answers, strict=True) if answer]
        going = [parcel for parcel, answer in zip(some, answers, strict=True) if answer is None]
        again = [parcel for parcel, answer in refused if going and answer.limit.of_all]
        over = next((answer for _, answer in refused if answer.limit.of_all), None)
        put_off = [(parcel, answer) for parcel, answer in refused if not (going and answer.limit.of_all)]
        if over is not None and not going:  # whoever comes behind them meets the same
            put_off += [(parcel, over) for parcel in later]
            later = ()
        waiting = [(parcel, self._wait(way, parcel, answer)) for parcel, answer in put_off]
        return Hold(going, waiting, [*again, *later])

    def _wait(self, way: Way, parcel: Parcel, answer: Refused) -> Result:
        wait = self._turns.wait(answer, parcel.lane)
        return Result(Stage.CONNECT, problem=f"{LIMITED}: {answer.limit.key}", wait_seconds=wait)


class _Holding:
    """Places that were taken, and where they are kept."""

    def __init__(self, places: Places, taken: Taken) -> None:
        self.places, self.taken = places, taken

    def keep_until(self, done: threading.Event) -> None:
        """Keep them for as long as their mails are under way."""
        while not done.wait(LEASE_SECONDS / 3):
            with contextlib.suppress(StoreError, redis.RedisError):
                self.places.keep(self.taken)

    def give_back(self) -> None:
        """Give them back. If that fails they end with their lease."""
        with contextlib.suppress(StoreError, redis.RedisError):
            self.places.give_back(self.taken)


class Turns:
    """When whoever waits for a limit may come again: one after the other, as fast as the limit allows.

    What this process knows of; several processes send somewhat too many, who are put off once more.
    """

    def __init__(self) -> None:
        self._ends: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def wait(self, refused: Refused, lane: str) -> float:
        """Seconds until the turn of one more mail of this lane."""
        limit, now = refused.limit, time.monotonic()
        # A place that is given back without a span of its own: nobody knows when. Half a second is usual.
        step = (limit.keep or 0.5) / limit.most
        with self._lock:
            if len(self._ends) > _MOST_TURNS:
                self._ends = {key: end for key, end in self._ends.items() if end > now}
            first = now + min(max(refused.seconds, 0.0), limit.keep or 1.0)
            end = max(self._ends.get((limit.key, lane), first), first) + step
            self._ends[limit.key, lane] = min(end, now + MOST_WAIT_SECONDS)
        return min(end - now, MOST_WAIT_SECONDS)


def limits_of(
    way: Way, parcels: Sequence[Parcel], halvings: Mapping[str, int] | None = None
) -> list[list[Limit]]:
    """The limits that each parcel is under, those of its domains first, halved for some of these so often.

    A transport sends no more at once than it has connections, so only so many take places for that.
    """
    routing, connections = way.routing, _connections(way)
    rate = rate_limit(f"{way.name}, rate", routing.rate, of_all=True)
    at_once = (
        [Limit(f"{way.name}, concurrency", routing.concurrency, of_all=True)] if routing.concurrency else []
    )
    return [
        [*_of_domains(way, parcel, halvings or {}), *(at_once if place < connections else ()), *rate]
        for place, parcel in enumerate(parcels)
    ]


def rate_limit(key: str, rate: float | None, of_all: bool = False) -> list[Limit]:
    """A rate as a limit: whole mails in a second, or one in so many seconds."""
    if rate is None:
        return []
    most = max(1, math.floor(rate))
    return [Limit(key, most, most / rate, of_all)]


def _of_domains(way: Way, parcel: Parcel, halvings: Mapping[str, int]) -> list[Limit]:
    routing = way.routing
    if routing.domain_rate is None and routing.domain_concurrency is None and not halvings:
        return []
    found: list[Limit] = []
    for domain in sorted({domain_of(recipient) for recipient in parcel.recipients}):
        rate, at_once = routing.domain_rate, routing.domain_concurrency
        if halved := halvings.get(domain, 0):
            rate = (rate or BASE_RATE) / 2**halved
            at_once = max(1, (at_once or BASE_CONCURRENCY) >> halved)
        found += rate_limit(f"{way.name} to {domain}, rate", rate)
        if at_once:
            found.append(Limit(f"{way.name} to {domain}, concurrency", at_once))
    return found


def _connections(way: Way) -> int:
    config = getattr(way.transport, "config", None)
    return int(getattr(config, "connections", 1))


def _at_once(way: Way, parcels: Sequence[Parcel]) -> int:
    """A quarter of a second's mails: their places count from now until they have left, and a span longer."""
    rate = way.routing.rate
    return len(parcels) if rate is None else max(_connections(way), math.ceil(rate / 4))
