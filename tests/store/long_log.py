"""A long log, made by the database itself: months of mails as an application leaves them, to be looked at.

Ids are UUIDv7 of the moment of acceptance, as real ones are. Sealed contents are a few octets, and gone
where retention would have erased them; nothing of it can be sent. Everything follows from a message's number,
so two stores with as many messages hold the same.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from mailer.store import Store

SPAN = timedelta(days=95)
TEMPLATES = (
    "order", "receipt", "shipped", "verify_email", "reset_password", "welcome", "invoice", "reminder",
    "review", "digest", "invitation", "password_changed", "refund", "survey", "export_ready",
)  # fmt: skip
SEASONAL, SEASONAL_LANE = "winter_sale", "campaign"
"""A template and a lane of long ago only: what lies behind everything that was sent since."""
ARCHIVE = "archive@shop.example"
"""Gets a copy of a mail in twenty."""

_COUNT = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)",
    "postgresql": "WITH n(i) AS (SELECT generate_series(CAST(:first AS bigint), CAST(:last AS bigint)))",
}
_ID = {
    "sqlite": "printf('%08x-%04x-7%03x-8%03x-%012x', ms / 65536, ms % 65536, h % 4096, h / 4096 % 4096, i)",
    "postgresql": "lpad(to_hex(ms / 65536), 8, '0') || '-' || lpad(to_hex(ms % 65536), 4, '0') || '-7' ||"
    " lpad(to_hex(h % 4096), 3, '0') || '-8' || lpad(to_hex(h / 4096 % 4096), 3, '0') || '-' ||"
    " lpad(to_hex(i), 12, '0')",
}
_MS = {"sqlite": "CAST({} AS integer)", "postgresql": "CAST(floor({}) AS bigint)"}
_JSON = {"sqlite": "{}", "postgresql": "CAST({} AS json)"}
_BYTES = {"sqlite": "x'00'", "postgresql": "'\\x00'::bytea"}
# Parts of a thousand, by a number that looks like chance. What is on its way is young.
_STATE = """CASE
    WHEN i > :count - :count / 2000 - 20 AND i % 50 = 0 THEN 'sending'
    WHEN i > :count - :count / 2000 - 20 THEN 'queued'
    WHEN i > :count - :count / 20 AND h / 512 % 1000 < 5 THEN 'scheduled'
    WHEN i > :count - :count / 20 AND h / 512 % 1000 < 45 THEN 'deferred'
    WHEN h / 512 % 1000 < 30 THEN 'failed'
    WHEN h / 512 % 1000 < 33 THEN 'uncertain'
    WHEN h / 512 % 1000 < 35 THEN 'expired'
    WHEN h / 512 % 1000 < 40 THEN 'cancelled'
    ELSE 'sent' END"""
_TEMPLATE = f"""CASE
    WHEN i <= :count / 100 AND i % 3 = 0 THEN '{SEASONAL}'
    WHEN h / 64 % 50 = 0 THEN NULL
    {" ".join(f"WHEN h / 64 % 120 < {(n + 1) * (n + 2) // 2} THEN '{name}'" for n, name in
              enumerate(reversed(TEMPLATES)))}
    ELSE '{TEMPLATES[0]}' END"""  # fmt: skip
_LANE = f"""CASE
    WHEN i <= :count / 100 AND i % 3 = 0 THEN '{SEASONAL_LANE}'
    WHEN h / 32 % 10 = 0 THEN 'critical' WHEN h / 32 % 10 = 1 THEN 'bulk' ELSE 'default' END"""
_PEOPLE = "CASE WHEN h / 16 % 20 = 0 THEN 3 WHEN h / 16 % 20 < 4 THEN 2 ELSE 1 END"
_RECIPIENT = f"""CASE WHEN k = 3 THEN '{ARCHIVE}'
    WHEN h % 97 = 0 THEN 'Reader.' || ((h / 128 + k * 7919) % (:count / 5 + 7)) || '@example.org'
    ELSE 'reader' || ((h / 128 + k * 7919) % (:count / 5 + 7)) || '@mail' || (h % 40) || '.example' END"""


def write(
    store: Store,
    count: int,
    now: datetime,
    *,
    each: int = 50_000,
    told: Callable[[int], None] = lambda _: None,
) -> None:
    """Write so many messages, the last of them at ``now``; tells how many there are after each step."""
    for first in range(1, count + 1, each):
        last = min(first + each - 1, count)
        with store.begin() as connection:
            kind = connection.dialect.name
            if kind == "postgresql":
                connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
            values = {
                "first": first, "last": last, "count": count, "now": now.timestamp(), "no": False,
                "start": (now - SPAN).timestamp() * 1000, "step": SPAN.total_seconds() * 1000 / count,
            }  # fmt: skip
            for statement in (_messages(kind), _deliveries(kind), _events(kind)):
                named = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(sa.text(statement), named)
        told(last)


def _rows(kind: str) -> str:
    """One row for each message: its number, id, acceptance in seconds, and everything that follows."""
    ms = _MS[kind].format(":start + i * :step")
    return f"""{_COUNT[kind]},
        numbered AS (SELECT i, (i * 2654435761) % 4294967296 AS h, {ms} AS ms FROM n),
        b AS (SELECT i, h, {_ID[kind]} AS id, ms / 1000.0 AS at, {_STATE} AS state, {_LANE} AS lane,
            {_TEMPLATE} AS template, {_PEOPLE} AS people, :now - ms / 1000.0 < 604800 AS young FROM numbered)
        """  # noqa: S608


def _messages(kind: str) -> str:
    json = _JSON[kind].format
    tags = json("""CASE WHEN h % 10 = 0 THEN '["signup"]' WHEN h % 10 < 3 THEN '["order-' || i || '", "shop"]'
        ELSE '[]' END""")
    return f"""INSERT INTO mailer_messages (id, created_at, message_id, template, lane, sender, subject, tags,
            metadata, idempotency_scope, idempotency_key, fingerprint, has_secrets, ended_at, body_erased_at,
            content, rendered)
        {_rows(kind)}
        SELECT id, at, '<' || id || '@shop.example>', template, lane, 'Shop <no-reply@shop.example>',
            CASE WHEN young AND state NOT IN ('queued', 'sending') THEN 'Your order ' || i || ' of ' ||
                CASE WHEN h % 5 = 0 THEN 'Monday' ELSE 'yesterday' END END,
            {tags}, {json("'{}'")}, '',
            CASE WHEN i > :count - :count / 95 AND h % 7 = 0 THEN 'key-' || i END,
            CASE WHEN i > :count - :count / 95 AND h % 7 = 0 THEN 'f' END, :no,
            CASE WHEN state IN ('sent', 'failed', 'expired', 'cancelled') THEN at + 2 END,
            CASE WHEN state IN ('sent', 'failed', 'expired', 'cancelled') AND NOT young THEN at + 604800 END,
            CASE WHEN young THEN {_BYTES[kind]} END, CASE WHEN young THEN {_BYTES[kind]} END
        FROM b"""  # noqa: S608


def _deliveries(kind: str) -> str:
    return f"""INSERT INTO mailer_deliveries (message, recipient, kind, lane, state, on_uncertain,
            not_before, attempts, crashes, unknowns, lease_token, lease_until, published_at, code, reply,
            reason, ended_at)
        {_rows(kind)}
        SELECT id, {_RECIPIENT}, CASE k WHEN 3 THEN 'bcc' ELSE 'to' END, lane, state, 'retry',
            CASE WHEN state IN ('scheduled', 'deferred') THEN :now + 3600 ELSE at - 5 END,
            CASE WHEN state IN ('queued', 'scheduled', 'cancelled') THEN 0 ELSE 1 END, 0, 0,
            CASE WHEN state = 'sending' THEN 't' END, CASE WHEN state = 'sending' THEN :now + 3600 END, at,
            CASE state WHEN 'sent' THEN 250 WHEN 'failed' THEN 550 WHEN 'deferred' THEN 450 END,
            CASE state WHEN 'sent' THEN '2.0.0 Ok: queued as ' || i WHEN 'failed' THEN '5.1.1 no user' END,
            CASE state WHEN 'failed' THEN 'mailbox_unknown' WHEN 'deferred' THEN 'greylisted' END,
            CASE WHEN state IN ('sent', 'failed', 'expired', 'cancelled') THEN at + 2 END
        FROM b, (SELECT 1 AS k UNION ALL SELECT 2 UNION ALL SELECT 3) AS people_of WHERE k <= people"""  # noqa: S608


def _events(kind: str) -> str:
    """Two to four for each message: accepted, what came of it, and now and then a try before that."""
    data = _JSON[kind].format("""CASE k
        WHEN 1 THEN '{"recipients": ' || people || ', "lane": "' || lane || '"}'
        ELSE '{"recipient": "reader@mail.example", "attempt": ' || (k - 1) || ', "code": 250}' END""")
    return f"""INSERT INTO mailer_events (message, at, name, data)
        {_rows(kind)}
        SELECT id, at + k - 1, CASE WHEN k = 1 THEN 'accepted' WHEN k < 1 + people THEN 'deferred'
            ELSE state END, {data}
        FROM b, (SELECT 1 AS k UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4) AS told
        WHERE k <= 1 + people AND (k = 1 OR state NOT IN ('queued', 'sending', 'scheduled'))"""  # noqa: S608
