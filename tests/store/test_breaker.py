"""Resting transports, as several processes see them: each has a breaker of its own on the same store."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from mailer import breaker
from mailer.breaker import Breaker, Rest, diagnosis
from mailer.states import State
from mailer.store import transports
from mailer.store.models import deliveries
from mailer.transports import Reply, Result, Stage
from mailer.transports.route import Route
from mailer.transports.ways import Way
from tests.peer import Say, Script, SmtpPeer
from tests.servers import free_port
from tests.transports.talking import ADA, Leave, parcel
from tests.transports.talking import transport as smtp_to


class Clock:
    """The instant that all of them agree on."""

    def __init__(self):
        self.at = datetime.now(UTC)

    def __call__(self):
        return self.at

    def pass_by(self, seconds):
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(breaker, "KNOWN_SECONDS", 0)
    return Clock()


def route(store, clock, *peers):
    """A process with a route of its own; the transports are called a, b, …"""
    ways = [Way(name, smtp_to(peer)) for name, peer in zip("abc", peers, strict=False)]
    return Route(ways, Breaker(store, clock))


def send(a_route, count=1):
    parcels = [parcel(id=f"m{n}") for n in range(count)]
    return [receipt.results[ADA] for receipt in a_route.transmit(parcels, Leave())]


def dead():
    with SmtpPeer() as peer:
        pass
    return peer


def row(store, name="a"):
    with store.read() as connection:
        return transports.all_transports(connection).get(name)


def test_a_fault_rests_the_transport_for_everybody(store, clock):
    """SC7: another process does not even try, and says when to come back."""
    with SmtpPeer(Script(greeting=Say(554, "5.7.1 go away"))) as peer:
        here, there = route(store, clock, peer), route(store, clock, peer)
        assert send(here)[0].stage is Stage.GREETING
        [waiting] = send(there)
        assert peer.connections == 1
    assert (waiting.wait_seconds, waiting.reply, waiting.text_sent) == (5, None, False)
    assert "turns us away before any mail (554 5.7.1 go away)" in waiting.problem


def test_while_all_is_well_nothing_is_written_and_little_read(store):
    """A mail costs no statement: how transports stand is read once a second, whatever is sent."""
    statements = []
    with SmtpPeer() as peer:
        here = route(store, Clock(), peer)
        sa.event.listen(store.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
        results = [send(here)[0] for _ in range(30)]
    assert all(result.accepted for result in results)
    assert sum("mailer_transports" in s for s in statements) == 1
    assert not [s for s in statements if s.startswith(("INSERT", "UPDATE"))]


def test_another_process_sees_it_within_a_second(store):
    """What is known is at most a second old. This test waits one."""
    with SmtpPeer(Script(mail=[Say(250), Say(530, "5.7.0 log in"), Say(250)])) as peer:
        here, there = route(store, Clock(), peer), route(store, Clock(), peer)
        assert send(there)[0].accepted  # it has read, and all was well
        assert send(here)[0].reply.code == 530
        time.sleep(1)
        assert send(there)[0].wait_seconds is not None


def test_after_the_rest_one_mail_of_all_finds_out(store, clock):
    """Half-open: one probe over all workers; the others wait for it. A fault makes the next rest longer."""
    server = dead()
    here, there = route(store, clock, server), route(store, clock, server)
    send(here)
    clock.pass_by(5)
    with store.begin() as connection:
        assert transports.probe(connection, "a", clock(), timedelta(seconds=60))
    assert [r.wait_seconds is not None for r in send(there, 3)] == [True] * 3
    with store.begin() as connection:
        transports.give_up_probe(connection, "a")
    first, *others = send(there, 20)
    assert first.stage is Stage.CONNECT
    assert first.wait_seconds is None
    assert others[0].wait_seconds == 10
    assert all(10 <= other.wait_seconds <= 910 for other in others)
    assert row(store).faults == 2


def test_a_probe_that_gets_through_takes_the_batch_along(store, clock):
    """The rest of the batch goes at once, and so does everybody else."""
    port = free_port()
    server = SmtpPeer(port=port)
    here, there = route(store, clock, server), route(store, clock, server)
    assert send(here)[0].stage is Stage.CONNECT
    clock.pass_by(5)
    with server:
        assert all(result.accepted for result in send(here, 10))
        assert send(there)[0].accepted
    assert (row(store).state, row(store).faults) == ("working", 0)


def test_what_waited_is_due_once_it_works(store, clock, accept):
    """SC7: the queue drains when it is fixed, by itself."""
    message, server = accept(), SmtpPeer(port=free_port())
    here = route(store, clock, server)
    send(here)
    with store.begin() as connection:
        put_off = {"state": State.DEFERRED, "reason": "transport_down"}
        connection.execute(sa.update(deliveries).values(not_before=clock.at + timedelta(hours=1), **put_off))
    clock.pass_by(5)
    with server:
        send(here)
    deadline = time.monotonic() + 5
    due = sa.select(deliveries.c.not_before).where(deliveries.c.message == message)
    while True:
        with store.read() as connection:
            if connection.scalar(due) < clock.at:
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_others_take_over_and_give_back(store, clock):
    """A resting transport is passed by; one mail tries it afterwards, and goes on if that fails."""
    first = SmtpPeer(port=free_port())
    with SmtpPeer() as second:
        here = route(store, clock, first, second)
        assert all(result.accepted for result in send(here, 5))
        assert all(result.accepted for result in send(here, 5))
        clock.pass_by(5)
        assert all(result.accepted for result in send(here, 5))
        assert row(store).faults == 2
        clock.pass_by(10)
        with first:
            assert all(result.accepted for result in send(here, 5))
            before = len(second.accepted)
            assert all(result.accepted for result in send(here, 5))
            assert (len(first.accepted), len(second.accepted)) == (1 + 5, before)


def test_a_paused_transport_is_not_tried(store, clock):
    """A person's word holds whatever the servers say."""
    with SmtpPeer() as peer:
        here = route(store, clock, peer)
        with store.begin() as connection:
            transports.pause(connection, "a", clock(), "ada", "quota")
        [waiting] = send(here)
        assert waiting.problem.endswith("a is paused: quota")
        assert waiting.wait_seconds == breaker.PAUSED_SECONDS
        assert peer.connections == 0


def test_a_refused_mail_is_no_fault_of_the_transport(store, clock):
    """Only what keeps every mail from going rests a transport: not a recipient, a sender or a text."""
    for script in (
        Script(rcpt=Say(550, "5.1.1 no")),
        Script(mail=Say(550, "5.7.1 not you")),
        Script(text=Say(421, "4.3.2 busy")),
    ):
        with SmtpPeer(script) as peer:
            send(route(store, clock, peer))
    assert row(store) is None


def test_a_lost_lease_tells_nothing(store, clock):
    """A probe whose message another worker has is given back."""
    port = free_port()
    server = SmtpPeer(port=port)
    here = route(store, clock, server)
    send(here)
    clock.pass_by(5)
    with server:
        here.transmit([parcel(id="m0")], Leave("m0"))
        found = row(store)
        assert (found.state, found.probed_at) == ("resting", None)
        assert send(here)[0].accepted


@pytest.mark.parametrize(
    ("result", "reason", "said"),
    [
        (Result(Stage.AUTH, Reply(535, "5.7.8 no")), "auth_failed", "refused the log-in (535 5.7.8 no)"),
        (Result(Stage.AUTH, Reply(454, "4.7.0 wait")), "auth_failed", "cannot check passwords at the moment"),
        (Result(Stage.MAIL, Reply(530, "5.7.0 first")), "auth_failed", "user name and password in SETTING"),
        (Result(Stage.TLS, problem="the certificate is not valid for x: expired"), "tls_failed", "expired"),
        (Result(Stage.CONNECT, problem="no connection to x"), "connect_failed", "check host and port in SET"),
        (Result(Stage.GREETING, Reply(421, "4.7.0 {x}")), "greeting_refused", "(421 4.7.0 {x})"),
    ],
)
def test_the_reason_says_what_to_do(result, reason, said):
    """SC7: in words that a person understands, with the setting to look at."""
    word, words, rest = diagnosis(Way("a", None, setting="SETTING"), result)
    assert word == reason
    assert said in words
    patient = result.stage is Stage.TLS or (result.reply is not None and result.reply.code // 10 == 53)
    assert rest is (breaker.LONG if patient else breaker.SHORT)


def test_no_rest_is_longer_than_a_wait_between_tries(store):
    """Who lets mails be tried again after 0.2 to 2 seconds wants a transport tried as often."""
    quick = Breaker(store, datetime.now, Rest(0.2, 2))
    assert [quick._bounded(breaker.LONG)(n) for n in (1, 2, 9)] == [0.2, 0.4, 2]


def test_rests_grow_and_end():
    """5, 10, 20 … 300 seconds; no number of faults overflows."""
    assert [breaker.SHORT.seconds(n) for n in (1, 2, 3, 7, 10**6)] == [5, 10, 20, 300, 300]
