"""How transports stand, what they carried, and what is due again once one is back, on both databases."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from mailer.states import State
from mailer.store import transports
from mailer.store.models import deliveries
from mailer.store.transports import Counts
from tests.store.conftest import NOW

SECOND = timedelta(seconds=1)
PATIENCE = timedelta(seconds=60)


def rest(connection, at=NOW, name="ses"):
    return transports.rest(connection, name, at, "auth_failed", "why", lambda faults: 5 * faults)


def row(connection, name="ses"):
    return transports.all_transports(connection)[name]


def test_who_was_never_at_fault_has_no_row(store):
    """While all is well nothing is written."""
    with store.read() as connection:
        assert transports.all_transports(connection) == {}


def test_one_fault_seen_by_many_is_one_rest(store):
    """SC7: the rest grows with each time in a row, not with each worker that noticed."""
    with store.begin() as connection:
        assert [rest(connection), rest(connection), rest(connection, NOW + SECOND)] == [5, None, None]
        assert row(connection).until == NOW + 5 * SECOND
        assert rest(connection, NOW + 6 * SECOND) == 10
        found = row(connection)
    assert (found.state, found.faults, found.since) == ("resting", 2, NOW)
    assert (found.until, found.reason, found.words) == (NOW + 16 * SECOND, "auth_failed", "why")


def test_workers_at_the_same_time_make_one_rest(store):
    """Two transactions that both saw it working count one fault."""
    spans = []

    def fail():
        with store.begin() as connection:
            spans.append(rest(connection))

    threads = [threading.Thread(target=fail) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(spans, key=str) == [5, None, None, None, None, None]


def test_one_at_a_time_finds_out(store):
    """Not before the rest is over; after a while whoever tried is taken for lost."""
    with store.begin() as connection:
        assert not transports.probe(connection, "ses", NOW, PATIENCE)
        rest(connection)
        assert not transports.probe(connection, "ses", NOW + 4 * SECOND, PATIENCE)
        later = NOW + 5 * SECOND
        assert transports.probe(connection, "ses", later, PATIENCE)
        assert not transports.probe(connection, "ses", later + SECOND, PATIENCE)
        transports.give_up_probe(connection, "ses")
        assert transports.probe(connection, "ses", later + SECOND, PATIENCE)
        assert transports.probe(connection, "ses", later + 62 * SECOND, PATIENCE)


def test_a_success_ends_the_rest_once(store):
    """The next fault begins with the shortest rest again."""
    with store.begin() as connection:
        assert not transports.work(connection, "ses", NOW)
        rest(connection)
        assert [transports.work(connection, "ses", NOW + n * SECOND) for n in (1, 2)] == [True, False]
        found = row(connection)
        assert (found.state, found.faults, found.since) == ("working", 0, NOW + SECOND)
        assert (found.until, found.reason, found.words) == (None, None, None)
        assert rest(connection, NOW + 3 * SECOND) == 5


def test_what_a_person_paused_stays_so(store):
    """Neither a fault nor a success of a mail that was under way changes it, until it is resumed."""
    with store.begin() as connection:
        transports.pause(connection, "ses", NOW, "ada", "quota")
        assert rest(connection, NOW + SECOND) is None
        assert not transports.work(connection, "ses", NOW + SECOND)
        assert not transports.probe(connection, "ses", NOW + SECOND, PATIENCE)
        found = row(connection)
        assert (found.state, found.by, found.words, found.since) == ("paused", "ada", "quota", NOW)
        assert [transports.resume(connection, "ses", NOW + n * SECOND) for n in (2, 3)] == [True, False]
        assert (row(connection).state, row(connection).by) == ("working", None)


def test_a_rest_can_be_ended_and_paused_over(store):
    """A person knows more than a timer."""
    with store.begin() as connection:
        rest(connection)
        transports.pause(connection, "ses", NOW + SECOND, "ada", "")
        assert (row(connection).state, row(connection).until) == ("paused", None)
        rest(connection, name="post")
        assert transports.resume(connection, "post", NOW + SECOND)
        assert row(connection, "post").state == "working"


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_what_waited_for_a_transport_is_due_at_once(store, accept, limit):
    """A transport that is back is no reason to wait; what waits for something else goes on waiting."""
    messages = [accept() for _ in range(5)]
    waiting = dict(zip(messages, ["auth_failed", "transport_down", "connect_failed"], strict=False))
    hour = NOW + timedelta(hours=1)
    with store.begin() as connection:
        for message, reason in (waiting | {messages[3]: "mailbox_full"}).items():
            put_off = sa.update(deliveries).where(deliveries.c.message == message)
            connection.execute(put_off.values(state=State.DEFERRED, reason=reason, not_before=hour))
        last, rounds = "", 0
        while last is not None:
            last, rounds = transports.wake(connection, NOW, last, limit), rounds + 1
        due = sa.select(deliveries.c.message).where(deliveries.c.not_before < NOW)
        assert set(connection.scalars(due)) == {*waiting, messages[4]}
    assert rounds == -(-3 // limit) + 1


def test_counts_add_up_and_are_forgotten(store):
    """What several workers add within a minute is one row; a day later it is gone."""
    minute = NOW.replace(second=0)
    with store.begin() as connection:
        transports.count(connection, minute, {"ses": Counts(1, 2, 3), "post": Counts(1)})
        transports.count(connection, minute, {"ses": Counts(10)})
        transports.count(connection, minute + 60 * SECOND, {"ses": Counts(100)})
        assert transports.counted(connection, minute) == {"ses": Counts(111, 2, 3), "post": Counts(1)}
        assert transports.counted(connection, minute + SECOND) == {"ses": Counts(100)}
        transports.count(connection, minute + timedelta(days=1, seconds=61), {"post": Counts(5)})
        assert transports.counted(connection, minute - timedelta(days=9)) == {"post": Counts(5)}
