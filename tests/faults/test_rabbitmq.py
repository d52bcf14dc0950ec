"""A worker on RabbitMQ does the same job. Needs a RabbitMQ: TEST_RABBITMQ_URL, since no wheel carries one."""

from __future__ import annotations

import pytest

from mailer import send_email
from tests.faults.conftest import wait
from tests.peer import SmtpPeer


@pytest.fixture
def dispatcher(any_broker):
    """As elsewhere, on RabbitMQ."""
    return any_broker("rabbitmq")


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
