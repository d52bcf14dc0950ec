"""Calls that webhooks are owed: noted with what they tell of, taken once, kept until told."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from mailer.events import Event
from mailer.store import keys as key_rows
from mailer.store import messages as message_rows
from mailer.store import webhooks as rows
from mailer.store.models import events
from mailer.store.transitions import tell
from mailer.store.webhooks import WebhookRow
from tests.store.conftest import NOW, new_message

LEASE = timedelta(seconds=60)
MINUTE = timedelta(minutes=1)


def hook(id_: str = "hook", project: str | None = None, **changes) -> WebhookRow:
    fields = {
        "id": id_, "project": project, "project_name": None, "url": "https://hooks.example/",
        "types": ["email.sent"], "secret": b"s", "old_secret": None, "old_until": None,
        "created_at": NOW, "disabled_at": None, "disabled_why": None, "failures": 0,
        "failing_since": None, "rest_until": None,
    }  # fmt: skip
    return WebhookRow(**fields | changes)


@pytest.fixture
def subscribe(store):
    """Keep an endpoint that is interested in ``sent`` and ``scheduled``; answer its id."""

    def kept(id_: str = "hook", project: str | None = None, **changes) -> str:
        with store.begin() as connection:
            rows.add(connection, hook(id_, project, **changes), ["sent", "scheduled"])
        return id_

    return kept


def told(store, message: str, *names: Event, at=NOW) -> None:
    with store.begin() as connection:
        tell(connection, at, [(message, name, {"recipient": "ada@example.test"}) for name in names])


def claimed(store, id_: str = "hook", at=NOW, limit: int = 5) -> list[rows.Call]:
    with store.begin() as connection:
        return rows.claim(connection, id_, at, LEASE, limit)


def act(store, function, *args):
    with store.begin() as connection:
        return function(connection, *args)


def test_what_is_told_is_owed_in_the_same_transaction(store, subscribe, accept):
    """WH6: to those who are interested; with it or not at all, also where nobody waits for the statement."""
    subscribe()
    with store.begin() as connection:
        later = new_message(send_at=NOW + LEASE)
        message_rows.accept(connection, later, store.sealer, last=True)
    told(store, accept(), Event.SENT, Event.DEFERRED)
    with store.begin() as connection:
        tell(connection, NOW + MINUTE, [(later.id, Event.SENT, {})])
        connection.rollback()
    calls = claimed(store)
    assert [(call.name, call.recipients) for call in calls] == [
        ("scheduled", ["ada@example.test"]),
        ("sent", ["ada@example.test"]),
    ]
    assert calls[0].message == later.id


def test_each_event_is_owed_once(store, subscribe, accept):
    """Told twice in one transaction, or at the same instant in two, it is still one event each."""
    subscribe()
    message = accept()
    with store.begin() as connection:
        tell(connection, NOW, [(message, Event.SENT, {"recipient": "a"})])
        tell(connection, NOW, [(message, Event.SENT, {"recipient": "b"})])
        rows.owe(connection, {message}, NOW)
    told(store, message, Event.SENT)
    assert len(claimed(store)) == 3
    assert claimed(store) == []


def test_nobody_is_owed_what_is_not_theirs(store, subscribe, accept):
    """AK4: by project; the application's own are nobody's else."""
    with store.begin() as connection:
        one, _ = key_rows.ensure_project(connection, "p1", "one", NOW)
        two, _ = key_rows.ensure_project(connection, "p2", "two", NOW)
        assert key_rows.project(connection, "one") == one
        assert key_rows.project(connection, "none") is None
    for id_, project in (("own", None), ("first", one), ("second", two)):
        subscribe(id_, project)
    told(store, accept(project=one), Event.SENT)
    told(store, accept(), Event.SENT)
    assert [len(claimed(store, id_)) for id_ in ("own", "first", "second")] == [1, 1, 0]
    with store.read() as connection:
        assert [found.id for found in rows.of_project(connection, one)] == ["first"]
        assert {found.id for found in rows.every(connection)} == {"own", "first", "second"}
        assert rows.find(connection, "first").project_name == "one"


def test_several_couriers_take_each_call_once(store, subscribe, accept):
    """Four at once: none is taken twice, none is left."""
    subscribe()
    for _ in range(20):
        told(store, accept(), Event.SENT)
    taken, start = [], threading.Barrier(4)

    def work() -> None:
        start.wait()
        for _ in range(10):
            taken.extend(call.event for call in claimed(store, limit=3))

    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(taken) == len(set(taken)) == 20


def test_a_call_goes_on_until_it_has_ended(store, subscribe, accept):
    """Put off, lost, given back, told, repeated: each by who holds it."""
    id_ = subscribe()
    told(store, accept(), Event.SENT)
    [lost] = claimed(store)
    assert act(store, rows.with_due, NOW + LEASE) == [id_]
    [first] = claimed(store, at=NOW + LEASE)
    assert not act(store, rows.end, id_, lost, "204", NOW), "its lease is over"
    assert act(store, rows.put_off, id_, first, "500", NOW + 5 * MINUTE)
    assert act(store, rows.with_due, NOW + 4 * MINUTE) == []
    [second] = claimed(store, at=NOW + 5 * MINUTE)
    assert (first.attempts, second.attempts) == (2, 3)
    assert act(store, rows.give_back, id_, second, NOW)
    [third] = claimed(store)
    assert third.attempts == 3
    assert act(store, rows.end, id_, third, "204", NOW)
    assert act(store, rows.again, id_, NOW) == 0, "it was told"
    assert act(store, rows.again, id_, NOW, third.event) == 1
    [again] = claimed(store)
    assert again.attempts == 1
    act(store, rows.drop, id_, again)
    assert act(store, rows.calls, id_, 10) == []


def test_an_endpoint_rests_and_recovers(store, subscribe, accept):
    """After a failure it is due later; disabled it is never, and owed nothing new."""
    id_ = subscribe()
    told(store, accept(), Event.SENT)
    act(store, rows.went_wrong, id_, NOW, NOW + MINUTE)
    act(store, rows.went_wrong, id_, NOW + LEASE, NOW + MINUTE)
    with store.read() as connection:
        found = rows.find(connection, id_)
    assert (found.failures, found.failing_since) == (2, NOW)
    assert act(store, rows.with_due, NOW) == []
    assert act(store, rows.with_due, NOW + MINUTE) == [id_]
    act(store, rows.went_well, id_)
    assert act(store, rows.with_due, NOW) == [id_]
    act(store, rows.change, id_, {"disabled_at": NOW})
    told(store, accept(), Event.SENT)
    assert act(store, rows.with_due, NOW) == []
    act(store, rows.change, id_, {"disabled_at": None}, ["failed"])
    told(store, accept(), Event.SENT)
    assert [call.attempts for call in act(store, rows.calls, id_, 10)] == [0]
    act(store, rows.remove, id_)
    assert act(store, rows.every) == []


def test_what_is_purged_is_no_longer_owed(store, subscribe, accept):
    """PD2: the queue ends with the timeline."""
    id_ = subscribe()
    told(store, accept(), Event.SENT)
    with store.begin() as connection:
        connection.execute(sa.delete(events))
    assert act(store, rows.calls, id_, 10) == []
