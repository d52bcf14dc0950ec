"""webhooks: where events are told, which ones, and what waits to be told"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mailer_webhooks",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column(
            "project", sa.String(length=36), nullable=True, comment="whose messages; null: the application's"
        ),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("types", sa.JSON(), nullable=False, comment="names of events as they are told"),
        sa.Column("secret", sa.LargeBinary(), nullable=False, comment="sealed"),
        sa.Column("old_secret", sa.LargeBinary(), nullable=True, comment="sealed; signs too, for a while"),
        sa.Column("old_until", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("disabled_at", sa.Double(), nullable=True, comment="since then nothing is told"),
        sa.Column("disabled_why", sa.String(length=32), nullable=True, comment="stable word"),
        sa.Column("failures", sa.Integer(), nullable=False, comment="in a row"),
        sa.Column("failing_since", sa.Double(), nullable=True),
        sa.Column("rest_until", sa.Double(), nullable=True),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_mailer_webhooks_counts")),
        sa.ForeignKeyConstraint(
            ["project"], ["mailer_projects.id"], name=op.f("fk_mailer_webhooks_project"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_webhooks")),
    )
    op.create_index("ix_mailer_webhooks_project", "mailer_webhooks", ["project"])
    op.create_table(
        "mailer_webhook_interests",
        sa.Column("webhook", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False, comment="of an event; see mailer.events"),
        sa.ForeignKeyConstraint(
            ["webhook"],
            ["mailer_webhooks.id"],
            name=op.f("fk_mailer_webhook_interests_webhook"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("webhook", "name", name=op.f("pk_mailer_webhook_interests")),
    )
    op.create_table(
        "mailer_webhook_calls",
        sa.Column("webhook", sa.String(length=36), nullable=False),
        sa.Column(
            "event", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False, comment="told once"
        ),
        sa.Column("due_at", sa.Double(), nullable=False, comment="a courier that has it in hand moves it"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column(
            "answer", sa.String(length=32), nullable=True, comment="of the last attempt: a status or a word"
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_mailer_webhook_calls_counts")),
        sa.ForeignKeyConstraint(
            ["webhook"],
            ["mailer_webhooks.id"],
            name=op.f("fk_mailer_webhook_calls_webhook"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["event"], ["mailer_events.id"], name=op.f("fk_mailer_webhook_calls_event"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("webhook", "event", name=op.f("pk_mailer_webhook_calls")),
    )
    op.create_index("ix_mailer_webhook_calls_event", "mailer_webhook_calls", ["event"])
    waiting = sa.text("ended_at IS NULL")
    op.create_index(
        "ix_mailer_webhook_calls_due",
        "mailer_webhook_calls",
        ["webhook", "due_at"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )


def downgrade() -> None:
    for name in ("webhook_calls", "webhook_interests", "webhooks"):
        op.drop_table(f"mailer_{name}")
