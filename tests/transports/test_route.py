"""Failing over between transports: at once where no text has left, never where one may have."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from mailer.retry import LEASE_LOST
from mailer.transports import Ledger, Parcel, Receipt, Reply, Result, Stage
from mailer.transports.route import Route
from mailer.transports.ways import Routing, Way, order
from tests.peer import Close, Say, Script, SmtpPeer
from tests.transports.talking import ADA, BOB, QUICK, Leave, parcel
from tests.transports.talking import transport as smtp_to


def dead_port() -> SmtpPeer:
    with SmtpPeer() as peer:
        pass
    return peer


def way(name: str, peer: SmtpPeer, **routing: object) -> Way:
    return Way(name, smtp_to(peer, timeouts=QUICK), Routing(**routing))  # type: ignore[arg-type]


def parcels(count: int, **fields: object) -> list[Parcel]:
    return [parcel(id=f"m{n}", **fields) for n in range(count)]


def outcome(receipt: Receipt) -> tuple[str, bool]:
    return receipt.transport, receipt.results[ADA].accepted


FAULTS = [
    Script(greeting=Say(421, "4.3.2 too busy")),
    Script(greeting=Say(554, "5.7.1 go away")),
    Script(greeting=Close(reset=True)),
    Script(ehlo=Close()),
    Script(mail=Say(530, "5.7.0 log in first")),
    Script(mail=Say(454, "4.7.0 not now")),
]


@pytest.mark.parametrize("script", FAULTS, ids=str)
def test_who_does_not_let_us_in_is_passed_by_at_once(script: Script) -> None:
    """SC7: a fault before the text goes to the next transport within the attempt; its name is told."""
    with SmtpPeer(script) as broken, SmtpPeer() as good:
        ledger = Leave()
        receipts = Route([way("a", broken), way("b", good)]).transmit(parcels(3), ledger)
    assert [outcome(receipt) for receipt in receipts] == [("b", True)] * 3
    assert len(good.accepted) == 3
    assert [(p.id, r.transport) for p, r in ledger.settled] == [(f"m{n}", "b") for n in range(3)]


def test_a_server_that_is_not_there_is_passed_by() -> None:
    """SC7: nobody listens at the first two."""
    with SmtpPeer() as good:
        route = Route([way("a", dead_port()), way("b", dead_port()), way("c", good)])
        assert outcome(route.transmit([parcel()], Leave())[0]) == ("c", True)


def test_the_last_fault_is_the_answer_where_nobody_is_left() -> None:
    """SC7: what a person reads is what the last server said, and it was told to the ledger."""
    with SmtpPeer(Script(greeting=Say(421, "4.3.2 busy"))) as last:
        ledger = Leave()
        [receipt] = Route([way("a", dead_port()), way("b", last)]).transmit([parcel()], ledger)
    assert (receipt.transport, receipt.results[ADA].stage) == ("b", Stage.GREETING)
    assert ledger.settled == [(parcel(), receipt)]


@pytest.mark.parametrize(
    "script",
    [
        Script(rcpt=Say(550, "5.1.1 no such user")),
        Script(rcpt=Say(450, "4.2.0 later")),
        Script(mail=Say(550, "5.7.1 not you")),
        Script(rcpt=Close()),
        Script(data=Say(451, "4.3.0 later")),
        Script(text=Say(451, "4.3.0 later")),
        Script(text=Say(554, "5.6.0 no")),
        Script(text=Say(530, "5.7.0 log in first")),
        Script(in_text=Close()),
    ],
    ids=str,
)
def test_what_a_server_has_answered_or_may_have_got_goes_nowhere_else(script: Script) -> None:
    """SC4, RFC 1047: a text that may have left is never given to a second server within the attempt."""
    with SmtpPeer(script) as first, SmtpPeer() as second:
        [receipt] = Route([way("a", first), way("b", second)]).transmit([parcel()], Leave())
    assert outcome(receipt) == ("a", False)
    assert second.connections == 0


def test_a_refused_recipient_does_not_send_the_others_elsewhere() -> None:
    """SC2: one parcel has one carrier."""
    with SmtpPeer(Script(rcpt=[Say(550, "5.1.1 no"), Say(250)])) as first, SmtpPeer() as second:
        route = Route([way("a", first), way("b", second)])
        [receipt] = route.transmit([parcel(ADA, BOB)], Leave())
    assert [receipt.results[r].accepted for r in (ADA, BOB)] == [False, True]
    assert second.connections == 0


def test_a_lost_lease_stays_lost() -> None:
    """RT4: another worker has the message; nobody here sends it."""
    with SmtpPeer() as first, SmtpPeer() as second:
        [receipt] = Route([way("a", first), way("b", second)]).transmit([parcel()], Leave("m1"))
    assert receipt.results[ADA].problem == LEASE_LOST
    assert (len(first.accepted), second.connections) == (0, 0)


def test_the_ledger_is_asked_from_the_callers_thread_only() -> None:
    """The contract: one call at a time, from the thread that called transmit, whoever is at work."""
    asked: list[int] = []
    with SmtpPeer() as one, SmtpPeer() as two:
        route = Route([way("a", one, weight=1), way("b", two, weight=1)])
        ledger = Leave(ask=lambda: asked.append(threading.get_ident()))
        receipts = route.transmit(parcels(20), ledger)
    assert {outcome(receipt) for receipt in receipts} == {("a", True), ("b", True)}
    assert [p.id for p in parcels(20)] == [f"m{n}" for n in range(20)]
    assert set(asked) == {threading.get_ident()}
    assert len(ledger.settled) == 20


class Stuck:
    """A transport that does not come back until it is let go."""

    name = "stuck"

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def transmit(self, batch: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        assert self.let_go.wait(10)
        late = Result(Stage.CONNECT, problem="no answer")
        return [Receipt(self.name, dict.fromkeys(p.recipients, late)) for p in batch]

    def close(self) -> None:
        pass


def test_a_dead_transport_does_not_hold_up_the_others_share() -> None:
    """RT11: what the good one took is settled while the other still waits for its server."""
    stuck = Stuck()
    with SmtpPeer() as good:
        route = Route([Way("stuck", stuck, Routing(weight=1)), way("good", good, weight=1)])
        ledger = Leave()
        done: list[list[Receipt]] = []
        thread = threading.Thread(target=lambda: done.append(route.transmit(parcels(20), ledger)))
        thread.start()
        share = sum(order(route.ways, p)[0].name == "good" for p in parcels(20))
        deadline = time.monotonic() + 5
        while len(ledger.settled) < share:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert thread.is_alive()
        assert 0 < len(good.accepted) == share < 20
        stuck.let_go.set()
        thread.join(5)
    assert {outcome(receipt) for receipt in done[0]} == {("good", True)}
    assert len(good.accepted) == 20


class Raising:
    """A transport that breaks the contract, before or after the text."""

    name = "raising"

    def __init__(self, ask: bool) -> None:
        self.ask = ask

    def transmit(self, batch: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        if self.ask:
            ledger.update((), batch)
        raise RuntimeError("secret")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("ask", [False, True])
def test_a_transport_that_raises_leaves_no_doubt_about_the_text(ask: bool) -> None:
    """Nothing leaves `transmit` but receipts; a text that may have gone out is not sent by another."""
    with SmtpPeer() as good:
        route = Route([Way("bad", Raising(ask)), way("good", good)])
        [receipt] = route.transmit([parcel()], Leave())
    assert receipt.results[ADA] == Result(
        Stage.TEXT if ask else Stage.DATA, text_sent=ask, problem="the transport raised RuntimeError"
    )
    assert good.connections == 0


def test_an_error_of_the_ledger_ends_no_thread_without_a_word() -> None:
    """A ledger that breaks is said to whoever asked, and every parcel has a receipt."""

    def broken() -> None:
        raise RuntimeError

    with SmtpPeer() as one, SmtpPeer() as two:
        route = Route([way("a", one, weight=1), way("b", two, weight=1)])
        receipts = route.transmit(parcels(20), Leave(ask=broken))
    assert len(receipts) == 20
    assert not any(receipt.results[ADA].accepted for receipt in receipts)
    assert not one.accepted
    assert not two.accepted


def test_replies_are_kept_as_they_were() -> None:
    """Only the name of the carrier is put in place."""
    with SmtpPeer() as peer:
        [receipt] = Route([way("only", peer)]).transmit([parcel()], Leave())
    assert receipt.results[ADA] == Result(Stage.TEXT, Reply(250, "2.0.0 taken"), text_sent=True)
