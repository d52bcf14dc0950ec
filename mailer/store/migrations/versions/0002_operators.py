"""operators, sessions, login_links"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mailer_operators",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "name", sa.String(length=320), nullable=False, comment="what they log in with; in lower case"
        ),
        sa.Column(
            "password_hash",
            sa.String(length=255),
            nullable=True,
            comment="argon2id; null: enters by one-time link only",
        ),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column(
            "disabled_at", sa.Double(), nullable=True, comment="since then no way in, and no session lives"
        ),
        sa.Column("last_login_at", sa.Double(), nullable=True),
        sa.Column(
            "failed_logins", sa.Integer(), nullable=False, comment="wrong passwords since the last log-in"
        ),
        sa.CheckConstraint("role IN ('admin', 'support', 'viewer')", name=op.f("ck_mailer_operators_role")),
        sa.CheckConstraint("length(name) > 0", name=op.f("ck_mailer_operators_has_a_name")),
        sa.CheckConstraint("failed_logins >= 0", name=op.f("ck_mailer_operators_counts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_operators")),
        sa.UniqueConstraint("name", name=op.f("uq_mailer_operators_name")),
    )
    op.create_table(
        "mailer_sessions",
        sa.Column(
            "token_hash", sa.String(length=64), nullable=False, comment="SHA-256 of what the cookie holds"
        ),
        sa.Column("operator", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False, comment="last deed of the person, to the minute"),
        sa.Column("expires_at", sa.Double(), nullable=False, comment="the end, however busy the person is"),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_mailer_sessions_expires_after_creation")),
        sa.ForeignKeyConstraint(
            ["operator"],
            ["mailer_operators.id"],
            name=op.f("fk_mailer_sessions_operator"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_mailer_sessions")),
    )
    with op.batch_alter_table("mailer_sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_mailer_sessions_operator"), ["operator"], unique=False)

    op.create_table(
        "mailer_login_links",
        sa.Column(
            "token_hash", sa.String(length=64), nullable=False, comment="SHA-256 of what the link holds"
        ),
        sa.Column("operator", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True, comment="set once, by whoever came first"),
        sa.ForeignKeyConstraint(
            ["operator"],
            ["mailer_operators.id"],
            name=op.f("fk_mailer_login_links_operator"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_mailer_login_links")),
    )
    with op.batch_alter_table("mailer_login_links", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_mailer_login_links_operator"), ["operator"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("mailer_login_links", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_mailer_login_links_operator"))

    op.drop_table("mailer_login_links")
    with op.batch_alter_table("mailer_sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_mailer_sessions_operator"))

    op.drop_table("mailer_sessions")
    op.drop_table("mailer_operators")
