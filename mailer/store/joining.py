"""Joining a caller's SQLAlchemy session: rows that exist exactly if its root transaction commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from mailer.errors import ConfigError
from mailer.store.engine import create_engine

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

_PENDING = "mailer_pending"


def resolve(given: Any) -> Session:
    """The session itself: of a Session, a scoped_session, a function, or Flask-SQLAlchemy's ``db``.

    Flask-SQLAlchemy-Lite's ``db.session`` exists only inside a context, so there ``db`` itself is given.
    """
    # Imported here: who has a session has the ORM, and a worker needs none of its 10 MiB.
    from sqlalchemy.orm import Session, sessionmaker

    session = given
    if isinstance(session, sessionmaker):
        raise ConfigError("session", "is a sessionmaker, whose sessions nobody commits; pass a session")
    if not isinstance(session, Session) and not callable(session):
        session = getattr(session, "session", session)
    if not isinstance(session, Session) and callable(session):
        session = session()
    if not isinstance(session, Session):
        raise ConfigError("session", f"is a {type(session).__name__}; pass db.session, or db itself")
    return session


def after_commit(
    session: Session, id_: str, announce: Callable[[], object], dropped: Callable[[Sequence[str]], object]
) -> None:
    """Call ``announce`` once the root transaction has committed, never if it does not.

    A message whose savepoint was rolled back is announced in vain, which costs a wake-up for an unknown
    id. If the transaction ends without commit and without a rollback of the caller's, most likely because
    nobody called ``commit()``, ``dropped`` is told the ids.
    """
    pending = session.info.get(_PENDING)
    if pending is None:
        pending = session.info[_PENDING] = []
        if not session.info.get(f"{_PENDING}_watched"):
            session.info[f"{_PENDING}_watched"] = True
            _watch(session)
    pending.append((id_, announce, dropped))


def _watch(session: Session) -> None:
    @sa.event.listens_for(session, "after_commit")
    def _committed(session: Session) -> None:
        # A savepoint's release comes by here too; only the root commit makes rows real.
        if not session.in_nested_transaction():
            for _id, announce, _dropped in session.info.pop(_PENDING, ()):
                announce()

    @sa.event.listens_for(session, "after_rollback")
    def _rolled_back(session: Session) -> None:
        if not session.in_nested_transaction():
            session.info.pop(_PENDING, None)

    @sa.event.listens_for(session, "after_transaction_end")
    def _ended(session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None and (left := session.info.pop(_PENDING, None)):
            left[0][2]([id_ for id_, _announce, _dropped in left])


def bind_of(app: Any, given: Any) -> sa.Engine:
    """The engine of an application's session, made fit for mails in savepoints."""
    with app.app_context():
        bind = resolve(given).get_bind()
    engine = bind if isinstance(bind, sa.Engine) else bind.engine
    if engine.dialect.name == "sqlite" and not sa.event.contains(engine, "savepoint", _begin_first):
        sa.event.listen(engine, "savepoint", _begin_first)
    return engine


def _begin_first(connection: sa.Connection, _name: str) -> None:
    # Python's driver begins a transaction at the first write, and SAVEPOINT is none. A savepoint that comes
    # first is then the transaction itself, its release a commit, and a later rollback takes nothing back.
    if not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
        connection.exec_driver_sql("BEGIN")


def engine_beside(engine: sa.Engine) -> sa.Engine:
    """The engine our workers use on the database of a caller's engine.

    A database in memory exists only in its own engine. Any other gets an engine of ours on the same
    URL: workers need write-ahead logging and immediate locks, which would change the host's own engine.
    """
    if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
        return engine
    return create_engine(engine.url.render_as_string(hide_password=False))
