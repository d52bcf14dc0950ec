"""What the transport reads in a server's words, and which words of its own it may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailer.errors import ConfigError
from mailer.replies import PROTOCOL_ERROR
from mailer.transports import Result, Stage
from mailer.transports.smtp import SmtpTransport
from mailer.transports.tls import tls_context
from mailer.transports.url import Security, SmtpConfig
from tests.authority import Authority
from tests.peer import Actions, Close, Endless, Raw, Say, Script, SmtpPeer
from tests.transports.talking import ADA, DATA, Leave, parcel, send_all, send_one, transport

pytestmark = pytest.mark.usefixtures("both_ways")

# Replies


@pytest.mark.parametrize(
    "nonsense",
    [
        Raw(b"hello\r\n"),
        Raw(b"25 ok\r\n"),
        Raw(b"2500 ok\r\n"),
        Raw(b"250_ok\r\n"),
        Raw(b"199 odd\r\n"),
        Raw(b"\r\n"),
        Raw(b"250-one\r\n550 two\r\n"),
        Raw(b"250 " + b"x" * 5000 + b"\r\n"),
        Raw(b"x" * 10_000),
        Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Endless(b"250-more\r\n"),
        Endless(b"250-" + b"y" * 4000 + b"\r\n"),
        Endless(b"\x00"),
    ],
)
@pytest.mark.parametrize("stage", ["greeting", "rcpt", "text"])
def test_what_is_not_a_reply_is_a_protocol_error(stage: str, nonsense: Actions) -> None:
    """SC19, SC20: anything but bounded ``NNN text`` lines with one code."""
    with SmtpPeer(Script(**{stage: nonsense})) as peer:  # type: ignore[arg-type]
        result = send_one(peer)
    assert result.reply is None
    assert result.problem.startswith(PROTOCOL_ERROR)
    assert result.text_sent == (stage == "text")


def test_a_reply_nobody_asked_for_is_not_taken_for_the_answer() -> None:
    """SC17, SC20: replies are matched to commands, so one too many cannot pass for a promise."""
    with SmtpPeer(Script(data=Raw(b"354 go\r\n250 2.0.0 taken\r\n"), text=Close())) as peer:
        result = send_one(peer)
    assert not result.accepted
    assert result.problem.startswith(PROTOCOL_ERROR)


def test_the_words_of_a_reply_are_harmless() -> None:
    """SC19: one line, decoded with replacement, no control characters, 1,000 characters."""
    reply = (
        b"550-5.1.1 gr\xfc\xdfe\x1b[31m\r\n550-5.1.1 <script>\r\n550 5.1.1 \xe2\x80\xae"
        + b"z" * 3000
        + b"\r\n"
    )
    with SmtpPeer(Script(rcpt=Raw(reply))) as peer:
        result = send_one(peer)
    assert result.reply is not None
    assert result.reply.text.startswith("5.1.1 gr��e�[31m <script> �zzz")
    assert len(result.reply.text) == 1000
    assert result.reply.enhanced == "5.1.1"


@pytest.mark.parametrize("terse", [b"550\r\n", b"550 \r\n", b"550 no\n"])
def test_a_reply_may_be_terse(terse: bytes) -> None:
    """RFC 5321 4.2: a client must take a code without text; a bare LF is forgiven."""
    with SmtpPeer(Script(rcpt=Raw(terse))) as peer:
        result = send_one(peer)
    assert result.reply is not None
    assert result.reply.code == 550


# Extensions


def test_the_configured_name_is_said_in_ehlo() -> None:
    """SC13: not the container's name."""
    with SmtpPeer() as peer:
        send_one(peer, local_hostname="mail.acme.example")
    assert peer.commands[0].split() == ["EHLO", "mail.acme.example"]


def test_helo_is_said_where_ehlo_is_not_understood() -> None:
    """SC13: only if neither TLS nor AUTH is needed."""
    with SmtpPeer(Script(ehlo=Say(502, "5.5.1 what"))) as peer:
        assert send_one(peer).accepted
        assert send_one(peer, security=Security.REQUIRED).stage is Stage.GREETING
    assert peer.verbs().count("HELO") == 1


def test_the_size_is_announced() -> None:
    """SC14: SIZE= is given when offered. RFC 1870"""
    with SmtpPeer() as peer:
        send_one(peer)
    assert peer.accepted[0].options == f"SIZE={len(DATA)}"


def test_what_is_too_large_is_not_transferred() -> None:
    """SC14: it fails for good before MAIL, and the connection serves the next parcel."""
    with SmtpPeer(Script(extensions=[f"SIZE {len(DATA)}"])) as peer:
        large, small = send_all(peer, [parcel(data=DATA + b"x\r\n"), parcel(id="m2")])
    reply = large.results[ADA].reply
    assert reply is not None
    assert (large.results[ADA].stage, reply.code, reply.enhanced) == (Stage.MAIL, 552, "5.3.4")
    assert small.results[ADA].accepted
    assert peer.verbs() == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize("size", ["SIZE", "SIZE 0", "SIZE many"])
def test_a_size_without_a_limit_limits_nothing(size: str) -> None:
    """SC14: RFC 1870 section 4."""
    with SmtpPeer(Script(extensions=[size])) as peer:
        assert send_one(peer).accepted


def test_a_non_ascii_local_part_travels_with_smtputf8() -> None:
    """SC15: where offered, as UTF-8 and unencoded. RFC 6531 section 3"""
    with SmtpPeer() as peer:
        first, second = transport(peer).transmit([parcel("jörg@example.org"), parcel(ADA)], Leave())
    assert first.results["jörg@example.org"].accepted
    assert peer.accepted[0].recipients == ("jörg@example.org",)
    assert "SMTPUTF8" in peer.accepted[0].options
    assert "SMTPUTF8" not in peer.accepted[1].options
    assert second.results[ADA].accepted


def test_without_smtputf8_such_a_recipient_fails_and_the_others_do_not() -> None:
    """SC15: 553 5.6.7 in our own words; the address never reaches the wire."""
    with SmtpPeer(Script(extensions=[])) as peer:
        results = transport(peer).transmit([parcel("jörg@example.org", ADA)], Leave())[0].results
    reply = results["jörg@example.org"].reply
    assert reply is not None
    assert (reply.code, reply.enhanced) == (553, "5.6.7")
    assert results[ADA].accepted
    assert not any("rg@" in command for command in peer.commands)


def test_without_smtputf8_such_a_sender_fails() -> None:
    """SC15: the sender needs it just as well."""
    with SmtpPeer(Script(extensions=[])) as peer:
        result = send_one(peer, parcel(sender="jörg@acme.example"))
    assert result.reply is not None
    assert (result.stage, result.reply.enhanced) == (Stage.MAIL, "5.6.7")


def test_an_address_in_a_header_needs_smtputf8_too() -> None:
    """MF19, SC15: also where everybody the text is for has an ASCII address, as in a later attempt."""
    mail = parcel(data="To: ada@example.org, jörg@example.org\r\n\r\nHello\r\n".encode())
    with SmtpPeer() as peer:
        assert send_one(peer, mail).accepted
    assert "SMTPUTF8" in peer.accepted[0].options
    for extensions in ([], ["8BITMIME"]):
        with SmtpPeer(Script(extensions=extensions)) as peer:
            result = send_one(peer, mail)
        assert result.reply is not None
        assert (result.stage, result.reply.code, result.reply.enhanced) == (Stage.MAIL, 553, "5.6.7")
        assert "DATA" not in peer.verbs()


def test_octets_over_127_need_8bitmime() -> None:
    """MF: 8-bit text is declared where it may go and refused where it may not. RFC 6152"""
    eight = parcel(data="Subject: x\r\n\r\nGrüße\r\n".encode())
    with SmtpPeer() as peer:
        assert send_one(peer, eight).accepted
    assert "BODY=8BITMIME" in peer.accepted[0].options
    with SmtpPeer(Script(extensions=[])) as peer:
        result = send_one(peer, eight)
    assert result.reply is not None
    assert result.reply.enhanced == "5.6.3"


@pytest.mark.parametrize(
    "address", ["a@x>\r\nRCPT TO:<b@y", "a@x> SIZE=1", "a b@x", "no-at", "", "a@x\ud800"]
)
def test_an_address_that_leaves_its_brackets_is_refused_here(address: str) -> None:
    """IN1, IN5: addresses are checked long before; this is the last door."""
    with SmtpPeer() as peer:
        results = transport(peer).transmit([parcel(address, ADA)], Leave())[0].results
    reply = results[address].reply
    assert reply is not None
    assert (reply.code, reply.enhanced) == (553, "5.1.3")
    assert results[ADA].accepted


# What must not happen


def test_a_mistake_of_ours_is_a_result_too() -> None:
    """The contract: nothing leaves ``transmit`` as an exception, and no text leaves after a mistake."""

    asked = iter(["a secret"])

    def broken_once() -> None:
        for secret in asked:
            raise ZeroDivisionError(secret)

    with SmtpPeer() as peer:
        failed, good = transport(peer).transmit([parcel(), parcel(id="m2")], Leave(ask=broken_once))
    assert failed.results[ADA] == Result(Stage.DATA, problem="internal error: ZeroDivisionError")
    assert good.results[ADA].accepted
    assert len(peer.accepted) == 1


def test_a_missing_file_of_authorities_stops_the_start(tmp_path: Path) -> None:
    """SC10: a typing error in ca_file is found at once, and named."""
    config = SmtpConfig("127.0.0.1", ca_file=str(tmp_path / "nothing.pem"))
    with pytest.raises(ConfigError, match="MAILER_SMTP_URL: has a ca_file that holds no certificate"):
        SmtpTransport(config)


def test_authorities_are_read_once(tmp_path: Path) -> None:
    """Reading them costs more than a mail: connections share one context."""
    config = SmtpConfig("127.0.0.1", ca_file=Authority(tmp_path).ca_file)
    assert tls_context(config, "X") is tls_context(config, "X")
