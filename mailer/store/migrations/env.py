"""Run by Alembic: migrations on the connection that `mailer.store.migrations` hands over."""

from alembic import context

from mailer.store import accounts as _accounts  # noqa: F401  (its tables are on the same metadata)
from mailer.store.migrations import VERSION_TABLE
from mailer.store.models import PREFIX, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=lambda name, kind, parents: kind != "table" or (name or "").startswith(PREFIX),
    render_as_batch=True,
    compare_type=True,
    transaction_per_migration=True,  # an index made beside running mail ends the transaction it is in
)
with context.begin_transaction():
    context.run_migrations()
