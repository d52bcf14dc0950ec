"""The broker down, silent, or wiped: callers do not notice, and no mail is lost."""

from __future__ import annotations

import os
import signal
import time

import pytest
import redis

from mailer import send_email
from tests import servers
from tests.conftest import had
from tests.faults.conftest import wait
from tests.peer import SmtpPeer

HI = {"subject": "Hi", "text": "Hello"}
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def port() -> int:
    return servers.free_port()


@pytest.fixture
def dispatcher(any_broker, port):
    """As elsewhere, but the broker is started by the test."""
    return any_broker(f"redis://127.0.0.1:{port}/0")


def accept_within_a_second(app, count: int) -> list[str]:
    ids = []
    with app.app_context():
        for n in range(count):
            started = time.monotonic()
            ids.append(send_email.delay(to=f"a{n}@x.test", **HI).id)
            assert time.monotonic() - started < 1
    return ids


def test_accepted_while_the_broker_is_down_arrives_when_it_is_back(dispatcher, port):
    """RT1, RT2: refused connections cost a caller next to nothing, and nothing is lost."""
    with SmtpPeer() as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        ids = accept_within_a_second(app, 5)
        dispatcher.start_worker()
        with had(servers.redis(port)):
            assert {wait(app, id_, 40) for id_ in ids} == {"sent"}
    assert len(peer.accepted) == 5


def test_a_frozen_broker_costs_a_caller_less_than_a_second(dispatcher, port):
    """RT2: a broker that takes connections and answers nothing does not hang the request."""
    with SmtpPeer() as peer, had(servers.redis(port)) as url:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        dispatcher.start_worker()
        [warm] = accept_within_a_second(app, 1)
        assert wait(app, warm) == "sent"
        with redis.Redis.from_url(url) as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            ids = accept_within_a_second(app, 3)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {wait(app, id_, 40) for id_ in ids} == {"sent"}


def test_a_wiped_broker_loses_nothing(dispatcher, port):
    """RT1: what the broker forgets, the sweeper tells it again."""
    with SmtpPeer() as peer, had(servers.redis(port)) as url:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        ids = accept_within_a_second(app, 10)
        with redis.Redis.from_url(url) as client:
            client.flushall()
        dispatcher.start_worker()
        assert {wait(app, id_, 30) for id_ in ids} == {"sent"}
    assert len(peer.accepted) == 10
