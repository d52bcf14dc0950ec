"""Message rows: accepted once, frozen at the first attempt, erased of secrets when they end.

Functions take a connection and never commit: the transaction is the caller's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pydantic_core
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Row, RowMapping

from mailer.errors import BodyErased
from mailer.events import Event
from mailer.sealing import Sealer
from mailer.states import FINAL, State
from mailer.store.models import deliveries, events, messages, tags
from mailer.store.pipeline import rest_together
from mailer.store.prepared import Prepared
from mailer.store.suppressions import REASON, Bar
from mailer.store.webhooks import owe
from mailer.timing import SLACK

ERASED = "what the message said was erased after its end; send it anew from the application"


@dataclass(frozen=True, slots=True)
class NewMessage:
    """One row to accept. ``content`` is JSON-able; ``secrets`` maps a marker to its value, or is empty.

    ``barred`` are those of its recipients that are on the suppression list: their deliveries end at once.
    """

    id: str
    created_at: datetime
    message_id: str
    template: str | None
    locale: str | None
    lane: str
    sender: str
    subject: str | None
    tags: Sequence[str]
    metadata: Mapping[str, str]
    idempotency_scope: str
    idempotency_key: str | None
    fingerprint: str | None
    resent_from: str | None
    send_at: datetime | None
    expires_at: datetime | None
    on_uncertain: str
    recipients: Sequence[tuple[str, str]]  # (addr-spec, kind), each addr-spec once
    content: bytes  # JSON: see `mailer.message.content_of`
    secrets: Mapping[str, str]
    project: str | None = None
    carrier: str | None = None
    barred: Mapping[str, Bar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The bytes of a mail as they go out, the same with its secrets masked (None: it has none), and the
    subject as people may see it.
    """

    mime: bytes
    masked: bytes | None
    subject: str


_COLUMNS = [c for c in messages.c if c.name not in ("content", "secrets", "rendered", "preview")]
_ACCEPTED = {
    "sqlite": sqlite.insert(messages)
    .on_conflict_do_nothing(index_elements=["idempotency_scope", "idempotency_key"])
    .returning(messages.c.id),
    "postgresql": postgresql.insert(messages)
    .on_conflict_do_nothing(index_elements=["idempotency_scope", "idempotency_key"])
    .returning(messages.c.id),
}
_COLUMNS_OF_ROW = (
    "id", "created_at", "message_id", "template", "locale", "lane", "sender", "subject", "tags", "metadata",
    "idempotency_scope", "idempotency_key", "fingerprint", "resent_from", "send_at", "expires_at",
    "has_secrets", "project", "carrier", "content", "secrets",
)  # fmt: skip
_WITHOUT_KEY = Prepared(sa.insert(messages).inline(), _COLUMNS_OF_ROW)
_DELIVERY = Prepared(
    sa.insert(deliveries).inline(),
    ("message", "recipient", "kind", "lane", "state", "on_uncertain", "not_before", "expires_at", "attempts",
     "crashes", "unknowns", "published_at", "reason", "ended_at"),
)  # fmt: skip
_TAGGED = Prepared(sa.insert(tags).inline(), ("tag", "message"))
EVENT = Prepared(sa.insert(events).inline(), ("message", "at", "name", "data"))
_BY_ID = sa.select(*_COLUMNS).where(messages.c.id == sa.bindparam("id"))
_THESE = messages.c.id.in_(sa.bindparam("ids", expanding=True))
_WHOLE = sa.select(messages).where(_THESE)
_SIZES = sa.select(
    messages.c.id,
    (
        sa.func.coalesce(sa.func.length(messages.c.content), 0)
        + sa.func.coalesce(sa.func.length(messages.c.rendered), 0)
    ).label("octets"),
).where(_THESE)
_LEASED = sa.exists().where(
    deliveries.c.message == messages.c.id, deliveries.c.lease_token == sa.bindparam("token")
)
_UNFROZEN = (
    sa.select(messages.c.id)
    .where(_THESE, messages.c.rendered.is_(None), _LEASED)
    .order_by(messages.c.id)
    .with_for_update(key_share=True)
)
_FREEZE = Prepared(
    sa.update(messages)
    .where(messages.c.id == sa.bindparam("of_id"))
    .values(rendered=sa.bindparam("mime"), preview=sa.bindparam("masked"), subject=sa.bindparam("shown"))
)
_IN_TURN = sa.select(messages.c.id).where(_THESE).order_by(messages.c.id).with_for_update(key_share=True)
_CARRIES_SECRET = sa.or_(messages.c.secrets.is_not(None), messages.c.preview.is_not(None))
_IS_OPEN = deliveries.c.state.not_in(sorted(FINAL))
_STILL_OPEN = sa.exists().where(deliveries.c.message == messages.c.id, _IS_OPEN)
_NOW = sa.bindparam("now", type_=messages.c.ended_at.type)
_CLOSE = (
    sa.update(messages)
    .where(_THESE, messages.c.ended_at.is_(None), ~_STILL_OPEN)
    .values(
        ended_at=_NOW,
        erased_at=sa.case((_CARRIES_SECRET, _NOW), else_=messages.c.erased_at),
        secrets=None,
        rendered=sa.func.coalesce(messages.c.preview, messages.c.rendered),
        preview=None,
    )
)
_BY_KEY = sa.select(messages.c.id, messages.c.fingerprint, messages.c.created_at).where(
    messages.c.idempotency_scope == sa.bindparam("scope"),
    messages.c.idempotency_key == sa.bindparam("key"),
)

_TOGETHER = 20
"""Messages for one statement. Postgres works at them while the next are sealed."""


def accept(connection: Connection, new: NewMessage, sealer: Sealer, *, last: bool = False) -> bool:
    """Insert the message and its deliveries. That it was accepted is told by its own row.

    False, with nothing written, if its idempotency key is taken in its scope: see `idempotent_twin`.
    ``published_at`` is set at once, on the caller's word that it will publish after the commit. ``last``:
    after it the transaction asks nothing, it only writes and commits.
    """
    if new.idempotency_key is None:
        accept_all(connection, [new], sealer, last=last)
        return True
    if not _took_key(connection, _row(new, sealer)):
        return False
    if last:
        rest_together(connection)
    _add_rest(connection, [new])
    return True


def accept_all(
    connection: Connection, those: Sequence[NewMessage], sealer: Sealer, *, last: bool = False
) -> None:
    """As `accept`, messages that have no idempotency key."""
    if last:
        rest_together(connection)
    for some in (those[n : n + _TOGETHER] for n in range(0, len(those), _TOGETHER)):
        _WITHOUT_KEY.run(connection, [_row(new, sealer) for new in some])
        _add_rest(connection, some)


def _add_rest(connection: Connection, those: Sequence[NewMessage]) -> None:
    _DELIVERY.run(connection, [row for new in those for row in _delivery_rows(new)])
    tagged = [{"tag": tag, "message": new.id} for new in those for tag in new.tags]
    if tagged:
        _TAGGED.run(connection, tagged)
    for new in those:
        if new.send_at is not None and _first_state(new) is State.SCHEDULED:
            told = {"send_at": new.send_at.isoformat()}
            add_events(connection, new.id, new.created_at, [(Event.SCHEDULED, told)])
        if new.barred:
            _end_barred(connection, new)


def _end_barred(connection: Connection, new: NewMessage) -> None:
    told = [(Event.SUPPRESSED, bar.told(recipient)) for recipient, bar in new.barred.items()]
    add_events(connection, new.id, new.created_at, told)
    if len(new.barred) == len(new.recipients):
        close_ended(connection, [new.id], new.created_at)


def _first_state(new: NewMessage) -> State:
    later = new.send_at is not None and new.send_at > new.created_at
    return State.SCHEDULED if later else State.QUEUED


def _delivery_rows(new: NewMessage) -> list[dict[str, Any]]:
    state = _first_state(new)
    return [
        {
            "message": new.id,
            "recipient": recipient,
            "kind": kind,
            "lane": new.lane,
            "state": State.SUPPRESSED if recipient in new.barred else state,
            "on_uncertain": new.on_uncertain,
            "not_before": new.send_at if state is State.SCHEDULED else new.created_at - SLACK,
            "expires_at": new.expires_at,
            "attempts": 0,
            "crashes": 0,
            "unknowns": 0,
            "published_at": new.created_at if state is State.QUEUED else None,
            "reason": REASON if recipient in new.barred else None,
            "ended_at": new.created_at if recipient in new.barred else None,
        }
        for recipient, kind in new.recipients
    ]


def _took_key(connection: Connection, row: Mapping[str, Any]) -> bool:
    return connection.execute(_ACCEPTED[connection.dialect.name], row).one_or_none() is not None


def _row(new: NewMessage, sealer: Sealer) -> dict[str, Any]:
    names = ("id", "created_at", "message_id", "template", "locale", "lane", "sender", "subject",
             "idempotency_scope", "idempotency_key", "fingerprint", "resent_from", "send_at",
             "expires_at", "project", "carrier")  # fmt: skip
    return {
        **{name: getattr(new, name) for name in names},
        "tags": list(new.tags),
        "metadata": dict(new.metadata),
        "has_secrets": bool(new.secrets),
        "content": sealer.seal(new.content, new.id),
        "secrets": sealer.seal(pydantic_core.to_json(new.secrets), new.id) if new.secrets else None,
    }


def add_events(
    connection: Connection, message: str, at: datetime, entries: Sequence[tuple[Event, Mapping[str, Any]]]
) -> None:
    """Append timeline entries, in order."""
    record(connection, at, [(message, name, data) for name, data in entries])


def record(
    connection: Connection, at: datetime, entries: Sequence[tuple[str, Event, Mapping[str, Any]]]
) -> None:
    """Append ``(message, event, data)`` to timelines, and owe it to the webhooks that are interested."""
    rows = [{"message": m, "at": at, "name": name, "data": dict(data)} for m, name, data in entries]
    EVENT.run(connection, rows)
    owe(connection, {m for m, _, _ in entries}, at)


def idempotent_twin(connection: Connection, scope: str, key: str) -> Row[Any, Any, Any] | None:
    """The id, fingerprint and acceptance of the message that has this key, None if there is none."""
    return connection.execute(_BY_KEY, {"scope": scope, "key": key}).one_or_none()


def release_keys(connection: Connection, accepted_before: datetime, limit: int) -> int:
    """Forget idempotency keys that need not be kept any longer; answer how many."""
    over = (messages.c.idempotency_key.is_not(None), messages.c.created_at < accepted_before)
    ids = sa.select(messages.c.id).where(*over).order_by(messages.c.created_at).limit(limit)
    return _release(connection, messages.c.id.in_(ids))


def release_key(connection: Connection, message: str) -> None:
    """Forget the idempotency key of one message: another may have it now."""
    _release(connection, messages.c.id == message)


def _release(connection: Connection, which: sa.ColumnElement[bool]) -> int:
    released = sa.update(messages).where(which).values(idempotency_key=None, fingerprint=None)
    return connection.execute(released).rowcount


def load(connection: Connection, message: str) -> RowMapping | None:
    """The row without its sealed columns, or None."""
    return connection.execute(_BY_ID, {"id": message}).mappings().one_or_none()


def load_sealed(connection: Connection, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The whole rows of messages, by id, to be opened one by one: see `content_of` and `rendered_of`."""
    found = connection.execute(_WHOLE, {"ids": ids}).mappings()
    return {row["id"]: dict(row) for row in found}


def sizes(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """The octets of what is sealed in each message, by id."""
    return {row.id: row.octets for row in connection.execute(_SIZES, {"ids": ids})}


def open_content(
    connection: Connection, message: str, sealer: Sealer
) -> tuple[dict[str, Any], dict[str, str] | None]:
    """The content of a stored message, and its secrets; see `content_of`."""
    return content_of(load_sealed(connection, [message])[message], sealer)


def content_of(row: Mapping[str, Any], sealer: Sealer) -> tuple[dict[str, Any], dict[str, str] | None]:
    """The content of a row, and its secrets: {} if it never had any, None once erased.

    Raises BodyErased if all of it is gone.
    """
    if row["content"] is None:
        raise BodyErased(ERASED)
    secrets: dict[str, str] | None = None if row["has_secrets"] else {}
    if row["secrets"] is not None:
        secrets = _open_json(sealer, row["secrets"], row["id"])
    return _open_json(sealer, row["content"], row["id"]), secrets


def rendered_of(row: Mapping[str, Any], sealer: Sealer) -> bytes | None:
    """The frozen bytes to transmit, or None before the first attempt."""
    return None if row["rendered"] is None else sealer.open(row["rendered"], row["id"])


def open_rendered(connection: Connection, message: str, sealer: Sealer) -> bytes | None:
    """The frozen bytes of a message; see `rendered_of`."""
    return rendered_of(load_sealed(connection, [message])[message], sealer)


def open_preview(connection: Connection, message: str, sealer: Sealer) -> bytes | None:
    """The bytes a person may look at, secrets masked, or None if nothing was rendered yet."""
    shown = sa.func.coalesce(messages.c.preview, messages.c.rendered)
    sealed = connection.scalar(sa.select(shown).where(messages.c.id == message))
    return None if sealed is None else sealer.open(sealed, message)


def freeze(
    connection: Connection, fresh: Mapping[str, Rendered], token: str, sealer: Sealer
) -> frozenset[str]:
    """Keep the bytes that every attempt will send, by message. Answers the ids of those that were kept.

    The others were frozen before, or their lease is lost: somebody else has them. Written before the first
    octet leaves, so that an attempt after a crash sends the very same bytes although context providers mint
    new values each time they run.
    """
    ours = frozenset(connection.scalars(_UNFROZEN, {"ids": sorted(fresh), "token": token}))
    frozen = [{"of_id": id_, **_sealed(fresh[id_], id_, sealer)} for id_ in sorted(ours)]
    if frozen:
        _FREEZE.run(connection, frozen)
    return ours


def _sealed(rendered: Rendered, message: str, sealer: Sealer) -> dict[str, Any]:
    return {
        "mime": sealer.seal(rendered.mime, message),
        "masked": None if rendered.masked is None else sealer.seal(rendered.masked, message),
        "shown": rendered.subject[:1000],
    }


def close_ended(connection: Connection, ids: Collection[str], now: datetime) -> None:
    """Where every delivery is final: note the end, erase the secrets, keep only the masked bytes.

    Two transactions that each end one of the last two deliveries must not both find the other's still open.
    So they go one after the other from here, and the statement that looks begins after the wait.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_IN_TURN, {"ids": list(ids)})
    connection.execute(_CLOSE, {"ids": list(ids), "now": now})


def move(connection: Connection, message: str, send_at: datetime) -> None:
    """Note another time to leave."""
    connection.execute(sa.update(messages).where(messages.c.id == message).values(send_at=send_at))


def reopen(connection: Connection, message: str) -> None:
    """Undo `close_ended` for a person's retry: what was erased is rendered afresh, with fresh secrets.

    Raises BodyErased if there is nothing left to render, or not all of it.
    """
    erased = messages.c.erased_at.is_not(None)
    whole = (messages.c.body_erased_at.is_(None), sa.not_(messages.c.has_secrets & erased))
    reopened = connection.execute(
        sa.update(messages)
        .where(messages.c.id == message, *whole)
        .values(ended_at=None, erased_at=None, rendered=sa.case((erased, None), else_=messages.c.rendered))
    )
    if reopened.rowcount == 0:
        raise BodyErased(ERASED)


def _open_json(sealer: Sealer, sealed: bytes, bound_to: str) -> Any:
    # Its cache would keep texts that are people's in memory; names are ours.
    return pydantic_core.from_json(sealer.open(sealed, bound_to), cache_strings="keys")
