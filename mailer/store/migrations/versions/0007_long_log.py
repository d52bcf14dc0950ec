"""indexes for a long log: by template, lane, tag, and whole address in any case

Reads both tables once for each index. On Postgres mails are accepted and sent meanwhile, and a run that was
interrupted can be repeated; SQLite keeps writers out until it is done.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

Indexes = Sequence[tuple[str, str, list[Any], str | None]]
NEW: Indexes = (
    ("ix_mailer_messages_lane", "mailer_messages", ["lane", "id"], None),
    ("ix_mailer_messages_template", "mailer_messages", ["template", "id"], "template IS NOT NULL"),
    ("ix_mailer_messages_copies", "mailer_messages", ["resent_from"], "resent_from IS NOT NULL"),
    ("ix_mailer_deliveries_person", "mailer_deliveries", [sa.text("lower(recipient)"), "message"], None),
)
OLD: Indexes = (
    ("ix_mailer_messages_resent_from", "mailer_messages", ["resent_from"], None),
    ("ix_mailer_deliveries_recipient", "mailer_deliveries", ["recipient", "id"], None),
)
INVALID = "SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"
TAGGED = {
    "sqlite": "SELECT DISTINCT value, m.id FROM mailer_messages AS m, json_each(m.tags)",
    "postgresql": "SELECT DISTINCT tag, m.id FROM mailer_messages AS m, json_array_elements_text(m.tags) AS tag",
}


def upgrade() -> None:
    replace(OLD, NEW)  # first: what follows is one transaction, and this can be repeated
    op.create_table(
        "mailer_tags",
        sa.Column("tag", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("tag", "message", name=op.f("pk_mailer_tags")),
        sqlite_with_rowid=False,
    )
    op.execute(f"INSERT INTO mailer_tags (tag, message) {TAGGED[op.get_bind().dialect.name]}")


def downgrade() -> None:
    op.drop_table("mailer_tags")
    replace(NEW, OLD)


def replace(old: Indexes, new: Indexes) -> None:
    """Make these, then drop those: what looks for rows meanwhile has one or the other."""
    if op.get_bind().dialect.name == "sqlite":
        _replace(old, new, concurrently=False)
        return
    with op.get_context().autocommit_block():
        _replace(old, new, concurrently=True)


def _replace(old: Indexes, new: Indexes, *, concurrently: bool) -> None:
    told: dict[str, Any] = {"postgresql_concurrently": concurrently}
    for name, table, columns, condition in new:
        if concurrently and op.get_bind().scalar(sa.text(INVALID), {"name": name}):
            op.drop_index(name, table, **told)  # what an interrupted run leaves
        where = None if condition is None else sa.text(condition)
        only: dict[str, Any] = {"sqlite_where": where, "postgresql_where": where}
        op.create_index(name, table, columns, if_not_exists=True, **only, **told)
    for name, table, _, _ in old:
        op.drop_index(name, table, if_exists=True, **told)
