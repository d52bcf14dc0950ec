"""The tables. Constraints have names, and refuse what the code must never write.

SQLAlchemy Core, not the ORM: statements are built once at import and cost a fifth of an object per row.
Every name begins with ``mailer_`` because the tables may live in a host application's database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from mailer.states import CLAIMABLE, FINAL, State

PREFIX = "mailer_"

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Instant(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime, kept as seconds since 1970 so that arithmetic reads the same everywhere."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> float | None:
        return None if value is None else value.timestamp()

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value, UTC)


def one_of(column: str, states: frozenset[State]) -> str:
    """A condition in SQL, with the states written out."""
    return f"{column} IN ({', '.join(repr(str(state)) for state in sorted(states))})"


messages = sa.Table(
    f"{PREFIX}messages",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True, comment="UUIDv7; the id every door knows it by"),
    sa.Column("created_at", Instant, nullable=False, comment="acceptance; also the Date header"),
    sa.Column(
        "message_id", sa.String(320), nullable=False, comment="Message-ID header, same in every attempt"
    ),
    sa.Column("template", sa.String(200)),
    sa.Column("locale", sa.String(35)),
    sa.Column("lane", sa.String(32), nullable=False),
    sa.Column("sender", sa.String(700), nullable=False),
    sa.Column("subject", sa.String(1000), comment="null until a template has been rendered"),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column(
        "idempotency_scope", sa.String(80), nullable=False, server_default="", comment="who chose the key"
    ),
    sa.Column("idempotency_key", sa.String(256), comment="null again once it need not be kept any longer"),
    sa.Column("fingerprint", sa.String(64), comment="SHA-256 of the content, set with the key"),
    sa.Column("resent_from", sa.String(36), sa.ForeignKey(f"{PREFIX}messages.id", ondelete="SET NULL")),
    sa.Column("send_at", Instant),
    sa.Column("expires_at", Instant),
    sa.Column("ended_at", Instant, comment="when the last delivery reached a final state"),
    sa.Column("has_secrets", sa.Boolean, nullable=False, comment="content held a Secret"),
    sa.Column("erased_at", Instant, comment="when secrets and the rendered original were erased"),
    sa.Column("body_erased_at", Instant, comment="when all of its content was erased, by policy or request"),
    sa.Column("project", sa.String(36), comment="whose API key asked for it; null: the application itself"),
    sa.Column("carrier", sa.String(9), comment="test or simulator; null: the configured transports"),
    # Sealed, and last in the row: SQLite then reads the columns before them without touching these.
    sa.Column("content", sa.LargeBinary, comment="sealed JSON of the call"),
    sa.Column("secrets", sa.LargeBinary, comment="sealed JSON of the Secret values; erased at the end"),
    sa.Column("rendered", sa.LargeBinary, comment="sealed bytes of the mail, frozen at the first attempt"),
    sa.Column("preview", sa.LargeBinary, comment="sealed bytes with secrets masked; takes over at the end"),
    sa.UniqueConstraint("idempotency_scope", "idempotency_key"),
    sa.CheckConstraint("idempotency_key IS NULL OR fingerprint IS NOT NULL", name="key_has_fingerprint"),
    sa.CheckConstraint("expires_at IS NULL OR expires_at > created_at", name="expires_after_creation"),
    sa.CheckConstraint("carrier IN ('test', 'simulator')", name="carrier"),
    # A list by one of these pages by id. They are never changed, and new entries stand at the end of each.
    sa.Index(f"ix_{PREFIX}messages_lane", "lane", "id"),
    sa.Index(
        f"ix_{PREFIX}messages_template",
        "template",
        "id",
        sqlite_where=sa.text("template IS NOT NULL"),
        postgresql_where=sa.text("template IS NOT NULL"),
    ),
    sa.Index(
        f"ix_{PREFIX}messages_copies",
        "resent_from",
        sqlite_where=sa.text("resent_from IS NOT NULL"),
        postgresql_where=sa.text("resent_from IS NOT NULL"),
    ),
    sa.Index(
        f"ix_{PREFIX}messages_project",
        "project",
        "id",
        sqlite_where=sa.text("project IS NOT NULL"),
        postgresql_where=sa.text("project IS NOT NULL"),
    ),
    sa.Index(
        f"ix_{PREFIX}messages_keyed",
        "created_at",
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    ),
    sa.Index(
        f"ix_{PREFIX}messages_ended",
        "ended_at",
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    ),
    sa.Index(
        f"ix_{PREFIX}messages_with_body",
        "ended_at",
        sqlite_where=sa.text("ended_at IS NOT NULL AND body_erased_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL AND body_erased_at IS NULL"),
    ),
)

deliveries = sa.Table(
    f"{PREFIX}deliveries",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("message", sa.String(36), sa.ForeignKey(messages.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("recipient", sa.String(320), nullable=False, comment="envelope recipient, addr-spec"),
    sa.Column("kind", sa.String(3), nullable=False, comment="the header it stands in: to, cc, or bcc"),
    sa.Column("lane", sa.String(32), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("on_uncertain", sa.String(5), nullable=False),
    sa.Column("not_before", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("attempts", sa.Integer, nullable=False, comment="counted at the claim, the first is 1"),
    sa.Column("crashes", sa.Integer, nullable=False, comment="claims whose worker was lost"),
    sa.Column("unknowns", sa.Integer, nullable=False, comment="tries whose outcome is unknown: maybe copies"),
    sa.Column("lease_token", sa.String(32)),
    sa.Column("lease_until", Instant),
    sa.Column("marked_at", Instant, comment="the text may have gone out since then, under this lease"),
    sa.Column("published_at", Instant, comment="last wake-up; null asks the sweeper for one"),
    sa.Column("code", sa.Integer, comment="last SMTP reply code"),
    sa.Column("reply", sa.String(1000), comment="the server's words, as received"),
    sa.Column("reason", sa.String(64), comment="stable word for why it is in this state"),
    sa.Column("ended_at", Instant),
    sa.UniqueConstraint("message", "recipient"),
    sa.CheckConstraint(one_of("state", frozenset(State)), name="state"),
    sa.CheckConstraint("kind IN ('to', 'cc', 'bcc')", name="kind"),
    sa.CheckConstraint("on_uncertain IN ('retry', 'hold')", name="on_uncertain"),
    sa.CheckConstraint(
        f"(state = '{State.SENDING}') = (lease_token IS NOT NULL)", name="lease_only_while_sending"
    ),
    sa.CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease_has_an_end"),
    sa.CheckConstraint(f"({one_of('state', FINAL)}) = (ended_at IS NOT NULL)", name="final_has_ended"),
    sa.CheckConstraint("attempts >= 0 AND crashes >= 0 AND unknowns >= 0", name="counts"),
    sa.Index(f"ix_{PREFIX}deliveries_state", "state", "message"),
    sa.Index(
        f"ix_{PREFIX}deliveries_due",
        "lane",
        "not_before",
        sqlite_where=sa.text(one_of("state", CLAIMABLE)),
        postgresql_where=sa.text(one_of("state", CLAIMABLE)),
    ),
    sa.Index(
        f"ix_{PREFIX}deliveries_suspects",
        "lane",
        "not_before",
        sqlite_where=sa.text(f"crashes > 0 AND {one_of('state', CLAIMABLE)}"),
        postgresql_where=sa.text(f"crashes > 0 AND {one_of('state', CLAIMABLE)}"),
    ),
    sa.Index(
        f"ix_{PREFIX}deliveries_expiring",
        "expires_at",
        sqlite_where=sa.text("expires_at IS NOT NULL AND ended_at IS NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL AND ended_at IS NULL"),
    ),
    sa.Index(
        f"ix_{PREFIX}deliveries_leases",
        "lease_until",
        sqlite_where=sa.text(f"state = '{State.SENDING}'"),
        postgresql_where=sa.text(f"state = '{State.SENDING}'"),
    ),
)

# One person's mails, in whatever case the address was written, the newest last.
sa.Index(f"ix_{PREFIX}deliveries_person", sa.func.lower(deliveries.c.recipient), deliveries.c.message)

# What stands in the tags of a message, the other way round. Without a foreign key, which would need an index
# of its own: whoever deletes a message, or empties its tags, deletes these.
tags = sa.Table(
    f"{PREFIX}tags",
    metadata,
    sa.Column("tag", sa.String(64), primary_key=True),
    sa.Column("message", sa.String(36), primary_key=True),
    sqlite_with_rowid=False,
)

events = sa.Table(
    f"{PREFIX}events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("message", sa.String(36), sa.ForeignKey(messages.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("name", sa.String(32), nullable=False, comment="see mailer.events"),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Index(f"ix_{PREFIX}events_message", "message", "id"),
)

workers = sa.Table(
    f"{PREFIX}workers",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, comment="host and process"),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("seen_at", Instant, nullable=False, comment="it was alive"),
    sa.Column("consumed_at", Instant, comment="it took a wake-up from the broker: it does its work"),
)

operators = sa.Table(
    f"{PREFIX}operators",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("name", sa.String(320), nullable=False, comment="what they log in with; in lower case"),
    sa.Column("password_hash", sa.String(255), comment="argon2id; null: enters by one-time link only"),
    sa.Column("role", sa.String(8), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("disabled_at", Instant, comment="since then no way in, and no session lives"),
    sa.Column("last_login_at", Instant),
    sa.Column("failed_logins", sa.Integer, nullable=False, comment="wrong passwords since the last log-in"),
    sa.UniqueConstraint("name"),
    sa.CheckConstraint("role IN ('admin', 'support', 'viewer')", name="role"),
    sa.CheckConstraint("length(name) > 0", name="has_a_name"),
    sa.CheckConstraint("failed_logins >= 0", name="counts"),
)

sessions = sa.Table(
    f"{PREFIX}sessions",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True, comment="SHA-256 of what the cookie holds"),
    sa.Column(
        "operator", operators.c.id.type, sa.ForeignKey(operators.c.id, ondelete="CASCADE"), nullable=False
    ),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("seen_at", Instant, nullable=False, comment="last deed of the person, to the minute"),
    sa.Column("expires_at", Instant, nullable=False, comment="the end, however busy the person is"),
    sa.CheckConstraint("expires_at > created_at", name="expires_after_creation"),
    sa.Index(None, "operator"),
)

login_links = sa.Table(
    f"{PREFIX}login_links",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True, comment="SHA-256 of what the link holds"),
    sa.Column(
        "operator", operators.c.id.type, sa.ForeignKey(operators.c.id, ondelete="CASCADE"), nullable=False
    ),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("used_at", Instant, comment="set once, by whoever came first"),
    sa.Index(None, "operator"),
)

second_factors = sa.Table(
    f"{PREFIX}second_factors",
    metadata,
    sa.Column(
        "operator", operators.c.id.type, sa.ForeignKey(operators.c.id, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("secret", sa.LargeBinary, nullable=False, comment="sealed; what the authenticator app holds"),
    sa.Column("confirmed_at", Instant, comment="since then asked for; null: shown, no code came back yet"),
    sa.Column("last_step", sa.Integer, nullable=False, comment="time step of the last code; older are void"),
    sa.CheckConstraint("last_step >= 0", name="counts"),
)

half_logins = sa.Table(
    f"{PREFIX}half_logins",
    metadata,
    sa.Column("token_hash", sa.String(64), primary_key=True, comment="SHA-256 of what the cookie holds"),
    sa.Column(
        "operator", operators.c.id.type, sa.ForeignKey(operators.c.id, ondelete="CASCADE"), nullable=False
    ),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Index(None, "operator"),
)

transports = sa.Table(
    f"{PREFIX}transports",
    metadata,
    sa.Column("name", sa.String(320), primary_key=True, comment="as configured; no row: it works"),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("faults", sa.Integer, nullable=False, comment="in a row, each after a longer rest"),
    sa.Column("since", Instant, nullable=False, comment="when it came into this state"),
    sa.Column("until", Instant, comment="end of its rest: then one mail may find out"),
    sa.Column("probed_at", Instant, comment="one mail is finding out since then"),
    sa.Column("reason", sa.String(64), comment="stable word"),
    sa.Column("words", sa.String(1000), comment="the same as a person understands it"),
    sa.Column("by", sa.String(320), comment="who paused it"),
    sa.CheckConstraint("state IN ('working', 'resting', 'paused')", name="state"),
    sa.CheckConstraint("(state = 'resting') = (until IS NOT NULL)", name="rest_has_an_end"),
    sa.CheckConstraint("faults >= 0", name="counts"),
)

transport_counts = sa.Table(
    f"{PREFIX}transport_counts",
    metadata,
    sa.Column("name", transports.c.name.type, primary_key=True),
    sa.Column("minute", Instant, primary_key=True),
    sa.Column("sent", sa.Integer, nullable=False),
    sa.Column("deferred", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
)

places = sa.Table(
    f"{PREFIX}places",
    metadata,
    sa.Column("token", sa.String(32), primary_key=True, comment="who holds them: one batch of a worker"),
    sa.Column("key", sa.String(600), primary_key=True, comment="of which limit"),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("until", Instant, nullable=False, comment="they count until then"),
    sa.CheckConstraint("number > 0", name="counts"),
    sa.Index(None, "key"),
)

slow_domains = sa.Table(
    f"{PREFIX}slow_domains",
    metadata,
    sa.Column("transport", transports.c.name.type, primary_key=True),
    sa.Column("domain", sa.String(255), primary_key=True),
    sa.Column("halvings", sa.Integer, nullable=False, comment="of what may go there, at that time"),
    sa.Column("since", Instant, nullable=False),
    sa.CheckConstraint("halvings > 0", name="counts"),
)

projects = sa.Table(
    f"{PREFIX}projects",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.UniqueConstraint("name"),
    sa.CheckConstraint("length(name) > 0", name="has_a_name"),
)

api_keys = sa.Table(
    f"{PREFIX}api_keys",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project", sa.String(36), sa.ForeignKey(projects.c.id, ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("prefix", sa.String(16), nullable=False, comment="how people tell it from others"),
    sa.Column("key_hash", sa.String(64), nullable=False, comment="SHA-256 of the whole key"),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("domains", sa.JSON, nullable=False, comment="it may send for; empty: any"),
    sa.Column("is_test", sa.Boolean, nullable=False, comment="its mail goes to no provider"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant),
    sa.Column("revoked_at", Instant),
    sa.Column("used_at", Instant, comment="last use, to the minute"),
    sa.UniqueConstraint("key_hash"),
    sa.CheckConstraint("length(name) > 0", name="has_a_name"),
    sa.Index(None, "project", "id"),
)

batches = sa.Table(
    f"{PREFIX}batches",
    metadata,
    sa.Column("scope", messages.c.idempotency_scope.type, primary_key=True),
    sa.Column("key", messages.c.idempotency_key.type, primary_key=True, comment="idempotency key of it all"),
    sa.Column("fingerprint", sa.String(64), nullable=False, comment="SHA-256 of what was asked for"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("answer", sa.JSON, nullable=False, comment="ids of its messages, and what was refused"),
    sa.Index(None, "created_at"),
)
