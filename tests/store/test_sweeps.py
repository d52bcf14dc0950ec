"""What a sweeper and a heartbeat write, on both databases; every store function is called on both."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from mailer.states import State
from mailer.store import by_hand, queries, sweeps, workers
from mailer.store import deliveries as rows
from mailer.store.models import deliveries
from mailer.store.workers import WorkerRow
from tests.store.conftest import NOW

LEASE = timedelta(seconds=60)
HOUR = timedelta(hours=1)
STORE = Path(__file__).parents[2] / "mailer" / "store"


def row(store, message):
    with store.read() as connection:
        return connection.execute(sa.select(deliveries).where(deliveries.c.message == message)).one()


def test_lanes_that_are_gone_become_default(store, accept):
    """What waits moves; what is being sent or has ended stays as it is."""
    stray, taken, known = accept(lane="gone"), accept(lane="gone"), accept(lane="bulk")
    with store.begin() as connection:
        rows.claim(connection, taken, "t", NOW, LEASE)
        assert sweeps.adopt(connection, ["critical", "default", "bulk"]) == 1
    assert [row(store, message).lane for message in (stray, taken, known)] == ["default", "gone", "bulk"]


def test_after_a_clock_was_set_back_nothing_waits_an_hour_longer(store, accept):
    """RT5: leases, what is due and what is deferred come back to what they can be at most; schedules stay."""
    sending, queued, deferred = accept(), accept(), accept()
    scheduled = accept(send_at=NOW + 5 * HOUR)
    with store.begin() as connection:
        rows.claim(connection, sending, "t", NOW, LEASE)
        put_off = sa.update(deliveries).where(deliveries.c.message == deferred)
        connection.execute(put_off.values(state=State.DEFERRED, not_before=NOW + HOUR))
        sweeps.heal(connection, NOW - HOUR, LEASE, timedelta(minutes=5))
    assert row(store, sending).lease_until == NOW - HOUR + LEASE
    assert row(store, queued).not_before < NOW - HOUR
    assert row(store, queued).published_at is None
    assert row(store, deferred).not_before == NOW - HOUR + timedelta(minutes=5)
    assert row(store, scheduled).not_before == NOW + 5 * HOUR


def test_a_note_from_the_future_is_no_reason_to_be_silent(store, accept):
    """A wake-up noted before the clock was set back is not waited for until that time comes again."""
    message = accept()
    with store.begin() as connection:
        connection.execute(sa.update(deliveries).values(published_at=NOW + HOUR, not_before=NOW - LEASE))
        assert [w.message for w in sweeps.due(connection, "default", NOW, LEASE, 8)] == [message]


def test_a_worker_is_one_row(store):
    """It beats, it goes, and one that says nothing for an hour is forgotten."""
    one = WorkerRow("1", "host:1", NOW, NOW, None)
    two = WorkerRow("2", "host:2", NOW, NOW + HOUR + LEASE, NOW + HOUR)
    with store.begin() as connection:
        workers.beat(connection, one)
        workers.beat(connection, one)
        assert workers.present(connection) == [one]
        workers.beat(connection, two)
        assert workers.present(connection) == [two]
        workers.leave(connection, "2")
        assert workers.present(connection) == []


def test_rescheduling_moves_what_was_not_tried(store, accept):
    """To a later time, or to now; the message says so, too."""
    message = accept(send_at=NOW + HOUR)
    with store.begin() as connection:
        assert by_hand.reschedule(connection, message, NOW + 2 * HOUR, "ada", NOW) == 1
        assert queries.show(connection, message).send_at == NOW + 2 * HOUR
        assert not rows.claim(connection, message, "t", NOW + HOUR, LEASE)
        assert by_hand.reschedule(connection, message, NOW, "ada", NOW) == 1
        assert rows.claim(connection, message, "t", NOW, LEASE)
        assert by_hand.reschedule(connection, message, NOW + HOUR, "ada", NOW) == 0


def test_a_deadline_that_a_person_lifted_binds_nobody(store, accept):
    """The message still says what was asked for; what counts is what its deliveries have."""
    message, strict = (accept(send_at=NOW + LEASE, expires_at=NOW + HOUR) for _ in range(2))
    with store.begin() as connection:
        lifted = sa.update(deliveries).where(deliveries.c.message == message).values(expires_at=None)
        connection.execute(lifted)
        assert by_hand.deadline(connection, message) is None
        assert by_hand.deadline(connection, strict) == NOW + HOUR


BOTH = (
    "accounts",
    "batches",
    "by_hand",
    "deliveries",
    "keys",
    "listing",
    "messages",
    "places",
    "queries",
    "slow_domains",
    "suppressions",
    "sweeps",
    "transports",
    "webhooks",
    "workers",
)
"""Modules whose functions are called here by name; those of the others are, through their use cases."""


@pytest.mark.parametrize("module", BOTH)
def test_every_store_function_is_tried_on_both_databases(module):
    """The suite of this folder runs on SQLite and Postgres: no function of the store is missing from it."""
    tree = ast.parse((STORE / f"{module}.py").read_text())
    public = {n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    inside = "\n".join((STORE / f"{name}.py").read_text() for name in (*BOTH, "transitions"))
    used = {name for name in public if f".{name}(" in tests or f"rows.{name}," in tests}
    used |= {name for name in public if f"message_rows.{name}(" in inside}
    assert public - used == set()
