"""Rows of the people who sign up: their address, password hash, and what makes their links work once.

A link is signed, not stored. What is signed besides the person and the time is a nonce of the row, so
whoever changes the nonce voids every link made before: asking for another one does, and so does using one.
Functions over a connection never commit; `AccountDatabase` gives the web side its transactions, which a mail
asked for in the same request joins.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any, cast

import flask
import sqlalchemy as sa
from flask_security import RoleMixin, UserMixin
from flask_security.datastore import SQLAlchemySessionUserDatastore
from sqlalchemy import orm
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from mailer.store.engine import _READ_ONLY, close_with, create_engine, told_plainly
from mailer.store.models import PREFIX, Instant, metadata

users = sa.Table(
    f"{PREFIX}users",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True, comment="random; what a mail's context names"),
    sa.Column("email", sa.String(320), nullable=False, comment="as given at sign-up; mail goes here only"),
    sa.Column("email_key", sa.String(320), nullable=False, comment="Address.key; what people log in with"),
    sa.Column("password", sa.String(255), nullable=False, comment="argon2id"),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("fs_uniquifier", sa.String(64), nullable=False, comment="in every session; another ends them"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("confirmed_at", Instant, comment="when the person proved that the mailbox is theirs"),
    sa.Column("signup_hash", sa.String(64), nullable=False, comment="SHA-256 of what the browser holds"),
    sa.Column("verify_nonce", sa.String(32), nullable=False, comment="signed into verify links"),
    sa.Column("reset_nonce", sa.String(32), nullable=False, comment="signed into reset links"),
    sa.UniqueConstraint("email_key"),
    sa.UniqueConstraint("fs_uniquifier"),
    sa.CheckConstraint("length(email_key) > 2", name="has_an_address"),
)

roles = sa.Table(
    f"{PREFIX}roles",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("description", sa.String(255)),
    sa.UniqueConstraint("name"),
)

users_roles = sa.Table(
    f"{PREFIX}users_roles",
    metadata,
    sa.Column("user", users.c.id.type, sa.ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("role", roles.c.id.type, sa.ForeignKey(roles.c.id, ondelete="CASCADE"), primary_key=True),
)


class Role(RoleMixin):
    """A role, for Flask-Security. The service gives none."""


class User(UserMixin):
    """A person, as Flask-Security knows one. Only read through this; the functions below write."""

    id: str  # type: ignore[assignment]  # Flask-Security says int and does not mind
    email: str
    email_key: str


_mapping = orm.registry(metadata=metadata)
_mapping.map_imperatively(Role, roles)
_mapping.map_imperatively(User, users, properties={"roles": orm.relationship(Role, secondary=users_roles)})


class AccountDatabase:
    """The web side's session: one per application context, and closed with it.

    It reads without a lock. Writing takes SQLite's write lock first, as the store does, since a transaction
    that turns from reading to writing fails at once if another one wrote in between.
    """

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url)
        close_with(self, self.engine)
        reading = self.engine.execution_options(**{_READ_ONLY: True})
        self.session = orm.scoped_session(orm.sessionmaker(reading, expire_on_commit=False), _context)

    def init_app(self, app: flask.Flask) -> None:
        """Close the session at the end of every application context."""
        app.teardown_appcontext(lambda _error: self.session.remove())

    def datastore(self) -> SQLAlchemySessionUserDatastore:
        """What Flask-Security reads people through."""
        return SQLAlchemySessionUserDatastore(self.session, User, Role)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction of the session that commits at the end of the block. Raises StoreError."""
        session = self.session()
        session.rollback()
        try:
            with told_plainly():
                yield session.connection(execution_options={_READ_ONLY: False})
                session.commit()
        finally:
            session.rollback()

    def find(self, email_key: str) -> User | None:
        """The person with that address, cut loose from the session: reading on loads nothing."""
        with told_plainly():
            found = cast(User | None, self.datastore().find_user(email_key=email_key))
        if found is not None:
            self.session.expunge(found)
        return found


def _context() -> int:
    return id(flask.globals.app_ctx._get_current_object())  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Person:
    """Who a mail is about: the id that its context names and the stored address that it goes to."""

    id: str
    email: str


@dataclass(frozen=True, slots=True)
class Redeemable:
    """What a link is checked against."""

    id: str
    email: str
    confirmed: bool
    signup_hash: str
    verify_nonce: str
    reset_nonce: str


class SignUp(Enum):
    """What a sign-up came to."""

    CREATED = auto()  # a new account
    RENEWED = auto()  # there was one that nobody had verified: it starts afresh
    EXISTS = auto()  # there is a verified one, which is left as it is


u = users.c
# RETURNING tells whether there is a new row: a row count does not, on Postgres.
_INSERT = {
    "sqlite": sqlite.insert(users).on_conflict_do_nothing(index_elements=["email_key"]).returning(u.id),
    "postgresql": postgresql.insert(users)
    .on_conflict_do_nothing(index_elements=["email_key"])
    .returning(u.id),
}


def sign_up(
    connection: Connection, email: str, email_key: str, password_hash: str, signup_hash: str, now: datetime
) -> tuple[SignUp, Person]:
    """Add a person, or start the unverified one of that address afresh; links made before are void then."""
    fresh = {"password": password_hash, "signup_hash": signup_hash, **_new_nonces(), **_new_sessions()}
    id_ = uuid.uuid4().hex
    row = {"id": id_, "email": email, "email_key": email_key, "active": True, "created_at": now}
    if connection.execute(_INSERT[connection.dialect.name], row | fresh).one_or_none() is not None:
        return SignUp.CREATED, Person(id_, email)
    whose = u.email_key == email_key
    renewed = connection.execute(
        sa.update(users).where(whose, u.confirmed_at.is_(None)).values(fresh)
    ).rowcount
    found = connection.execute(sa.select(u.id, u.email).where(whose)).one()
    return SignUp.RENEWED if renewed else SignUp.EXISTS, Person(*found)


def ask_to_verify(connection: Connection, email_key: str) -> Person | None:
    """Void the verify links made so far; who may get another, or None: unknown, disabled or verified."""
    allowed = (u.email_key == email_key, u.active, u.confirmed_at.is_(None))
    return _renewed(connection, allowed, {"verify_nonce": _nonce()})


def ask_to_reset(connection: Connection, email_key: str) -> Person | None:
    """Void the reset links made so far; who may get another, or None: unknown or disabled."""
    return _renewed(connection, (u.email_key == email_key, u.active), {"reset_nonce": _nonce()})


def redeemable(connection: Connection, id_: str) -> Redeemable | None:
    """What the links of this person are checked against, or None: unknown or disabled."""
    query = sa.select(u.id, u.email, u.confirmed_at, u.signup_hash, u.verify_nonce, u.reset_nonce)
    row = connection.execute(query.where(u.id == id_, u.active)).one_or_none()
    return None if row is None else Redeemable(row.id, row.email, row.confirmed_at is not None, *row[3:])


def verify(
    connection: Connection, id_: str, nonce: str, now: datetime, new_password_hash: str | None = None
) -> bool:
    """Use a verify link up; False if another did. With a new password, whoever chose the old one is out."""
    guard = (u.id == id_, u.verify_nonce == nonce, u.confirmed_at.is_(None), u.active)
    values: dict[str, Any] = {"confirmed_at": now, **_new_nonces()}
    if new_password_hash is not None:
        values |= {"password": new_password_hash, **_new_sessions()}
    return connection.execute(sa.update(users).where(*guard).values(values)).rowcount == 1


def reset(connection: Connection, id_: str, nonce: str, now: datetime, password_hash: str) -> bool:
    """Use a reset link up; False if another did. Every session ends, and the mailbox counts as proven."""
    guard = (u.id == id_, u.reset_nonce == nonce, u.active)
    proven = sa.func.coalesce(u.confirmed_at, sa.literal(now, Instant))
    return _set_password(connection, guard, password_hash, confirmed_at=proven)


def change_password(connection: Connection, id_: str, old_hash: str, new_hash: str) -> bool:
    """Replace a password that the person knows; False if it was replaced meanwhile. Every session ends."""
    return _set_password(connection, (u.id == id_, u.password == old_hash, u.active), new_hash)


def rehash(connection: Connection, id_: str, old_hash: str, new_hash: str) -> None:
    """Keep the same password under today's hashing parameters."""
    connection.execute(sa.update(users).where(u.id == id_, u.password == old_hash).values(password=new_hash))


def forget(connection: Connection, email_key: str) -> int:
    """Delete the account of an address, and with it every session and link; answer how many that were."""
    return connection.execute(sa.delete(users).where(u.email_key == email_key)).rowcount


def _set_password(connection: Connection, guard: tuple[Any, ...], password_hash: str, **more: Any) -> bool:
    values = {"password": password_hash, **_new_nonces(), **_new_sessions(), **more}
    return connection.execute(sa.update(users).where(*guard).values(values)).rowcount == 1


def _renewed(connection: Connection, allowed: tuple[Any, ...], values: dict[str, str]) -> Person | None:
    statement = sa.update(users).where(*allowed).values(values).returning(u.id, u.email)
    row = connection.execute(statement).one_or_none()
    return None if row is None else Person(*row)


def _nonce() -> str:
    return secrets.token_hex(16)


def _new_nonces() -> dict[str, str]:
    return {"verify_nonce": _nonce(), "reset_nonce": _nonce()}


def _new_sessions() -> dict[str, str]:
    return {"fs_uniquifier": secrets.token_hex(32)}
