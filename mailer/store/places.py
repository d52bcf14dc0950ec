"""Places under limits, for everybody who sends by one store: taken before, counted for a while after.

A mail takes a place of each limit on its way. A place counts as long as the mail is under way, and a limit of
rate counts it for its span thereafter. So whatever the network does, within no span more leave than may.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.store.models import places

p = places.c
# Any number will do as long as it is ours: who takes places must not do so beside another.
_LOCK = 7263502


def taken(connection: Connection, keys: Collection[str], now: datetime) -> dict[str, tuple[int, datetime]]:
    """How many places count under each key, and when the first of them is free; only those with any.

    Until the transaction ends nobody else takes places: what is read here still holds when `take` is called.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    connection.execute(sa.delete(places).where(p.until <= now))
    counted = sa.select(p.key, sa.func.sum(p.number), sa.func.min(p.until)).where(p.key.in_(keys))
    return {key: (number, first) for key, number, first in connection.execute(counted.group_by(p.key))}


def take(connection: Connection, token: str, numbers: Mapping[str, int], until: datetime) -> None:
    """Take so many places under each key; they count until then at the latest."""
    rows = [{"token": token, "key": k, "number": n, "until": until} for k, n in sorted(numbers.items())]
    if rows:
        connection.execute(sa.insert(places), rows)


def keep(connection: Connection, tokens: Iterable[str], until: datetime) -> None:
    """Whoever holds them is still at it."""
    connection.execute(sa.update(places).where(p.token.in_(list(tokens))).values(until=until))


def give_back(connection: Connection, token: str, until: Mapping[str, datetime]) -> None:
    """The mails have left; places under keys that ``until`` names count until then, the others no longer."""
    mine = p.token == token
    for key, at in sorted(until.items()):
        connection.execute(sa.update(places).where(mine, p.key == key).values(until=at))
    connection.execute(sa.delete(places).where(mine, p.key.not_in(list(until))))
