"""Where places under limits are kept: in the broker's Redis where there is one, else in the store.

Both mean the same; see `mailer.store.places`. Redis decides in a script, so that nobody comes in between.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import redis

from mailer.store import Store
from mailer.store import places as rows

LEASE_SECONDS = 15
"""A worker that says nothing for so long holds no places any more."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``most`` places under this key; each counts for ``keep`` seconds after its mail has left.

    ``of_all``: every mail of the transport is under it. Once one finds no place, nobody behind it does.
    """

    key: str
    most: int
    keep: float = 0.0
    of_all: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """No place under this limit; the first one may be free in ``seconds``."""

    limit: Limit
    seconds: float


@dataclass(slots=True)
class Taken:
    """What was taken under one token, once: how many places of each limit, and which."""

    token: str
    numbers: Counter[Limit] = field(default_factory=Counter)
    members: dict[Limit, list[str]] = field(default_factory=dict)


class Places(Protocol):
    """Who keeps the places."""

    def take(self, taken: Taken, wanted: Sequence[Sequence[Limit]]) -> list[Refused | None]:
        """For each mail a place of every limit it wants, all or none; None is one that has them."""

    def keep(self, taken: Taken) -> None:
        """Whoever took them is still at it."""

    def give_back(self, taken: Taken) -> None:
        """The mails have left."""


class StorePlaces:
    """In the store. Raises StoreError."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store, self._now = store, now

    def take(self, taken: Taken, wanted: Sequence[Sequence[Limit]]) -> list[Refused | None]:
        """See `Places`. One transaction for all of them."""
        keys = {limit.key for limits in wanted for limit in limits}
        with self._store.begin() as connection:
            now = self._now()
            counted = rows.taken(connection, keys, now)
            used = Counter({key: number for key, (number, _) in counted.items()})
            free = {key: (first - now).total_seconds() for key, (_, first) in counted.items()}
            answers, took = _decide(wanted, used, free)
            numbers = {limit.key: number for limit, number in took.items()}
            rows.take(connection, taken.token, numbers, _lease_from(now))
        taken.numbers = took
        return answers

    def keep(self, taken: Taken) -> None:
        """See `Places`."""
        with self._store.begin() as connection:
            rows.keep(connection, [taken.token], _lease_from(self._now()))

    def give_back(self, taken: Taken) -> None:
        """See `Places`."""
        with self._store.begin() as connection:
            now = self._now()
            until = {x.key: now + timedelta(seconds=x.keep) for x in taken.numbers if x.keep}
            rows.give_back(connection, taken.token, until)


def _lease_from(now: datetime) -> datetime:
    return now + timedelta(seconds=LEASE_SECONDS)


def _decide(
    wanted: Sequence[Sequence[Limit]], used: Counter[str], free: dict[str, float]
) -> tuple[list[Refused | None], Counter[Limit]]:
    """In order, as the script below does it."""
    answers, took, over = list[Refused | None](), Counter[Limit](), None
    for limits in wanted:
        full = over or next((limit for limit in limits if used[limit.key] >= limit.most), None)
        if full is None:
            took.update(limits)
            used.update(limit.key for limit in limits)
        elif full.of_all:
            over = full
        answers.append(None if full is None else Refused(full, free.get(full.key, full.keep)))
    return answers, took


# KEYS: a sorted set for each limit, its members are places, each scored by when it no longer counts.
# ARGV: lease in ms, token, then for each key how many at most and whether it is of all, then for each mail
# the number of its limits and which keys they are. Answers for each mail the key that refused it, 0 for none;
# then for each key in how many ms the first place is free.
_TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lease, token, at = tonumber(ARGV[1]), ARGV[2], 3
local most, of_all, used, free, answer = {}, {}, {}, {}, {}
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  most[i], of_all[i], at = tonumber(ARGV[at]), ARGV[at + 1] == '1', at + 2
  used[i] = redis.call('ZCARD', key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  free[i] = first[2] and tonumber(first[2]) - now or -1
end
local over, mail = 0, 0
while at <= #ARGV do
  local count, full = tonumber(ARGV[at]), over
  mail = mail + 1
  for j = at + 1, at + count do
    local i = tonumber(ARGV[j])
    if full == 0 and used[i] >= most[i] then full = i end
  end
  if full == 0 then
    for j = at + 1, at + count do
      local i = tonumber(ARGV[j])
      used[i] = used[i] + 1
      redis.call('ZADD', KEYS[i], now + lease, token .. ':' .. mail)
      redis.call('PEXPIRE', KEYS[i], 3600000)
    end
  elseif of_all[full] then over = full end
  answer[mail] = full
  at = at + 1 + count
end
return {answer, free}
"""
# KEYS as above. ARGV: for each key in how many ms its places are free, then how many there are and which.
_HOLD = """
local t = redis.call('TIME')
local now, at = t[1] * 1000 + math.floor(t[2] / 1000), 1
for _, key in ipairs(KEYS) do
  local ms, count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  for j = at + 2, at + 1 + count do
    if ms > 0 then redis.call('ZADD', key, 'XX', now + ms, ARGV[j]) else redis.call('ZREM', key, ARGV[j]) end
  end
  at = at + 2 + count
end
"""


class RedisPlaces:
    """In Redis. Raises redis.RedisError."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._prefix = prefix
        self._take, self._hold = client.register_script(_TAKE), client.register_script(_HOLD)

    def take(self, taken: Taken, wanted: Sequence[Sequence[Limit]]) -> list[Refused | None]:
        """See `Places`. One round trip for all of them."""
        limits = list(dict.fromkeys(limit for each in wanted for limit in each))
        number = {limit: n for n, limit in enumerate(limits, 1)}
        arguments: list[int | str] = [LEASE_SECONDS * 1000, taken.token]
        for limit in limits:
            arguments += [limit.most, int(limit.of_all)]
        for each in wanted:
            arguments += [len(each), *(number[limit] for limit in each)]
        refused, free = self._take(keys=[self._key(limit) for limit in limits], args=arguments)
        for mail, (full, each) in enumerate(zip(refused, wanted, strict=True), 1):
            if not full:
                for limit in each:
                    taken.members.setdefault(limit, []).append(f"{taken.token}:{mail}")
        return [_refused(limits[full - 1], free[full - 1]) if full else None for full in refused]

    def keep(self, taken: Taken) -> None:
        """See `Places`."""
        self._until(taken, dict.fromkeys(taken.members, LEASE_SECONDS))

    def give_back(self, taken: Taken) -> None:
        """See `Places`."""
        self._until(taken, {limit: limit.keep for limit in taken.members})

    def _until(self, taken: Taken, seconds: Mapping[Limit, float]) -> None:
        arguments: list[int | str] = []
        for limit, members in taken.members.items():
            arguments += [math.ceil(seconds[limit] * 1000), len(members), *members]
        if taken.members:
            self._hold(keys=[self._key(limit) for limit in taken.members], args=arguments)

    def _key(self, limit: Limit) -> str:
        return f"{self._prefix}:places:{limit.key}"


def _refused(limit: Limit, free_ms: int) -> Refused:
    return Refused(limit, limit.keep if free_ms < 0 else free_ms / 1000)
