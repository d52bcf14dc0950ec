"""Few wake-ups for many mails, and none of the mails waits for the sweeper."""

from __future__ import annotations

import time

import pytest
import redis

from mailer import send_email
from mailer.broker import GAP_SECONDS
from tests.faults.conftest import READY, until
from tests.peer import SmtpPeer


@pytest.fixture
def working(any_broker):
    """An application whose sweepers come too late for anything here, a worker on Redis, and a mail server."""
    with SmtpPeer() as peer:
        dispatcher = any_broker("redis")
        dispatcher.set("MAILER_SMTP_URL", f"smtp://127.0.0.1:{peer.port}")
        dispatcher.set("MAILER_SWEEP_SECONDS", "60")
        dispatcher.set("MAILER_REPUBLISH_SECONDS", "600")
        yield dispatcher, peer


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_mail_that_is_committed_right_after_a_wakeup_is_found(working, pool):
    """Nobody waits for a wake-up that was left out: whatever the time between two calls."""
    dispatcher, peer = working
    app = dispatcher.app()
    dispatcher.start_worker("--pool", pool, "--concurrency", "2")
    until(lambda: READY in dispatcher.logs(), 40, "the worker to consume")
    with app.app_context():
        for n in range(1, 41):
            send_email.delay(to="first@x.test", subject="Hi", text="Hello")
            time.sleep(GAP_SECONDS * n / 40)
            send_email.delay(to="second@x.test", subject="Hi", text="Hello")
            until(lambda n=n: len(peer.accepted) == 2 * n, 0.5, f"the second, {n}/40 of the gap later")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_many_mails_need_few_wakeups(working):
    """A worker that is awake finds the rest by itself: at most one for each gap is published."""
    dispatcher, peer = working
    app, began = dispatcher.app(), time.monotonic()
    with app.app_context():
        for n in range(1_000):
            send_email.delay(to=f"p{n}@x.test", subject="Hi", text="Hello")
    gaps = (time.monotonic() - began) / GAP_SECONDS
    queue = app.extensions["mailer.send_email"].queues.name("default")
    with redis.Redis.from_url(dispatcher.environment["MAILER_BROKER_URL"]) as client:
        assert 1 <= client.llen(queue) <= gaps + 1
    dispatcher.start_worker("--pool", "threads", "--concurrency", "4")
    until(lambda: len(peer.accepted) == 1_000, 60, "all of them")
