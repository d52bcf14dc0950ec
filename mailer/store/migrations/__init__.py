"""Alembic migrations, shipped with the package and apart from a host application's own.

They keep their place in ``mailer_alembic_version``. A host that shares its database with us passes
`include_name` to its own Alembic, or its autogenerate would write ``drop_table`` for our tables.

Alembic is imported where it is used: a worker needs none of its 10 MiB.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from mailer.store.models import PREFIX

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = f"{PREFIX}alembic_version"
# Any number will do as long as it is ours: of several processes that start at once, one migrates.
_LOCK = 7263501


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version of the package. Safe to call from several processes at once."""
    to(engine, "head")


def to(engine: Engine, revision: str) -> None:
    """Bring the tables up to a revision."""
    from alembic import command

    with _without_cascades(engine) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        command.upgrade(_config(connection), revision)


@contextmanager
def _without_cascades(engine: Engine) -> Iterator[Connection]:
    """A connection on which SQLite lets a table be rebuilt: its DROP would delete what refers to it.

    https://www.sqlite.org/lang_altertable.html#otheralter
    """
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        if not isinstance(driver, sqlite3.Connection):
            yield connection
            return
        driver.execute("PRAGMA foreign_keys=OFF")
        try:
            yield connection
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def current(connection: Connection) -> str | None:
    """The revision the database is at, None before the first."""
    from alembic.migration import MigrationContext

    return MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()


def head() -> str | None:
    """The revision this version of the package wants."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config(None)).get_current_head()


def include_name(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
    """For a host's Alembic: ``context.configure(include_name=include_name)`` leaves our tables alone."""
    return not (kind == "table" and (name or "").startswith(PREFIX))


def _config(connection: Connection | None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "mailer.store:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
