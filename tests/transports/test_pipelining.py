"""Where the server offers PIPELINING: fewer round trips, and every reply still matched to its command."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path

import pytest

from mailer.replies import PROTOCOL_ERROR
from mailer.retry import LEASE_LOST
from mailer.transports import Parcel, Reply, Result, Stage
from tests import peer as peers
from tests.authority import Authority
from tests.peer import Actions, Close, Drip, Raw, Say, Script, SmtpPeer, Take
from tests.transports.talking import ADA, BOB, EVE, QUICK, Leave, parcel, send_all, transport

PLAIN = list(peers.OFFERED)


@pytest.fixture(autouse=True)
def _pipelining(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "OFFERED", [*PLAIN, "PIPELINING"])


def some(count: int) -> list[Parcel]:
    return [parcel(f"u{n}@example.org", id=f"m{n}") for n in range(count)]


def results(receipts: list) -> list[Result]:
    return [result for receipt in receipts for result in receipt.results.values()]


# Round trips


def test_a_mail_is_one_round_trip() -> None:
    """The envelope is one write, and the next one's goes out behind the text. RFC 2920"""
    with SmtpPeer() as peer, contextlib.closing(transport(peer)) as carrier:
        carrier.transmit(some(1), Leave())
        first = peer.turns
        carrier.transmit(some(10), Leave())
        more = peer.turns - first
    assert first == 3  # EHLO, the envelope, the text
    assert more == 1 + 10


def test_without_pipelining_a_mail_is_four() -> None:
    """One command at a time, each with its answer, as RFC 5321 has it."""
    with SmtpPeer(Script(extensions=PLAIN)) as peer, contextlib.closing(transport(peer)) as carrier:
        carrier.transmit(some(1), Leave())
        first = peer.turns
        carrier.transmit(some(10), Leave())
        more = peer.turns - first
    assert (first, more) == (1 + 4, 4 * 10)


def test_distance_costs_a_round_trip_a_mail() -> None:
    """A server 30 ms away, one connection, 10 mails: 12 round trips. This test waits 0.4 s."""
    with SmtpPeer(latency=0.03) as peer, contextlib.closing(transport(peer)) as carrier:
        started = time.monotonic()
        assert all(result.accepted for result in results(carrier.transmit(some(10), Leave())))
        taken = time.monotonic() - started
    assert 12 * 0.03 <= taken < 30 * 0.03


def test_nothing_is_sent_ahead_of_tls_and_the_password(tmp_path: Path) -> None:
    """SC10, SC12: up to AUTH every command waits for the answer to the one before."""
    authority = Authority(tmp_path)
    script = Script(tls=authority.context("127.0.0.1"), credentials=("app", "secret"), auth=Close())
    with SmtpPeer(script) as peer:
        fields = {"security": "starttls", "username": "app", "password": "secret"}
        send_all(peer, some(3), ca_file=authority.ca_file, **fields)
    assert peer.verbs() == ["EHLO", "STARTTLS", "EHLO", "AUTH"]
    assert peer.turns == 4


# An envelope that is refused


@pytest.mark.parametrize(
    "words", [Say(554, "5.5.1 no valid recipients"), Say(250, "2.0.0 taken, for nobody")]
)
def test_a_text_that_nobody_is_to_get_is_a_lone_dot(words: Actions) -> None:
    """RFC 2920 3.1: every RCPT refused and 354 given: the refusals stand, the next mail goes on."""
    script = Script(rcpt=[Say(550, "5.1.1 no"), Say(551, "5.1.6 moved"), Say(250)], text=[words, Say(250)])
    with SmtpPeer(script) as peer:
        ledger = Leave()
        with contextlib.closing(transport(peer)) as carrier:
            refused, sent = carrier.transmit([parcel(ADA, BOB), parcel(EVE, id="m2")], ledger)
    assert refused.results == {
        ADA: Result(Stage.RCPT, Reply(550, "5.1.1 no")),
        BOB: Result(Stage.RCPT, Reply(551, "5.1.6 moved")),
    }
    assert sent.results[EVE].accepted
    assert peer.connections == 1
    assert "RSET" not in peer.verbs()
    assert [copy.data for copy in peer.accepted if copy.recipients] == [sent_data := parcel().data]
    assert all(copy.data != sent_data for copy in peer.accepted if not copy.recipients)


def test_a_refused_sender_is_the_answer_and_not_what_follows_from_it() -> None:
    """SC17: 503 to RCPT and DATA behind a refused MAIL blame nobody; RSET, and the connection goes on."""
    script = Script(
        mail=[Say(553, "5.1.8 unknown sender"), Say(250)],
        rcpt=[Say(503, "5.5.1 MAIL first"), Say(250)],
        data=[Say(503, "5.5.1 RCPT first"), Say(354)],
    )
    with SmtpPeer(script) as peer:
        refused, sent = send_all(peer, [parcel(ADA), parcel(BOB, id="m2")])
    assert refused.results[ADA] == Result(Stage.MAIL, Reply(553, "5.1.8 unknown sender"))
    assert sent.results[BOB].accepted
    assert peer.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize("end", [Close(), Close(reset=True), Raw(b"?\r\n")])
def test_a_refused_sender_is_the_answer_when_the_connection_is_lost_behind_it(end: Actions) -> None:
    """SC21: on a kept connection too: an answer is never unsaid, and nothing called refused goes out."""
    script = Script(mail=[Say(250), Say(451, "4.3.0 later"), Say(250)], rcpt=[Say(250), end, Say(250)])
    with SmtpPeer(script) as peer:
        first, refused, last = send_all(peer, some(3))
    assert results([refused]) == [Result(Stage.MAIL, Reply(451, "4.3.0 later"))]
    assert all(result.accepted for result in results([first, last]))
    assert [copy.recipients[0] for copy in peer.accepted] == ["u0@example.org", "u2@example.org"]


def test_no_text_for_those_welcomed_behind_a_refused_sender() -> None:
    """SC17: MAIL refused, RCPT welcome, 354: a text, even a lone dot, would reach them. The end."""
    with SmtpPeer(Script(mail=[Say(451, "4.3.0 no"), Say(250)])) as peer:
        refused, sent = send_all(peer, [parcel(ADA), parcel(BOB, id="m2")])
    assert refused.results[ADA] == Result(Stage.MAIL, Reply(451, "4.3.0 no"))
    assert sent.results[BOB].accepted
    assert [copy.recipients for copy in peer.accepted] == [(BOB,)]
    assert peer.connections == 2


def test_a_refused_text_leaves_those_refused_before_it_as_they_are() -> None:
    """SC2: RCPT refused one, DATA the rest."""
    script = Script(rcpt=[Say(550, "5.1.1 no"), Say(250)], data=[Say(452, "4.3.1 full"), Say(354)])
    with SmtpPeer(script) as peer:
        refused, sent = send_all(peer, [parcel(ADA, BOB), parcel(EVE, id="m2")])
    assert refused.results == {
        ADA: Result(Stage.RCPT, Reply(550, "5.1.1 no")),
        BOB: Result(Stage.DATA, Reply(452, "4.3.1 full")),
    }
    assert sent.results[EVE].accepted
    assert peer.verbs().count("RSET") == 1


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
def test_421_in_the_middle_of_an_envelope_ends_it_at_once(stage: str) -> None:
    """SC5: the answers that would follow do not; the next mail has a connection of its own."""
    hang_up = [(Say(421, "4.3.2 going down"), Close()), Say(354 if stage == "data" else 250)]
    with SmtpPeer(Script(**{stage: hang_up})) as peer:  # type: ignore[arg-type]
        refused, sent = send_all(peer, [parcel(ADA), parcel(BOB, id="m2")])
    assert refused.results[ADA] == Result(Stage(stage), Reply(421, "4.3.2 going down"))
    assert sent.results[BOB].accepted
    assert peer.connections == 2


def test_an_answer_too_many_moves_no_promise_to_another_command() -> None:
    """SC17, SC20: the replies are off by one from then on, so DATA gets a 250, and nothing is sent."""
    with SmtpPeer(Script(mail=[Raw(b"250 ok\r\n250 ok\r\n"), Say(250)])) as peer:
        odd, sent = send_all(peer, [parcel(ADA), parcel(BOB, id="m2")])
    assert not odd.results[ADA].text_sent
    assert odd.results[ADA].stage is Stage.DATA
    assert sent.results[BOB].accepted


# The envelope behind a text


@pytest.mark.parametrize("end", [Close(), Close(reset=True), Raw(b"?\r\n"), Say(421, "4.3.2 bye")])
def test_what_was_behind_a_lost_text_goes_out_elsewhere(end: Actions) -> None:
    """SC21: the connection dies at the answer to the one before: its envelope is no attempt and no fault."""
    turn = (Take(), end) if not isinstance(end, Say) else end
    with SmtpPeer(Script(text=[turn, Say(250)])) as peer:  # type: ignore[list-item]
        lost, *others = send_all(peer, some(3))
    (result,) = lost.results.values()
    assert (result.stage, result.text_sent, result.accepted) == (Stage.TEXT, True, False)
    assert all(result.accepted for result in results(others))
    assert peer.connections == 2


def test_what_was_behind_a_text_that_is_never_answered_is_handed_back_untried() -> None:
    """RT11: silence at the answer is that message's; the one behind and those that wait were not tried."""
    limits = dataclasses.replace(QUICK, end_of_data=0.2)
    with SmtpPeer(Script(text=(Take(), peers.Silence()))) as peer:
        silent, *others = send_all(peer, some(4), timeouts=limits)
    (result,) = silent.results.values()
    assert (result.stage, result.text_sent, result.reply) == (Stage.TEXT, True, None)
    assert {(r.stage, r.text_sent) for r in results(others)} == {(Stage.CONNECT, False)}
    assert peer.connections == 1


def test_a_lost_lease_behind_a_text_sends_nothing_and_harms_nobody() -> None:
    """RT4: 354 came, leave did not: the connection is the price, the neighbours go out."""
    with SmtpPeer() as peer, contextlib.closing(transport(peer)) as carrier:
        first, lost, last = results(carrier.transmit(some(3), Leave("m1")))
    assert (first.accepted, last.accepted) == (True, True)
    assert lost == Result(Stage.DATA, problem=LEASE_LOST)
    assert sorted(copy.recipients[0] for copy in peer.accepted) == ["u0@example.org", "u2@example.org"]


def test_a_message_that_cannot_be_carried_is_passed_over() -> None:
    """SC14: the one behind it follows the text instead, on the same connection."""
    with SmtpPeer(Script(extensions=["PIPELINING", "SIZE 200"])) as peer:
        first, large, last = send_all(peer, [parcel(ADA), parcel(BOB, data=b"x" * 300), parcel(EVE)])
    assert first.results[ADA].accepted
    assert large.results[BOB].reply is not None
    assert large.results[BOB].reply.code == 552
    assert last.results[EVE].accepted
    assert peer.connections == 1
    assert peer.turns == 1 + 1 + 2 + 1  # EHLO, an envelope, two texts, QUIT


def test_large_texts_are_followed_too() -> None:
    """A text of many chunks, then the envelope behind it: the same bytes arrive."""
    large = b"Subject: x\r\n\r\n" + b"".join(b".%d and so on\r\n" % n for n in range(60_000))
    with SmtpPeer() as peer:
        receipts = send_all(peer, [parcel(ADA, data=large), parcel(BOB, id="m2"), parcel(EVE, data=large)])
    assert all(result.accepted for result in results(receipts))
    assert [copy.data for copy in peer.accepted] == [large, parcel().data, large]
    assert peer.connections == 1


def test_a_promise_before_the_end_of_a_text_is_none() -> None:
    """SC20: 250 while the text is still being written is no answer to it; nobody knows what it is."""
    script = Script(in_text=(Raw(b"250 2.0.0 taken\r\n"), Drip(b"250-" + b"x" * 99)))
    with SmtpPeer(script) as peer:
        (receipt,) = send_all(peer, [parcel(ADA, data=b"x" * 9_000_000)])
    result = receipt.results[ADA]
    assert (result.stage, result.reply, result.text_sent) == (Stage.TEXT, None, True)
    assert result.problem.startswith(PROTOCOL_ERROR)


def test_many_recipients_are_one_write_and_a_result_each() -> None:
    """SC2, SC17: 100 answers, each to its own command."""
    people = [f"u{n}@example.org" for n in range(100)]
    answers = [Say(550, f"5.1.1 no {n}") if n % 3 else Say(250) for n in range(100)]
    with SmtpPeer(Script(rcpt=answers)) as peer:
        (receipt,) = send_all(peer, [parcel(*people)])
    for n, person in enumerate(people):
        result = receipt.results[person]
        assert result.accepted if n % 3 == 0 else result.reply == Reply(550, f"5.1.1 no {n}")
    assert peer.accepted[0].recipients == tuple(people[::3])
    assert peer.turns == 1 + 1 + 1 + 1
