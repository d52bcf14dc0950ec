"""Rows of API keys and the projects they belong to.

A key opens a door, and only its holder has it: here is a SHA-256 hash of it, so reading this table lets
nobody in. Functions take a connection and never commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from mailer.store.models import api_keys, projects

USED_EVERY = timedelta(minutes=1)
"""Writing at every request would make each wait for the one write lock of SQLite."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key, without its hash. ``domains``: what it may send for; empty: anything."""

    id: str
    project: str
    project_name: str
    name: str
    prefix: str
    scopes: Sequence[str]
    domains: Sequence[str]
    is_test: bool
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None

    def is_good(self, now: datetime) -> bool:
        """Whether it opens anything."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


k, p = api_keys.c, projects.c
_KEY = (k.id, k.project, p.name.label("project_name"), k.name, k.prefix, k.scopes, k.domains, k.is_test,
        k.created_at, k.expires_at, k.revoked_at, k.used_at)  # fmt: skip
_KEYS = sa.select(*_KEY).join(projects, p.id == k.project)
_BY_HASH = _KEYS.where(k.key_hash == sa.bindparam("key_hash")).add_columns(k.key_hash)
_NEW_PROJECT = {
    "sqlite": sqlite.insert(projects).on_conflict_do_nothing(index_elements=["name"]).returning(p.id),
    "postgresql": postgresql.insert(projects).on_conflict_do_nothing(index_elements=["name"]).returning(p.id),
}


def ensure_project(connection: Connection, id_: str, name: str, now: datetime) -> tuple[str, bool]:
    """The id of the project of that name, and whether it was made just now, with the id given."""
    row = {"id": id_, "name": name, "created_at": now}
    if connection.scalar(_NEW_PROJECT[connection.dialect.name], row) is not None:
        return id_, True
    return connection.execute(sa.select(p.id).where(p.name == name)).scalar_one(), False


def project(connection: Connection, name: str) -> str | None:
    """The id of the project of that name, None if there is none."""
    return connection.scalar(sa.select(p.id).where(p.name == name))


def add_key(connection: Connection, new: KeyRow, key_hash: str) -> None:
    """Keep a key that was made."""
    names = (
        "id",
        "project",
        "name",
        "prefix",
        "is_test",
        "created_at",
        "expires_at",
        "revoked_at",
        "used_at",
    )
    row = {name: getattr(new, name) for name in names}
    lists = {"scopes": list(new.scopes), "domains": list(new.domains)}
    connection.execute(sa.insert(api_keys), {**row, **lists, "key_hash": key_hash})


def by_hash(connection: Connection, key_hash: str) -> tuple[KeyRow, str] | None:
    """The key of that hash, revoked and expired ones too, with the hash as it is stored; or None."""
    row = connection.execute(_BY_HASH, {"key_hash": key_hash}).mappings().one_or_none()
    if row is None:
        return None
    values = dict(row)
    stored = values.pop("key_hash")
    return KeyRow(**values), stored


def all_keys(connection: Connection, project: str | None = None) -> list[KeyRow]:
    """The keys of a project, or of all, the newest first; revoked ones too."""
    which = _KEYS if project is None else _KEYS.where(k.project == project)
    return [KeyRow(**row) for row in connection.execute(which.order_by(k.id.desc())).mappings()]


def revoke(connection: Connection, id_: str, now: datetime, project: str | None = None) -> bool:
    """Close a key for good, from the next request on. False if the project has no such key, or it was."""
    which = [k.id == id_, k.revoked_at.is_(None)]
    if project is not None:
        which.append(k.project == project)
    return connection.execute(sa.update(api_keys).where(*which).values(revoked_at=now)).rowcount == 1


def note_use(connection: Connection, id_: str, now: datetime) -> None:
    """Note that a key was used, unless somebody did within the last minute."""
    stale = sa.or_(k.used_at.is_(None), k.used_at <= now - USED_EVERY)
    connection.execute(sa.update(api_keys).where(k.id == id_, stale).values(used_at=now))
