"""The engine: how a connection to SQLite or Postgres is set up, and the two kinds of transaction."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
)

from mailer.errors import ConfigError, StoreError
from mailer.sealing import Sealer
from mailer.store.forking import Transactions
from mailer.store.liveness import look_before_use
from mailer.store.pipeline import room
from mailer.store.suppressions import SuppressionList
from mailer.store.write_lock import BUSY_SECONDS, LONG_NAP, NAP, WriteLock

_READ_ONLY, _WAIT = "mailer_read_only", "mailer_wait_seconds"
_NAP = "mailer_nap_seconds"


def create_engine(url: str) -> Engine:
    """An engine for ``url``. Raises ConfigError naming the setting if the URL or its driver is no good."""
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            return _sqlite(parsed)
        if backend == "postgresql":
            engine = sa.create_engine(parsed, pool_size=10, max_overflow=20, pool_use_lifo=True)
            look_before_use(engine)
            return engine
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(
            "MAILER_DATABASE_URL",
            "is not a URL of the form sqlite:///file.db or postgresql+psycopg://user:password@host/name",
        ) from None
    except ImportError:
        raise ConfigError(
            "MAILER_DATABASE_URL", "needs the Postgres driver: pip install 'mailer-dispatcher[postgres]'"
        ) from None
    raise ConfigError("MAILER_DATABASE_URL", f"names {backend}; SQLite and Postgres are supported")


def _sqlite(url: sa.URL) -> Engine:
    if url.database and url.database != ":memory:":
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            problem = (
                f"its folder cannot be made: {exc.strerror}; name another one, or another MAILER_DATA_DIR"
            )
            raise ConfigError("MAILER_DATABASE_URL", problem) from None
    # The connection used last has its pages in mind still. SQLAlchemy has no such pool for what is in memory.
    in_file = bool(url.database) and url.database != ":memory:" and "mode" not in url.query
    latest_first = {"pool_use_lifo": True} if in_file else {}
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS}, **latest_first)
    if url.database and url.database != ":memory:":
        sa.event.listen(engine, "connect", partial(_keep_to_owner, Path(url.database)))
    set_up_sqlite(engine)
    return engine


def _keep_to_owner(path: Path, _connection: Any, _record: Any) -> None:
    """A new file is the owner's only, and so are those that SQLite makes beside it, with the same mode."""
    if path.exists() and path.stat().st_size == 0:
        path.chmod(0o600)


def set_up_sqlite(engine: Engine) -> None:
    """Make an SQLite engine durable and free of lock upgrades: WAL, fully synchronous, BEGIN IMMEDIATE."""
    lock, transactions = WriteLock(), Transactions()
    sa.event.listen(engine, "checkin", transactions.ended)

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.execute("PRAGMA journal_mode=WAL")
        # NORMAL may lose the last commits on power loss; an accepted mail must survive it.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        transactions.begun(connection.connection.dbapi_connection)
        if options.get(_READ_ONLY):
            connection.exec_driver_sql("BEGIN")
        else:
            lock.take(connection, options.get(_WAIT, BUSY_SECONDS), options.get(_NAP, NAP))


class Store:
    """The database of one application: an engine and the sealer for what must not be read in it.

    ``suppressed`` knows who gets no mail.
    """

    def __init__(self, engine: Engine, sealer: Sealer) -> None:
        self.engine = engine
        self.sealer = sealer
        self.suppressed = SuppressionList(sealer)

    def give_way(self) -> None:
        """From now on callers in other processes come first: this one is a worker, which can wait."""
        self.engine = self.engine.execution_options(**{_NAP: LONG_NAP})

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block. Raises StoreError if there is no database."""
        with told_plainly(), self.engine.connect() as connection, room(connection), connection.begin():
            yield connection

    @contextmanager
    def begin_soon(self, wait_seconds: float = 0.1) -> Iterator[Connection]:
        """As `begin`, but SQLite waits no longer than this for its write lock: for what can be left out."""
        with told_plainly(), self.engine.connect() as connection:
            hurried = connection.execution_options(**{_WAIT: wait_seconds})
            with hurried.begin():
                yield hurried

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, so that on SQLite it waits for nobody."""
        with reading(self.engine) as connection:
            yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """See `Store.read`."""
    with told_plainly(), engine.connect() as connection:
        read_only = connection.execution_options(**{_READ_ONLY: True})
        with read_only.begin():
            yield read_only


def close_with(owner: object, engine: Engine) -> None:
    """Close the engine's connections once its owner is dropped; a process that ends needs no help.

    A test suite that makes an application per test would otherwise run out of files. A forked child lets go
    of its parent's connections without a word: a good-bye on a shared socket would end them for the parent.
    """
    weakref.finalize(owner, _close, engine, os.getpid()).atexit = False


def _close(engine: Engine, pid: int) -> None:
    engine.dispose(close=os.getpid() == pid)


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn the driver's errors into StoreError within the block."""
    try:
        yield
    except (IntegrityError, DataError):
        raise  # of what we wrote, not of the database
    except DatabaseError as exc:
        raise as_store_error(exc) from exc


def as_store_error(exc: DBAPIError) -> StoreError:
    """Say what is wrong with the database without the statement, whose parameters may be personal."""
    said = str(exc.orig).lower()
    if "no such table" in said or "undefinedtable" in type(exc.orig).__name__.lower():
        return StoreError("the store has no tables yet; run: mailer db upgrade")
    if "not a database" in said or "malformed" in said:
        return StoreError("the store's file is damaged, or no SQLite database; check MAILER_DATABASE_URL")
    if "disk is full" in said or "no space" in said:
        return StoreError("the store's disk is full; nothing was accepted")
    if "locked" in said:
        return StoreError("the store was busy for too long; nothing was accepted, try again")
    return StoreError(f"the store does not answer ({type(exc.orig).__name__}); check MAILER_DATABASE_URL")
