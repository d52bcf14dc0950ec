"""A worker killed with -9 at any stage of an attempt: the mail arrives, once or with the same bytes."""

from __future__ import annotations

import pytest

from mailer import send_email
from tests.faults.conftest import until, view, wait
from tests.peer import Say, Script, Silence, SmtpPeer, Take

HI = {"subject": "Hi", "text": "Hello"}

BEFORE = {
    "greeting": Script(greeting=[Silence(), Say(220, "hello")]),
    "mail": Script(mail=[Silence(), Say(250)]),
    "rcpt": Script(rcpt=[Silence(), Say(250)]),
    "data": Script(data=[Silence(), Say(354)]),
}


def kill_while_silent(dispatcher, peer, app, heard, **options) -> str:
    """Accept a mail, kill the worker once the peer has heard what it will not answer, start another."""
    first = dispatcher.start_worker()
    with app.app_context():
        id_ = send_email.delay(to="a@x.test", **HI, **options).id
    until(heard, what="the worker to come as far as this stage")
    dispatcher.kill(first)
    dispatcher.start_worker()
    return id_


@pytest.mark.parametrize("stage", BEFORE)
def test_before_the_text_nothing_is_lost_or_doubled(dispatcher, stage):
    """RT1, RT5: killed anywhere before the text, the mail arrives exactly once, within the lease."""
    with SmtpPeer(BEFORE[stage]) as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        word = stage.upper()
        heard = (
            (lambda: peer.connections >= 1)
            if stage == "greeting"
            else (lambda: any(c.upper().startswith(word) for c in peer.commands))
        )
        id_ = kill_while_silent(dispatcher, peer, app, heard)
        assert wait(app, id_) == "sent"
    assert len(peer.accepted) == 1
    [delivery] = view(app, id_).deliveries
    assert delivery.attempts == 2


def test_after_the_text_a_double_has_the_same_bytes(dispatcher):
    """RT5, MF7: killed between text and answer, policy retry: at most one copy more, byte for byte."""
    with SmtpPeer(Script(text=[(Take(), Silence()), Say(250)])) as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        id_ = kill_while_silent(dispatcher, peer, app, lambda: peer.accepted)
        assert wait(app, id_) == "sent"
    assert len(peer.accepted) == 2
    assert len({copy.data for copy in peer.accepted}) == 1
    assert "worker_lost" in [event.name for event in view(app, id_).events]


def test_after_the_text_hold_asks_a_person(dispatcher):
    """Promise 3: policy hold never repeats by itself; the message waits as uncertain."""
    with SmtpPeer(Script(text=[(Take(), Silence()), Say(250)])) as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        id_ = kill_while_silent(dispatcher, peer, app, lambda: peer.accepted, on_uncertain="hold")
        assert wait(app, id_) == "uncertain"
    assert len(peer.accepted) == 1
