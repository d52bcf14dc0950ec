"""Pages of one project's messages, for programs: by key in both directions, the newest first."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.store import queries
from mailer.store.models import messages
from mailer.store.queries import MessageView

m = messages.c


@dataclass(frozen=True, slots=True)
class Page:
    """Messages, newest first. ``has_more``: there are more in the direction that was asked for."""

    found: list[MessageView]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Sight:
    """What a key sees: the messages of its project, or only those among them that go to no provider."""

    project: str
    captive: bool = False

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """In SQL."""
        return [m.project == self.project, *([m.carrier.is_not(None)] if self.captive else [])]


def page(
    connection: Connection, sight: Sight, limit: int, after: str | None = None, before: str | None = None
) -> Page:
    """Up to ``limit`` messages: the newest, or those that follow ``after`` in the list, which are older, or
    those right before ``before``, which are newer.
    """
    which = sa.select(m.id).where(*sight.conditions()).limit(limit + 1)
    if after is not None:
        which = which.where(m.id < after)
    if before is not None:
        which = which.where(m.id > before).order_by(m.id.asc())
    else:
        which = which.order_by(m.id.desc())
    ids = list(connection.scalars(which))
    return Page(queries.of_ids(connection, ids[:limit]), len(ids) > limit)


def sees(connection: Connection, sight: Sight, message: str) -> bool:
    """Whether a message of that id is among them."""
    found = sa.select(m.id).where(m.id == message, *sight.conditions())
    return connection.execute(found).one_or_none() is not None
