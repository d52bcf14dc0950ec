"""What every change of a delivery has in common: what it may leave, picks, tells, and ends.

Conditions on the state are written out and not bound as parameters: only then does SQLite see that a
partial index holds all the rows a statement asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.events import Event
from mailer.states import CLAIMABLE, TRANSITIONS, State
from mailer.store import messages as message_rows
from mailer.store.models import deliveries, one_of


def may(transition: str) -> sa.TextClause:
    """The delivery is in a state that this transition may leave."""
    return in_state(TRANSITIONS[transition][0])


def in_state(states: frozenset[State]) -> sa.TextClause:
    """The delivery is in one of these states."""
    return sa.text(one_of(f"{deliveries.name}.state", states))


CLAIMABLE_NOW = in_state(CLAIMABLE)


def picked(ids: sa.Select[Any]) -> sa.Select[Any]:
    """Rows of a limited selection, locked against other pickers: nothing changes them before we do.

    A common table expression, since Postgres may run a plain subselect more than once and then picks
    more than the limit. Do not repeat the conditions around it: SQLite would go by them and read them all.
    And ask for an order: that is what makes SQLite take the index which has it.
    """
    chosen = ids.with_for_update(skip_locked=True).cte("picked")
    return sa.select(chosen.c.id)


def tell(
    connection: Connection, at: datetime, entries: Sequence[tuple[str, Event, Mapping[str, Any]]]
) -> None:
    """Append ``(message, event, data)`` to timelines."""
    if entries:
        message_rows.record(connection, at, entries)


def close(connection: Connection, ids: set[str], now: datetime) -> None:
    """End the messages whose last delivery has ended."""
    if ids:
        message_rows.close_ended(connection, ids, now)
