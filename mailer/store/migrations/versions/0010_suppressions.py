"""the suppression list: addresses that get no mail, and the key of their fingerprints"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

OWN, OF_PROJECT = sa.text("project IS NULL"), sa.text("project IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "mailer_suppressions",
        sa.Column("id", sa.String(length=36), nullable=False, comment="UUIDv7"),
        sa.Column(
            "project",
            sa.String(length=36),
            nullable=True,
            comment="whose mail it stops; null: the application's own",
        ),
        sa.Column("fingerprint", sa.String(length=64), nullable=False, comment="keyed hash of the address"),
        sa.Column(
            "address",
            sa.String(length=320),
            nullable=True,
            comment="for people; null once the person was forgotten",
        ),
        sa.Column("cause", sa.String(length=9), nullable=False),
        sa.Column("detail", sa.String(length=500), nullable=True, comment="in somebody's words"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("by", sa.String(length=320), nullable=False, comment="who added it"),
        sa.Column(
            "message", sa.String(length=36), nullable=True, comment="what it came from, which may be gone"
        ),
        sa.CheckConstraint(
            "cause IN ('manual', 'bounce', 'complaint')", name=op.f("ck_mailer_suppressions_cause")
        ),
        sa.ForeignKeyConstraint(
            ["project"],
            ["mailer_projects.id"],
            name=op.f("fk_mailer_suppressions_project"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_suppressions")),
    )
    for name, columns, where in (
        ("uq_mailer_suppressions_own", ["fingerprint"], OWN),
        ("uq_mailer_suppressions_project", ["project", "fingerprint"], OF_PROJECT),
        ("ix_mailer_suppressions_own", ["id"], OWN),
        ("ix_mailer_suppressions_project", ["project", "id"], OF_PROJECT),
    ):
        op.create_index(
            name,
            "mailer_suppressions",
            columns,
            unique=name.startswith("uq"),
            sqlite_where=where,
            postgresql_where=where,
        )
    op.create_table(
        "mailer_suppression_keys",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="what the fingerprints were made with"),
        sa.CheckConstraint("id = 1", name=op.f("ck_mailer_suppression_keys_only_one")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_suppression_keys")),
    )


def downgrade() -> None:
    for name in ("suppression_keys", "suppressions"):
        op.drop_table(f"mailer_{name}")
