"""the HTTP API: projects, keys, batches, and whose a message is

On Postgres mails are accepted and sent meanwhile; SQLite writes the table of messages anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


PROJECT = ("project", sa.String(length=36), "whose API key asked for it; null: the application itself")
CARRIER = ("carrier", sa.String(length=9), "test or simulator; null: the configured transports")
KNOWN = "ck_mailer_messages_carrier"
LISTED = "ix_mailer_messages_project"
INVALID = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        anew()
    else:
        with op.get_context().autocommit_block():
            beside_running_mail()
    make_tables()


def columns() -> list[sa.Column[str]]:
    return [sa.Column(name, kind, nullable=True, comment=said) for name, kind, said in (PROJECT, CARRIER)]


def anew() -> None:
    """SQLite adds a column at the end only, where reading it would touch the sealed ones: see models.py."""
    with op.batch_alter_table("mailer_messages", recreate="always") as batch_op:
        for column in columns():
            batch_op.add_column(column, insert_before="content")
        batch_op.create_check_constraint(op.f(KNOWN), "carrier IN ('test', 'simulator')")
    op.create_index(LISTED, "mailer_messages", ["project", "id"], sqlite_where=sa.text("project IS NOT NULL"))
    # Of two that would do SQLite takes the newer, and Alembic makes them anew in any order.
    narrow = sa.text("ended_at IS NOT NULL AND body_erased_at IS NULL")
    op.drop_index("ix_mailer_messages_with_body", "mailer_messages")
    op.create_index("ix_mailer_messages_with_body", "mailer_messages", ["ended_at"], sqlite_where=narrow)


def beside_running_mail() -> None:
    """Nothing here keeps writers out while it reads the table, and all of it can be repeated."""
    for column in columns():
        op.add_column("mailer_messages", column, if_not_exists=True)
    rule = f"ADD CONSTRAINT {KNOWN} CHECK (carrier IN ('test', 'simulator')) NOT VALID"
    op.execute(f"ALTER TABLE mailer_messages DROP CONSTRAINT IF EXISTS {KNOWN}, {rule}")
    op.execute(f"ALTER TABLE mailer_messages VALIDATE CONSTRAINT {KNOWN}")
    if op.get_bind().scalar(sa.text(INVALID), {"name": LISTED}):
        op.drop_index(LISTED, "mailer_messages", postgresql_concurrently=True)
    op.create_index(
        LISTED,
        "mailer_messages",
        ["project", "id"],
        postgresql_where=sa.text("project IS NOT NULL"),
        if_not_exists=True,
        postgresql_concurrently=True,
    )


def make_tables() -> None:
    op.create_table(
        "mailer_projects",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("length(name) > 0", name=op.f("ck_mailer_projects_has_a_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_mailer_projects_name")),
    )
    op.create_table(
        "mailer_api_keys",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("project", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False, comment="how people tell it from others"),
        sa.Column("key_hash", sa.String(length=64), nullable=False, comment="SHA-256 of the whole key"),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("domains", sa.JSON(), nullable=False, comment="it may send for; empty: any"),
        sa.Column("is_test", sa.Boolean(), nullable=False, comment="its mail goes to no provider"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("used_at", sa.Double(), nullable=True, comment="last use, to the minute"),
        sa.CheckConstraint("length(name) > 0", name=op.f("ck_mailer_api_keys_has_a_name")),
        sa.ForeignKeyConstraint(
            ["project"], ["mailer_projects.id"], name=op.f("fk_mailer_api_keys_project"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_mailer_api_keys_key_hash")),
    )
    op.create_index("ix_mailer_api_keys_project_id", "mailer_api_keys", ["project", "id"])
    op.create_table(
        "mailer_batches",
        sa.Column("scope", sa.String(length=80), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False, comment="idempotency key of it all"),
        sa.Column(
            "fingerprint", sa.String(length=64), nullable=False, comment="SHA-256 of what was asked for"
        ),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False, comment="ids of its messages, and what was refused"),
        sa.PrimaryKeyConstraint("scope", "key", name=op.f("pk_mailer_batches")),
    )
    op.create_index("ix_mailer_batches_created_at", "mailer_batches", ["created_at"])


def downgrade() -> None:
    for name in ("batches", "api_keys", "projects"):
        op.drop_table(f"mailer_{name}")
    op.drop_index("ix_mailer_messages_project", "mailer_messages")
    with op.batch_alter_table("mailer_messages", schema=None) as batch_op:
        batch_op.drop_constraint(op.f("ck_mailer_messages_carrier"), type_="check")
        batch_op.drop_column("carrier")
        batch_op.drop_column("project")
