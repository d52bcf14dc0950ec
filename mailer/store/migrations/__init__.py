"""Alembic migrations, shipped with the package and apart from a host application's own.

They keep their place in ``mailer_alembic_version``. A host that shares its database with us passes
`include_name` to its own Alembic, or its autogenerate would write ``drop_table`` for our tables.

Alembic is imported where it is used: a worker needs none of its 10 MiB, and where the tables are as they
should be, no command waits the sixth of a second that it takes to load.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from mailer.store.engine import reading, told_plainly
from mailer.store.models import PREFIX

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = f"{PREFIX}alembic_version"
# Any number will do as long as it is ours: of several processes that start at once, one migrates.
_LOCK = 7263501
_LOOK_SECONDS = 0.1


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version of the package. Safe to call from several processes at once.

    Raises StoreError if the database does not let us.
    """
    with reading(engine) as connection:
        if current(connection) == head():
            return
    to(engine, "head")


def to(engine: Engine, revision: str) -> None:
    """Bring the tables up to a revision. Raises StoreError if the database does not let us."""
    from alembic import command

    alone = _alone_on_postgres if engine.dialect.name == "postgresql" else _alone_on_sqlite
    with told_plainly(), alone(engine) as connection:
        command.upgrade(_config(connection), revision)


@contextmanager
def _alone_on_postgres(engine: Engine) -> Iterator[Connection]:
    """A connection that has the lock, and no transaction: each migration has its own.

    Who waits asks again and again. One long statement would be a transaction for which an index that is made
    concurrently waits in turn.
    """
    with engine.connect() as connection:
        while not connection.scalar(sa.text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}):
            connection.commit()
            time.sleep(_LOOK_SECONDS)
        connection.commit()
        try:
            yield connection
        finally:
            connection.rollback()
            connection.execute(sa.text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.commit()


@contextmanager
def _alone_on_sqlite(engine: Engine) -> Iterator[Connection]:
    """A connection in one transaction for everything."""
    with _without_cascades(engine) as connection, connection.begin():
        yield connection


@contextmanager
def _without_cascades(engine: Engine) -> Iterator[Connection]:
    """A connection on which SQLite lets a table be rebuilt: its DROP would delete what refers to it.

    https://www.sqlite.org/lang_altertable.html#otheralter
    """
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.execute("PRAGMA foreign_keys=OFF")
        try:
            yield connection
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def current(connection: Connection) -> str | None:
    """The revision the database is at, None before the first."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    asked = sa.select(sa.column("version_num", sa.String)).select_from(sa.table(VERSION_TABLE))
    at: str | None = connection.scalar(asked)
    return at


def head() -> str:
    """The revision this version of the package wants: its files begin with theirs."""
    found = (Path(__file__).parent / "versions").glob("[0-9]*.py")
    return max(path.stem.partition("_")[0] for path in found)


def include_name(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
    """For a host's Alembic: ``context.configure(include_name=include_name)`` leaves our tables alone."""
    return not (kind == "table" and (name or "").startswith(PREFIX))


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "mailer.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
