"""A backlog without contents, made by the database itself: to see what statements take, not to be sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.store import Store

_COUNT = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)",
    "postgresql": "WITH n(i) AS (SELECT generate_series(CAST(:first AS integer), CAST(:last AS integer)))",
}
_ID = {"sqlite": "printf('backlog-%09d', i)", "postgresql": "'backlog-' || lpad(i::text, 9, '0')"}


def plan_of(store: Store, table: str, act: Callable[[Connection], object]) -> str:
    """How the database goes about the first statement of ``act`` on this table. What it did is undone."""
    return plans_of(store, table, act)[0]


def plans_of(store: Store, table: str, act: Callable[[Connection], object]) -> list[str]:
    """How it goes about each statement of ``act`` on such tables. What it did is undone."""
    plans: list[str] = []

    def explain(_connection, cursor, statement, parameters, _context, many):  # type: ignore[no-untyped-def]
        if table in statement:
            how = "EXPLAIN QUERY PLAN" if store.engine.dialect.name == "sqlite" else "EXPLAIN"
            cursor.execute(f"{how} {statement}", parameters[0] if many else parameters)
            plans.append("\n".join(str(line[-1]) for line in cursor.fetchall()))

    with store.engine.connect() as connection:
        sa.event.listen(store.engine, "before_cursor_execute", explain)
        try:
            act(connection)
        finally:
            sa.event.remove(store.engine, "before_cursor_execute", explain)
            connection.rollback()
    return plans


def pile_up(store: Store, count: int, now: datetime, *, lane: str = "bulk") -> None:
    """Add so many queued deliveries, each of a message of its own, and gather statistics."""
    with store.begin() as connection:
        kind = connection.dialect.name
        told = {"first": 1, "last": count, "now": now.timestamp(), "lane": lane, "no": False}
        connection.execute(sa.text(f"""INSERT INTO mailer_messages
            (id, created_at, message_id, lane, sender, tags, metadata, idempotency_scope, has_secrets)
            {_COUNT[kind]} SELECT {_ID[kind]}, :now, '<' || i || '@x.test>', :lane, 'me@x.test', '[]', '{{}}',
                '', :no FROM n"""), told)  # fmt: skip  # noqa: S608
        connection.execute(sa.text(f"""INSERT INTO mailer_deliveries
            (message, recipient, kind, lane, state, on_uncertain, not_before, attempts, crashes, unknowns,
                published_at)
            {_COUNT[kind]} SELECT {_ID[kind]}, i || '@x.test', 'to', :lane, 'queued', 'retry',
                :now - i * 0.001 - 5, 0, 0, 0, :now FROM n"""), told)  # fmt: skip  # noqa: S608
    analyze(store)


def analyze(store: Store) -> None:
    """Gather the statistics that a database has after a while."""
    with store.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("ANALYZE"))
