"""Suppressed recipients: the caller learns nothing, the mail does not leave, and everybody can see why."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from mailer import InvalidAddress, InvalidMessage, Secret, outbox, retention, send_email, suppressions
from mailer.calls import message_for
from mailer.delivery import deliver, deliver_due
from mailer.errors import ConfigError
from mailer.origin import APPLICATION, SIMULATOR, Origin
from mailer.sealing import Sealer
from mailer.states import State
from mailer.store import Store, create_engine, queries
from mailer.store.keys import ensure_project
from mailer.store.migrations import upgrade
from mailer.transports import Reply, Result, Stage

HI = {"subject": "Hi", "text": "Hello"}


@pytest.fixture
def services(alone):
    return alone.extensions["mailer"]


@pytest.fixture
def postgres(alone, fresh_postgres_url):
    """The same services with their rows in Postgres."""
    found = alone.extensions["mailer"]
    found.store = Store(create_engine(fresh_postgres_url), found.store.sealer)
    upgrade(found.store.engine)
    yield found
    found.store.engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def either(request):
    """Services on each database."""
    return request.getfixturevalue("services" if request.param == "sqlite" else "postgres")


def bar(services, *addresses: str, **options):
    return suppressions.add(services, addresses or "ada@x.test", by="eve", **options)


def view(services, id_: str):
    with services.store.read() as connection:
        return queries.show(connection, id_)


def states(services, id_: str) -> dict[str, str]:
    return {d.recipient: d.state.value for d in view(services, id_).deliveries}


def test_a_mail_to_a_suppressed_address_is_accepted_and_has_ended(either):
    """BN9, AU1: an id as ever; nothing is sent, the secret is erased, and the timeline says why."""
    [entry] = bar(either, cause="complaint")
    id_ = send_email.delay(to="Ada@X.test", subject="Hi", text=Secret("493201")).id
    found = view(either, id_)
    assert (found.state, found.ended_at) == (State.SUPPRESSED, found.created_at)
    assert found.erased_at is not None
    assert found.deliveries[0].reason == "on_suppression_list"
    told = {"recipient": "Ada@x.test", "reason": "on_suppression_list", "cause": "complaint"}
    told |= {"since": entry.created_at.isoformat(), "entry": entry.id}
    assert [(e.name, e.data) for e in found.events[1:]] == [("suppressed", told)]
    assert deliver(either, id_) == 0
    assert either.transport.sent == []


def test_others_get_theirs(either):
    """Of several recipients only the suppressed one is left out, with or without a wait for the time."""
    bar(either)
    at_once = send_email.delay(to=["ada@x.test", "bob@x.test"], **HI).id
    later = send_email.delay(to=["bob@x.test"], bcc=["ada@x.test"], countdown=60, **HI).id
    deliver(either, at_once)
    assert states(either, at_once) == {"ada@x.test": "suppressed", "bob@x.test": "sent"}
    assert states(either, later) == {"ada@x.test": "suppressed", "bob@x.test": "scheduled"}
    assert [parcel.recipients for parcel in either.transport.sent] == [("bob@x.test",)]
    assert view(either, at_once).ended_at is not None
    assert view(either, later).ended_at is None


def test_who_came_onto_the_list_since_gets_nothing(either):
    """BN9: the look right before the attempt counts; it costs no try, and the neighbours go out."""
    ids = [send_email.delay(to=f"a{n}@x.test", **HI).id for n in range(3)]
    mixed = send_email.delay(to=["a1@x.test", "bob@x.test"], **HI).id
    bar(either, "A1@x.test")
    assert deliver_due(either, "default", 10) == 5
    assert [states(either, id_)[f"a{n}@x.test"] for n, id_ in enumerate(ids)] == [
        "sent",
        "suppressed",
        "sent",
    ]
    assert states(either, mixed) == {"a1@x.test": "suppressed", "bob@x.test": "sent"}
    found = view(either, ids[1])
    assert (found.deliveries[0].attempts, found.ended_at is not None) == (0, True)
    assert [e.name for e in found.events] == ["accepted", "suppressed"]
    assert "a1@x.test" not in {r for parcel in either.transport.sent for r in parcel.recipients}


def test_accepting_and_adding_at_the_same_time(either):
    """Whoever was first: what the list does not stop at acceptance it stops at the attempt."""
    ids: list[str] = []
    go = threading.Barrier(2)

    def add() -> None:
        go.wait()
        for n in range(30):
            bar(either, f"a{n}@x.test")

    adding = threading.Thread(target=add)
    adding.start()
    go.wait()
    for n in range(30):
        message = message_for(either, to=f"a{n}@x.test", **HI)
        ids.append(outbox.accept(either, message, session=None))
    adding.join()
    while deliver_due(either, "default", 50):
        pass
    assert either.transport.sent == []
    assert {view(either, id_).state for id_ in ids} == {State.SUPPRESSED}


def test_a_retry_and_a_resend_honour_the_list(services):
    """RT12: the copy is suppressed as well; taken off the list, the next one goes out."""
    services.transport.answer = lambda _: Result(Stage.RCPT, Reply(550, "5.1.1 no"))
    id_ = send_email.delay(to="ada@x.test", **HI).id
    deliver(services, id_)
    bar(services, cause="bounce")
    outbox.retry(services, id_, by="eve")
    deliver(services, id_)
    assert view(services, id_).state is State.SUPPRESSED
    copy = outbox.resend(services, id_, by="eve")
    assert [e.name for e in view(services, copy).events] == ["accepted", "suppressed", "resent_from"]
    suppressions.remove(services, "ada@x.test", by="eve")
    services.transport.answer = lambda _: Result(Stage.TEXT, Reply(250, "ok"), text_sent=True)
    again = outbox.resend(services, copy, by="eve")
    deliver(services, again)
    assert view(services, again).state is State.SENT


def test_a_deferred_mail_ends_with_its_next_try(services):
    """An entry stops what already waits, whatever it waits for."""
    services.transport.answer = lambda _: Result(Stage.RCPT, Reply(450, "later"))
    id_ = send_email.delay(to="ada@x.test", **HI).id
    deliver(services, id_)
    bar(services)
    real = services.now
    services.now = lambda: real() + timedelta(hours=1)
    deliver(services, id_)
    assert view(services, id_).state is State.SUPPRESSED
    assert view(services, id_).deliveries[0].attempts == 1


def test_projects_and_the_application_have_their_own_lists(services):
    """BN9: an entry of the application stops no project's mail, and the reverse."""
    bar(services)
    with services.store.begin() as connection:
        project, _ = ensure_project(connection, "p" * 36, "ours", services.now())
    message = message_for(services, to="ada@x.test", **HI)
    found = {
        origin: view(services, outbox.accept(services, message, origin=origin)).state
        for origin in (APPLICATION, Origin(project))
    }
    assert found == {APPLICATION: State.SUPPRESSED, Origin(project): State.QUEUED}


def test_a_batch_has_each_of_its_messages_looked_at(services):
    """Messages accepted together are barred one by one."""
    bar(services, "a1@x.test")
    asked = [outbox.prepared(services, message_for(services, to=f"a{n}@x.test", **HI)) for n in range(3)]
    ids = outbox.accept_many(services, asked)
    assert [view(services, id_).state.value for id_ in ids] == ["queued", "suppressed", "queued"]


def test_the_simulator_has_its_own_suppressed_and_complaining_people(services):
    """They are on no list, and nothing leaves for them."""
    to = ["suppressed@resend.dev", "complained+x@resend.dev"]
    message = message_for(services, to=to, **HI)
    id_ = outbox.accept(services, message, origin=Origin(carrier=SIMULATOR))
    deliver(services, id_)
    assert states(services, id_) == {to[0]: "suppressed", to[1]: "sent"}
    events = view(services, id_).events
    assert [e.name for e in events] == ["accepted", "suppressed", "sent", "complained"]
    assert events[1].data["cause"] == "simulated"
    assert events[3].data == {"recipient": to[1]}
    assert suppressions.page(services, suppressions.Wanted()) == ([], False)


def test_forgetting_somebody_does_not_make_us_write_again(services):
    """PD5: the address goes from list and messages; a new mail to it is suppressed all the same."""
    bar(services)
    before = send_email.delay(to="ada@x.test", **HI).id
    done = retention.forget(services, "ADA@x.test", by="eve")
    assert (done.suppressed, done.complete) == (1, True)
    assert "ada@x.test" not in str(view(services, before).as_dict())
    after = send_email.delay(to="ada@x.test", **HI).id
    assert view(services, after).state is State.SUPPRESSED


def test_an_entry_outlives_the_message_it_came_from(services):
    """Retention removes messages, never the list."""
    id_ = send_email.delay(to="ada@x.test", **HI).id
    deliver(services, id_)
    bar(services, message=id_)
    real = services.now
    services.now = lambda: real() + timedelta(days=400)
    retention.tidy_all(services)
    assert view(services, id_) is None
    assert suppressions.find(services, "ada@x.test").message == id_


def test_without_the_lists_key_mail_is_accepted_and_waits(services, caplog):
    """The caller is not bothered; no worker sends what it cannot compare; put back, it goes on."""
    bar(services, "bob@x.test")
    good = services.store
    services.store = Store(good.engine, Sealer([b"x" * 32]))
    id_ = send_email.delay(to="ada@x.test", **HI).id
    assert "suppression.unreadable" in caplog.text
    deliver(services, id_)
    assert view(services, id_).deliveries[0].reason == "setting_wrong"
    assert services.transport.sent == []
    with pytest.raises(ConfigError, match="suppression list"):
        suppressions.find(services, "ada@x.test")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"addresses": "ada"}, "address"),
        ({"addresses": "ada@x.test."}, "address"),
        ({"addresses": []}, "address"),
        ({"addresses": [f"a{n}@x.test" for n in range(101)]}, "address"),
        ({"cause": "spite"}, "cause"),
        ({"detail": "a\nb"}, "detail"),
        ({"detail": "x" * 501}, "detail"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_added(services, wrong, field):
    """The field, the problem and what to do; no address in the words."""
    with pytest.raises(InvalidMessage) as caught:
        suppressions.add(services, **{"addresses": ["ok@x.test"], "by": "eve"} | wrong)
    assert caught.value.field == field
    assert "x.test" not in str(caught.value)
    assert suppressions.page(services, suppressions.Wanted())[0] == []


def test_who_changed_the_list_is_in_the_log(services, caplog):
    """UI7: by whom, and which entry; no address (PD4)."""
    caplog.set_level("INFO")
    [entry] = suppressions.add(services, "ada@x.test", by="eve@acme.test")
    assert suppressions.remove(services, entry.id, by="eve (shell)") == entry
    assert suppressions.remove(services, entry.id, by="eve (shell)") is None
    assert f"suppression.added entry={entry.id}" in caplog.text
    assert f"suppression.removed entry={entry.id}" in caplog.text
    assert "ada@" not in caplog.text
    assert "eve@acme.test" not in caplog.text
    with pytest.raises(InvalidAddress):
        suppressions.find(services, "no address")
