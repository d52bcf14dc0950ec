"""The mails the inbox keeps: one small SQLite file of its own, bounded, safe for several threads.

The file is not the product's store and holds nothing that cannot be thrown away: when its layout changes,
it is emptied. One process owns it at a time; another may read it, but `Mailbox.wait_for` wakes only for mails
received by its own process.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mailer.errors import ConfigError
from mailer.inbox.mail import Mail, search_columns, summarise
from mailer.inbox.parsing import Content, parse
from mailer.inbox.search import parse_query, to_sql

MAX_MAILS = 5_000
MAX_TOTAL_BYTES = 512 * 1024 * 1024

_LAYOUT = 1
_SCHEMA = """
DROP TABLE IF EXISTS mails;
DROP TABLE IF EXISTS contents;
CREATE TABLE mails (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL,
    is_read INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL,
    attachments INTEGER NOT NULL,
    summary TEXT NOT NULL
);
CREATE INDEX mails_size ON mails (size);
CREATE INDEX mails_unread ON mails (is_read);
-- Apart from the summaries, so that listing never reads a page of content.
CREATE TABLE contents (
    seq INTEGER PRIMARY KEY REFERENCES mails ON DELETE CASCADE,
    search_to TEXT NOT NULL, search_cc TEXT NOT NULL, search_bcc TEXT NOT NULL, search_from TEXT NOT NULL,
    search_reply_to TEXT NOT NULL, search_subject TEXT NOT NULL, search_message_id TEXT NOT NULL,
    search_text TEXT NOT NULL,
    raw BLOB NOT NULL
);
"""
_COLUMNS = "mails.summary, mails.created_at, mails.is_read"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of mails, newest first, with the number that match and of those the unread."""

    mails: tuple[Mail, ...]
    matching: int
    matching_unread: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What the whole mailbox holds; ``size`` is in bytes of mail."""

    mails: int
    unread: int
    size: int


class Mailbox:
    """Keeps the newest mails. Every method may be called from any thread.

    ``path`` is the file, or ``":memory:"``. The oldest mails go when there are more than ``max_mails``
    or when they exceed ``max_total_bytes`` together; the newest one stays. Raises `ConfigError` when the
    file cannot be opened or is not a SQLite file.
    """

    def __init__(
        self, path: str | Path, *, max_mails: int = MAX_MAILS, max_total_bytes: int = MAX_TOTAL_BYTES
    ) -> None:
        self.path = str(path)
        self._max_mails = max_mails
        self._max_total_bytes = max_total_bytes
        self._changed = threading.Condition(threading.RLock())
        self._connection = _open(self.path)

    def close(self) -> None:
        """Close the file. Closing twice is fine; any other call afterwards raises ``sqlite3.Error``."""
        with self._changed:
            self._connection.close()

    # -- in

    def add(self, raw: bytes, *, mail_from: str, recipients: Iterable[str]) -> Mail:
        """Keep a mail as it was received and return its summary. Garbage is kept like anything else."""
        content = parse(raw)
        mail = summarise(
            content,
            return_path=mail_from,
            recipients=tuple(recipients),
            size=len(raw),
            received_at=datetime.now(UTC),
        )
        columns = search_columns(mail, content)
        with self._changed, self._connection:
            self._insert(mail, columns, raw)
            self._evict()
            self._changed.notify_all()
        return mail

    def _insert(self, mail: Mail, columns: dict[str, str], raw: bytes) -> None:
        cursor = self._connection.execute(
            "INSERT INTO mails (id, created_at, size, attachments, summary) VALUES (?, ?, ?, ?, ?)",
            (mail.id, mail.created_at.isoformat(), mail.size, mail.attachments, mail.to_json()),
        )
        names = ", ".join(columns)
        marks = ", ".join("?" * (len(columns) + 2))
        self._connection.execute(
            f"INSERT INTO contents (seq, {names}, raw) VALUES ({marks})",  # noqa: S608 (our own names)
            (cursor.lastrowid, *columns.values(), raw),
        )

    def _evict(self) -> None:
        count, size = self._connection.execute("SELECT count(*), total(size) FROM mails").fetchone()
        while count > 1 and (count > self._max_mails or size > self._max_total_bytes):
            oldest = self._connection.execute("SELECT seq, size FROM mails ORDER BY seq LIMIT 1")
            seq, freed = oldest.fetchone()
            self._connection.execute("DELETE FROM mails WHERE seq = ?", (seq,))
            count, size = count - 1, size - freed

    # -- out

    def messages(self, query: str = "", *, start: int = 0, limit: int = -1) -> list[Mail]:
        """Return the mails that match the query (see `mailer.inbox.search`), newest first; -1 is no limit."""
        condition, parameters = to_sql(parse_query(query))
        with self._changed:
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM mails {_JOIN} WHERE {condition} "  # noqa: S608 (our own words)
                "ORDER BY mails.seq DESC LIMIT ? OFFSET ?",
                (*parameters, limit, start),
            ).fetchall()
        return [_mail(row) for row in rows]

    def page(self, query: str = "", *, start: int = 0, limit: int = 50) -> Page:
        """Return one page of the mails that match, and how many match in all."""
        condition, parameters = to_sql(parse_query(query))
        with self._changed:
            matching, unread = self._connection.execute(
                "SELECT count(*), ifnull(sum(is_read = 0), 0) "  # noqa: S608 (our own words)
                f"FROM mails {_JOIN} WHERE {condition}",
                parameters,
            ).fetchone()
            return Page(tuple(self.messages(query, start=start, limit=limit)), matching, unread)

    def get(self, mail_id: str) -> Mail | None:
        """Return the mail with this id, the newest for ``"latest"``, or ``None``."""
        with self._changed:
            row = self._connection.execute(
                f"SELECT {_COLUMNS} FROM mails WHERE id = ? OR ? = 'latest' "  # noqa: S608 (our own words)
                "ORDER BY seq DESC LIMIT 1",
                (mail_id, mail_id),
            ).fetchone()
        return _mail(row) if row else None

    def raw(self, mail_id: str) -> bytes | None:
        """Return the mail as it was received, byte for byte, or ``None``. No trace header is added."""
        with self._changed:
            row = self._connection.execute(
                "SELECT raw FROM contents JOIN mails USING (seq) WHERE id = ?", (mail_id,)
            ).fetchone()
        return bytes(row[0]) if row else None

    def content(self, mail_id: str) -> Content | None:
        """Return the mail taken apart, or ``None``."""
        raw = self.raw(mail_id)
        return None if raw is None else parse(raw)

    def totals(self) -> Totals:
        """Return how much the mailbox holds."""
        with self._changed:
            row = self._connection.execute(
                "SELECT (SELECT count(*) FROM mails), (SELECT count(*) FROM mails WHERE is_read = 0), "
                "(SELECT ifnull(sum(size), 0) FROM mails)"
            ).fetchone()
        return Totals(*row)

    def wait_for(
        self, wanted: int | Callable[[list[Mail]], bool] = 1, timeout: float = 5.0, *, query: str = ""
    ) -> list[Mail]:
        """Wait until ``wanted`` mails match the query, or until a predicate over them holds; return them.

        The predicate gets the matching mails, newest first, and runs under the mailbox's lock. Raises
        `TimeoutError` after ``timeout`` seconds, saying how many there were.
        """
        holds = wanted if callable(wanted) else lambda mails: len(mails) >= wanted
        deadline = time.monotonic() + timeout
        with self._changed:
            while not holds(mails := self.messages(query)):
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise TimeoutError(f"the inbox holds {len(mails)} matching mails after {timeout} s")
            return mails

    # -- changes

    def mark_read(self, mail_ids: Iterable[str] | None = None, *, read: bool = True) -> None:
        """Mark these mails, or all of them, as read or unread. Unknown ids are ignored."""
        with self._changed, self._connection:
            if mail_ids is None:
                self._connection.execute("UPDATE mails SET is_read = ?", (read,))
            else:
                changes = [(read, mail_id) for mail_id in mail_ids]
                self._connection.executemany("UPDATE mails SET is_read = ? WHERE id = ?", changes)

    def delete(self, mail_ids: Iterable[str] | None = None) -> None:
        """Delete these mails, or all of them, and give the space back. Unknown ids are ignored."""
        with self._changed:
            with self._connection:
                if mail_ids is None:
                    self._connection.execute("DELETE FROM mails")
                else:
                    self._connection.executemany("DELETE FROM mails WHERE id = ?", [(i,) for i in mail_ids])
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._changed.notify_all()


_JOIN = "JOIN contents USING (seq)"


def _open(path: str) -> sqlite3.Connection:
    try:
        if path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch(mode=0o600)  # reset links are for nobody else on the machine
        connection = sqlite3.connect(path, check_same_thread=False, timeout=5)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError("MAILER_DATA_DIR", f"the inbox cannot open {path}: {error}") from error
    try:
        _prepare(connection)
    except sqlite3.Error as error:
        connection.close()
        problem = f"the inbox cannot use {path} ({error}); move the file away or name another directory"
        raise ConfigError("MAILER_DATA_DIR", problem) from error
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # A power cut may cost the last mails of a development inbox; it never corrupts the file.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    # What is deleted may hold reset links: overwrite it.
    connection.execute("PRAGMA secure_delete = ON")
    if connection.execute("PRAGMA user_version").fetchone()[0] != _LAYOUT:
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {_LAYOUT}")
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _mail(row: tuple[str, str, int]) -> Mail:
    summary, created_at, is_read = row
    return Mail.from_json(summary, created_at=datetime.fromisoformat(created_at), read=bool(is_read))
