"""What becomes of each recipient, whatever the server does, and however long it takes."""

from __future__ import annotations

import dataclasses
import time

import pytest

from mailer.retry import LEASE_LOST
from mailer.transports import Reply, Result, Stage
from mailer.transports.smtp import SmtpTransport
from mailer.transports.url import Security, SmtpConfig, Timeouts
from tests.peer import Actions, Close, Drip, Raw, Say, Script, Silence, SmtpPeer, Take
from tests.transports.talking import (
    ADA,
    BOB,
    DATA,
    EVE,
    IMPATIENT,
    QUICK,
    Leave,
    parcel,
    send_all,
    send_one,
    transport,
)

pytestmark = pytest.mark.usefixtures("both_ways")

# Results


def test_the_server_gets_exactly_the_bytes() -> None:
    """The text arrives as it was frozen, leading dots included. RFC 5321 4.5.2"""
    with SmtpPeer() as peer:
        result = send_one(peer)
    assert result == Result(Stage.TEXT, Reply(250, "2.0.0 taken"), text_sent=True)
    assert peer.accepted[0].data == DATA
    assert peer.accepted[0].sender == "app@acme.example"
    assert peer.accepted[0].message_id == "<1@acme.example>"


def test_a_bare_line_feed_cannot_smuggle_a_second_mail() -> None:
    """Line ends other than CRLF leave as CRLF: no server sees an end where there is none. RFC 5321 2.3.8"""
    with SmtpPeer() as peer:
        send_one(peer, parcel(data=b"Subject: x\r\n\r\na\n.\nMAIL FROM:<e@x>\r.\rb"))
    assert peer.accepted[0].data == b"Subject: x\r\n\r\na\r\n.\r\nMAIL FROM:<e@x>\r\n.\r\nb\r\n"


def test_every_recipient_has_a_result_of_its_own() -> None:
    """SC2: 250, 550 and 450 to RCPT are one sent, one failed, one deferred."""
    script = Script(rcpt=[Say(250), Say(550, "5.1.1 no such user"), Say(450, "4.2.0 later")])
    with SmtpPeer(script) as peer:
        results = transport(peer).transmit([parcel(ADA, BOB, EVE)], Leave())[0].results
    assert list(results) == [ADA, BOB, EVE]
    assert results[ADA].accepted
    assert results[BOB] == Result(Stage.RCPT, Reply(550, "5.1.1 no such user"))
    assert results[EVE] == Result(Stage.RCPT, Reply(450, "4.2.0 later"))
    assert peer.accepted[0].recipients == (ADA,)


@pytest.mark.parametrize("code", [251, 252])
def test_forwarded_and_unverified_recipients_are_accepted(code: int) -> None:
    """SC8: 251 and 252 to RCPT count as accepted."""
    with SmtpPeer(Script(rcpt=Say(code))) as peer:
        assert send_one(peer).accepted


def test_without_any_recipient_no_text_is_sent(both_ways: str) -> None:
    """SC2: all refused means no DATA, and RSET before the connection serves the next parcel."""
    bad = Say(503, "5.5.1 no valid recipients")
    script = Script(
        rcpt=[Say(550, "5.1.1 no"), Say(550, "5.1.1 no"), Say(250)],
        data=Say(354) if both_ways == "one-by-one" else [bad, Say(354)],
    )
    with SmtpPeer(script) as peer:
        first, second = send_all(peer, [parcel(ADA, BOB), parcel(EVE)])
    assert {r.stage for r in first.results.values()} == {Stage.RCPT}
    assert second.results[EVE].accepted
    verbs = ["EHLO", "MAIL", "RCPT", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA", "QUIT"]
    if both_ways == "one-by-one":
        verbs.remove("DATA")
    assert peer.verbs() == verbs
    assert peer.connections == 1


@pytest.mark.parametrize(
    "quit_", [Close(), Close(reset=True), Silence(), Say(421, "4.3.2 bye"), Raw(b"?\r\n")]
)
def test_nothing_after_the_answer_changes_it(quit_: Actions) -> None:
    """SC3: after 250 the message is sent, whatever happens at QUIT."""
    with SmtpPeer(Script(quit=quit_)) as peer:
        assert send_one(peer).accepted
    assert len(peer.accepted) == 1


def test_a_connection_closed_with_the_answer_is_a_success() -> None:
    """SC3: 250 and then a drop before QUIT."""
    with SmtpPeer(Script(text=(Say(250, "2.0.0 taken"), Close()))) as peer:
        results = transport(peer).transmit([parcel(), parcel(id="m2")], Leave())
    assert [r.results[ADA].accepted for r in results] == [True, True]
    assert peer.connections == 2


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("drop", [Close(), Close(reset=True)])
def test_a_loss_before_the_text_is_known_to_have_sent_nothing(
    both_ways: str, stage: str, drop: Actions
) -> None:
    """SC4: the connection is lost before the text: no reply, and the text was not sent."""
    with SmtpPeer(Script(**{stage: drop})) as peer:  # type: ignore[arg-type]
        result = send_one(peer)
    assert (result.reply, result.text_sent) == (None, False)
    # A RST may take along the answers that came right before it.
    assert result.stage == stage or (both_ways == "pipelined" and drop == Close(reset=True))
    assert "connection" in result.problem
    assert not peer.accepted


@pytest.mark.parametrize("script", [Script(in_text=Close()), Script(text=(Take(), Close()))])
def test_a_loss_after_the_text_leaves_the_outcome_unknown(script: Script) -> None:
    """SC4: lost between the first octet of the text and the answer. RFC 1047"""
    with SmtpPeer(script) as peer:
        result = send_one(peer)
    assert (result.stage, result.reply, result.text_sent) == (Stage.TEXT, None, True)


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "mail", "rcpt", "data", "text"])
def test_421_keeps_code_and_words_at_any_stage(stage: str) -> None:
    """SC5: 421 keeps code and text, and the connection is not used any more."""
    with SmtpPeer(Script(**{stage: Say(421, "4.3.2 going down")})) as peer:  # type: ignore[arg-type]
        result = send_one(peer)
    assert result.reply == Reply(421, "4.3.2 going down")
    assert result.stage == Stage.GREETING if stage in ("greeting", "ehlo") else Stage(stage)
    assert "QUIT" not in peer.verbs()


def test_421_to_one_recipient_is_the_answer_for_all_that_have_none() -> None:
    """SC5: an answer given before stays."""
    with SmtpPeer(Script(rcpt=[Say(250), Say(550, "5.1.1 no"), Say(421, "4.7.0 enough")])) as peer:
        results = transport(peer).transmit([parcel(ADA, BOB, EVE)], Leave())[0].results
    assert [r.reply.code for r in results.values() if r.reply] == [421, 550, 421]


def test_the_reason_for_hanging_up_in_the_text_is_read() -> None:
    """SC5: a server that says 421 in the middle of the text, and closes, has given a definite answer."""
    with SmtpPeer(Script(in_text=(Say(421, "4.3.2 disk trouble"), Close()))) as peer:
        result = send_one(peer, parcel(data=b"Subject: x\r\n\r\n" + b"x" * 70 * 100_000))
    assert result == Result(Stage.TEXT, Reply(421, "4.3.2 disk trouble"), text_sent=True)


@pytest.mark.parametrize("script", [Script(data=Say(250)), Script(mail=Say(354))])
def test_a_code_in_the_wrong_place_ends_the_connection(script: Script) -> None:
    """SC20: after 2xx or 3xx where none belongs nobody knows where the conversation stands."""
    with SmtpPeer(script) as peer:
        result = send_one(peer)
    assert not result.accepted
    assert not result.text_sent
    assert "QUIT" not in peer.verbs()


# The lease


def test_the_lease_is_asked_for_between_354_and_the_text() -> None:
    """RT4: the last moment at which a worker can find out that it lost the message."""
    with SmtpPeer() as peer:
        asked: list[str] = []

        def ask() -> bool:
            asked.extend(peer.verbs()[-1:])
            return True

        transport(peer).transmit([parcel()], Leave(ask=ask))
    assert asked == ["DATA"]


def test_without_the_lease_no_text_leaves() -> None:
    """RT4: the connection is closed, since 354 leaves no other way; the rest of the batch goes on."""
    with SmtpPeer() as peer:
        lost, kept = transport(peer).transmit([parcel(), parcel(id="m2")], Leave("m1"))
    assert lost.results[ADA] == Result(Stage.DATA, problem=LEASE_LOST)
    assert kept.results[ADA].accepted
    assert len(peer.accepted) == 1
    assert peer.connections == 2


# Kept connections


def test_a_batch_shares_one_connection() -> None:
    """SC21: the greeting is paid once, and a completed transaction needs no RSET."""
    with SmtpPeer() as peer:
        receipts = transport(peer).transmit([parcel(id=str(n)) for n in range(5)], Leave())
    assert all(receipt.results[ADA].accepted for receipt in receipts)
    assert peer.connections == 1
    assert peer.verbs().count("EHLO") == 1
    assert "RSET" not in peer.verbs()


@pytest.mark.parametrize("broken", [Close(), Close(reset=True), (Say(421, "4.4.2 idle too long"), Close())])
def test_a_broken_kept_connection_costs_no_attempt(broken: Actions) -> None:
    """SC21: lost before MAIL was answered, the same parcel goes out over a new connection."""
    with SmtpPeer(Script(mail=[Say(250), broken, Say(250)])) as peer:
        receipts = transport(peer).transmit([parcel(), parcel(id="m2")], Leave())
    assert [r.results[ADA].accepted for r in receipts] == [True, True]
    assert peer.connections == 2


def test_a_kept_connection_is_replaced_once_only() -> None:
    """SC21: a server that drops every MAIL is not called for ever."""
    with SmtpPeer(Script(mail=[Say(250), Close()])) as peer:
        receipts = transport(peer).transmit([parcel(), parcel(id="m2")], Leave())
    assert receipts[1].results[ADA].stage is Stage.MAIL
    assert peer.connections == 2


def test_a_loss_after_mail_was_answered_is_not_repeated() -> None:
    """SC21, SC4: from RCPT on a loss is the parcel's result, also on a kept connection."""
    with SmtpPeer(Script(rcpt=[Say(250), Close()])) as peer:
        receipts = transport(peer).transmit([parcel(), parcel(id="m2")], Leave())
    assert receipts[1].results[ADA].stage is Stage.RCPT
    assert peer.connections == 1


def test_a_connection_is_replaced_after_so_many_messages() -> None:
    """SC21: providers limit what one connection may carry."""
    with SmtpPeer() as peer:
        transport(peer, max_messages=2).transmit([parcel(id=str(n)) for n in range(5)], Leave())
    assert peer.connections == 3
    assert len(peer.accepted) == 5


# Time


def test_the_defaults_are_those_of_the_standard() -> None:
    """SC9: RFC 5321 4.5.3.2, and 30 s to connect."""
    t = Timeouts()
    assert (t.connect, t.greeting, t.mail, t.rcpt, t.data, t.block, t.end_of_data) == (
        30, 300, 300, 300, 120, 180, 600,
    )  # fmt: skip


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "mail", "rcpt", "data", "text"])
@pytest.mark.parametrize("slow", [Silence(), Drip(b"250-" + b"x" * 1000, every=0.02)])
def test_every_reply_has_a_time_limit(stage: str, slow: Actions) -> None:
    """SC9: for the whole reply, so that an octet now and then gains nothing. This test waits 0.15 s."""
    with SmtpPeer(Script(**{stage: slow})) as peer:  # type: ignore[arg-type]
        started = time.monotonic()
        result = send_one(peer, timeouts=IMPATIENT)
        taken = time.monotonic() - started
    assert result.reply is None
    assert result.problem == "the server did not answer in time"
    assert result.text_sent == (stage == "text")
    assert taken < 1


def test_a_parcel_has_a_time_limit_of_its_own() -> None:
    """SC9: many slow replies, each in time, do not add up to hours. This test waits 0.5 s."""
    crowd = tuple(f"u{n}@example.org" for n in range(50))
    with SmtpPeer(Script(rcpt=Drip(b"250 ok\r\n", every=0.01))) as peer:
        started = time.monotonic()
        results = transport(peer, timeouts=dataclasses.replace(QUICK, parcel=0.5)).transmit(
            [parcel(*crowd)], Leave()
        )
        taken = time.monotonic() - started
    assert {r.stage for r in results[0].results.values()} == {Stage.RCPT}
    assert taken < 1


def test_each_parcel_of_a_batch_has_its_own_limit() -> None:
    """SC9: the next one on a kept connection is limited afresh. This test waits 0.5 s."""
    crowd = tuple(f"u{n}@example.org" for n in range(50))
    slow = Drip(b"250 ok\r\n", every=0.01)
    with SmtpPeer(Script(rcpt=[Say(250), slow])) as peer:
        started = time.monotonic()
        limits = dataclasses.replace(QUICK, parcel=0.5)
        first, second = transport(peer, timeouts=limits).transmit([parcel(), parcel(*crowd)], Leave())
        taken = time.monotonic() - started
    assert first.results[ADA].accepted
    assert {r.stage for r in second.results.values()} == {Stage.RCPT}
    assert taken < 1


def test_the_answer_to_the_text_is_waited_for_beyond_that() -> None:
    """SC9: giving up on it early makes doubles (RFC 1047). This test waits 0.4 s."""
    with SmtpPeer(Script(text=(Take(), Drip(b"250 2.0.0 took a while\r\n", every=0.02)))) as peer:
        result = send_one(peer, timeouts=dataclasses.replace(QUICK, parcel=0.2))
    assert result.accepted


def test_a_silent_server_does_not_hold_up_the_rest_of_a_batch_one_by_one() -> None:
    """RT11, SC7: after one time-out the others are handed back untried."""
    with SmtpPeer(Script(mail=Silence())) as peer:
        receipts = transport(peer, timeouts=IMPATIENT).transmit(
            [parcel(id=str(n)) for n in range(20)], Leave()
        )
    assert [r.results[ADA].stage for r in receipts] == [Stage.MAIL] + [Stage.CONNECT] * 19
    assert peer.connections == 1


def test_a_server_that_is_not_there_is_called_once_a_batch() -> None:
    """SC7: connection refused is the transport's fault and every parcel's result."""
    with SmtpPeer() as peer:
        pass
    receipts = transport(peer).transmit([parcel(), parcel(id="m2")], Leave())
    assert [r.results[ADA].stage for r in receipts] == [Stage.CONNECT] * 2
    assert "refused" in receipts[0].results[ADA].problem


def test_a_name_that_does_not_resolve_is_a_result() -> None:
    """SC7: no exception leaves, the problem names the host."""
    config = SmtpConfig("no-such-host.invalid", 25, security=Security.NONE)
    result = SmtpTransport(config).transmit([parcel()], Leave())[0].results[ADA]
    assert result.stage is Stage.CONNECT
    assert "no-such-host.invalid" in result.problem
