"""Accepting a message: committed in SQL first, announced to the broker after the commit.

The broker is only told an id, and only once the row is there. What it loses, forgets or never gets
the sweeper tells it again, so nothing here depends on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pydantic_core
import uuid_utils

from mailer import store, suppressions, timing
from mailer.errors import (
    BodyErased,
    IdempotencyConflict,
    InvalidMessage,
    MessageNotFound,
    MessageTooLarge,
    NobodyListens,
    SecretErased,
    StoreError,
    WrongState,
)
from mailer.events import Event
from mailer.message import Message, content_of, fingerprint, message_from
from mailer.mime import encoded_size
from mailer.origin import APPLICATION, Origin
from mailer.services import Services
from mailer.states import FINAL, State, summarise
from mailer.store import batches, by_hand, joining, queries, sweeps
from mailer.store import deliveries as delivery_rows
from mailer.store import messages as message_rows
from mailer.store.batches import BatchRow
from mailer.store.deliveries import Wakeup
from mailer.store.messages import NewMessage
from mailer.telemetry import log

ERASED = "the message carried a secret that was erased when it ended; ask for a new one"
UNSET: Any = object()
"""For ``session``: join the application's session if it has one."""


def accept(
    services: Services,
    message: Message,
    *,
    session: Any = UNSET,
    scope: str = "",
    resent_from: str | None = None,
    by: str = "",
    origin: Origin = APPLICATION,
) -> str:
    """Check and store a message; answer its id. A wake-up is published once it is committed.

    ``scope`` says who chose the idempotency key: the same key in another scope is another key. With a
    ``session`` the rows join its transaction and exist exactly if that commits. Without one they
    are committed when this returns. Raises InvalidMessage, IdempotencyConflict or StoreError; then
    nothing was stored.
    """
    new = prepared(services, message, scope=scope, resent_from=resent_from, origin=origin)
    joined = services.session if session is UNSET else session
    if joined is not None:
        with store.engine.told_plainly():
            joined = joining.resolve(joined)
            id_ = _insert(services, joined.connection(), new, by)
        if id_ == new.id:
            joining.after_commit(joined, new.id, lambda: wake(services, _wakeups(new)), _say_dropped)
        return id_
    with services.store.begin() as connection:
        id_ = _insert(services, connection, new, by)
    if id_ == new.id:
        wake(services, _wakeups(new))
    return id_


def accept_many(
    services: Services,
    new: Sequence[NewMessage],
    *,
    batch: BatchRow | None = None,
    answer: Callable[[list[str]], Any] = lambda ids: ids,
) -> Any:
    """Store what `prepared` made of messages that have no key of their own, all of them or none.

    Answers what ``answer`` makes of their ids. With a ``batch`` under the same key as one before, nothing is
    stored, and the answer is what that one got. Raises IdempotencyConflict if that one asked for something
    else, or StoreError.
    """
    told = answer([row.id for row in new])
    with services.store.begin() as connection:
        if batch is not None:
            kept_since = services.now() - timedelta(seconds=services.settings.keep_idempotency_keys)
            before = batches.claim(connection, replace(batch, answer=told), kept_since)
            if before is not None:
                _check_same(before.fingerprint, batch.fingerprint)
                return before.answer
        if new:
            new = suppressions.at_acceptance(services, connection, new)
            message_rows.accept_all(connection, new, services.store.sealer, last=True)
    wake(services, [wakeup for row in new for wakeup in _wakeups(row)])
    return told


def prepared(
    services: Services,
    message: Message,
    *,
    scope: str = "",
    resent_from: str | None = None,
    origin: Origin = APPLICATION,
) -> NewMessage:
    """Check what needs the application to be checked, and make of a message what is stored (MF20).

    Raises InvalidMessage: the template, its variables, the size.
    """
    if message.template is not None:
        provided = services.provided(message.template)
        services.templates.check(message.template, message.context, message.locale, provided)
    limit, size = services.settings.max_message_bytes, encoded_size(message)
    if size > limit:
        raise _too_large(message, limit)
    new = _new_row(services, message, scope, resent_from, origin)
    # What is stored holds the context and more: hardly ever must the context itself be measured.
    most = len(new.content) + 2 * sum(map(len, new.secrets.values()))
    if size + most > limit and message.template and size + _rough_bytes(message.context) > limit:
        raise _too_large(message, limit)
    return new


def _too_large(message: Message, limit: int) -> MessageTooLarge:
    return MessageTooLarge(
        "attachments" if message.attachments else "message",
        f"the encoded message would exceed {limit:,} bytes; send a link instead, "
        "or raise MAILER_MAX_MESSAGE_BYTES",
    )


def _rough_bytes(context: Mapping[str, Any]) -> int:
    return len(pydantic_core.to_json(context, fallback=lambda secret: "·" * len(secret.reveal())))


def _new_row(
    services: Services, message: Message, scope: str, resent_from: str | None, origin: Origin
) -> NewMessage:
    id_, now = str(uuid_utils.uuid7()), services.now()
    content, secrets = content_of(message)
    domain = services.settings.message_id_domain or message.sender.domain
    return NewMessage(
        id=id_,
        created_at=now,
        message_id=f"<{id_}@{domain}>",
        template=message.template,
        locale=message.locale,
        lane=message.lane,
        sender=str(message.sender),
        subject=message.subject,
        tags=message.tags,
        metadata=message.metadata,
        idempotency_scope=scope if message.idempotency_key else "",
        idempotency_key=message.idempotency_key,
        fingerprint=_fingerprint(services, message, origin) if message.idempotency_key else None,
        resent_from=resent_from,
        send_at=message.send_at,
        expires_at=message.expires_at,
        on_uncertain=message.on_uncertain,
        recipients=[(address.addr_spec, kind) for address, kind in message.envelope()],
        content=content,
        secrets=secrets,
        project=origin.project,
        carrier=origin.carrier,
    )


def _fingerprint(services: Services, message: Message, origin: Origin) -> str:
    if origin.fingerprint is not None:
        return origin.fingerprint
    # Keyed: from a plain hash of a mail whose only unknown is a six-digit code, the code can be guessed.
    return fingerprint(message, services.store.sealer.fingerprint_key)


def _insert(services: Services, connection: Any, new: NewMessage, by: str) -> str:
    (new,) = suppressions.at_acceptance(services, connection, [new])
    if not message_rows.accept(connection, new, services.store.sealer, last=True):
        if id_ := _same_as_before(services, connection, new):
            return id_
        if not message_rows.accept(connection, new, services.store.sealer, last=True):
            raise StoreError("the idempotency key changed hands meanwhile; nothing was accepted, try again")
    if new.resent_from:
        told = {"by": by, "as": new.id}
        message_rows.add_events(connection, new.resent_from, new.created_at, [(Event.RESENT, told)])
        told = {"by": by, "original": new.resent_from}
        message_rows.add_events(connection, new.id, new.created_at, [(Event.RESENT_FROM, told)])
    return new.id


def _same_as_before(services: Services, connection: Any, new: NewMessage) -> str | None:
    """The id of the message that was accepted under this key; None if it holds the key no longer."""
    twin = message_rows.idempotent_twin(connection, new.idempotency_scope, new.idempotency_key or "")
    if twin is None:
        return None
    if twin.created_at < new.created_at - timedelta(seconds=services.settings.keep_idempotency_keys):
        message_rows.release_key(connection, twin.id)
        return None
    _check_same(twin.fingerprint, new.fingerprint)
    return str(twin.id)


def _check_same(before: str | None, now: str | None) -> None:
    if before != now:
        raise IdempotencyConflict(
            "idempotency_key: it was used for a message with other content; use a new key for new content"
        )


def _wakeups(new: NewMessage) -> list[Wakeup]:
    later = new.send_at is not None and new.send_at > new.created_at
    return [] if later else [Wakeup(new.id, new.lane)]


def _say_dropped(ids: Sequence[str]) -> None:
    log.warning("mail.dropped_with_transaction", messages=len(ids), hint="the session was not committed")


def wake(services: Services, wakeups: Sequence[Wakeup]) -> bool:
    """Tell the broker; False if it did not listen, and then the sweeper will try again. Never raises."""
    if not wakeups:
        return True
    try:
        services.publish(wakeups)
    except Exception as exc:  # whatever a broker can do, an accepted message stays accepted
        level = logging.DEBUG if isinstance(exc, NobodyListens) else logging.WARNING
        log.log(level, "broker.unreachable", error=type(exc).__name__, waiting=len(wakeups))
        _unpublish(services, wakeups)
        return False
    return True


def _unpublish(services: Services, wakeups: Sequence[Wakeup]) -> None:
    """Ask the sweeper for wake-ups at once. If that cannot be written, it comes to it later by itself."""
    try:
        with services.store.begin_soon() as connection:
            sweeps.unpublish(connection, [wakeup.message for wakeup in wakeups])
    except StoreError as exc:
        log.warning("store.away", outcomes=len(wakeups), error=str(exc))


def due(services: Services, at_most: int = 8) -> list[Wakeup]:
    """What is due and has no recent wake-up: a few of each lane, the longest due first. Noted as published.

    A tenth of a second after it is due, so that a worker whose clock is a little behind finds it due, too.
    """
    settings, now = services.settings, services.now() - timedelta(seconds=0.1)
    repeat_after = timedelta(seconds=settings.republish_seconds)
    with services.store.read() as connection:
        lanes = delivery_rows.waiting(connection, settings.lane_names, now)
    found: list[Wakeup] = []
    for lane in lanes:
        with services.store.begin() as connection:
            found += sweeps.due(connection, lane, now, repeat_after, at_most)
    return found


def reap_and_expire(services: Services) -> None:
    """Take back deliveries whose worker was lost, and end those whose deadline has passed."""
    now, policy = services.now(), services.policy
    with services.store.begin() as connection:
        reaped = sweeps.reap(
            connection,
            now,
            crash_limit=services.settings.crash_limit,
            unknown_limit=policy.max_uncertain_tries,
        )
        expired = sweeps.expire(connection, now)
    if reaped or expired:
        log.info("sweeper.swept", reaped=reaped, expired=expired)


def resend(services: Services, id_: str, *, by: str, idempotency_key: str | None = None) -> str:
    """Send a stored message anew, with fresh secrets; answer the new message's id.

    Raises MessageNotFound, BodyErased if its content is gone, or SecretErased if the call carried a
    `Secret` that is gone: values that a context provider mints are minted afresh, a value given in the call
    cannot be. The same ``idempotency_key`` gives the same new message, so a double click sends one.
    """
    with services.store.read() as connection:
        row = message_rows.load(connection, id_)
        if row is None:
            raise MessageNotFound(f"no message has the id {id_!r}")
        content, secrets = message_rows.open_content(connection, id_, services.store.sealer)
    if secrets is None:
        raise SecretErased(ERASED)
    now = services.now()
    lifetime = row["expires_at"] - (row["send_at"] or row["created_at"]) if row["expires_at"] else None
    again = replace(
        message_from(content, secrets),
        send_at=None,
        expires_at=None if lifetime is None else now + lifetime,
        idempotency_key=idempotency_key,
    )
    origin = Origin(row["project"], row["carrier"])
    return accept(services, again, session=None, scope=f"resend:{id_}", resent_from=id_, by=by, origin=origin)


def retry(services: Services, id_: str, *, by: str) -> int:
    """Try again what failed or waits; answer how many recipients.

    Raises WrongState if nothing did, or SecretErased or BodyErased as `resend` does.
    """

    def again(connection: Any, row: Mapping[str, Any]) -> int:
        if row["body_erased_at"]:
            raise BodyErased(message_rows.ERASED)
        if row["has_secrets"] and row["erased_at"]:
            raise SecretErased(ERASED)
        return by_hand.retry(connection, id_, by, services.now())

    row, changed = _by_hand(services, id_, again, "nothing of it failed or waits for another try")
    wake(services, [Wakeup(id_, row["lane"])])
    return changed


def cancel(services: Services, id_: str, *, by: str) -> int:
    """Withdraw what has not left; answer how many recipients. Raises WrongState if all has left."""
    return _by_hand(
        services,
        id_,
        lambda connection, _row: by_hand.cancel(connection, id_, by, services.now()),
        "it has left, is leaving now, or has ended",
    )[1]


def reschedule(services: Services, id_: str, *, send_at: datetime, by: str) -> int:
    """Give a message that was not tried yet another time to leave; answer how many recipients.

    Raises InvalidMessage if that is at or after its deadline, WrongState if it has left or was tried.
    """

    def move(connection: Any, _row: Mapping[str, Any]) -> int:
        deadline = by_hand.deadline(connection, id_)
        if deadline is not None and deadline <= send_at:
            raise InvalidMessage("send_at", "is at or after the deadline; choose an earlier time")
        return by_hand.reschedule(connection, id_, send_at, by, services.now())

    send_at = timing.start(send_at, None, None, services.now()) or send_at
    return _by_hand(services, id_, move, "it has left, was tried already, or has ended")[1]


def settle(services: Services, id_: str, *, outcome: State, by: str) -> int:
    """Record a person's word on what is uncertain, SENT or FAILED; answer how many recipients.

    Raises WrongState if nothing of it is uncertain.
    """
    return _by_hand(
        services,
        id_,
        lambda connection, _row: by_hand.settle(connection, id_, outcome, by, services.now()),
        "nothing of it is uncertain",
    )[1]


def _by_hand(
    services: Services, id_: str, act: Callable[[Any, Mapping[str, Any]], int], otherwise: str
) -> tuple[Mapping[str, Any], int]:
    with services.store.begin() as connection:
        row = message_rows.load(connection, id_)
        if row is None:
            raise MessageNotFound(f"no message has the id {id_!r}")
        changed = act(connection, dict(row))
    if not changed:
        raise WrongState(f"message {id_}: {otherwise}")
    return dict(row), changed


def state(services: Services, id_: str) -> State:
    """The one word for a message. Raises MessageNotFound."""
    with services.store.read() as connection:
        found = queries.states(connection, id_)
    if not found:
        raise MessageNotFound(f"no message has the id {id_!r}")
    return summarise(found)


def wait(services: Services, id_: str, timeout_seconds: float, pause_seconds: float = 0.02) -> State:
    """Wait until a message has ended or awaits a person; answer its state then, or at the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = state(services, id_)
        if found in FINAL or found is State.UNCERTAIN or time.monotonic() >= deadline:
            return found
        time.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 1.5, 0.5)
