"""Limits that all workers share, in the store on both databases and in Redis: the same rules everywhere."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from mailer import limits
from mailer.limits import SharedLimits, Turns, limits_of, rate_limit
from mailer.places import Limit, RedisPlaces, Refused, StorePlaces, Taken
from mailer.store import places as rows
from mailer.store import transports
from mailer.transports.local import MemoryTransport
from mailer.transports.ways import Routing, Way
from tests.servers import free_port
from tests.store.conftest import NOW
from tests.transports.talking import parcel

ROOT = Path(__file__).parents[2]


def now():
    return datetime.now(UTC)


@pytest.fixture
def shared(store):
    return StorePlaces(store, now)


@pytest.fixture(params=["store", "redis"])
def places(request, store, redis_url):
    if request.param == "store":
        yield StorePlaces(store, now)
        return
    with redis.Redis.from_url(redis_url) as client:
        yield RedisPlaces(client, "test")


def take(places, wanted, token="t"):
    taken = Taken(token)
    return taken, [a and a.limit for a in places.take(taken, wanted)]


def test_no_more_get_a_place_than_there_are(places):
    """The first come first, and the others learn which limit it was."""
    two = Limit("ses, rate", 2, 1.0)
    assert take(places, [[two]] * 3)[1] == [None, None, two]
    assert take(places, [[two]], "u")[1] == [two]
    assert take(places, [[Limit("post, rate", 2, 1.0)]], "v")[1] == [None]


def test_a_mail_gets_all_of_its_places_or_none(places):
    """A full domain uses up nothing of the provider's, and the other way round."""
    domain, all_ = Limit("to x", 1), Limit("ses", 3, of_all=True)
    assert take(places, [[domain, all_], [domain, all_], [all_]])[1] == [None, domain, None]
    assert take(places, [[all_], [all_]], "u")[1] == [None, all_]


def test_once_the_provider_is_full_nobody_behind_gets_in(places):
    """Not even who needs no place of it: order is kept where everything waits for the same."""
    all_ = Limit("ses", 1, of_all=True)
    assert take(places, [[all_], [all_], []])[1] == [None, all_, all_]


def test_a_place_counts_while_its_mail_is_under_way_and_a_span_longer(places):
    """However long a server takes: no more than so many leave within any span. This test waits 0.3 s."""
    one, slot = Limit("rate", 1, 0.3), Limit("at once", 1)
    taken, _ = take(places, [[one, slot]])
    assert take(places, [[one]], "u")[1] == [one]
    assert take(places, [[slot]], "u")[1] == [slot]
    places.give_back(taken)
    assert take(places, [[slot]], "v")[1] == [None]
    [refused] = places.take(Taken("w"), [[one]])
    assert 0 < refused.seconds <= 0.3
    time.sleep(refused.seconds + 0.01)
    assert take(places, [[one]], "x")[1] == [None]


def test_a_worker_that_is_lost_holds_nothing_for_long(places, monkeypatch):
    """Its places end with their lease, unless it says that it is at it. This test waits 1.6 s."""
    monkeypatch.setattr("mailer.places.LEASE_SECONDS", 1.2)
    one, other = Limit("rate", 1, 9), Limit("other", 1, 9)
    take(places, [[one]])
    kept, _ = take(places, [[other]], "u")
    time.sleep(0.8)
    places.keep(kept)
    time.sleep(0.8)
    assert take(places, [[one], [other]], "v")[1] == [None, other]


def test_rows_go_with_their_time(store):
    """What no longer counts is not kept, and what is given back under no span neither."""
    second = timedelta(seconds=1)
    with store.begin() as connection:
        rows.take(connection, "t", {"a": 2, "b": 1}, NOW + second)
        rows.take(connection, "u", {"a": 3}, NOW + 2 * second)
        assert rows.taken(connection, ["a", "b", "c"], NOW) == {
            "a": (5, NOW + second),
            "b": (1, NOW + second),
        }
        rows.keep(connection, ["t"], NOW + 4 * second)
        rows.give_back(connection, "t", {"a": NOW + 3 * second})
        assert rows.taken(connection, ["a", "b"], NOW) == {"a": (5, NOW + 2 * second)}
        assert rows.taken(connection, ["a"], NOW + 2 * second) == {"a": (2, NOW + 3 * second)}
        assert rows.taken(connection, ["a"], NOW + 3 * second) == {}


SENDER = """
import random, sys, time
import redis
from datetime import UTC, datetime
from mailer.limits import SharedLimits
from mailer.places import StorePlaces
from mailer.sealing import Sealer
from mailer.slowdown import Slowdowns
from mailer.store import Store, create_engine
from mailer.transports import Parcel
from mailer.transports.local import MemoryTransport
from mailer.transports.ways import Routing, Way
url, redis_url = sys.argv[1:]
now, store = lambda: datetime.now(UTC), Store(create_engine(url), Sealer([b"k" * 32]))
client = (lambda: redis.Redis.from_url(redis_url) if redis_url else None)
shared = SharedLimits(StorePlaces(store, now), Slowdowns(store, now), client, "test")
way = Way("ses", MemoryTransport(), Routing(rate=20, concurrency=2))
batch = [Parcel(f"m{n}", "a@x.test", (f"b{n}@y.test",), b"") for n in range(15)]
print("ready", flush=True)
until = float(sys.stdin.readline())
while time.time() < until:
    with shared.hold(way, batch) as hold:
        for _ in hold.going:
            begun = time.time()
            time.sleep(random.uniform(0, 0.02))
            print(begun, time.time(), flush=True)
    time.sleep(0.01)
"""


@pytest.mark.parametrize("where", ["store", "redis"])
def test_processes_together_never_exceed_a_limit(store, redis_url, where):
    """RT11, SR6: four processes send as fast as they may; in no second of the run leave more than 20, and
    never are more than 2 of them at it. This test takes 2.5 s.
    """
    url = store.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", SENDER, url, redis_url if where == "redis" else ""]
    both_ways = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **both_ways) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    until = f"{time.time() + 2.5}\n"
    for process in processes:
        process.stdin.write(until)
        process.stdin.flush()
    said = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    sent = [[float(word) for word in line.split()] for out in said for line in out.splitlines()]
    ends = sorted(end for _, end in sent)
    assert max(sum(start <= at < start + 1 for at in ends) for start in ends) <= 20
    assert max(sum(begun <= at < end for begun, end in sent) for at, _ in sent) <= 2
    assert len(ends) >= 20, "and they do leave"


class NobodySlow:
    """No domain asked for less."""

    def halvings(self, way):
        return {}


def limits_on(places, client=lambda: None):
    return SharedLimits(places, NobodySlow(), client, "test")


def hold(shared, way, parcels):
    with shared.hold(way, parcels) as held:
        return held


def way(**routing):
    return Way("ses", MemoryTransport(), Routing(**routing))


def test_who_finds_no_place_waits_for_a_turn(shared):
    """At no cost: each is due when its turn may have come, so no backlog is looked at all the time."""
    process = limits_on(shared)
    batch = [parcel(id=f"m{n}") for n in range(50)]
    first = hold(process, way(rate=10), batch)
    assert [p.id for p in first.going] == ["m0", "m1", "m2"], "a quarter of a second's"
    assert (len(first.put_off), len(first.later)) == (0, 47)
    left, sent = first.later, 3
    while (found := hold(process, way(rate=10), left)).going:
        left, sent = found.later, sent + len(found.going)
    assert sent == 10
    waits = [result.wait_seconds for _, result in found.put_off]
    assert len(waits) == 40
    assert waits == sorted(waits)
    assert 3.9 < waits[-1] < 5.2
    assert {result.problem for _, result in found.put_off} == {"waiting for a limit: ses, rate"}


def test_a_critical_mail_does_not_queue_behind_bulk():
    """RT11: each lane has turns of its own."""
    turns, refused = Turns(), Refused(Limit("ses, rate", 10, 1.0), 1.0)
    bulk = [turns.wait(refused, "bulk") for _ in range(20_000)]
    assert bulk[-1] == limits.MOST_WAIT_SECONDS
    assert turns.wait(refused, "critical") < 1.2


def test_a_full_domain_holds_up_no_other(shared):
    """RT11: mail to other domains goes on with the same batch."""
    process = limits_on(shared)
    batch = [
        parcel(f"a@{'slow' if n % 2 else 'quick'}{n * (n % 2 == 0)}.test", id=f"m{n}") for n in range(10)
    ]
    found = hold(process, way(domain_rate=1), batch)
    assert Counter(p.recipients[0].partition("@")[2][:4] for p in found.going) == {"quic": 5, "slow": 1}
    assert [p.recipients[0] for p, _ in found.put_off] == ["a@slow0.test"] * 4
    assert not found.later


def test_places_for_connections_only(shared):
    """A batch takes no more places than its transport has connections; the rest of it rides along."""
    process = limits_on(shared)
    batch = [parcel(id=f"m{n}") for n in range(50)]
    with process.hold(way(concurrency=1), batch) as one:
        assert len(one.going) == 50  # a transport in memory has one
        with process.hold(way(concurrency=1), batch) as other:
            assert not other.going
            assert len(other.put_off) == 50
    assert len(hold(process, way(concurrency=1), batch).going) == 50


def test_without_redis_the_store_counts(shared, store):
    """Redis that is away is left alone for a while; the limit holds all the same."""
    away = redis.Redis(port=free_port(), socket_connect_timeout=0.2)
    asked = []
    process = limits_on(shared, lambda: asked.append(1) or away)
    batch = [parcel(id=f"m{n}") for n in range(10)]
    assert len(hold(process, way(rate=4), batch).going) == 1
    assert len(hold(process, way(rate=4), batch).going) == 1
    assert len(asked) == 1
    with store.read() as connection:
        assert transports.all_transports(connection) == {}


def test_no_limit_costs_nothing():
    """No statement, no round trip."""
    process = limits_on(StorePlaces(None, now), lambda: 1 / 0)
    batch = [parcel()]
    assert hold(process, way(), batch).going == batch


def test_rates_in_whole_mails():
    """14 a second are 14 in one; a half is one in two; what is in between is never rounded up."""
    [(most, keep)] = [(x.most, x.keep) for x in rate_limit("k", 14)]
    assert (most, keep) == (14, 1.0)
    assert [(x.most, x.keep) for x in rate_limit("k", 0.5)] == [(1, 2.0)]
    assert [(x.most, x.keep) for x in rate_limit("k", 2.5)] == [(2, 0.8)]


def test_every_domain_of_a_mail_counts_once():
    """Two people at one domain are one mail to it."""
    wanted = limits_of(way(domain_rate=1), [parcel("a@x.test", "b@X.test", "c@y.test")])
    assert [limit.key for limit in wanted[0]] == ["ses to x.test, rate", "ses to y.test, rate"]
