"""What is kept of a conversation that did not end well: enough to understand it, and no secret."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import pytest

from mailer.transports.transcript import MOST_CHARS, MOST_LINES
from tests.authority import Authority
from tests.peer import Close, Raw, Say, Script, SmtpPeer
from tests.transports.talking import ADA, BOB, DATA, Leave, parcel, send_all, transport

PLAIN = ["8BITMIME", "SIZE 10485760"]


def test_who_was_accepted_leaves_no_transcript() -> None:
    """Kept for failures only: it would be most of what the database holds."""
    with SmtpPeer() as peer:
        (receipt,) = send_all(peer, [parcel(ADA, BOB)])
    assert receipt.transcript == ()


@pytest.mark.parametrize("extensions", [PLAIN, [*PLAIN, "PIPELINING"]])
def test_a_refusal_is_told_from_the_greeting_on(extensions: list[str]) -> None:
    """Each command with its answer, whatever way they were sent; addresses are masked in both."""
    script = Script(rcpt=[Say(250), Say(550, f"5.1.1 <{BOB}>: no such user")], extensions=extensions)
    with SmtpPeer(script) as peer:
        (receipt,) = send_all(peer, [parcel(ADA, BOB)], local_hostname="mail.acme.example")
    assert receipt.transcript == (
        "S: 220 peer.test ESMTP",
        "C: EHLO mail.acme.example",
        f"S: 250 peer.test {' '.join(extensions)}",
        f"C: MAIL FROM:<a***@acme.example> SIZE={len(DATA)}",
        "S: 250 2.1.0 ok",
        "C: RCPT TO:<a***@example.org>",
        "S: 250 ok",
        "C: RCPT TO:<b***@example.org>",
        "S: 550 5.1.1 <b***@example.org>: no such user",
        "C: DATA",
        "S: 354 go ahead",
        f"C: ({len(DATA)} octets of text)",
        "S: 250 2.0.0 taken",
    )


def test_a_later_message_is_told_by_itself() -> None:
    """What was said for the messages before it on the connection is theirs; how many there were is told."""
    with SmtpPeer(Script(text=[Say(250), Say(250), Say(554, "5.7.1 spam")])) as peer:
        *_, receipt = send_all(peer, [parcel(f"u{n}@example.org", id=f"m{n}") for n in range(3)])
    assert "* 2 messages before this one" in receipt.transcript
    assert sum(line.startswith("C: RCPT") for line in receipt.transcript) == 1
    assert receipt.transcript[-1] == "S: 554 5.7.1 spam"


def test_a_lost_connection_ends_with_what_happened() -> None:
    """The command that got no answer, and why."""
    with SmtpPeer(Script(data=Close())) as peer:
        (receipt,) = send_all(peer, [parcel()])
    assert receipt.transcript[-2:] == ("C: DATA", "* the server closed the connection")


def test_the_text_is_not_in_it() -> None:
    """Not even where the server repeats a line of it that holds an address."""
    secret = "https://acme.example/reset/s3cr3t-t0k3n"
    text = f"Subject: Reset\r\n\r\n{secret}\r\n".encode()
    with SmtpPeer(Script(text=Say(554, "5.7.1 spam from ada@example.org"))) as peer:
        (receipt,) = send_all(peer, [parcel(data=text)])
    told = "\n".join(receipt.transcript)
    assert f"({len(text)} octets of text)" in told
    assert "s3cr3t" not in told
    assert "ada@" not in told


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_the_password_is_not_in_it(tmp_path: Path, mechanism: str) -> None:
    """SC22: neither what we sent nor what a server repeats of it."""
    password, authority = "pä55-Wort/+", Authority(tmp_path)
    encoded = [base64.b64encode(t.encode()).decode() for t in (f"\0app\0{password}", "app", password)]
    script = Script(
        tls=authority.context("127.0.0.1"),
        credentials=("app", password),
        mechanisms=mechanism,
        auth=Say(535, f"5.7.8 not {' or '.join(encoded)}, that is {password}"),
    )
    with SmtpPeer(script) as peer:
        login = {"username": "app", "password": password, "security": "starttls"}
        (receipt,) = send_all(peer, [parcel()], ca_file=authority.ca_file, **login)
    told = "\n".join(receipt.transcript)
    assert f"C: AUTH {mechanism}" in told
    assert "S: 535 5.7.8 not ••••••" in told
    assert not any(secret in told for secret in (password, *encoded))


def test_a_quoted_or_foreign_address_is_masked_too() -> None:
    """An address need not look like one."""
    strange = '"a secret name"@example.org'
    with SmtpPeer(Script(rcpt=Say(550, f"5.1.1 {strange} is not known"))) as peer:
        receipts = send_all(peer, [parcel(strange), parcel("jörg@example.org")])
    told = "\n".join(line for receipt in receipts for line in receipt.transcript)
    assert "secret name" not in told
    assert "jörg" not in told


def test_hostile_words_are_harmless_and_bounded() -> None:
    """SC19: no control characters, so many lines of so many characters and no more."""
    people = tuple(f"u{n}@example.org" for n in range(90))
    with SmtpPeer(Script(rcpt=Raw(b"550 5.1.1 \x1b[31m\xe2\x80\xae" + b"z" * 3000 + b"\r\n"))) as peer:
        (receipt,) = send_all(peer, [parcel(*people)])
    assert len(receipt.transcript) == MOST_LINES
    assert any("lines left out" in line for line in receipt.transcript)
    assert all(len(line) <= MOST_CHARS + 3 and line.isprintable() for line in receipt.transcript)
    assert receipt.transcript[0].startswith("S: 220")


def test_a_server_that_turns_everybody_away_is_quoted_to_everybody() -> None:
    """What was said at the opening is why nothing was tried."""
    with SmtpPeer(Script(greeting=Say(554, "5.7.1 not you"))) as peer:
        receipts = send_all(peer, [parcel(), parcel(BOB, id="m2")])
    assert [receipt.transcript for receipt in receipts] == [("S: 554 5.7.1 not you",)] * 2


def test_a_second_try_tells_of_the_connection_it_was_made_on() -> None:
    """SC21: what a closed connection said before is not told as if it belonged to it."""
    late = (Say(421, "4.4.2 idle too long"), Close())
    refusing = Script(mail=[Say(250), late, Say(250)], rcpt=[Say(250), Say(550, "5.1.1 no")])
    with SmtpPeer(refusing) as peer, contextlib.closing(transport(peer)) as carrier:
        _, receipt = carrier.transmit([parcel(), parcel(BOB, id="m2")], Leave())
    assert sum(line.startswith("C: MAIL") for line in receipt.transcript) == 1
    assert receipt.transcript[-2:] == ("C: RCPT TO:<b***@example.org>", "S: 550 5.1.1 no")
    assert not any("before this one" in line or "421" in line for line in receipt.transcript)
