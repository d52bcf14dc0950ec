"""users, roles, users_roles"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mailer_users",
        sa.Column("id", sa.String(length=32), nullable=False, comment="random; what a mail's context names"),
        sa.Column(
            "email",
            sa.String(length=320),
            nullable=False,
            comment="as given at sign-up; mail goes here only",
        ),
        sa.Column(
            "email_key",
            sa.String(length=320),
            nullable=False,
            comment="Address.key; what people log in with",
        ),
        sa.Column("password", sa.String(length=255), nullable=False, comment="argon2id"),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column(
            "fs_uniquifier",
            sa.String(length=64),
            nullable=False,
            comment="in every session; another ends them",
        ),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column(
            "confirmed_at",
            sa.Double(),
            nullable=True,
            comment="when the person proved that the mailbox is theirs",
        ),
        sa.Column(
            "signup_hash",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of what the browser holds",
        ),
        sa.Column("verify_nonce", sa.String(length=32), nullable=False, comment="signed into verify links"),
        sa.Column("reset_nonce", sa.String(length=32), nullable=False, comment="signed into reset links"),
        sa.CheckConstraint("length(email_key) > 2", name=op.f("ck_mailer_users_has_an_address")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_users")),
        sa.UniqueConstraint("email_key", name=op.f("uq_mailer_users_email_key")),
        sa.UniqueConstraint("fs_uniquifier", name=op.f("uq_mailer_users_fs_uniquifier")),
    )
    op.create_table(
        "mailer_roles",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailer_roles")),
        sa.UniqueConstraint("name", name=op.f("uq_mailer_roles_name")),
    )
    op.create_table(
        "mailer_users_roles",
        sa.Column("user", sa.String(length=32), nullable=False),
        sa.Column("role", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user"], ["mailer_users.id"], name=op.f("fk_mailer_users_roles_user"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["role"], ["mailer_roles.id"], name=op.f("fk_mailer_users_roles_role"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user", "role", name=op.f("pk_mailer_users_roles")),
    )


def downgrade() -> None:
    op.drop_table("mailer_users_roles")
    op.drop_table("mailer_roles")
    op.drop_table("mailer_users")
