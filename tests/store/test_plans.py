"""A backlog must not slow anything down: every statement of worker and sweeper finds its rows by an index."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import sqlalchemy as sa

from mailer.store import deliveries as rows
from mailer.store import sweeps
from tests.store.backlog import pile_up
from tests.store.conftest import NOW

LEASE = timedelta(seconds=60)
ROWS = 20_000

STATEMENTS = {
    "claim by id": (lambda c: rows.claim(c, "x", "t", NOW, LEASE), {"message_recipient", "state"}),
    "claim": (lambda c: rows.claim_due(c, "bulk", 50, "t", NOW, LEASE), {"due"}),
    "claim a suspect": (lambda c: rows.claim_suspect(c, "bulk", "t", NOW, LEASE), {"suspects", "due"}),
    "look": (lambda c: rows.waiting(c, ["critical"], NOW), {"due"}),
    "publish": (lambda c: sweeps.due(c, "bulk", NOW, LEASE, 8), {"due"}),
    "reap": (lambda c: sweeps.reap(c, NOW, crash_limit=3, unknown_limit=3), {"leases", "state"}),
    "expire": (lambda c: sweeps.expire(c, NOW), {"expiring"}),
}


@pytest.fixture
def piled(store):
    """A store with a backlog, and with statistics as a database has them after a while."""
    pile_up(store, ROWS, NOW)
    return store


def explained(store, act) -> str:
    """How the database goes about the first statement that ``act`` executes on deliveries."""
    plans: list[str] = []

    def explain(connection, cursor, statement, parameters, context, executemany):
        if "mailer_deliveries" in statement and not plans:
            how = "EXPLAIN QUERY PLAN" if store.engine.dialect.name == "sqlite" else "EXPLAIN"
            cursor.execute(f"{how} {statement}", parameters)
            plans.append("\n".join(str(row[-1]) for row in cursor.fetchall()))

    sa.event.listen(store.engine, "before_cursor_execute", explain)
    try:
        with store.engine.connect() as connection:
            act(connection)
            connection.rollback()
    finally:
        sa.event.remove(store.engine, "before_cursor_execute", explain)
    return plans[0]


@pytest.mark.parametrize("name", STATEMENTS)
def test_it_is_found_by_an_index(piled, name):
    """RT11: none of the statements reads the table from end to end."""
    act, expected = STATEMENTS[name]
    plan = explained(piled, act)
    used = set(re.findall(r"(?:ix|uq)_mailer_deliveries_(\w+)", plan))
    assert used <= expected, plan
    assert used or "PRIMARY KEY" in plan or "autoindex" in plan, plan
    assert not re.search(r"SCAN mailer_deliveries|Seq Scan on mailer_deliveries", plan), plan
