"""Which messages a list shows, found in a time that does not grow with the log.

Ids are UUIDv7, so the newest has the highest and a page is a range of ids. What can be asked for by its
exact value has a *run*: an index that holds ids in order. Of several runs the one with the fewest ids is
followed, a window at a time, and the messages of each window are held against everything else that was asked.
That ends when the page is full, when there is nothing left, or when it has taken too long: then the answer
says how far back it looked, and from where to go on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.address import Address
from mailer.errors import InvalidAddress
from mailer.states import State
from mailer.store.models import deliveries, messages, tags

m, d, t = messages.c, deliveries.c, tags.c
WINDOW = 5_000
"""Ids of a run that are looked at together."""
PATIENCE_SECONDS = 0.5
"""How long a list may look through windows; one is always looked through."""
_MARGIN_SECONDS = 3600
"""How far the clock that made an id may be from the one that noted the acceptance."""
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LAST_MS = 2**48 - 1


@dataclass(frozen=True, slots=True)
class Search:
    """What a list is narrowed to; None means anything.

    ``text`` matches a whole id, Message-ID or recipient if there is one; else a part of a recipient, subject
    or template. Accepted at ``since`` or later, and before ``until``. ``before``: the id from which to go on.
    """

    text: str | None = None
    state: State | None = None
    template: str | None = None
    lane: str | None = None
    tag: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Ids:
    """The newest ids that match, and the ``before`` with which to go on, None at the end.

    ``looked_back_to`` is when the oldest message was accepted that was looked at, if time ran out before the
    page was full.
    """

    ids: Sequence[str]
    next: str | None = None
    looked_back_to: datetime | None = None


class Span(NamedTuple):
    """Ids from ``low`` on, and before ``high``; None has no end."""

    low: str | None
    high: str | None

    def of(self, column: sa.ColumnElement[str]) -> list[sa.ColumnElement[bool]]:
        ends = (self.low is not None and column >= self.low, self.high is not None and column < self.high)
        return [end for end in ends if end is not False]


class Run(NamedTuple):
    """Ids in the order of an index: a column, and the conditions that fix what stands before it there."""

    column: sa.ColumnElement[str]
    fixed: Sequence[sa.ColumnElement[bool]] = ()

    def ids(self, span: Span) -> sa.Select[str]:
        """The newest first, each once."""
        found = sa.select(self.column).where(*self.fixed, *span.of(self.column))
        found = found if self.column is m.id else found.distinct()
        return found.order_by(self.column.desc())

    def holds(self, id_: sa.ColumnElement[str]) -> Sequence[sa.ColumnElement[bool]]:
        """A message is on the run. By its id alone: with a range SQLite would go by that."""
        if self.column is m.id:
            return self.fixed
        return [_is_there(self.column, self.column == id_, *self.fixed)]


_EVERYTHING = Run(m.id)


def look(connection: Connection, wanted: Search) -> Ids:
    """The newest messages that match."""
    text = (wanted.text or "").strip()
    exact = _exact(connection, text) if text else None
    runs = [*([exact] if exact else []), *_runs(wanted)] or [_EVERYTHING]
    part = text if text and not exact else None
    span = _span(wanted)
    if len(runs) == 1 and not part and wanted.since is None and wanted.until is None:
        return _page([*connection.scalars(runs[0].ids(span).limit(wanted.limit + 1))], wanted.limit)
    return _through_windows(connection, runs, span, part, wanted)


def _exact(connection: Connection, text: str) -> Run | None:
    """The run of a whole id, Message-ID or recipient, if any message has it."""
    for run in _named(text):
        if connection.execute(run.ids(Span(None, None)).limit(1)).first():
            return run
    return None


def _named(text: str) -> list[Run]:
    bare = text.removeprefix("<").removesuffix(">")
    id_, at, _ = bare.partition("@")
    found = []
    if _ID.fullmatch(id_.lower()):
        # Every Message-ID is made of the id, and needs no index of its own.
        found.append(Run(m.id, [m.id == id_.lower(), *([m.message_id == f"<{bare}>"] if at else [])]))
    try:
        key = Address.parse(bare, "text").key
    except InvalidAddress:
        return found
    return [*found, Run(d.message, [sa.func.lower(d.recipient) == sa.func.lower(key)])]


def _runs(wanted: Search) -> list[Run]:
    given: list[tuple[sa.ColumnElement[Any], Any, sa.ColumnElement[str]]] = [
        (t.tag, wanted.tag, t.message),
        (d.state, wanted.state, d.message),
        (m.template, wanted.template, m.id),
        (m.lane, wanted.lane, m.id),
    ]
    return [Run(ids, [column == value]) for column, value, ids in given if value is not None]


def _span(wanted: Search) -> Span:
    low = None if wanted.since is None else _first_id(wanted.since.timestamp() - _MARGIN_SECONDS)
    high = None if wanted.until is None else _first_id(wanted.until.timestamp() + _MARGIN_SECONDS)
    ends = (wanted.before, high)
    return Span(low, min((end for end in ends if end is not None), default=None))


def _first_id(at: float) -> str:
    """Lower than every UUIDv7 of that second since 1970 or later (RFC 9562 section 5.7)."""
    moment = f"{min(max(int(at * 1000), 0), _LAST_MS):012x}"
    return f"{moment[:8]}-{moment[8:]}-0000-0000-000000000000"


def _page(found: list[str], limit: int) -> Ids:
    return Ids(found[:limit], found[limit - 1] if len(found) > limit else None)


def _through_windows(
    connection: Connection, runs: Sequence[Run], span: Span, part: str | None, wanted: Search
) -> Ids:
    give_up = time.monotonic() + PATIENCE_SECONDS
    # A run that ends within its window has few ids; of others the thinnest reaches back furthest.
    reach = [_window_end(connection, run, span) or "" for run in runs]
    low: str | None = min(reach)
    lead = runs[reach.index(low or "")]
    asked = _asked([run for run in runs if run is not lead], part, wanted)
    found: list[str] = []
    while True:
        window = Span(low or span.low, span.high)
        query = _within(window, lead, asked)
        found += connection.scalars(query.limit(wanted.limit + 1 - len(found)))
        if not low or len(found) > wanted.limit:
            return _page(found, wanted.limit)
        if time.monotonic() >= give_up:
            at = connection.scalar(sa.select(m.created_at).where(m.id == low))
            return Ids(found, low, at)
        span = span._replace(high=low)
        low = _window_end(connection, lead, span)


def _window_end(connection: Connection, run: Run, span: Span) -> str | None:
    """The last id of the next window of a run; None if what is left of it is no more than a window."""
    return connection.scalar(run.ids(span).offset(WINDOW - 1).limit(1))


def _within(window: Span, lead: Run, asked: Sequence[sa.ColumnElement[bool]]) -> sa.Select[str]:
    """Those ids of the run whose message is as asked: first its index, then one message after the other."""
    ids = lead.ids(window).limit(WINDOW).subquery("lead")
    id_ = ids.c[0]
    return sa.select(id_).where(_is_there(m.id, m.id == id_, *asked)).order_by(id_.desc())


def _asked(others: Sequence[Run], part: str | None, wanted: Search) -> list[sa.ColumnElement[bool]]:
    asked = [condition for run in others for condition in run.holds(m.id)]
    if part is not None:
        asked.append(_has(part))
    if wanted.since is not None:
        asked.append(m.created_at >= wanted.since)
    if wanted.until is not None:
        asked.append(m.created_at < wanted.until)
    return asked


def _has(part: str) -> sa.ColumnElement[bool]:
    """Its text is a part of a recipient, subject or template."""
    reached = _is_there(d.id, d.message == m.id, d.recipient.icontains(part, autoescape=True))
    return sa.or_(
        m.subject.icontains(part, autoescape=True), m.template.icontains(part, autoescape=True), reached
    )


def _is_there(column: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """As EXISTS, but looked up for one row after the other.

    That is a join to planners, and they would begin it with another index, or hash a whole table.
    """
    return sa.select(column).where(*conditions).limit(1).scalar_subquery().is_not(None)
