"""Workers that are frozen, and workers that are replaced under load: no mail is lost, and none is doubled."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from mailer import send_email
from tests.faults.conftest import READY, until, view, wait
from tests.peer import Drip, Say, Script, SmtpPeer

HI = {"subject": "Hi", "text": "Hello"}


@pytest.mark.parametrize("policy", ["retry", "hold"])
def test_a_worker_that_was_frozen_finds_the_fence_closed(dispatcher, policy):
    """RT4: it holds a mail past its lease, another sends it, and when it thaws it sends nothing (F13).

    The server lets the first ask for so long that it thaws before it is told to go ahead.
    """
    with SmtpPeer(Script(data=[Drip(b"354 go ahead\r\n", 0.5), Say(354)])) as peer:
        dispatcher.set("MAILER_SMTP_URL", f"smtp://127.0.0.1:{peer.port}")
        app = dispatcher.app()
        frozen = dispatcher.start_worker("--concurrency", "1")
        with app.app_context():
            id_ = send_email.delay(to="a@x.test", on_uncertain=policy, **HI).id
        until(lambda: "DATA" in peer.verbs(), what="the worker to ask for the text")
        os.killpg(frozen.pid, signal.SIGSTOP)
        other = dispatcher.start_worker("--concurrency", "1")
        assert wait(app, id_) == "sent"
        dispatcher.kill(other)
        os.killpg(frozen.pid, signal.SIGCONT)
        with (
            app.app_context()
        ):  # it does one thing at a time: when it sends this, it is through with the other
            after = send_email.delay(to="b@x.test", **HI).id
        assert wait(app, after) == "sent"
    assert [copy.recipients for copy in peer.accepted] == [("a@x.test",), ("b@x.test",)]
    assert [e.name for e in view(app, id_).events] == ["accepted", "worker_lost", "deferred", "sent"]


def test_deploys_under_load_lose_and_double_nothing(dispatcher):
    """RT1: a worker is told to stop and replaced five times while mails flow; each ends by itself (F17)."""
    with SmtpPeer(Script(text=Drip(b"250 ok\r\n", 0.004))) as peer:
        dispatcher.set("MAILER_SMTP_URL", f"smtp://127.0.0.1:{peer.port}")
        app, ids = dispatcher.app(), []

        def call() -> None:
            with app.app_context():
                for n in range(200):
                    ids.append(send_email.delay(to=f"a{n}@x.test", **HI).id)
                    time.sleep(0.03)

        caller = threading.Thread(target=call)
        caller.start()
        for deploy in range(5):
            worker = dispatcher.start_worker()
            until(lambda n=deploy: dispatcher.logs().count(READY) > n, 30, "the worker to consume")
            time.sleep(0.5)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(15) == 0
        caller.join()
        dispatcher.start_worker()
        assert {wait(app, id_) for id_ in ids} == {"sent"}
    assert len(peer.accepted) == 200
