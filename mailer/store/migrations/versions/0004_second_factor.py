"""second factors, log-ins that wait for a code"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mailer_second_factors",
        sa.Column("operator", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column(
            "secret",
            sa.LargeBinary(),
            nullable=False,
            comment="sealed; what the authenticator app holds",
        ),
        sa.Column(
            "confirmed_at",
            sa.Double(),
            nullable=True,
            comment="since then asked for; null: shown, no code came back yet",
        ),
        sa.Column(
            "last_step",
            sa.Integer(),
            nullable=False,
            comment="time step of the last code; older are void",
        ),
        sa.CheckConstraint("last_step >= 0", name=op.f("ck_mailer_second_factors_counts")),
        sa.ForeignKeyConstraint(
            ["operator"],
            ["mailer_operators.id"],
            name=op.f("fk_mailer_second_factors_operator"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("operator", name=op.f("pk_mailer_second_factors")),
    )
    op.create_table(
        "mailer_half_logins",
        sa.Column(
            "token_hash", sa.String(length=64), nullable=False, comment="SHA-256 of what the cookie holds"
        ),
        sa.Column("operator", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operator"],
            ["mailer_operators.id"],
            name=op.f("fk_mailer_half_logins_operator"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_mailer_half_logins")),
    )
    with op.batch_alter_table("mailer_half_logins", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_mailer_half_logins_operator"), ["operator"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("mailer_half_logins", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_mailer_half_logins_operator"))

    op.drop_table("mailer_half_logins")
    op.drop_table("mailer_second_factors")
