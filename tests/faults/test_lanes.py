"""Lanes on every broker: what is urgent does not wait for what is not."""

from __future__ import annotations

import statistics
import time

import pytest

from mailer import send_email
from mailer.worker import EmbeddedWorker
from tests.backlog import fill
from tests.faults.conftest import READY, until
from tests.peer import Drip, Script, SmtpPeer

BACKLOG = 20_000
SLOW = Script(text=Drip(b"250 ok\r\n", 0.007))
"""Needs 50 ms for a mail: the backlog would take minutes."""


def latency(app, peer, name: str) -> float:
    """Seconds from a call to the arrival of a password reset."""
    began = time.monotonic()
    with app.app_context():
        send_email.delay(to=f"{name}@x.test", subject="Reset", text="Here you are", lane="critical")
    until(lambda: any(f"{name}@x.test" in copy.recipients for copy in peer.accepted[-200:]), 30, "the reset")
    return time.monotonic() - began


@pytest.fixture(params=["embedded", "redis", "rabbitmq"])
def working(request, any_broker, database_url):
    """An application, a worker on it, and a slow mail server."""
    with SmtpPeer(SLOW) as peer:
        dispatcher = any_broker(request.param)
        dispatcher.set("MAILER_SMTP_URL", f"smtp://127.0.0.1:{peer.port}")
        app = dispatcher.app()
        if request.param == "embedded":
            worker = EmbeddedWorker(app, concurrency=4)
            worker.start()
            yield app, peer
            worker.stop()
        else:
            dispatcher.start_worker("--concurrency", "4")
            until(lambda: READY in dispatcher.logs(), 40, "the worker to consume")
            yield app, peer


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_reset_overtakes_twenty_thousand_newsletters(working):
    """RT11: behind 20,000 of the bulk lane a reset leaves within two seconds of what it takes when idle."""
    app, peer = working
    idle = statistics.median(latency(app, peer, f"idle{n}") for n in range(5))
    fill(app.extensions["mailer"], BACKLOG, "bulk")
    until(lambda: len(peer.accepted) > 100, 60, "newsletters to leave")
    busy = [latency(app, peer, f"busy{n}") for n in range(10)]
    assert len(peer.accepted) < BACKLOG / 2, "the backlog is still there"
    assert max(busy) < idle + 2, (idle, busy)
