"""TLS and AUTH: nothing of value travels before the server has proved who it is."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import logging
import ssl
from pathlib import Path

import pytest

from mailer.transports import Parcel, Reply, Result, Stage
from mailer.transports.smtp import SmtpTransport
from mailer.transports.tls import tls_context
from mailer.transports.url import Security, SmtpConfig, Timeouts, parse_smtp_url
from tests.authority import Authority
from tests.peer import Close, Raw, Say, Script, SmtpPeer
from tests.transports.talking import Leave

QUICK = Timeouts(2, 2, 2, 2, 2, 2, end_of_data=2, quit=0.2, parcel=4)
PASSWORD = "pä55-Wort/+"
PARCEL = Parcel("m1", "app@acme.example", ("ada@example.org",), b"Subject: x\r\n\r\nx\r\n")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> ssl.SSLContext:
    """A certificate for the address under test."""
    return authority.context("127.0.0.1", "localhost")


def send(peer: SmtpPeer, **fields: object) -> Result:
    given = {"host": "127.0.0.1", "port": peer.port, "timeouts": QUICK, **fields}
    transport = SmtpTransport(SmtpConfig(**given))  # type: ignore[arg-type]
    return transport.transmit([PARCEL], Leave())[0].results["ada@example.org"]


SIGNED_IN = {"username": "app", "password": PASSWORD}


def script(good: ssl.SSLContext, **fields: object) -> Script:
    return Script(tls=good, credentials=("app", PASSWORD), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN", "XOAUTH2 PLAIN"])
def test_starttls_and_auth_with_a_verified_server(
    authority: Authority, good: ssl.SSLContext, mechanisms: str
) -> None:
    """SC10: chain and host name are right, so the password is sent, also one beyond ASCII."""
    with SmtpPeer(script(good, mechanisms=mechanisms)) as peer:
        result = send(peer, ca_file=authority.ca_file, **SIGNED_IN)
    assert result.accepted, result
    assert peer.verbs()[:4] == ["EHLO", "STARTTLS", "EHLO", "AUTH"]


def test_implicit_tls(authority: Authority, good: ssl.SSLContext) -> None:
    """SC10: the same from the first octet. RFC 8314"""
    with SmtpPeer(script(good, implicit_tls=True)) as peer:
        result = send(peer, ca_file=authority.ca_file, security=Security.IMPLICIT, **SIGNED_IN)
    assert result.accepted, result
    assert "STARTTLS" not in peer.verbs()


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_an_unproven_server_gets_nothing(
    authority: Authority, tmp_path: Path, implicit: bool, wrong: str
) -> None:
    """SC10: unknown authority or other host name: neither AUTH nor MAIL is sent."""
    maker = Authority(tmp_path) if wrong == "authority" else authority
    context = maker.context("127.0.0.1" if wrong == "authority" else "mail.other.example")
    security = Security.IMPLICIT if implicit else Security.REQUIRED
    with SmtpPeer(script(context, implicit_tls=implicit)) as peer:
        result = send(peer, ca_file=authority.ca_file, security=security, **SIGNED_IN)
    assert (result.stage, result.reply) == (Stage.TLS, None)
    assert "certificate is not valid for 127.0.0.1" in result.problem
    assert set(peer.verbs()) <= {"EHLO", "STARTTLS"}


def test_verification_can_be_given_up_and_says_so(tmp_path: Path) -> None:
    """SC10: opting out is explicit, per transport, and there is a warning to show."""
    with SmtpPeer(script(Authority(tmp_path).context("127.0.0.1"))) as peer:
        assert send(peer, verify=False, **SIGNED_IN).accepted
    config = parse_smtp_url("smtp://app:x@mail.example?verify=off")
    assert config.warnings() == ("mail.example:587: the certificate is not verified (verify=off)",)
    assert not parse_smtp_url("smtp://app:x@mail.example").warnings()


def test_old_versions_of_tls_are_refused() -> None:
    """SC10: TLS 1.2 or newer. RFC 9325"""
    context = tls_context(SmtpConfig("mail.example"), "X")
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_where_tls_is_required_nothing_goes_in_clear() -> None:
    """SC11: STARTTLS is not offered (or stripped on the way): a fault of the transport, and no mail."""
    with SmtpPeer(Script(credentials=("app", PASSWORD))) as peer:
        result = send(peer, **SIGNED_IN)
    assert result == Result(Stage.TLS, problem="the server does not offer STARTTLS, which is required")
    assert peer.verbs() == ["EHLO"]


@pytest.mark.parametrize("starttls", [Say(454, "4.7.0 not now"), Close(), Raw(b"220 go\r\n")])
def test_a_failing_starttls_is_the_transports_fault(good: ssl.SSLContext, starttls: object) -> None:
    """SC7: 454, a drop, or an untrusted handshake: stage tls, so no message pays for it."""
    with SmtpPeer(script(good, starttls=starttls)) as peer:
        result = send(peer, **SIGNED_IN)
    assert result.stage is Stage.TLS
    assert "MAIL" not in peer.verbs()


@pytest.mark.parametrize("offered", [True, False])
def test_optional_tls_is_used_where_offered(
    authority: Authority, good: ssl.SSLContext, offered: bool
) -> None:
    """SC11: without credentials TLS may be optional."""
    with SmtpPeer(Script(tls=good if offered else None)) as peer:
        assert send(peer, security=Security.OPTIONAL, ca_file=authority.ca_file).accepted
    assert ("STARTTLS" in peer.verbs()) == offered


def test_optional_tls_is_still_verified(good: ssl.SSLContext) -> None:
    """SC10: offered and wrong is not the same as not offered."""
    with SmtpPeer(Script(tls=good)) as peer:
        assert send(peer, security=Security.OPTIONAL).stage is Stage.TLS


def test_the_password_never_travels_in_clear() -> None:
    """SC11: not even where the configuration was made by hand; the last check is before AUTH."""
    with SmtpPeer(Script(credentials=("app", PASSWORD))) as peer:
        result = send(peer, security=Security.NONE, **SIGNED_IN)
    assert result == Result(Stage.TLS, problem="the connection has no TLS, so the password was not sent")
    assert peer.verbs() == ["EHLO"]


def test_loopback_may_be_an_exception() -> None:
    """SC11: with the explicit switch, to a loopback address."""
    with SmtpPeer(Script(credentials=("app", PASSWORD))) as peer:
        assert send(peer, security=Security.NONE, plain_auth_loopback=True, **SIGNED_IN).accepted


def test_what_came_before_the_handshake_is_forgotten(authority: Authority, good: ssl.SSLContext) -> None:
    """SC12: octets injected behind the 220 are thrown away, and EHLO is said again. RFC 3207 4.2"""
    injected = Raw(b"220 go\r\n250-evil\r\n250-SIZE 1\r\n250 AUTH PLAIN\r\n")
    with SmtpPeer(script(good, starttls=injected)) as peer:
        result = send(peer, ca_file=authority.ca_file, **SIGNED_IN)
    assert result.accepted, result
    assert peer.verbs().count("EHLO") == 2


def test_a_wrong_password_is_the_transports_fault(authority: Authority, good: ssl.SSLContext) -> None:
    """SC7: 535 keeps code and text at stage auth; the server is asked once a batch, not once a mail."""
    with SmtpPeer(script(good)) as peer:
        config = SmtpConfig(
            "127.0.0.1", peer.port, "app", "guessed", ca_file=authority.ca_file, timeouts=QUICK
        )
        receipts = SmtpTransport(config).transmit([PARCEL] * 3, Leave())
    results = [receipt.results["ada@example.org"] for receipt in receipts]
    assert results == [Result(Stage.AUTH, Reply(535, "5.7.8 wrong password"))] * 3
    assert peer.verbs().count("AUTH") == 1


def test_a_server_with_no_known_mechanism(authority: Authority, good: ssl.SSLContext) -> None:
    """SC7: nothing to sign in with is the transport's fault too."""
    with SmtpPeer(script(good, mechanisms="GSSAPI")) as peer:
        result = send(peer, ca_file=authority.ca_file, **SIGNED_IN)
    assert result == Result(Stage.AUTH, problem="the server offers neither AUTH PLAIN nor AUTH LOGIN")


def test_the_password_is_nowhere_to_be_read(
    authority: Authority, good: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """SC22: not in logs, in repr, nor in the reply of a server that repeats the command."""
    caplog.set_level(logging.DEBUG)
    encoded = base64.b64encode(f"\0app\0{PASSWORD}".encode()).decode()
    echo = Say(501, f"5.5.4 cannot read AUTH PLAIN {encoded}, that is {PASSWORD}")
    with SmtpPeer(script(good, auth=echo)) as peer:
        config = SmtpConfig(
            "127.0.0.1", peer.port, "app", PASSWORD, ca_file=authority.ca_file, timeouts=QUICK
        )
        transport = SmtpTransport(config)
        receipts = transport.transmit([PARCEL], Leave())
    seen = f"{receipts} {transport!r} {vars(transport)} {config!r} {caplog.text}"
    assert PASSWORD not in seen
    assert encoded not in seen
    assert "••••••" in seen


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_second_connection_takes_up_the_session_of_the_first(
    authority: Authority, version: ssl.TLSVersion, implicit: bool
) -> None:
    """SC10: verified once, resumed from then on: a handshake costs milliseconds and a round trip more."""
    context = authority.context("127.0.0.1")
    context.maximum_version = version
    security = Security.IMPLICIT if implicit else Security.REQUIRED
    with SmtpPeer(script(context, implicit_tls=implicit)) as peer:
        given = {"ca_file": authority.ca_file, "security": security, "max_messages": 1, "connections": 1}
        accepted = send_several(peer, 3, **given, **SIGNED_IN)
    assert accepted == 3
    assert peer.resumed == [False, True, True]


def test_a_session_that_the_server_forgot_is_no_harm(authority: Authority) -> None:
    """A server that was started anew knows no old session: a whole handshake, and verified again."""
    with SmtpPeer(script(authority.context("127.0.0.1"))) as peer:
        config = SmtpConfig("127.0.0.1", peer.port, ca_file=authority.ca_file, timeouts=QUICK, max_messages=1)
        transport = SmtpTransport(dataclasses.replace(config, **SIGNED_IN))
        assert transport.transmit([PARCEL], Leave())[0].results["ada@example.org"].accepted
        peer.script.tls = authority.context("127.0.0.1")
        assert transport.transmit([PARCEL], Leave())[0].results["ada@example.org"].accepted
        peer.script.tls = authority.context("mail.other.example")
        result = transport.transmit([PARCEL], Leave())[0].results["ada@example.org"]
        transport.close()
    assert result.stage is Stage.TLS
    assert "certificate is not valid" in result.problem
    assert not any(peer.resumed)


def test_no_session_is_taken_over_from_an_unverified_server(
    authority: Authority, good: ssl.SSLContext
) -> None:
    """SC10: what one transport took without looking proves nothing to another."""
    with SmtpPeer(script(good)) as peer:
        assert send(peer, verify=False, **SIGNED_IN).accepted
        assert send(peer, **SIGNED_IN).stage is Stage.TLS
    assert peer.resumed[:1] == [False]
    assert peer.verbs().count("AUTH") == 1


def send_several(peer: SmtpPeer, count: int, **fields: object) -> int:
    """How many of so many messages, one after the other, are accepted."""
    given = {"host": "127.0.0.1", "port": peer.port, "timeouts": QUICK, **fields}
    with contextlib.closing(SmtpTransport(SmtpConfig(**given))) as transport:  # type: ignore[arg-type]
        receipts = [transport.transmit([PARCEL], Leave())[0] for _ in range(count)]
    return sum(receipt.results["ada@example.org"].accepted for receipt in receipts)
