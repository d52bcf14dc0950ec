"""messages, deliveries, events"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mailer_messages",
        sa.Column(
            "id", sa.String(length=36), nullable=False, comment="UUIDv7; the id every door knows it by"
        ),
        sa.Column("created_at", sa.Double(), nullable=False, comment="acceptance; also the Date header"),
        sa.Column(
            "message_id",
            sa.String(length=320),
            nullable=False,
            comment="Message-ID header, same in every attempt",
        ),
        sa.Column("template", sa.String(length=200), nullable=True),
        sa.Column("locale", sa.String(length=35), nullable=True),
        sa.Column("lane", sa.String(length=32), nullable=False),
        sa.Column("sender", sa.String(length=700), nullable=False),
        sa.Column(
            "subject",
            sa.String(length=1000),
            nullable=True,
            comment="null until a template has been rendered",
        ),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("idempotency_key", sa.String(length=256), nullable=True),
        sa.Column(
            "fingerprint",
            sa.String(length=64),
            nullable=True,
            comment="SHA-256 of the content, set with the key",
        ),
        sa.Column("resent_from", sa.String(length=36), nullable=True),
        sa.Column("send_at", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column(
            "ended_at", sa.Double(), nullable=True, comment="when the last delivery reached a final state"
        ),
        sa.Column("has_secrets", sa.Boolean(), nullable=False, comment="content held a Secret"),
        sa.Column(
            "erased_at",
            sa.Double(),
            nullable=True,
            comment="when secrets and the rendered original were erased",
        ),
        sa.Column("content", sa.LargeBinary(), nullable=True, comment="sealed JSON of the call"),
        sa.Column(
            "secrets",
            sa.LargeBinary(),
            nullable=True,
            comment="sealed JSON of the Secret values; erased at the end",
        ),
        sa.Column(
            "rendered",
            sa.LargeBinary(),
            nullable=True,
            comment="sealed bytes of the mail, frozen at the first attempt",
        ),
        sa.Column(
            "preview",
            sa.LargeBinary(),
            nullable=True,
            comment="sealed bytes with secrets masked; takes over at the end",
        ),
        sa.CheckConstraint(
            "expires_at IS NULL OR expires_at > created_at",
            name=op.f("ck_mailer_messages_expires_after_creation"),
        ),
        sa.CheckConstraint(
            "idempotency_key IS NULL OR fingerprint IS NOT NULL",
            name=op.f("ck_mailer_messages_key_has_fingerprint"),
        ),
        sa.ForeignKeyConstraint(
            ["resent_from"],
            ["mailer_messages.id"],
            name=op.f("fk_mailer_messages_resent_from"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_messages")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_mailer_messages_idempotency_key")),
    )
    with op.batch_alter_table("mailer_messages", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_mailer_messages_resent_from"), ["resent_from"], unique=False)

    op.create_table(
        "mailer_deliveries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("message", sa.String(length=36), nullable=False),
        sa.Column(
            "recipient", sa.String(length=320), nullable=False, comment="envelope recipient, addr-spec"
        ),
        sa.Column(
            "kind", sa.String(length=3), nullable=False, comment="the header it stands in: to, cc, or bcc"
        ),
        sa.Column("lane", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("on_uncertain", sa.String(length=5), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="counted at the claim, the first is 1"),
        sa.Column("crashes", sa.Integer(), nullable=False, comment="claims whose worker was lost"),
        sa.Column(
            "unknowns",
            sa.Integer(),
            nullable=False,
            comment="tries whose outcome is unknown: maybe copies",
        ),
        sa.Column("lease_token", sa.String(length=32), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column(
            "marked_at",
            sa.Double(),
            nullable=True,
            comment="the text may have gone out since then, under this lease",
        ),
        sa.Column(
            "published_at", sa.Double(), nullable=True, comment="last wake-up; null asks the sweeper for one"
        ),
        sa.Column("code", sa.Integer(), nullable=True, comment="last SMTP reply code"),
        sa.Column("reply", sa.String(length=1000), nullable=True, comment="the server's words, as received"),
        sa.Column(
            "reason", sa.String(length=64), nullable=True, comment="stable word for why it is in this state"
        ),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "(state = 'sending') = (lease_token IS NOT NULL)",
            name=op.f("ck_mailer_deliveries_lease_only_while_sending"),
        ),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'expired', 'failed', 'sent', 'suppressed')) = (ended_at IS NOT NULL)",
            name=op.f("ck_mailer_deliveries_final_has_ended"),
        ),
        sa.CheckConstraint("kind IN ('to', 'cc', 'bcc')", name=op.f("ck_mailer_deliveries_kind")),
        sa.CheckConstraint(
            "on_uncertain IN ('retry', 'hold')", name=op.f("ck_mailer_deliveries_on_uncertain")
        ),
        sa.CheckConstraint(
            "state IN ('cancelled', 'deferred', 'expired', 'failed', 'queued', 'scheduled', 'sending', 'sent', 'suppressed', 'uncertain')",
            name=op.f("ck_mailer_deliveries_state"),
        ),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_until IS NULL)",
            name=op.f("ck_mailer_deliveries_lease_has_an_end"),
        ),
        sa.CheckConstraint(
            "attempts >= 0 AND crashes >= 0 AND unknowns >= 0", name=op.f("ck_mailer_deliveries_counts")
        ),
        sa.ForeignKeyConstraint(
            ["message"], ["mailer_messages.id"], name=op.f("fk_mailer_deliveries_message"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_deliveries")),
        sa.UniqueConstraint("message", "recipient", name=op.f("uq_mailer_deliveries_message_recipient")),
    )
    with op.batch_alter_table("mailer_deliveries", schema=None) as batch_op:
        batch_op.create_index(
            "ix_mailer_deliveries_due",
            ["not_before"],
            unique=False,
            sqlite_where=sa.text("state IN ('deferred', 'queued', 'scheduled')"),
            postgresql_where=sa.text("state IN ('deferred', 'queued', 'scheduled')"),
        )
        batch_op.create_index(
            "ix_mailer_deliveries_expiring",
            ["expires_at"],
            unique=False,
            sqlite_where=sa.text("expires_at IS NOT NULL AND state IN ('deferred', 'queued', 'scheduled')"),
            postgresql_where=sa.text(
                "expires_at IS NOT NULL AND state IN ('deferred', 'queued', 'scheduled')"
            ),
        )
        batch_op.create_index(
            "ix_mailer_deliveries_leases",
            ["lease_until"],
            unique=False,
            sqlite_where=sa.text("state = 'sending'"),
            postgresql_where=sa.text("state = 'sending'"),
        )
        batch_op.create_index("ix_mailer_deliveries_recipient", ["recipient", "id"], unique=False)
        batch_op.create_index("ix_mailer_deliveries_state", ["state", "message"], unique=False)

    op.create_table(
        "mailer_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("message", sa.String(length=36), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False, comment="see mailer.events"),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["message"], ["mailer_messages.id"], name=op.f("fk_mailer_events_message"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_events")),
    )
    with op.batch_alter_table("mailer_events", schema=None) as batch_op:
        batch_op.create_index("ix_mailer_events_message", ["message", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("mailer_events", schema=None) as batch_op:
        batch_op.drop_index("ix_mailer_events_message")

    op.drop_table("mailer_events")
    with op.batch_alter_table("mailer_deliveries", schema=None) as batch_op:
        batch_op.drop_index("ix_mailer_deliveries_state")
        batch_op.drop_index("ix_mailer_deliveries_recipient")
        batch_op.drop_index(
            "ix_mailer_deliveries_leases",
            sqlite_where=sa.text("state = 'sending'"),
            postgresql_where=sa.text("state = 'sending'"),
        )
        batch_op.drop_index(
            "ix_mailer_deliveries_expiring",
            sqlite_where=sa.text("expires_at IS NOT NULL AND state IN ('deferred', 'queued', 'scheduled')"),
            postgresql_where=sa.text(
                "expires_at IS NOT NULL AND state IN ('deferred', 'queued', 'scheduled')"
            ),
        )
        batch_op.drop_index(
            "ix_mailer_deliveries_due",
            sqlite_where=sa.text("state IN ('deferred', 'queued', 'scheduled')"),
            postgresql_where=sa.text("state IN ('deferred', 'queued', 'scheduled')"),
        )

    op.drop_table("mailer_deliveries")
    with op.batch_alter_table("mailer_messages", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_mailer_messages_resent_from"))

    op.drop_table("mailer_messages")
