"""PD5: one person's address taken out of every row, with a pseudonym in its place.

`received` and `traces` find the messages that know it, `forget` works on one of them in one transaction:
what has not left is cancelled, what was said is erased, and the address becomes
``forgotten-<16 hex digits>@invalid`` wherever it stood. That is no address, so nothing can be sent to it.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import idna
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.address import Address
from mailer.events import Event
from mailer.sealing import Sealer
from mailer.states import CLAIMABLE, State
from mailer.store.models import deliveries, events, messages, operators
from mailer.store.retention import NOTHING_LEFT, untag
from mailer.store.transitions import close, tell

m, d, e = messages.c, deliveries.c, events.c
PSEUDONYMS = "forgotten-%@invalid"
"""LIKE: no person's retry may send to these."""

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
# Columns that hold words somebody chose. The sender is the application's own address, not a recipient's.
_SAID = (m.subject, m.tags, m.metadata, m.idempotency_key)


class Person:
    """Whom to forget: recognises the address in any case, also inside texts and links."""

    def __init__(self, address: Address, sealer: Sealer) -> None:
        self.key = address.key
        self.pseudonym = f"forgotten-{sealer.pseudonym(self.key)}@invalid"
        written = {self.key, f"{self.key.rpartition('@')[0]}@{_readable(address.domain)}"}
        # In a link the at sign is %40, and in a column of JSON what is not ASCII is escaped.
        written |= {form.replace("@", "%40") for form in written}
        self._needles = sorted(written | {json.dumps(form)[1:-1] for form in written})
        forms = "|".join(re.escape(form) for form in sorted(written))
        # Not a part of a longer address: bob.ada@x.test and ada@x.test.example are other people's.
        self._pattern = re.compile(rf"(?<!\w)(?<!\w[.+'-])(?:{forms})(?![\w-])(?!\.\w)", re.IGNORECASE)

    def is_(self, recipient: str) -> bool:
        """Whether a stored recipient is this person."""
        return recipient.translate(_LOWER) == self.key

    def stands_in(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The text of a column holds the address, or a longer one that ends or begins like it."""
        text = sa.cast(column, sa.Text)
        return sa.or_(*(text.icontains(needle, autoescape=True) for needle in self._needles))

    def without(self, value: Any) -> Any:
        """The same text, list or mapping, with the pseudonym in place of the address."""
        if isinstance(value, str):
            return self._pattern.sub(self.pseudonym, value)
        if isinstance(value, dict):
            return {self.without(key): self.without(item) for key, item in value.items()}
        return [self.without(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Traces:
    """Messages that know the address, how many it had sent, and the last id looked at, None at the end."""

    ids: Sequence[str]
    as_sender: int
    last: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """What was done to one message. ``leaving``: it is being sent to the person right now, come back later.

    ``waiting``: it is on its way to others, who get it as it is, so what it says is erased only afterwards.
    """

    changed: bool = False
    cancelled: int = 0
    erased: bool = False
    leaving: bool = False
    waiting: bool = False


def received(connection: Connection, who: Person) -> list[str]:
    """The ids of messages that were sent to the address, or were and still have their body; by an index."""
    recipient = sa.func.lower(d.recipient)
    with_body = sa.select(d.message).join(messages, m.id == d.message).where(m.body_erased_at.is_(None))
    queries = (
        sa.select(d.message).where(recipient == sa.func.lower(who.key)),
        with_body.where(recipient == who.pseudonym),
    )
    return sorted({id_ for query in queries for id_ in connection.scalars(query)})


def traces(connection: Connection, who: Person, after: str, limit: int) -> Traces:
    """Of the next messages by id those that know the address.

    Looks at every row: people are forgotten seldom, and an index for that would cost at every mail.
    """
    step = sa.select(m.id).where(m.id > after).order_by(m.id).offset(limit - 1).limit(1)
    last = connection.scalar(step)

    def within(column: sa.ColumnElement[str]) -> list[sa.ColumnElement[bool]]:
        return [column > after, *([] if last is None else [column <= last])]

    queries = (
        sa.select(d.message).where(*within(d.message), who.stands_in(d.reply)),
        sa.select(e.message).where(*within(e.message), who.stands_in(e.data)),
        sa.select(m.id).where(*within(m.id), sa.or_(*(who.stands_in(column) for column in _SAID))),
    )
    ids = {id_ for query in queries for id_ in connection.scalars(query)}
    sent = sa.select(sa.func.count()).select_from(messages).where(*within(m.id), who.stands_in(m.sender))
    return Traces(sorted(ids), connection.scalar(sent) or 0, last)


def forget(connection: Connection, message: str, who: Person, by: str, now: datetime) -> Step:
    """Take the address out of one message. Changes nothing of one that is leaving for it right now."""
    found = connection.execute(sa.select(d.id, d.recipient).where(d.message == message)).all()
    mine = [row.id for row in found if who.is_(row.recipient)]
    locked = sa.select(d.id, d.state).where(d.id.in_(mine)).order_by(d.id).with_for_update()
    states = {row.id: State(row.state) for row in connection.execute(locked)}
    if State.SENDING in states.values():
        return Step(leaving=True)
    # Held until the commit, so that the row is not purged under the events that are written here.
    kept = sa.select(m.id).where(m.id == message).with_for_update(read=True, key_share=True)
    if connection.execute(kept).one_or_none() is None:
        return Step()
    by = who.without(by)
    cancelled = _end(connection, message, states, who, by, now)
    replies = _rewrite_replies(connection, message, who)
    close(connection, {message}, now)
    received = bool(mine) or any(row.recipient == who.pseudonym for row in found)
    told = _rewrite_events(connection, message, who)
    said, erased, waiting = _unsay(connection, message, who, received, now)
    changed = bool(mine) or replies or told or said or erased
    if changed:
        tell(connection, now, [(message, Event.FORGOTTEN, {"by": by})])
    return Step(changed, cancelled, erased, waiting=waiting)


def named(connection: Connection, who: Person) -> int:
    """How many operators have the address as their name; it stays."""
    query = sa.select(sa.func.count()).select_from(operators).where(who.stands_in(operators.c.name))
    return connection.scalar(query) or 0


def _end(
    connection: Connection, message: str, mine: dict[int, State], who: Person, by: str, now: datetime
) -> int:
    """End the person's deliveries and name them by the pseudonym; answer how many had not left."""
    waiting = [id_ for id_, state in mine.items() if state in CLAIMABLE]
    doubtful = [id_ for id_, state in mine.items() if state is State.UNCERTAIN]
    told = {"recipient": who.pseudonym, "by": by}
    if waiting:
        _set(connection, waiting, state=State.CANCELLED, reason="cancelled", ended_at=now)
        tell(connection, now, [(message, Event.CANCELLED, told)])
    if doubtful:  # nobody will find out any more
        _set(connection, doubtful, state=State.FAILED, reason="settled_by_a_person", ended_at=now)
        tell(connection, now, [(message, Event.SETTLED, {**told, "as": State.FAILED.value})])
    # All that a server said of this person goes: also "mailbox of Ada L. is full" tells who it was.
    _set(connection, list(mine), recipient=who.pseudonym, reply=None)
    return len(waiting)


def _set(connection: Connection, ids: list[int], **values: Any) -> None:
    connection.execute(sa.update(deliveries).where(d.id.in_(ids)).values(**values))


def _rewrite_replies(connection: Connection, message: str, who: Person) -> bool:
    rows = connection.execute(sa.select(d.id, d.reply).where(d.message == message, d.reply.is_not(None)))
    fresh = {row.id: new for row in rows if (new := who.without(row.reply)) != row.reply}
    for id_, reply in fresh.items():
        connection.execute(sa.update(deliveries).where(d.id == id_).values(reply=reply[:1000]))
    return bool(fresh)


def _rewrite_events(connection: Connection, message: str, who: Person) -> bool:
    rows = connection.execute(sa.select(e.id, e.data).where(e.message == message)).all()
    fresh = {row.id: new for row in rows if (new := _rewritten(row.data, who)) != row.data}
    for id_, data in fresh.items():
        connection.execute(sa.update(events).where(e.id == id_).values(data=data))
    return bool(fresh)


def _rewritten(data: dict[str, Any], who: Person) -> dict[str, Any]:
    if who.is_(str(data.get("recipient", ""))):
        data = {k: v for k, v in data.items() if k not in ("reply", "problem")}
        data["recipient"] = who.pseudonym
    return dict(who.without(data))


def _unsay(
    connection: Connection, message: str, who: Person, received: bool, now: datetime
) -> tuple[bool, bool, bool]:
    """Erase what the message says: whether its words changed, its body went, or has to wait for the end."""
    columns = (*_SAID, m.ended_at, m.body_erased_at)
    row = connection.execute(sa.select(*columns).where(m.id == message)).one()
    about = received or any(who.without(v) != v for v in (row.subject, row.tags, row.metadata))
    words: dict[str, Any] = {"subject": None, "tags": [], "metadata": {}} if about else {}
    if row.idempotency_key and who.without(row.idempotency_key) != row.idempotency_key:
        words |= {"idempotency_key": None, "fingerprint": None}
    said = any(getattr(row, name) != value for name, value in words.items() if name != "fingerprint")
    if said:
        connection.execute(sa.update(messages).where(m.id == message).values(**words))
    if about:
        untag(connection, {message: row.tags})
    if not about or row.body_erased_at is not None:
        return said, False, False
    ended = sa.update(messages).where(m.id == message, m.ended_at.is_not(None))
    erased = connection.execute(ended.values(**NOTHING_LEFT, body_erased_at=now)).rowcount == 1
    return said, erased, not erased


def _readable(domain: str) -> str:
    try:
        return idna.decode(domain)
    except idna.IDNAError:
        return domain
