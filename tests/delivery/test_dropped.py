"""An application that is dropped leaves nothing open: a test suite may make one per test."""

from __future__ import annotations

import gc
import os
import resource
import urllib.request
import weakref
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from mailer import Mailer, send_email
from mailer.dev import WebServer
from mailer.inbox import Inbox
from mailer.sealing import Sealer
from mailer.store import Store, create_engine
from mailer.store.engine import close_with
from tests.delivery.conftest import build

SELECT_LIMIT = 1_024


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def used_and_dropped(tmp_path, **config) -> weakref.ref:
    app = build(tmp_path, Mailer(), name="dropped", **config)
    with app.app_context():
        send_email.delay(to="ada@x.test", subject="Hi", text="Hello")
    return weakref.ref(app)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    url = request.getfixturevalue("fresh_postgres_url")
    return {"MAILER_DATABASE_URL": url, "MAILER_SECRET_KEYS": "k" * 32}


def test_a_dropped_application_is_gone_with_its_connections(tmp_path, database):
    used_and_dropped(tmp_path, **database)  # what only the first one opens
    gc.collect()
    before = open_files()
    dropped = [used_and_dropped(tmp_path, **database) for _ in range(3)]
    gc.collect()
    assert [app() for app in dropped] == [None] * 3
    assert open_files() <= before


def test_a_forked_child_that_drops_it_leaves_the_parents_connections_alone(tmp_path, fresh_postgres_url):
    """Processes share the socket after a fork: what a child says on it, the parent's database hears."""
    store = Store(create_engine(fresh_postgres_url), Sealer([b"k" * 32]))
    close_with(store, engine := store.engine)
    with store.read() as connection:
        mine = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    child = os.fork()
    if child == 0:
        del store
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT pg_backend_pid()")) == mine
    engine.dispose()


def test_pages_are_served_by_a_process_with_many_open_files(tmp_path, alone):
    """select() knows no file above 1,023, and a server that waits with it ends there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * SELECT_LIMIT, hard), hard))
        for _ in range(SELECT_LIMIT):
            stack.enter_context(open(os.devnull))
        inbox = stack.enter_context(Inbox(tmp_path / "inbox.sqlite", smtp_port=0, web_port=0))
        alone.add_url_rule("/", view_func=lambda: "here")
        web = stack.enter_context(WebServer(alone, "127.0.0.1", 0))
        for url in (inbox.url, web.url):
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert answer.status == 200
