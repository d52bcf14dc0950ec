"""What a transaction has left to write goes to Postgres together with its commit, and fails with it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.exc import DBAPIError

from mailer.states import State
from mailer.store import messages as message_rows
from mailer.store import queries
from mailer.store.pipeline import rest_together
from tests.store.conftest import NOW, new_message


def stored(store) -> int:
    with store.read() as connection:
        return queries.total(connection)


def insert_twice(store, new) -> None:
    with store.begin() as connection:
        rest_together(connection)
        message_rows._WITHOUT_KEY.run(connection, [message_rows._row(new, store.sealer)] * 2)


def insert_and_raise(store) -> None:
    with store.begin() as connection:
        message_rows.accept(connection, new_message(), store.sealer, last=True)
        raise RuntimeError


def test_what_is_written_together_is_committed(store):
    """RT1: accepted is committed, however the statements travel."""
    with store.begin() as connection:
        assert message_rows.accept(connection, new_message(), store.sealer, last=True)
    assert stored(store) == 1


def test_what_fails_among_them_fails_the_commit(store):
    """RT1: an error of a statement nobody waited for is raised, and nothing of the transaction is kept."""
    new = new_message()
    with pytest.raises(DBAPIError):
        insert_twice(store, new)
    assert stored(store) == 0
    with store.begin() as connection:  # and the connection is as good as before
        assert message_rows.accept(connection, new, store.sealer, last=True)
    assert stored(store) == 1


def test_an_error_of_the_caller_takes_it_all_back(store):
    """RT3: what was sent ahead is rolled back with the block that raised."""
    with pytest.raises(RuntimeError):
        insert_and_raise(store)
    assert stored(store) == 0


def test_a_batch_is_written_whole(store):
    """RT1: each of several messages has its recipients, its tags and its own state."""
    both = [("ada@example.test", "to"), ("bob@example.test", "bcc")]
    those = [new_message(recipients=both), new_message(send_at=NOW + timedelta(hours=1), tags=["later"])]
    with store.begin() as connection:
        message_rows.accept_all(connection, those, store.sealer, last=True)
    with store.read() as connection:
        now, later = (queries.show(connection, new.id) for new in those)
        [tagged] = queries.search(connection, queries.Search(tag="later"))
    assert [(d.recipient, d.kind, d.state) for d in now.deliveries] == [(*r, State.QUEUED) for r in both]
    assert [event.name for event in now.events] == ["accepted"]
    assert later.state is State.SCHEDULED
    assert [event.name for event in later.events] == ["accepted", "scheduled"]
    assert tagged.id == later.id
