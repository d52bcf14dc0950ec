"""What a transaction has left to write goes to Postgres together with its commit, and fails with it."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from mailer.store import messages as message_rows
from mailer.store import queries
from mailer.store.pipeline import rest_together
from tests.store.conftest import new_message


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
