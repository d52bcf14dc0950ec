"""A backlog must not slow anything down: every statement of worker and sweeper finds its rows by an index."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from mailer.store import deliveries as rows
from mailer.store import sweeps, transports
from tests.store.backlog import pile_up, plan_of
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
    "wake": (lambda c: transports.wake(c, NOW), {"state"}),
    "expire": (lambda c: sweeps.expire(c, NOW), {"expiring"}),
}


@pytest.fixture
def piled(store):
    """A store with a backlog, and with statistics as a database has them after a while."""
    pile_up(store, ROWS, NOW)
    return store


@pytest.mark.parametrize("name", STATEMENTS)
def test_it_is_found_by_an_index(piled, name):
    """RT11: none of the statements reads the table from end to end."""
    act, expected = STATEMENTS[name]
    plan = plan_of(piled, "mailer_deliveries", act)
    used = set(re.findall(r"(?:ix|uq)_mailer_deliveries_(\w+)", plan))
    assert used <= expected, plan
    assert used or "PRIMARY KEY" in plan or "autoindex" in plan, plan
    assert not re.search(r"SCAN mailer_deliveries|Seq Scan on mailer_deliveries", plan), plan
