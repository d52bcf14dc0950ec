"""A kept connection that leads nowhere is replaced before a transaction begins on it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from mailer.store import liveness
from mailer.store.engine import create_engine


@pytest.fixture
def engine(postgres_url):
    engine = create_engine(postgres_url)
    yield engine
    engine.dispose()


def backend(engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(sa.text("SELECT pg_backend_pid()"))


def end(engine, pid: int) -> None:
    other = sa.create_engine(engine.url)
    with other.connect() as connection:
        assert connection.scalar(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    other.dispose()


def test_a_connection_that_works_is_used_again(engine):
    """Looking finds nothing wrong with it."""
    assert len({backend(engine) for _ in range(5)}) == 1


def test_a_connection_that_the_server_ended_is_replaced(engine):
    """A caller never sees that Postgres was restarted, or that an administrator ended a connection."""
    first = backend(engine)
    end(engine, first)
    assert backend(engine) != first


def test_a_connection_that_was_idle_for_long_is_asked(engine, monkeypatch):
    """What a firewall forgot leaves no trace on the socket."""
    asked = []
    ping = engine.dialect.do_ping
    monkeypatch.setattr(engine.dialect, "do_ping", lambda driver: asked.append(1) or ping(driver))
    backend(engine), backend(engine)
    assert not asked
    monkeypatch.setattr(liveness, "ASK_AFTER_SECONDS", 0)
    backend(engine)
    assert asked
