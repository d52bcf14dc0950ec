"""A worker on RabbitMQ does the same job. Needs a RabbitMQ: TEST_RABBITMQ_URL, since no wheel carries one."""

from __future__ import annotations

import os

import pytest

from mailer import send_email
from tests.conftest import not_had
from tests.faults.conftest import QUICK, Dispatcher, wait
from tests.peer import SmtpPeer


@pytest.fixture
def dispatcher(tmp_path, monkeypatch):
    """As elsewhere, on RabbitMQ and SQLite."""
    url = os.environ.get("TEST_RABBITMQ_URL") or not_had(
        "no RabbitMQ: start one and set TEST_RABBITMQ_URL=amqp://guest:guest@127.0.0.1:5672//"
    )
    environment = QUICK | {
        "MAILER_DATABASE_URL": f"sqlite:///{tmp_path / 'store.db'}",
        "MAILER_BROKER_URL": url,
        "MAILER_QUEUE_PREFIX": f"test-{os.getpid()}",
        "MAILER_DATA_DIR": str(tmp_path / "data"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = Dispatcher(environment, tmp_path)
    yield found
    for worker in found.workers:
        if worker.poll() is None:
            found.kill(worker)


def test_worker_sends_over_rabbitmq(dispatcher):
    """Wake-ups travel over AMQP as they do over Redis."""
    with SmtpPeer() as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        with app.app_context():
            ids = [send_email.delay(to=f"a{n}@x.test", subject="Hi", text="Hello").id for n in range(10)]
        dispatcher.start_worker("--pool", "prefork", "--concurrency", "2")
        with app.app_context():
            ids += [send_email.delay(to=f"b{n}@x.test", subject="Hi", text="Hello").id for n in range(10)]
        assert {wait(app, id_) for id_ in ids} == {"sent"}
    assert len(peer.accepted) == 20
