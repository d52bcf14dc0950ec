"""Flask-Mail's own seams go on working: recording, suppression, the signal."""

from __future__ import annotations

import email.charset
import subprocess
import sys
from typing import Any

import flask
import flask_mail
import pytest

from mailer.retry import LEASE_LOST
from mailer.transports import Stage
from tests.peer import Say, Script, SmtpPeer
from tests.transports.talking import ADA, DATA, Leave, parcel, transport


def application(**config: Any) -> flask.Flask:
    app = flask.Flask(__name__)
    app.config.update(config)
    return app


def test_recorded_messages_can_be_looked_at() -> None:
    """``record_messages`` sees what was sent: the frozen bytes and the usual fields."""
    with SmtpPeer() as peer, application().app_context():
        mail = flask_mail.Mail(flask.current_app)
        with mail.record_messages() as outbox:
            transport(peer).transmit([parcel()], Leave())
    (message,) = outbox
    assert message.as_bytes() == DATA == peer.accepted[0].data
    assert (message.subject, message.recipients, message.sender) == ("Hello", [ADA], "app@acme.example")
    assert message.body is not None
    assert message.body.startswith("Dear Ada,")
    assert message.msgId == "<1@acme.example>"


def test_a_refused_message_is_not_announced() -> None:
    """As in Flask-Mail, the signal means that a message went out."""
    refusing = Script(rcpt=Say(550, "5.1.1 no"))
    with (
        SmtpPeer(refusing) as peer,
        application().app_context(),
        flask_mail.Mail().record_messages() as outbox,
    ):
        transport(peer).transmit([parcel()], Leave())
    assert not outbox


@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize(
    ("config", "suppressed"),
    [
        ({"TESTING": True}, True),
        ({"MAIL_SUPPRESS_SEND": True}, True),
        ({"MAIL_SUPPRESS_SEND": "1"}, True),
        ({"MAIL_SUPPRESS_SEND": "False"}, False),
        ({"TESTING": True, "MAIL_SUPPRESS_SEND": False}, False),
        ({}, False),
    ],
)
def test_suppressed_mail_is_recorded_and_not_sent(
    config: dict[str, Any], suppressed: bool, extension: bool
) -> None:
    """TESTING and MAIL_SUPPRESS_SEND keep mail off the network, also when given as text."""
    with SmtpPeer() as peer, application(**config).app_context():
        if extension:
            flask_mail.Mail(flask.current_app)
        with flask_mail.Mail().record_messages() as outbox:
            result = transport(peer).transmit([parcel()], Leave())[0].results[ADA]
    assert result.accepted
    assert len(outbox) == 1
    assert peer.connections == (0 if suppressed else 1)
    if suppressed:
        assert "suppressed" in (result.reply.text if result.reply else "")


def test_suppressed_mail_asks_for_the_lease_too() -> None:
    """An application under test behaves as it will with a server."""
    with SmtpPeer() as peer, application(TESTING=True).app_context():
        result = transport(peer).transmit([parcel()], Leave("m1"))[0].results[ADA]
    assert (result.stage, result.problem) == (Stage.DATA, LEASE_LOST)


def test_a_listener_that_fails_changes_no_result() -> None:
    """What listens to the signal runs after the answer and cannot unsay it."""

    def listener(*_: Any, **__: Any) -> None:
        raise RuntimeError("mine")

    with SmtpPeer() as peer, application().app_context(), flask_mail.email_dispatched.connected_to(listener):
        assert transport(peer).transmit([parcel()], Leave())[0].results[ADA].accepted


def test_other_texts_of_the_process_keep_their_encoding() -> None:
    """Importing Flask-Mail makes every ``email.mime`` text 8-bit; importing this transport does not."""
    program = (
        "import email.charset as c; before = c.CHARSETS['utf-8']; import mailer.transports.smtp;"
        "assert c.CHARSETS['utf-8'] == before, c.CHARSETS['utf-8']"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    assert email.charset.CHARSETS["utf-8"]
