"""Accepting: stored when ``.delay`` returns, in the caller's transaction where there is one."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import flask
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from mailer import (
    Attachment,
    ConfigError,
    IdempotencyConflict,
    InvalidAddress,
    InvalidMessage,
    InvalidTemplate,
    MessageTooLarge,
    Secret,
    send_email,
)
from mailer import outbox as outbox_module
from mailer.store import queries
from mailer.store.migrations import upgrade
from tests.delivery.conftest import Note, build

HI = {"subject": "Hi", "text": "Hello"}


def stored(app) -> list:
    with app.extensions["mailer"].store.read() as connection:
        return queries.search(connection, queries.Search())


@pytest.fixture
def published(app):
    """The wake-ups that reach the broker."""
    found: list[str] = []
    app.extensions["mailer"].publish = lambda wakeups: found.extend(w.message for w in wakeups)
    return found


def test_commit_sends_and_rollback_never_was(app, db, published):
    """RT3: the mail exists exactly if the caller's transaction commits."""
    with app.app_context():
        db.session.add(Note(text="kept"))
        kept = send_email.delay(to="ada@x.test", **HI)
        assert published == []
        assert stored(app) == [], "not before the commit"
        db.session.commit()
        assert published == [kept.id]
        db.session.add(Note(text="dropped"))
        send_email.delay(to="bob@x.test", **HI)
        db.session.rollback()
    assert published == [kept.id]
    assert [m.id for m in stored(app)] == [kept.id]


def test_a_rolled_back_savepoint_takes_its_mail_along(app, db, published):
    """RT3: savepoints count; a released one is announced only after the root commit."""
    with app.app_context():
        db.session.add(Note(text="outer"))
        with db.session.begin_nested():
            inner = send_email.delay(to="ada@x.test", **HI)
        assert published == []
        savepoint = db.session.begin_nested()
        send_email.delay(to="bob@x.test", **HI)
        savepoint.rollback()
        db.session.commit()
    assert inner.id in published
    assert [m.id for m in stored(app)] == [inner.id]


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_savepoint_that_comes_first_is_not_the_transaction(tmp_path, mailer, kind):
    """RT3: on SQLite too a root rollback takes back what a released savepoint held, and a commit keeps it."""
    url = "sqlite://" if kind == "memory" else f"sqlite:///{tmp_path / 'plain.db'}"
    pool = (
        {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}} if kind == "memory" else {}
    )
    session = Session(sa.create_engine(url, **pool))
    app = flask.Flask("plain")
    app.config.update(MAILER_DATA_DIR=str(tmp_path), MAILER_DEFAULT_SENDER="me@acme.test")
    mailer.init_app(app, session=session)
    upgrade(app.extensions["mailer"].store.engine)
    with app.app_context():
        with session.begin_nested():
            send_email.delay(to="gone@x.test", **HI)
        session.rollback()
        with session.begin_nested():
            kept = send_email.delay(to="kept@x.test", **HI)
        session.commit()
    assert [m.id for m in stored(app)] == [kept.id]
    session.close()
    session.get_bind().dispose()


def test_a_forgotten_commit_is_said_aloud(app, db, published, caplog):
    """A mail in a transaction that nobody commits is dropped, with a warning and not in silence."""
    with caplog.at_level(logging.WARNING, "mailer"), app.app_context():
        send_email.delay(to="ada@x.test", **HI)
    assert "mail.dropped_with_transaction" in caplog.text
    assert stored(app) == published == []


def test_session_none_commits_at_once(app, db, published):
    """A caller may step out of the transaction for one mail."""
    with app.app_context():
        accepted = send_email.delay(to="ada@x.test", session=None, **HI)
        db.session.rollback()
    assert published == [accepted.id]


SHELL = """
import flask, mailer
from mailer.store.migrations import upgrade
app = flask.Flask("shell")
app.config.update(MAILER_DATA_DIR="shell", MAILER_DEFAULT_SENDER="me@x.test")
mailer.Mailer(app)
upgrade(app.extensions["mailer"].store.engine)
print(mailer.send_email.delay(to="ada@x.test", subject="Hi", text="Hello").state)
mailer.Mailer(flask.Flask("another"))
try:
    mailer.send_email.delay(to="ada@x.test", subject="Hi", text="Hello")
except mailer.ConfigError as error:
    print(error)
"""


def test_works_outside_a_context_with_one_application(tmp_path):
    """In a shell there is no context: the only application is meant, and of two neither."""
    done = subprocess.run(
        [sys.executable, "-c", SHELL], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    state, error = done.stdout.splitlines()
    assert state == "queued"
    assert "app.app_context()" in error


def test_two_applications_never_mix(tmp_path, mailer, alone):
    """The known fault of shared tasks: each application's mail goes through its own store and Celery."""
    other = build(tmp_path, type(mailer)(), name="other")
    with alone.app_context():
        send_email.delay(to="ada@x.test", **HI)
    with other.app_context():
        send_email.delay(to="bob@x.test", **HI)
        send_email.delay(to="eve@x.test", **HI)
    assert (len(stored(alone)), len(stored(other))) == (1, 2)
    tasks = [app.extensions["mailer.send_email"] for app in (alone, other)]
    assert tasks[0].app.tasks[tasks[0].name].services is alone.extensions["mailer"]
    assert tasks[1].app.tasks[tasks[1].name].services is other.extensions["mailer"]
    assert not set(tasks[0].queues.names()) & set(tasks[1].queues.names())


def test_a_broker_that_is_down_costs_nothing(alone, monkeypatch):
    """RT2: the message is accepted all the same, and left for the sweeper to announce."""

    def down(_):
        raise ConnectionError("refused")

    services = alone.extensions["mailer"]
    services.publish = down
    accepted = send_email.delay(to="ada@x.test", **HI)
    services.publish = (again := []).extend
    assert outbox_module.wake(services, outbox_module.due(services))
    assert [w.message for w in again] == [accepted.id]


def test_neither_broker_nor_store_can_harm_an_accepted_mail(alone, monkeypatch):
    """RT2: whatever fails after the commit, the caller has its answer, and within a second."""

    def down(_):
        raise ConnectionError("refused")

    services = alone.extensions["mailer"]
    services.publish = down
    blocker = services.store.engine.connect()
    real = outbox_module.message_rows.accept

    def accept_then_block(*args, **more):
        done = real(*args, **more)
        args[0].commit()
        blocker.exec_driver_sql("SELECT 1")  # BEGIN IMMEDIATE: somebody else writes, and takes long
        return done

    monkeypatch.setattr(outbox_module.message_rows, "accept", accept_then_block)
    started = time.monotonic()
    accepted = send_email.delay(to="ada@x.test", **HI)
    assert time.monotonic() - started < 1
    blocker.close()
    assert accepted.state == "queued"


def test_apply_async_options_become_schedule_deadline_and_lane(alone):
    """RT6: countdown, eta, expires and queue are stored and never given to the broker."""
    queue = alone.extensions["mailer.send_email"].queues.name("critical")
    accepted = send_email.apply_async(
        kwargs={"to": "ada@x.test", **HI}, countdown=3600, expires=60, queue=queue, link=None
    )
    [message] = stored(alone)
    assert message.id == accepted.id
    assert message.lane == "critical"
    assert message.expires_at - message.send_at == timedelta(seconds=60)
    assert accepted.state == "scheduled"


def test_an_eager_celery_delivers_at_once(tmp_path, mailer):
    """A host whose tests set task_always_eager gets its mails without a worker or a broker."""
    app = build(tmp_path, mailer, name="eager", CELERY={"task_always_eager": True})
    with app.app_context():
        assert send_email.delay(to="ada@x.test", **HI).state == "sent"


def test_other_ways_to_call_a_task_lose_nothing_in_silence(alone):
    """What cannot accept a message says so: a direct call, `apply`, and tasks that wait for a result."""
    for call in (
        lambda: send_email(to="a@x.test", **HI),
        lambda: send_email.apply(kwargs={"to": "a@x.test"}),
    ):
        with pytest.raises(TypeError, match="delay"):
            call()
    with pytest.raises(TypeError, match="follow"):
        send_email.apply_async(kwargs={"to": "a@x.test", **HI}, link=send_email.s())
    assert stored(alone) == []


def test_two_applications_may_share_a_queues_name(tmp_path, mailer):
    """On one Redis, or two, queues are named alike: each wake-up finds the store that knows its id."""
    redis = {"MAILER_BROKER_URL": "redis://127.0.0.1:1/0"}
    one, two = (build(tmp_path, type(mailer)(), name=name, **redis) for name in ("one", "two"))
    with one.app_context():
        accepted = send_email.delay(to="ada@x.test", **HI)
        task = two.extensions["mailer.send_email"]
        task.push_request(delivery_info={"routing_key": task.queues.name("default")}, called_directly=False)
        task.run(accepted.id)
        task.pop_request()
        assert accepted.state == "sent"


def test_only_an_id_may_be_published(alone):
    """CE2: publishing anything but a message id is refused with what to call instead."""
    with pytest.raises(TypeError, match=r"send_email\.delay"):
        alone.extensions["mailer.send_email"].publish("reset_password", queue="x")


@pytest.mark.parametrize(
    ("kwargs", "error", "field"),
    [
        ({"to": "nobody"}, InvalidAddress, "to"),
        ({"to": "a@x.test", "cc": ["b@x.test\nBcc: c@x.test"]}, InvalidAddress, "cc"),
        ({"to": []}, InvalidMessage, "to"),
        ({"to": "a@x.test", "subject": "a\nb"}, InvalidMessage, "subject"),
        ({"to": "a@x.test", "headers": {"Bcc": "x"}}, InvalidMessage, "headers"),
        ({"to": "a@x.test", "lane": "critcal"}, InvalidMessage, "lane"),
        ({"to": "a@x.test", "send_at": datetime(2030, 1, 1)}, InvalidMessage, "send_at"),  # noqa: DTZ001
        ({"to": "a@x.test", "expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, InvalidMessage, "expires_at"),
        ({"to": "a@x.test", "context": {"user": object()}}, InvalidMessage, "context"),
        ({"to": "a@x.test", "attachments": [b"x"]}, InvalidMessage, "attachments"),
    ],
)
def test_bad_input_is_refused_and_nothing_stored(alone, kwargs, error, field):
    """A mistake surfaces in the caller, names the field, and leaves nothing half-stored."""
    with pytest.raises(error) as caught:
        send_email.delay(**{**HI, **kwargs})
    assert caught.value.field == field
    assert stored(alone) == []


def test_an_unknown_template_or_a_missing_variable_is_refused(alone):
    """TP4: at the call, and not as a mail that says "Hi ,"."""
    with pytest.raises(InvalidTemplate, match="welcome"):
        send_email.delay("wellcome", to="a@x.test")
    with pytest.raises(InvalidTemplate, match="link"):
        send_email.delay("reset_password", to="a@x.test", context={})
    assert stored(alone) == []


def test_too_large_is_refused_at_the_call(alone):
    """MF20: the encoded size is known before acceptance."""
    with pytest.raises(MessageTooLarge, match="attachments"):
        send_email.delay(to="a@x.test", attachments=[Attachment("a.bin", b"x" * 8_000_000)], **HI)


def test_no_error_text_carries_an_address(alone):
    """Errors end up in logs and trackers."""
    with pytest.raises(InvalidMessage) as caught:
        send_email.delay(to="canary @x.test", **HI)
    assert "canary" not in str(caught.value)


def test_an_idempotency_key_makes_one_mail(alone):
    """RT10: the same key and content answer the same id, also from many threads; other content is refused."""
    ids, start = set(), threading.Barrier(8)

    def call():
        start.wait()
        with alone.app_context():
            ids.add(send_email.delay(to="a@x.test", idempotency_key="k", countdown=5, **HI).id)

    threads = [threading.Thread(target=call) for _ in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(ids) == len(stored(alone)) == 1
    with pytest.raises(IdempotencyConflict):
        send_email.delay(to="b@x.test", idempotency_key="k", **HI)


def test_an_idempotency_key_is_kept_for_a_day_and_in_its_scope(alone):
    """RT10: for at least 24 h it names the same mail; then it is free. In another scope it is another key."""
    services = alone.extensions["mailer"]
    now = services.now()
    first = send_email.delay(to="a@x.test", idempotency_key="k", **HI).id
    services.now = lambda: now + timedelta(hours=23, minutes=59)
    assert send_email.delay(to="a@x.test", idempotency_key="k", **HI).id == first
    with pytest.raises(IdempotencyConflict):
        send_email.delay(to="b@x.test", idempotency_key="k", **HI)
    again = outbox_module.resend(services, first, by="me", idempotency_key="k")
    assert outbox_module.resend(services, first, by="me", idempotency_key="k") == again != first
    services.now = lambda: now + timedelta(hours=24, minutes=1)
    later = send_email.delay(to="b@x.test", idempotency_key="k", **HI).id
    assert later != first
    assert len(stored(alone)) == 3


def test_a_template_says_what_its_mails_have_in_common(app, db, mailer, published):
    """A template's defaults hold where a call says nothing; a call that says something wins."""
    mailer.defaults("welcome", lane="bulk", on_uncertain="hold", expires_in=600, tags=["hello"])
    with app.app_context():
        as_said = send_email.delay("welcome", to="a@x.test", context={"name": "Ada"}, session=None)
        soon = datetime.now(UTC) + timedelta(minutes=1)
        otherwise = send_email.delay(
            "welcome", to="a@x.test", context={"name": "Ada"}, session=None, lane="critical", expires_at=soon
        )
        plain = send_email.delay(to="a@x.test", session=None, **HI)
    found = {message.id: message for message in stored(app)}
    first = found[as_said.id]
    assert (first.lane, list(first.tags)) == ("bulk", ["hello"])
    assert abs(first.expires_at - first.created_at - timedelta(minutes=10)) < timedelta(seconds=1)
    assert (found[otherwise.id].lane, found[otherwise.id].expires_at) == ("critical", soon)
    assert found[plain.id].lane == "default"
    with pytest.raises(ConfigError, match="'subject'; it may have"):
        mailer.defaults("welcome", subject="Hello")


def test_nothing_readable_is_stored(alone, tmp_path):
    """PD3, promise 4: neither context nor secret can be read in the database file."""
    send_email.delay(
        "reset_password",
        to="a@x.test",
        context={"name": "Canary-Ada", "link": Secret("https://x.test/canary")},
    )
    raw = b"".join(path.read_bytes() for path in tmp_path.glob("alone.db*"))
    assert b"a@x.test" in raw
    assert b"anary" not in raw
