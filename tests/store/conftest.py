"""A store on each database: every test of a store function runs on SQLite and on Postgres."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from mailer.sealing import Sealer
from mailer.store import Store, create_engine
from mailer.store import messages as message_rows
from mailer.store.messages import NewMessage
from mailer.store.migrations import upgrade
from mailer.store.models import metadata

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url):
    """An engine on a Postgres database with our tables, kept for the whole run."""
    engine = create_engine(postgres_url)
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    """A migrated, empty store."""
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path / 'store.db'}")
        upgrade(engine)
        yield Store(engine, Sealer([b"k" * 32]))
        engine.dispose()
    else:
        engine = request.getfixturevalue("migrated_postgres")
        yield Store(engine, Sealer([b"k" * 32]))
        names = ", ".join(table.name for table in metadata.sorted_tables)
        with engine.begin() as connection:
            connection.execute(sa.text(f"TRUNCATE {names} CASCADE"))


def new_message(**changes) -> NewMessage:
    """A row to accept; `changes` replace its fields."""
    fields = {
        "id": str(uuid.uuid4()),
        "created_at": NOW,
        "message_id": "<x@example.test>",
        "template": "welcome",
        "locale": None,
        "lane": "default",
        "sender": "me@example.test",
        "subject": None,
        "tags": ["signup"],
        "metadata": {},
        "idempotency_scope": "",
        "idempotency_key": None,
        "fingerprint": None,
        "resent_from": None,
        "send_at": None,
        "expires_at": None,
        "on_uncertain": "retry",
        "recipients": [("ada@example.test", "to")],
        "content": b'{"context": {"name": "Ada"}}',
        "secrets": {},
    }
    return NewMessage(**fields | changes)


@pytest.fixture
def accept(store):
    """Accept a row and answer its id."""

    def accepted(**changes) -> str:
        new = new_message(**changes)
        with store.begin() as connection:
            assert message_rows.accept(connection, new, store.sealer)
        return new.id

    return accepted
