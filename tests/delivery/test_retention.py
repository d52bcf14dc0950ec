"""Erased mails and forgotten people as applications and the console meet them."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from mailer import BodyErased, InvalidAddress, Secret, outbox, retention, send_email
from mailer.delivery import deliver
from mailer.operators import Role
from mailer.retention import Tidied, Tidying
from mailer.states import State
from mailer.store import queries
from mailer.transports import Reply, Result, Stage
from tests.web.consoles import Console, fields_of

HI = {"subject": "Hi", "text": "Hello"}
WEEK = timedelta(days=7)


@pytest.fixture
def services(alone):
    return alone.extensions["mailer"]


@pytest.fixture
def later(services):
    """Set the application's clock forward."""
    real = services.now

    def later(span: timedelta) -> None:
        services.now = lambda: real() + span

    return later


def refuse(services) -> None:
    services.transport.answer = lambda _: Result(Stage.RCPT, Reply(550, "5.1.1 no"))


def view(services, id_):
    with services.store.read() as connection:
        return queries.show(connection, id_)


def sent(services, **fields) -> str:
    id_ = send_email.delay(**{"to": "ada@x.test"} | HI | fields).id
    deliver(services, id_)
    return id_


def test_an_erased_mail_is_neither_resent_nor_retried(services, later):
    """PD2: both say plainly that it was erased, and change nothing."""
    refuse(services)
    id_ = sent(services)
    later(WEEK + timedelta(seconds=1))
    assert Tidying(services).step() == Tidied(keys=0, bodies=1)
    for deed in (outbox.resend, outbox.retry):
        with pytest.raises(BodyErased, match="was erased"):
            deed(services, id_, by="eve")
    shown = view(services, id_)
    assert (shown.state, shown.subject) == (State.FAILED, None)
    assert [e.name for e in shown.events] == ["accepted", "failed"]


def test_erased_with_a_secret_says_that_all_is_gone(services, later):
    """PD2: the greater loss is the one that is told."""
    refuse(services)
    id_ = sent(services, text=Secret("493201"))
    later(WEEK + timedelta(seconds=1))
    retention.tidy(services)
    for deed in (outbox.resend, outbox.retry):
        with pytest.raises(BodyErased):
            deed(services, id_, by="eve")


def test_an_eager_policy_erases_at_the_next_step(services):
    """PD2: 0 means as soon as it has ended; sending is not disturbed by it."""
    services.settings = services.settings.model_copy(update={"keep_bodies": 0})
    waits = send_email.delay(to="bob@x.test", countdown=60, **HI).id
    ids = [sent(services, idempotency_key=f"key-{n}") for n in range(3)]
    assert retention.tidy(services) == Tidied(bodies=3)
    assert len(services.transport.sent) == 3
    assert view(services, waits).body_erased_at is None
    again = send_email.delay(to="ada@x.test", idempotency_key="key-0", **HI)
    assert again.id == ids[0], "a repeated call still finds what it made"


def test_whoever_is_forgotten_gets_nothing_any_more(services, later, caplog):
    """PD5: what waited is not sent, neither by a wake-up nor by a person; no log line names the address."""
    services.transport.answer = lambda _: Result(Stage.RCPT, Reply(450, "later"))
    tried = sent(services)
    waits = send_email.delay(to="ADA@x.test", countdown=60, **HI).id
    with caplog.at_level(logging.INFO):
        done = retention.forget(services, "Ada@X.test", by="eve")
    assert (done.cancelled, done.bodies, done.complete) == (2, 2, True)
    assert "ada" not in caplog.text.lower()
    later(timedelta(days=1))
    before = len(services.transport.sent)
    for id_ in (tried, waits):
        assert deliver(services, id_) == 0
        with pytest.raises(BodyErased):
            outbox.resend(services, id_, by="eve")
        assert view(services, id_).state is State.CANCELLED
    assert len(services.transport.sent) == before
    assert view(services, tried).events[-1].name == "forgotten"


def test_others_get_theirs_after_somebody_was_forgotten(services):
    """PD5, promise 2: the mail of the others goes out whole, and its content goes when it has ended."""
    id_ = send_email.delay(to=["ada@x.test", "bob@x.test"], **HI).id
    assert not retention.forget(services, "ada@x.test", by="eve").complete
    assert deliver(services, id_) == 1
    [parcel] = services.transport.sent
    assert parcel.recipients == ("bob@x.test",)
    assert retention.forget(services, "ada@x.test", by="eve").complete
    assert view(services, id_).body_erased_at is not None


def test_nonsense_is_no_address(services):
    """PD5: a typing error forgets nobody."""
    with pytest.raises(InvalidAddress):
        retention.forget(services, "ada", by="eve")


def test_the_console_says_that_it_was_erased(tmp_path):
    """PD2, UI: in the list, on the page, and to whoever presses Resend on a page that is older."""
    console = Console(tmp_path, keep_bodies=0)
    id_ = console.send(attempt=True, subject="Confidential")
    client = console.client(Role.SUPPORT)
    path = f"/console/messages/{id_}"
    assert "Confidential" in client.get(path).text
    form = client.get(path)
    retention.tidy(console.services)
    page = client.get(path).text
    assert page.count("What it said was erased") == 2
    assert "do-resend" not in page
    assert "Confidential" not in page
    assert client.get(f"{path}/html").status_code == 200
    assert "erased" in client.get("/console/messages").text
    refused = client.post(f"{path}/resend", data=fields_of(form))
    assert refused.status_code == 409
    assert "Not done: what the message said was erased" in refused.text
