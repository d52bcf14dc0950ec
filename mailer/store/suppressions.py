"""The suppression list: addresses that get no mail, each on the list of one project or of the application.

An entry is found by a keyed hash of the address, so it goes on working once the person was forgotten and the
address itself is gone: forgetting somebody must not make us write to them again. The hash is an HMAC-SHA256
under a random key of the list's own, which stands here sealed. Were it derived from ``MAILER_SECRET_KEYS``,
what has no address any more would be lost when those are changed; like this, only the key is sealed anew.

A list that was never used has no key, which is how a caller knows that there is nothing to look for.
Functions take a connection and never commit.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from mailer.address import key_of
from mailer.errors import ConfigError
from mailer.sealing import Sealer
from mailer.store.models import PREFIX, Instant, metadata, projects

if TYPE_CHECKING:
    from mailer.store.forgetting import Person

REASON = "on_suppression_list"
"""The ``reason`` of a delivery that ended as suppressed."""
LOOK_EVERY = 1.0
"""Seconds. So often a process that accepts mail reads what is new on the lists."""
MOST_IN_MIND = 100_000
"""Entries, some 10 MB. With more, every message that is accepted is looked up."""
_OVERLAP_MS = 60_000  # an id may be older than the commit of its row

suppressions = sa.Table(
    f"{PREFIX}suppressions",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True, comment="UUIDv7"),
    sa.Column(
        "project",
        sa.String(36),
        sa.ForeignKey(projects.c.id, ondelete="CASCADE"),
        comment="whose mail it stops; null: the application's own",
    ),
    sa.Column("fingerprint", sa.String(64), nullable=False, comment="keyed hash of the address"),
    sa.Column("address", sa.String(320), comment="for people; null once the person was forgotten"),
    sa.Column("cause", sa.String(9), nullable=False),
    sa.Column("detail", sa.String(500), comment="in somebody's words"),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("by", sa.String(320), nullable=False, comment="who added it"),
    # Without a foreign key, which would need an index of its own: the entry outlives its message.
    sa.Column("message", sa.String(36), comment="what it came from, which may be gone"),
    sa.CheckConstraint("cause IN ('manual', 'bounce', 'complaint')", name="cause"),
    sa.Index(
        f"uq_{PREFIX}suppressions_own",
        "fingerprint",
        unique=True,
        sqlite_where=sa.text("project IS NULL"),
        postgresql_where=sa.text("project IS NULL"),
    ),
    sa.Index(
        f"uq_{PREFIX}suppressions_project",
        "project",
        "fingerprint",
        unique=True,
        sqlite_where=sa.text("project IS NOT NULL"),
        postgresql_where=sa.text("project IS NOT NULL"),
    ),
    # Two for pages, too: SQLite would go by one on (project, id), and read a whole list to find an address.
    sa.Index(
        f"ix_{PREFIX}suppressions_own",
        "id",
        sqlite_where=sa.text("project IS NULL"),
        postgresql_where=sa.text("project IS NULL"),
    ),
    sa.Index(
        f"ix_{PREFIX}suppressions_project",
        "project",
        "id",
        sqlite_where=sa.text("project IS NOT NULL"),
        postgresql_where=sa.text("project IS NOT NULL"),
    ),
)

suppression_keys = sa.Table(
    f"{PREFIX}suppression_keys",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False, comment="what the fingerprints were made with"),
    sa.CheckConstraint("id = 1", name="only_one"),
)

s, k = suppressions.c, suppression_keys.c
Asked = tuple[str | None, str]
"""A project, None for the application, and the addr-spec of a recipient."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Why a recipient gets nothing. ``entry`` is the id on the list."""

    cause: str
    since: datetime
    entry: str | None = None

    def told(self, recipient: str) -> dict[str, Any]:
        """For timelines: the data of `Event.SUPPRESSED`."""
        about = {"cause": self.cause, "since": self.since.isoformat(), "entry": self.entry}
        known = {name: value for name, value in about.items() if value is not None}
        return {"recipient": recipient, "reason": REASON, **known}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list. ``project`` None: the application's. ``address`` None: the person was forgotten."""

    id: str
    project: str | None
    address: str | None
    cause: str
    detail: str | None
    created_at: datetime
    by: str
    message: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page as in `listing`: of one list, or ``everywhere``; with ``text`` in the address."""

    project: str | None = None
    everywhere: bool = False
    text: str | None = None
    limit: int = 50
    after: str | None = None
    before: str | None = None


_ENTRY = [c for c in suppressions.c if c.name != "fingerprint"]
_BARS = sa.select(s.fingerprint, s.cause, s.created_at, s.id)
# A batch has up to 200. Postgres takes longer to plan that many parameters than to look for them; SQLite
# finds the right index only if it sees them one by one.
_THESE = {
    "sqlite": s.fingerprint.in_(sa.bindparam("prints", expanding=True)),
    "postgresql": s.fingerprint == sa.any_(sa.bindparam("prints", type_=postgresql.ARRAY(sa.String))),
}
_OWN_BARS = {name: _BARS.where(these, s.project.is_(None)) for name, these in _THESE.items()}
_PROJECT_BARS = {
    name: _BARS.where(these, s.project == sa.bindparam("of_project")) for name, these in _THESE.items()
}
_NEW_PRINTS = sa.select(s.id, s.fingerprint).where(s.id > sa.bindparam("since")).order_by(s.id)
_KEY = sa.select(k.sealed)
_ADD = {
    "sqlite": sqlite.insert(suppressions).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(suppressions).on_conflict_do_nothing(),
}
_MAKE_KEY = {
    "sqlite": sqlite.insert(suppression_keys).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(suppression_keys).on_conflict_do_nothing(),
}


class SuppressionList:
    """The lists of one store. Keeps the key once it was read; it never changes.

    It also keeps in mind who was ever on any list, by 64 bits of the fingerprint: of the others a caller that
    accepts mail needs no look. Whoever is removed stays in mind, and is looked up for nothing.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._key: bytes | None = None
        self._looked = float("-inf")
        self._in_mind: set[str] | None = set()  # None: they are too many
        self._newest = ""

    # Is somebody on it?

    def bars(self, connection: Connection, asked: Collection[Asked]) -> dict[Asked, Bar]:
        """Those of the recipients that get no mail, as the list stands in this transaction.

        Raises ConfigError if no configured key opens that of the list.
        """
        key = self._read_key(connection)
        if key is None:
            return {}
        found = dict[Asked, Bar]()
        for project in {project for project, _ in asked}:
            prints = {_fingerprint(key, r): (of, r) for of, r in asked if of == project}
            for row in _look(connection, project, list(prints)):
                found[prints[row.fingerprint]] = Bar(row.cause, row.created_at, row.id)
        return found

    def suspects(self, connection: Connection, asked: Collection[Asked]) -> list[Asked]:
        """Those that may be on a list. What another process added within the last second is not known yet.

        Raises ConfigError as `bars` does.
        """
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self._looked = time.monotonic()
            if self._read_key(connection) is not None:
                self._read_new(connection)
        key, known = self._key, self._in_mind
        if key is None:
            return []
        return [each for each in asked if known is None or _short(_fingerprint(key, each[1])) in known]

    def _read_new(self, connection: Connection) -> None:
        if self._in_mind is None:
            return
        new = connection.execute(
            _NEW_PRINTS.limit(MOST_IN_MIND + 1), {"since": _a_while_before(self._newest)}
        )
        for id_, fingerprint in new:
            self._in_mind.add(_short(fingerprint))
            self._newest = max(self._newest, id_)
        if len(self._in_mind) > MOST_IN_MIND:
            self._in_mind = None

    # Changing it

    def ensure_key(self, connection: Connection) -> None:
        """Make the key if there is none. Commit it before it is used."""
        if self._key is None:
            sealed = self._sealer.seal(secrets.token_bytes(32), _BINDING)
            connection.execute(_MAKE_KEY[connection.dialect.name], {"id": 1, "sealed": sealed})

    def add(self, connection: Connection, new: Sequence[Entry]) -> list[Entry]:
        """Put entries with an address on lists; one that is there already stays. Answers them as listed."""
        key = self._need_key(connection)
        prints = [_fingerprint(key, entry.address or "") for entry in new]
        names = [column.name for column in _ENTRY]
        rows = [
            {**{name: getattr(entry, name) for name in names}, "fingerprint": fingerprint}
            for entry, fingerprint in zip(new, prints, strict=True)
        ]
        # In one order, or two that add the same addresses could wait for each other.
        connection.execute(_ADD[connection.dialect.name], sorted(rows, key=lambda row: row["fingerprint"]))
        if self._in_mind is not None:
            self._in_mind.update(map(_short, prints))
        listed = {of: self._by_prints(connection, of, prints) for of in {entry.project for entry in new}}
        return [listed[entry.project][found] for entry, found in zip(new, prints, strict=True)]

    def find(self, connection: Connection, project: str | None, which: str) -> Entry | None:
        """The entry of this id, or of this addr-spec, on the list of the project."""
        if "@" not in which:
            query = sa.select(*_ENTRY).where(s.id == which, _of(project))
            row = connection.execute(query).mappings().one_or_none()
            return None if row is None else Entry(**row)
        key = self._read_key(connection)
        if key is None:
            return None
        fingerprint = _fingerprint(key, which)
        return self._by_prints(connection, project, [fingerprint]).get(fingerprint)

    def _by_prints(
        self, connection: Connection, project: str | None, prints: Iterable[str]
    ) -> dict[str, Entry]:
        query = sa.select(s.fingerprint, *_ENTRY).where(_of(project), s.fingerprint.in_(list(prints)))
        rows = [dict(row) for row in connection.execute(query).mappings()]
        return {row.pop("fingerprint"): Entry(**row) for row in rows}

    # People and keys

    def forget(self, connection: Connection, who: Person) -> int:
        """Take an address out of every list and every word on it; its entries go on. Answers how many."""
        key = self._read_key(connection)
        if key is None:
            return 0
        mine = sa.update(suppressions).where(s.fingerprint == _fingerprint(key, who.key))
        cleared = mine.where(s.address.is_not(None)).values(address=None, detail=None)
        done = connection.execute(cleared).rowcount
        named = sa.or_(who.stands_in(s.detail), who.stands_in(s.by))
        for row in connection.execute(sa.select(s.id, s.detail, s.by).where(named)).all():
            said = {"detail": who.without(row.detail or "") or None, "by": who.without(row.by)}
            connection.execute(sa.update(suppressions).where(s.id == row.id).values(**said))
        return done

    def reseal(self, connection: Connection) -> bool:
        """Seal the key with the first one; False if no key opens it."""
        sealed = connection.scalar(_KEY)
        if sealed is None or self._sealer.is_current(sealed):
            return True
        try:
            fresh = self._sealer.seal(self._sealer.open(sealed, _BINDING), _BINDING)
        except ConfigError:
            return False
        connection.execute(sa.update(suppression_keys).values(sealed=fresh))
        return True

    def _need_key(self, connection: Connection) -> bytes:
        key = self._read_key(connection)
        assert key is not None, "ensure_key was not committed before"
        return key

    def _read_key(self, connection: Connection) -> bytes | None:
        if self._key is None and (sealed := connection.scalar(_KEY)) is not None:
            try:
                self._key = self._sealer.open(sealed, _BINDING)
            except ConfigError as exc:
                what = "lacks the key of the suppression list; put it back"
                raise ConfigError("MAILER_SECRET_KEYS", what) from exc
        return self._key


_BINDING = "suppression list"


def page(connection: Connection, wanted: Wanted) -> tuple[list[Entry], bool]:
    """Entries, newest first, and whether there are more in the direction that was asked for."""
    which = sa.select(*_ENTRY).limit(wanted.limit + 1)
    if not wanted.everywhere:
        which = which.where(_of(wanted.project))
    if wanted.text:
        which = which.where(s.address.icontains(wanted.text, autoescape=True))
    if wanted.after is not None:
        which = which.where(s.id < wanted.after)
    if wanted.before is not None:
        which = which.where(s.id > wanted.before).order_by(s.id.asc())
    else:
        which = which.order_by(s.id.desc())
    found = [Entry(**row) for row in connection.execute(which).mappings()]
    shown = sorted(found[: wanted.limit], key=lambda entry: entry.id, reverse=True)
    return shown, len(found) > wanted.limit


def by_id(connection: Connection, id_: str) -> Entry | None:
    """An entry of whatever list."""
    row = connection.execute(sa.select(*_ENTRY).where(s.id == id_)).mappings().one_or_none()
    return None if row is None else Entry(**row)


def remove(connection: Connection, id_: str) -> bool:
    """Take an entry off its list; False if it is gone."""
    return connection.execute(sa.delete(suppressions).where(s.id == id_)).rowcount == 1


def project_names(connection: Connection, ids: Collection[str]) -> Mapping[str, str]:
    """What people call these projects, by id."""
    rows = connection.execute(sa.select(projects.c.id, projects.c.name).where(projects.c.id.in_(list(ids))))
    return {row.id: row.name for row in rows}


def _fingerprint(key: bytes, addr_spec: str) -> str:
    return hmac.new(key, key_of(addr_spec).encode(), hashlib.sha256).hexdigest()


def _short(fingerprint: str) -> str:
    return fingerprint[:16]


def _a_while_before(id_: str) -> str:
    """The beginning of UUIDv7s made a minute before this one; "" for none."""
    if not id_:
        return ""
    milliseconds = f"{max(0, int(id_[:8] + id_[9:13], 16) - _OVERLAP_MS):012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}"


def _of(project: str | None) -> sa.ColumnElement[bool]:
    return s.project.is_(None) if project is None else s.project == project


def _look(connection: Connection, project: str | None, prints: list[str]) -> sa.CursorResult[Any]:
    name = connection.dialect.name
    if project is None:
        return connection.execute(_OWN_BARS[name], {"prints": prints})
    return connection.execute(_PROJECT_BARS[name], {"prints": prints, "of_project": project})
