"""The connections of a process: how many, how long, whose, and what a call of ``transmit`` gets of them."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import pytest

from mailer.retry import LEASE_LOST
from mailer.transports import Parcel, Receipt, Stage
from mailer.transports.loop import loop_thread
from mailer.transports.smtp import SmtpTransport
from tests.peer import Close, Say, Script, SmtpPeer
from tests.transports.talking import ADA, Leave, parcel, transport

pytestmark = pytest.mark.usefixtures("both_ways")


def some(count: int, name: str = "u") -> list[Parcel]:
    return [parcel(f"{name}{n}@example.org", id=f"{name}{n}") for n in range(count)]


def all_accepted(receipts: Sequence[Receipt]) -> bool:
    return all(result.accepted for receipt in receipts for result in receipt.results.values())


def until(ready: Callable[[], object]) -> None:
    """Wait for what another thread does; five seconds are for a busy machine."""
    give_up = time.monotonic() + 5
    while not ready():
        assert time.monotonic() < give_up
        time.sleep(0.005)


@contextlib.contextmanager
def carrying(script: Script | None = None, latency: float = 0.0, **fields: object) -> Iterator:
    with (
        SmtpPeer(script or Script(), latency=latency) as peer,
        contextlib.closing(transport(peer, **fields)) as carrier,
    ):
        yield peer, carrier


# How many


def test_connections_are_kept_between_batches() -> None:
    """SC21: the second batch says no EHLO."""
    with carrying(connections=5) as (peer, carrier):
        for _ in range(3):
            assert all_accepted(carrier.transmit(some(1), Leave()))
        assert peer.connections == 1
        assert peer.verbs().count("EHLO") == 1


def test_more_waiting_opens_more_and_never_too_many() -> None:
    """Latency costs connections, not throughput: as many as there are mails, up to the limit."""
    with carrying(connections=4, latency=0.02) as (peer, carrier):
        assert all_accepted(carrier.transmit(some(2), Leave()))
        assert peer.connections <= 2
        assert all_accepted(carrier.transmit(some(40), Leave()))
        assert peer.connections == peer.most_at_once == 4


def test_a_thousand_messages_through_twenty_connections() -> None:
    """Each arrives once, each connection carries 25 at most and is replaced, never more than 20 at once."""
    with carrying(connections=20, max_messages=25) as (peer, carrier):
        assert all_accepted(carrier.transmit(some(1000), Leave()))
        assert sorted(c.recipients[0] for c in peer.accepted) == sorted(p.recipients[0] for p in some(1000))
        assert peer.connections >= 1000 / 25
        assert peer.most_at_once <= 20


@pytest.mark.parametrize("no", [Say(421, "4.7.0 too many connections"), Close()])
def test_a_server_that_wants_no_more_connections_gets_no_more(no: Say | Close) -> None:
    """SC7: refused while another is open, it is nobody's fault: the mails go over what there is."""
    with carrying(Script(greeting=[Say(220), no]), connections=5, latency=0.005) as (peer, carrier):
        assert all_accepted(carrier.transmit(some(15), Leave()))
        refused = peer.connections - 1
        assert 1 <= refused <= 4
        assert all_accepted(carrier.transmit(some(15), Leave()))
        assert peer.connections - 1 == refused


def test_a_server_that_refuses_everybody_is_asked_once() -> None:
    """SC7: nothing is open, so the refusal is the answer for all that waits."""
    with carrying(Script(greeting=Say(554, "5.7.1 not you")), connections=5) as (peer, carrier):
        receipts = carrier.transmit(some(30), Leave())
        assert {result.stage for r in receipts for result in r.results.values()} == {Stage.GREETING}
        assert peer.connections == 1


def test_a_lost_connection_is_replaced_while_the_others_work() -> None:
    """SC4: one message pays for each loss, its neighbours on other connections do not."""
    lost = [*[Say(250)] * 10, Close(), *[Say(250)] * 5, Close(), Say(250)]
    with carrying(Script(rcpt=lost), connections=3) as (peer, carrier):
        receipts = carrier.transmit(some(60), Leave())
        failed = [r for receipt in receipts for r in receipt.results.values() if not r.accepted]
        assert [(r.stage, r.text_sent) for r in failed] == [(Stage.RCPT, False)] * 2
        assert len(peer.accepted) == 58


# How long


def test_an_idle_connection_is_left_with_quit() -> None:
    """SC21: after ``idle`` seconds, and the next mail opens another. This test waits 0.1 s."""
    with carrying(idle=0.1) as (peer, carrier):
        carrier.transmit(some(1), Leave())
        until(lambda: peer.verbs()[-1] == "QUIT")
        assert all_accepted(carrier.transmit(some(1), Leave()))
        assert peer.connections == 2


def test_an_old_connection_is_replaced() -> None:
    """SC21: after ``max_age`` seconds, between two mails. This test waits 0.1 s."""
    with carrying(max_age=0.1) as (peer, carrier):
        carrier.transmit(some(1), Leave())
        time.sleep(0.11)
        assert all_accepted(carrier.transmit(some(2), Leave()))
        assert (peer.connections, peer.verbs().count("QUIT")) == (2, 1)


@pytest.mark.parametrize(
    "end", [Close(), Close(reset=True), (Say(421, "4.4.2 idle too long"), Close()), Say(250, "and another")]
)
def test_what_happens_to_an_idle_connection_costs_nobody_anything(end: object) -> None:
    """SC20, SC21: closed, 421, or words that nobody asked for: dropped at once; the next goes out."""
    first = (Say(250, "2.0.0 taken"), *(end if isinstance(end, tuple) else (end,)))
    with carrying(Script(text=[first, Say(250)])) as (peer, carrier):  # type: ignore[list-item]
        assert all_accepted(carrier.transmit(some(1), Leave()))
        until(lambda: peer.open_now == 0)
        assert all_accepted(carrier.transmit(some(1), Leave()))
        assert peer.connections == 2


def test_close_says_quit_everywhere_and_leaves_nothing_open() -> None:
    """No descriptor stays open, however many connections there were."""
    with SmtpPeer(latency=0.01) as peer:
        loop_thread()
        before = open_files()
        carrier = transport(peer, connections=10)
        carrier.transmit(some(50), Leave())
        during = open_files()
        carrier.close()
        until(lambda: open_files() - before <= 0)
        carrier.close()
    assert during >= before + 10
    assert peer.verbs().count("QUIT") == peer.connections == 10


def open_files() -> int:
    """How many there are in this process, which is the peer's too."""
    return len(os.listdir("/dev/fd"))


# Whose


def test_a_forked_child_shares_nothing() -> None:
    """The child has connections of its own, and its end says no word on the parent's, which goes on."""
    with carrying(idle=30) as (peer, carrier):
        assert all_accepted(carrier.transmit(some(1), Leave()))
        with (
            warnings.catch_warnings()
        ):  # from 3.12 on: the child of a process with threads may wait for a lock
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                sent = all_accepted(carrier.transmit(some(2, "child"), Leave()))
                carrier.close()
                status = 0 if sent and loop_thread().is_ours else 1
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        until(lambda: peer.verbs().count("QUIT") == 1)  # the child's
        assert peer.connections == 2
        assert all_accepted(carrier.transmit(some(1), Leave()))
        assert peer.connections == 2
        assert len(peer.accepted) == 4


def test_a_forked_child_keeps_no_connection_alive() -> None:
    """It lets go of its copies at once, also if it never sends: or the server would see no end of them."""
    with carrying() as (peer, carrier):
        carrier.transmit(some(1), Leave())
        port = peer.sockets[0].getpeername()[1]
        assert holds(port)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os._exit(int(holds(port)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def holds(port: int) -> bool:
    """Whether this process has a socket with this local port."""
    for fd in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(fd))) as sock:
            if sock.family is socket.AF_INET and sock.getsockname()[1] == port:
                return True
    return False


# Whoever calls


def test_several_threads_share_the_connections() -> None:
    """Each call gets its own receipts, in its own order, and its own ledger is asked in its own thread."""
    receipts: dict[str, list[Receipt]] = {}
    asked: list[tuple[str, str]] = []

    def work(carrier: SmtpTransport, name: str) -> None:
        ledger = Leave(ask=lambda: asked.append((name, threading.current_thread().name)))
        receipts[name] = carrier.transmit(some(50, name), ledger)
        assert [p.id for p, _ in ledger.settled] != []
        assert sorted(p.id for p, _ in ledger.settled) == sorted(p.id for p in some(50, name))

    with carrying(connections=5) as (peer, carrier):
        threads = [threading.Thread(target=work, args=(carrier, n), name=n) for n in ("a", "b", "c", "d")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(peer.accepted) == 200
        assert peer.most_at_once <= 5
    assert set(receipts) == {"a", "b", "c", "d"}
    for name, those in receipts.items():
        assert [list(r.results) for r in those] == [list(p.recipients) for p in some(50, name)]
        assert all_accepted(those)
    assert {name for name, _ in asked} == {"a", "b", "c", "d"}
    assert all(name == thread for name, thread in asked)


def test_a_single_mail_does_not_wait_for_somebody_elses_batch() -> None:
    """What waits is served in turn, so it overtakes what was there before it."""
    with carrying(connections=1, latency=0.005) as (peer, carrier):
        batch = threading.Thread(target=carrier.transmit, args=(some(40), Leave()))
        batch.start()
        until(lambda: len(peer.accepted) >= 2)
        assert all_accepted(carrier.transmit(some(1, "urgent"), Leave()))
        before = len(peer.accepted)
        batch.join()
        assert before < 20
        assert len(peer.accepted) == 41


def test_what_is_asked_and_answered_meanwhile_goes_into_one_update() -> None:
    """A group commit: while the ledger is slow the connections go on, and ask together."""
    calls: list[tuple[int, int]] = []

    class Slow(Leave):
        def update(self, settled, asking):  # type: ignore[no-untyped-def]
            calls.append((len(settled), len(asking)))
            time.sleep(0.03)
            return super().update(settled, asking)

    with carrying(connections=10) as (_, carrier):
        ledger = Slow()
        assert all_accepted(carrier.transmit(some(60), ledger))
    assert len(ledger.settled) == 60
    assert sum(asking for _, asking in calls) == 60
    assert max(asking for _, asking in calls) >= 5
    assert len(calls) < 40


def test_a_slow_ledger_holds_up_its_own_batch_only() -> None:
    """Its texts wait for leave; another thread's mail goes out meanwhile."""
    held = threading.Event()
    with carrying(connections=3) as (_, carrier):
        slow = threading.Thread(target=carrier.transmit, args=(some(2, "slow"), Leave(ask=held.wait)))
        slow.start()
        try:
            assert all_accepted(carrier.transmit(some(5), Leave()))
            assert slow.is_alive()
        finally:
            held.set()
            slow.join()


def test_a_caller_that_is_torn_away_sends_nothing_more() -> None:
    """A worker told to stop at once raises in the middle of a batch: no text leaves that was not allowed."""
    asked = iter([None, None])

    def stop_at_the_third() -> None:
        for _ in asked:
            return
        raise KeyboardInterrupt

    with carrying(connections=1) as (peer, carrier):
        with pytest.raises(KeyboardInterrupt):
            carrier.transmit(some(20), Leave(ask=stop_at_the_third))
        assert all_accepted(carrier.transmit(some(1, "next"), Leave()))
        assert len(peer.accepted) == 3


def test_leave_that_comes_when_the_connection_is_gone_sends_nothing() -> None:
    """RT4: the server hangs up while the ledger is asked: nothing has left, and the result says so."""
    with SmtpPeer() as peer, contextlib.closing(transport(peer)) as carrier:

        def hang_up() -> None:
            peer.hang_up()
            time.sleep(0.05)

        (receipt,) = carrier.transmit([parcel()], Leave(ask=hang_up))
    result = receipt.results[ADA]
    assert (result.stage, result.text_sent) == (Stage.DATA, False)
    assert result.problem not in ("", LEASE_LOST)
    assert not peer.accepted


def test_a_machine_that_loses_its_power_leaves_only_the_window_unknown() -> None:
    """SC4: everything is cut at the 20th copy: texts without an answer are unknown, all else is certain."""

    def cut(_: object) -> None:
        if len(peer.accepted) == 20:
            peer.hang_up()

    with SmtpPeer() as peer:
        peer.on_copy = cut
        with contextlib.closing(transport(peer, connections=4)) as carrier:
            receipts = carrier.transmit(some(60), Leave())
    copies = {copy.recipients[0] for copy in peer.accepted}
    unknown = 0
    for receipt in receipts:
        for recipient, result in receipt.results.items():
            if result.accepted:
                assert recipient in copies
            elif result.text_sent:
                unknown += 1
            else:
                assert recipient not in copies
    assert 1 <= unknown <= 4
