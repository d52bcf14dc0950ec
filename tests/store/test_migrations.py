"""Migrations that ship with the package and keep out of a host application's way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from mailer.errors import StoreError
from mailer.sealing import Sealer
from mailer.store import Store, accounts, create_engine, migrations, queries
from mailer.store.models import metadata

# An index on an expression can be read back on Postgres only, and is compared there.
ON_EXPRESSION = pytest.mark.filterwarnings("ignore:.*expression-based index")


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request, tmp_path):
    """An engine on an empty database."""
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("fresh_postgres_url")
    engine = create_engine(url)
    yield engine
    engine.dispose()


def differences(engine, **options) -> list:
    with engine.connect() as connection:
        return compare_metadata(MigrationContext.configure(connection, opts=options), options["target"])


@ON_EXPRESSION
def test_the_migrations_make_the_tables_of_the_models(engine):
    """What the code believes about the tables is what an upgrade makes."""
    migrations.upgrade(engine)
    assert accounts.__name__, "its tables belong to the same metadata"
    ours = {
        "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
        "compare_type": True,
    }
    assert differences(engine, target=metadata, **ours) == []
    with engine.connect() as connection:
        assert migrations.current(connection) == migrations.head()


def test_where_the_tables_are_current_alembic_is_not_loaded(tmp_path):
    """Every command of the service looks; it takes a sixth of a second to load."""
    script = "import sys, mailer.app; mailer.app.create_app(); print('alembic' in sys.modules)"
    environment = os.environ | {"MAILER_DATA_DIR": str(tmp_path)}
    loaded = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert loaded == [b"True\n", b"False\n"]


def test_an_upgrade_keeps_every_row(engine):
    """A table that SQLite must rebuild keeps its rows, and those that refer to them."""
    migrations.to(engine, "0004")
    insert = """INSERT INTO mailer_messages
        (id, created_at, message_id, lane, sender, tags, metadata, has_secrets)
        VALUES ('m', 1, '<m@x>', 'bulk', 'me@x.test', '[]', '{}', :no)"""
    delivery = """INSERT INTO mailer_deliveries (message, recipient, kind, lane, state, on_uncertain,
        not_before, attempts, crashes, unknowns)
        VALUES ('m', 'a@x.test', 'to', 'bulk', 'queued', 'hold', 1, 0, 0, 0)"""
    with engine.begin() as connection:
        connection.execute(sa.text(insert), {"no": False})
        connection.execute(sa.text(delivery))
    migrations.upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM mailer_messages")) == 1
        assert connection.scalar(sa.text("SELECT message FROM mailer_deliveries")) == "m"
        if engine.dialect.name == "sqlite":
            assert connection.execute(sa.text("PRAGMA foreign_key_check")).all() == []
            assert connection.scalar(sa.text("PRAGMA foreign_keys")) == 1


def test_a_long_log_keeps_its_tags_and_mends_its_indexes(engine):
    """What is there already is found by its tags; an upgrade that was interrupted is finished by the next."""
    migrations.to(engine, "0006")
    insert = """INSERT INTO mailer_messages
        (id, created_at, message_id, lane, sender, tags, metadata, has_secrets)
        VALUES ('m', 1, '<m@x>', 'bulk', 'me@x.test', '["a", "b", "a"]', '{}', :no)"""
    with engine.begin() as connection:
        connection.execute(sa.text(insert), {"no": False})
        # As an interrupted CREATE INDEX CONCURRENTLY leaves it.
        connection.execute(sa.text("CREATE INDEX ix_mailer_messages_lane ON mailer_messages (lane, id)"))
        if engine.dialect.name == "postgresql":
            broken = "indexrelid = 'ix_mailer_messages_lane'::regclass"
            connection.execute(sa.text(f"UPDATE pg_index SET indisvalid = false WHERE {broken}"))
    migrations.upgrade(engine)
    with engine.connect() as connection:
        tags = connection.execute(sa.text("SELECT tag, message FROM mailer_tags ORDER BY tag")).all()
        assert tags == [("a", "m"), ("b", "m")]
        if engine.dialect.name == "postgresql":
            assert connection.scalars(sa.text("SELECT 1 FROM pg_index WHERE NOT indisvalid")).all() == []


def test_an_upgrade_waits_for_its_turn(fresh_postgres_url):
    """Somebody else is upgrading: the second one waits until that is over."""
    engine, done = create_engine(fresh_postgres_url), threading.Event()
    waiting = threading.Thread(target=lambda: (migrations.upgrade(engine), done.set()))
    with engine.connect() as other:
        other.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": migrations._LOCK})
        other.commit()
        waiting.start()
        assert not done.wait(0.5)
        other.execute(sa.text("SELECT pg_advisory_unlock_all()"))
        other.commit()
    waiting.join(20)
    assert done.is_set()
    engine.dispose()


def test_several_processes_may_upgrade_at_once(engine):
    """Web and workers start together on an empty database: one migrates, all find it done."""
    failures: list[Exception] = []

    def upgrade() -> None:
        try:
            migrations.upgrade(engine)
        except Exception as exc:
            failures.append(exc)

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert failures == []
    with engine.connect() as connection:
        assert migrations.current(connection) == migrations.head()


@ON_EXPRESSION
def test_a_hosts_own_migrations_leave_our_tables_alone(engine):
    """With our filter, a host's autogenerate does not write drop_table for tables it does not know."""
    migrations.upgrade(engine)
    host = sa.MetaData()
    dropped = [d for d in differences(engine, target=host) if d[0] == "remove_table"]
    assert dropped, "without the filter it would"
    filtered = differences(engine, target=host, include_name=migrations.include_name)
    assert [d for d in filtered if d[0] == "remove_table"] == []


def test_a_store_without_tables_says_what_to_run(engine):
    """A clear error with the next step, not a driver's traceback."""
    store = Store(engine, Sealer([b"k" * 32]))
    with pytest.raises(StoreError, match="mailer db upgrade"), store.read() as connection:
        queries.ping(connection)
