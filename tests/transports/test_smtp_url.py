"""The two ways to write down an SMTP server, and what each mistake is told."""

from __future__ import annotations

import dataclasses
import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.errors import ConfigError
from mailer.transports.url import Security, SmtpConfig, Timeouts, as_bool, from_flask_mail, parse_smtp_url


def test_a_whole_url() -> None:
    """Every part of a URL arrives where it belongs, percent-decoded."""
    config = parse_smtp_url(
        "smtp://app%40acme.example:p%40ss%2Fw%C3%B6rd@smtp.provider.example:2525"
        "?starttls=required&name=mail.acme.example&timeout=30&end_of_data_timeout=900&max_messages=7"
    )
    assert config == SmtpConfig(
        host="smtp.provider.example",
        port=2525,
        username="app@acme.example",
        password="p@ss/wörd",
        security=Security.REQUIRED,
        local_hostname="mail.acme.example",
        max_messages=7,
        timeouts=Timeouts(30, 30, 30, 30, 30, 30, end_of_data=900, quit=2, parcel=1800),
    )


@pytest.mark.parametrize(
    ("url", "host", "port", "security"),
    [
        ("smtp://mail.example", "mail.example", 587, Security.OPTIONAL),
        ("smtp://u:p@mail.example", "mail.example", 587, Security.REQUIRED),
        ("smtps://u:p@mail.example", "mail.example", 465, Security.IMPLICIT),
        ("smtps://mail.example:4650/", "mail.example", 4650, Security.IMPLICIT),
        ("smtp://localhost:25", "localhost", 25, Security.NONE),
        ("smtp://127.0.0.1:25?starttls=optional", "127.0.0.1", 25, Security.OPTIONAL),
        ("smtp://u:p@[::1]:2525", "::1", 2525, Security.REQUIRED),
        ("smtp://[2001:db8::1]?starttls=off", "2001:db8::1", 587, Security.NONE),
        ("smtp://u:p@localhost?allow_plain_auth_loopback=1", "localhost", 587, Security.NONE),
    ],
)
def test_what_a_url_leaves_out(url: str, host: str, port: int, security: Security) -> None:
    """SC11: with credentials TLS is required; without, it is used where it is offered."""
    config = parse_smtp_url(url)
    assert (config.host, config.port, config.security) == (host, port, security)
    assert config.verify


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mail.example", "must begin with smtp:// or smtps://"),
        ("http://mail.example", "must begin with"),
        ("smtp://", "no host"),
        ("smtp://:25", "no host"),
        ("smtp://ma il.example", "no host"),
        ("smtp://mail.example:0", "port from 1"),
        ("smtp://mail.example:99999", "cannot be read"),
        ("smtp://mail.example:smtp", "cannot be read"),
        ("smtp://[::1", "cannot be read"),
        ("smtp://mail.example/inbox", "where none belongs"),
        ("smtp://mail.example#1", "where none belongs"),
        ("smtp://u@mail.example", "both a user and a password"),
        ("smtp://:p@mail.example", "both a user and a password"),
        ("smtp://u:%FF@mail.example", "percent-encoded UTF-8"),
        ("smtp://u:a%00b@mail.example", "control character"),
        ("smtp://mail.example?colour=red", "none of: starttls, verify"),
        ("smtp://mail.example?verify=off&verify=on", "twice"),
        ("smtp://mail.example?verify=perhaps", "verify that is neither on nor off"),
        ("smtp://mail.example?starttls=yes", "starttls that is not"),
        ("smtps://mail.example?starttls=off", "smtps:// does not need"),
        ("smtp://mail.example?timeout=0", "timeout that is not"),
        ("smtp://mail.example?timeout=nan", "timeout that is not"),
        ("smtp://mail.example?timeout=inf", "timeout that is not"),
        ("smtp://mail.example?mail_timeout=x", "mail_timeout that is not"),
        ("smtp://mail.example?max_messages=-1", "max_messages that is not"),
        ("smtp://mail.example?name=a%20b", "name that is neither"),
        ("smtp://u:p@mail.example?starttls=off", "without TLS"),
        ("smtp://u:p@mail.example?starttls=optional", "without TLS"),
        ("smtp://u:p@127.0.0.1?starttls=off", "without TLS"),
        ("smtp://u:p@mail.example?allow_plain_auth_loopback=1", "not a loopback"),
    ],
)
def test_a_mistake_is_told_by_the_settings_name(url: str, problem: str) -> None:
    """SC11 among others: a mistake stops the start, not a mail."""
    with pytest.raises(ConfigError) as caught:
        parse_smtp_url(url, "MY_URL")
    assert caught.value.setting == "MY_URL"
    assert problem in caught.value.problem


@given(st.text(st.characters(codec="utf-8"), max_size=20), st.sampled_from(["", ":1", ":x", "?a=1"]))
def test_no_mistake_shows_the_password(text: str, tail: str) -> None:
    """SC22: whatever an unencoded password does to the URL, no piece of it is repeated."""
    secret = f"Zq9{text}7Kx"
    told = ""
    try:
        told = repr(parse_smtp_url(f"smtp://user:{secret}@mail.example{tail}"))
    except ConfigError as exc:
        told = "".join(traceback.format_exception(exc)).partition("Error: ")[2]
    assert told
    assert "Zq9" not in told
    assert "7Kx" not in told


def test_less_than_safe_has_a_warning() -> None:
    """SC10: what is opted out of is shown; a loopback address without credentials is nothing to show."""
    assert "may travel without TLS" in parse_smtp_url("smtp://mail.example").warnings()[0]
    assert "password" in parse_smtp_url("smtp://u:p@localhost?allow_plain_auth_loopback=1").warnings()[0]
    assert parse_smtp_url("smtp://localhost").warnings() == ()
    assert parse_smtp_url("smtps://u:p@mail.example").warnings() == ()


@pytest.mark.parametrize(
    ("config", "port", "security"),
    [
        ({}, 25, Security.OPTIONAL),
        ({"MAIL_USE_TLS": True, "MAIL_PORT": "587"}, 587, Security.REQUIRED),
        ({"MAIL_USE_TLS": "False", "MAIL_USE_SSL": "0"}, 25, Security.OPTIONAL),
        ({"MAIL_USE_TLS": "no", "MAIL_USE_SSL": "yes"}, 465, Security.IMPLICIT),
        ({"MAIL_USE_SSL": True, "MAIL_PORT": 4650}, 4650, Security.IMPLICIT),
        ({"MAIL_USERNAME": "u", "MAIL_PASSWORD": "p"}, 25, Security.REQUIRED),
        ({"MAIL_USERNAME": None, "MAIL_PASSWORD": ""}, 25, Security.OPTIONAL),
    ],
)
def test_flask_mails_keys(config: dict[str, Any], port: int, security: Security) -> None:
    """SC11: an application that has Flask-Mail configured needs nothing more; text booleans are read."""
    made = from_flask_mail({"MAIL_SERVER": "mail.example", **config})
    assert (made.host, made.port, made.security) == ("mail.example", port, security)


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"MAIL_USE_TLS": "maybe"}, "MAIL_USE_TLS"),
        ({"MAIL_USE_TLS": True, "MAIL_USE_SSL": True}, "MAIL_USE_SSL"),
        ({"MAIL_PORT": "smtp"}, "MAIL_PORT"),
        ({"MAIL_PORT": 70_000}, "MAIL_PORT"),
        ({"MAIL_USERNAME": "u"}, "MAIL_USERNAME"),
        ({"MAIL_MAX_EMAILS": "many"}, "MAIL_MAX_EMAILS"),
    ],
)
def test_a_wrong_key_is_named(config: dict[str, Any], setting: str) -> None:
    """The error says which of Flask-Mail's keys to change."""
    with pytest.raises(ConfigError) as caught:
        from_flask_mail({"MAIL_SERVER": "mail.example", **config})
    assert caught.value.setting == setting


def test_the_defaults_of_flask_mail() -> None:
    """Without a server it is this machine's, as in Flask-Mail."""
    config = from_flask_mail({})
    assert (config.host, config.port, config.security) == ("127.0.0.1", 25, Security.NONE)


def test_a_configuration_does_not_change() -> None:
    """Frozen: a changed copy is a new one."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SmtpConfig("mail.example").host = "other"  # type: ignore[misc]
    assert as_bool(" ON ", "X")
