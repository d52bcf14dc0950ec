"""scoped idempotency keys, lanes in the index of what is due, retention, workers"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CLAIMABLE = "state IN ('deferred', 'queued', 'scheduled')"


def partial(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    with op.batch_alter_table("mailer_messages", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "idempotency_scope",
                sa.String(length=80),
                server_default="",
                nullable=False,
                comment="who chose the key",
            )
        )
        batch_op.add_column(
            sa.Column(
                "body_erased_at",
                sa.Double(),
                nullable=True,
                comment="when all of its content was erased, by policy or request",
            )
        )
        batch_op.alter_column(
            "idempotency_key",
            existing_type=sa.String(length=256),
            existing_nullable=True,
            comment="null again once it need not be kept any longer",
        )
        batch_op.drop_constraint(op.f("uq_mailer_messages_idempotency_key"), type_="unique")
        batch_op.create_unique_constraint(
            op.f("uq_mailer_messages_idempotency_scope_idempotency_key"),
            ["idempotency_scope", "idempotency_key"],
        )
    partial("ix_mailer_messages_keyed", "mailer_messages", ["created_at"], "idempotency_key IS NOT NULL")
    partial("ix_mailer_messages_ended", "mailer_messages", ["ended_at"], "ended_at IS NOT NULL")
    with_body = "ended_at IS NOT NULL AND body_erased_at IS NULL"
    partial("ix_mailer_messages_with_body", "mailer_messages", ["ended_at"], with_body)
    op.drop_index("ix_mailer_deliveries_due", "mailer_deliveries")
    due = ["lane", "not_before"]
    partial("ix_mailer_deliveries_due", "mailer_deliveries", due, CLAIMABLE)
    partial("ix_mailer_deliveries_suspects", "mailer_deliveries", due, f"crashes > 0 AND {CLAIMABLE}")
    op.drop_index("ix_mailer_deliveries_expiring", "mailer_deliveries")
    expiring = "expires_at IS NOT NULL AND ended_at IS NULL"
    partial("ix_mailer_deliveries_expiring", "mailer_deliveries", ["expires_at"], expiring)
    op.create_table(
        "mailer_workers",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False, comment="host and process"),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False, comment="it was alive"),
        sa.Column(
            "consumed_at",
            sa.Double(),
            nullable=True,
            comment="it took a wake-up from the broker: it does its work",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_workers")),
    )


def downgrade() -> None:
    op.drop_table("mailer_workers")
    op.drop_index("ix_mailer_deliveries_expiring", "mailer_deliveries")
    expiring = f"expires_at IS NOT NULL AND {CLAIMABLE}"
    partial("ix_mailer_deliveries_expiring", "mailer_deliveries", ["expires_at"], expiring)
    op.drop_index("ix_mailer_deliveries_suspects", "mailer_deliveries")
    op.drop_index("ix_mailer_deliveries_due", "mailer_deliveries")
    partial("ix_mailer_deliveries_due", "mailer_deliveries", ["not_before"], CLAIMABLE)
    for name in ("with_body", "ended", "keyed"):
        op.drop_index(f"ix_mailer_messages_{name}", "mailer_messages")
    with op.batch_alter_table("mailer_messages", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("uq_mailer_messages_idempotency_scope_idempotency_key"), type_="unique")
        batch_op.create_unique_constraint(op.f("uq_mailer_messages_idempotency_key"), ["idempotency_key"])
        batch_op.drop_column("body_erased_at")
        batch_op.drop_column("idempotency_scope")
