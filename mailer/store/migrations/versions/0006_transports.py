"""how transports stand, what they carried, and the limits that workers share"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mailer_transports",
        sa.Column("name", sa.String(length=320), nullable=False, comment="as configured; no row: it works"),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("faults", sa.Integer(), nullable=False, comment="in a row, each after a longer rest"),
        sa.Column("since", sa.Double(), nullable=False, comment="when it came into this state"),
        sa.Column("until", sa.Double(), nullable=True, comment="end of its rest: then one mail may find out"),
        sa.Column("probed_at", sa.Double(), nullable=True, comment="one mail is finding out since then"),
        sa.Column("reason", sa.String(length=64), nullable=True, comment="stable word"),
        sa.Column(
            "words", sa.String(length=1000), nullable=True, comment="the same as a person understands it"
        ),
        sa.Column("by", sa.String(length=320), nullable=True, comment="who paused it"),
        sa.CheckConstraint(
            "state IN ('working', 'resting', 'paused')", name=op.f("ck_mailer_transports_state")
        ),
        sa.CheckConstraint(
            "(state = 'resting') = (until IS NOT NULL)", name=op.f("ck_mailer_transports_rest_has_an_end")
        ),
        sa.CheckConstraint("faults >= 0", name=op.f("ck_mailer_transports_counts")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_mailer_transports")),
    )
    op.create_table(
        "mailer_transport_counts",
        sa.Column("name", sa.String(length=320), nullable=False),
        sa.Column("minute", sa.Double(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("deferred", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", "minute", name=op.f("pk_mailer_transport_counts")),
    )
    op.create_table(
        "mailer_places",
        sa.Column(
            "token", sa.String(length=32), nullable=False, comment="who holds them: one batch of a worker"
        ),
        sa.Column("key", sa.String(length=600), nullable=False, comment="of which limit"),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False, comment="they count until then"),
        sa.CheckConstraint("number > 0", name=op.f("ck_mailer_places_counts")),
        sa.PrimaryKeyConstraint("token", "key", name=op.f("pk_mailer_places")),
    )
    op.create_index("ix_mailer_places_key", "mailer_places", ["key"])
    op.create_table(
        "mailer_slow_domains",
        sa.Column("transport", sa.String(length=320), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("halvings", sa.Integer(), nullable=False, comment="of what may go there, at that time"),
        sa.Column("since", sa.Double(), nullable=False),
        sa.CheckConstraint("halvings > 0", name=op.f("ck_mailer_slow_domains_counts")),
        sa.PrimaryKeyConstraint("transport", "domain", name=op.f("pk_mailer_slow_domains")),
    )


def downgrade() -> None:
    for name in ("slow_domains", "places", "transport_counts", "transports"):
        op.drop_table(f"mailer_{name}")
