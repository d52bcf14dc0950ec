"""SR6: a domain that asks for less gets less, from all workers, and slowly more again. On both databases."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from mailer import slowdown
from mailer.limits import SharedLimits
from mailer.places import StorePlaces
from mailer.slowdown import PAUSE, RECOVERY, Slowdowns, is_plea
from mailer.store import slow_domains as rows
from mailer.transports import Reply, Result, Stage
from mailer.transports.local import MemoryTransport
from mailer.transports.route import Route
from mailer.transports.ways import Routing, Way
from tests.peer import Say, Script, SmtpPeer
from tests.store.conftest import NOW
from tests.transports.talking import Leave, parcel
from tests.transports.talking import transport as smtp_to

SECOND = timedelta(seconds=1)
PLEA = Result(Stage.RCPT, Reply(421, "4.7.0 try again later"))


def halve(connection, at, domain="x.test"):
    return rows.halve(connection, "ses", domain, at, RECOVERY, PAUSE)


def test_each_plea_halves_once(store):
    """What a batch was told all at once is one plea; another domain is not concerned."""
    with store.begin() as connection:
        assert [halve(connection, NOW + n * SECOND) for n in (0, 1, 9, 10, 20)] == [1, None, None, 2, 3]
        assert halve(connection, NOW, "y.test") == 1
        found = rows.slow(connection, NOW + 20 * SECOND, RECOVERY)
    assert found == {("ses", "x.test"): 3, ("ses", "y.test"): 1}


def test_it_recovers_slowly(store):
    """One halving is over after each minute; a new plea adds to what is left."""
    with store.begin() as connection:
        for n in range(3):
            halve(connection, NOW + n * PAUSE)
        last = NOW + 2 * PAUSE
        left = [rows.slow(connection, last + n * SECOND, RECOVERY) for n in (59, 60, 119, 120, 180)]
        assert [list(found.values()) for found in left] == [[3], [2], [2], [1], []]
        assert halve(connection, last + 120 * SECOND) == 2
        rows.forget(connection, last + 239 * SECOND, RECOVERY)
        assert rows.slow(connection, last, RECOVERY)
        rows.forget(connection, last + 240 * SECOND, RECOVERY)
        assert not rows.slow(connection, last, RECOVERY)


def test_workers_that_hear_it_together_halve_once(store):
    """Six processes of which each had a batch there."""
    answers = []

    def hear():
        with store.begin() as connection:
            answers.append(halve(connection, NOW))

    threads = [threading.Thread(target=hear) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(answers, key=str) == [1, None, None, None, None, None]


@pytest.mark.parametrize(
    ("stage", "code", "text", "plea"),
    [
        (Stage.RCPT, 421, "4.7.28 too many from you", True),
        (Stage.TEXT, 421, "slow down", True),
        (Stage.DATA, 451, "4.7.1 later", True),
        (Stage.RCPT, 450, "4.7.0 rate", True),
        (Stage.RCPT, 421, "4.3.2 going down", False),
        (Stage.RCPT, 450, "4.2.0 greylisted", False),
        (Stage.RCPT, 452, "4.2.2 full", False),
        (Stage.RCPT, 550, "5.7.1 blocked", False),
        (Stage.MAIL, 421, "4.7.0 too many connections", False),
        (Stage.GREETING, 421, "4.7.0 busy", False),
        (Stage.TEXT, 250, "2.0.0 ok", False),
    ],
)
def test_what_is_a_plea(stage, code, text, plea):
    """RFC 5321 4.2.3, RFC 3463 3.8: only to a recipient or a text, and no server that merely goes down."""
    assert is_plea(Result(stage, Reply(code, text))) is plea
    assert not is_plea(Result(stage, problem="the server closed the connection"))


class Process:
    """A process of its own on the store: its limits, and the batch it would like to send."""

    def __init__(self, store, **routing):
        now = lambda: datetime.now(UTC)  # noqa: E731
        self.slowdowns = Slowdowns(store, now)
        self.limits = SharedLimits(StorePlaces(store, now), self.slowdowns, lambda: None, "test")
        self.way = Way("ses", MemoryTransport(), Routing(**routing))

    def may_send(self, domain="x.test"):
        batch = [parcel(f"a@{domain}", id=f"m{n}") for n in range(20)]
        with self.limits.hold(self.way, batch) as hold:
            return len(hold.going)


def test_everybody_slows_down_for_this_domain_only(store, monkeypatch):
    """SR6: half of 8 a second after the first plea, from another process too, and others go on as before."""
    monkeypatch.setattr(slowdown, "KNOWN_SECONDS", 0)
    here, there = Process(store), Process(store)
    assert there.may_send() == 20
    here.limits.learn(here.way, {"a@x.test": PLEA, "b@y.test": Result(Stage.TEXT, Reply(250))})
    assert there.may_send() == 4
    assert there.may_send() == 0
    assert here.may_send("y.test") == 20


def test_its_own_limits_are_halved_where_there_are_some(store, monkeypatch):
    """2 a second become 1, 6 at a time become 3, and at least one always goes."""
    monkeypatch.setattr(slowdown, "KNOWN_SECONDS", 0)
    process = Process(store, domain_rate=2, domain_concurrency=6)
    assert process.may_send("y.test") == 2
    process.limits.learn(process.way, {"a@x.test": PLEA})
    assert process.may_send() == 1
    one = Process(store, domain_concurrency=1)
    assert one.may_send() == 1


def test_another_process_slows_down_within_a_second(store):
    """What is known is at most a second old. This test waits one."""
    here, there = Process(store), Process(store)
    assert there.may_send() == 20
    here.limits.learn(here.way, {"a@x.test": PLEA})
    time.sleep(1)
    assert there.may_send() == 4


def test_a_real_server_is_heard(store):
    """The route hands what servers said to whoever slows down."""
    with SmtpPeer(Script(rcpt=Say(451, "4.7.1 too much mail from you"))) as peer:
        process = Process(store)
        route = Route([Way("ses", smtp_to(peer))], limits=process.limits)
        route.transmit([parcel("a@X.test", "b@y.test")], Leave())
    assert process.slowdowns.halvings(process.way) == {"x.test": 1, "y.test": 1}
