"""What must hold of deliveries whatever happens, checked after each step against the rows of a real store.

`World` is one application's store with a clock that is set by hand, and a ledger of the copies that may have
left. `Hand` is a worker that takes the steps of `mailer.delivery` one at a time, so that anything can happen
between them: others act, the lease runs out, it dies. A `Broken` says which promise does not hold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mailer import delivery, outbox
from mailer.config import Settings
from mailer.errors import IdempotencyConflict, SecretErased, WrongState
from mailer.job import Job, Lease
from mailer.ledger import StoreLedger
from mailer.message import Message
from mailer.retry import LEASE_LOST, RetryPolicy
from mailer.services import Services
from mailer.states import CLAIMABLE, FINAL, TRANSITIONS, State
from mailer.store import Store, sweeps
from mailer.store import deliveries as delivery_rows
from mailer.store.models import deliveries, messages
from mailer.transports import Ledger, Parcel, Receipt, Reply, Result, Stage
from tests.store.conftest import NOW

LEASE = timedelta(seconds=60)
POLICY = RetryPolicy(max_retries=3, jitter=False, max_uncertain_tries=2)
KEEP_KEYS = timedelta(days=1)
MOMENT = timedelta(seconds=1)
AT_ONCE = {"message": 50, "due": 3, "suspect": 1}
"""How many deliveries a claim takes at most."""

ANSWERS = {
    "250": Result(Stage.TEXT, Reply(250, "ok"), text_sent=True),
    "451": Result(Stage.TEXT, Reply(451, "4.3.0 later"), text_sent=True),
    "550": Result(Stage.TEXT, Reply(550, "5.7.1 no"), text_sent=True),
    "lost": Result(Stage.TEXT, text_sent=True, problem="connection lost"),
    "garbled": Result(Stage.TEXT, Reply(354, "go on"), text_sent=True),
}
"""What may come once the text went out. Only 451 and 550 say that there is no copy."""
REFUSALS = {
    "550": Result(Stage.RCPT, Reply(550, "5.1.1 unknown")),
    "450": Result(Stage.RCPT, Reply(450, "4.2.1 busy")),
}
"""What may become of one recipient while others of its message are taken."""
FAULTS = {
    **REFUSALS,
    "sender refused": Result(Stage.MAIL, Reply(553, "5.7.1 not you")),
    "no connection": Result(Stage.CONNECT, problem="refused"),
    "connection lost": Result(Stage.DATA, problem="connection lost"),
}
"""What may come before the text."""
NO_COPY = frozenset({"451", "550"})

Rows = Mapping[int, Any]


class Broken(AssertionError):
    """A promise that does not hold, in words."""


def promise(holds: object, words: str, *about: Any) -> None:
    if not holds:
        raise Broken(f"{words}: {about}" if about else words)


def ready(row: Any, now: datetime) -> bool:
    """A worker may claim it."""
    in_time = row.expires_at is None or row.expires_at > now
    return row.state in CLAIMABLE and row.not_before <= now and in_time


def check_transition(old: State, new: State, transitions: Sequence[str]) -> None:
    """The states are joined by these transitions, taken in order, each once or not at all."""
    reached, entered = {old}, set[State]()
    for name in transitions:
        before, after = TRANSITIONS[name]
        if reached & before:
            entered, reached = entered | after, reached | after
    promise(new in entered, "no transition leads there", old, new, transitions)


def check_text(row: Any, token: str, now: datetime, copies: int) -> None:
    """The text of this delivery may begin to leave now, besides so many copies that may have left before."""
    promise(row.state == State.SENDING, "a copy left what is not being sent", row)
    promise(row.lease_token == token, "a copy left without the lease", row, token)
    promise(row.lease_until > now, "a copy left after the lease ran out", row)
    promise(row.expires_at is None or row.expires_at > now, "a copy left after the deadline", row)
    promise(row.on_uncertain != "hold" or copies == 0, "a second copy under hold", row)
    promise(copies <= row.unknowns, "more copies than tries of unknown outcome", row, copies)


def check_row(row: Any, copies: int) -> None:
    """A delivery as it stands, of which so many copies may have left since a person last decided."""
    promise(row.state in set(State), "no such state", row)
    leased = row.lease_token is not None
    promise((row.state == State.SENDING) == leased, "a lease without sending, or the reverse", row)
    waits = row.state in CLAIMABLE
    promise(not (waits and copies and row.on_uncertain == "hold"), "it will be doubled under hold", row)


def check_message(row: Any, states: Collection[State]) -> None:
    """A message ends exactly if all its deliveries have, and its secrets go with the end."""
    over = all(state in FINAL for state in states)
    promise((row.ended_at is not None) == over, "it ended too early, or has not ended", row, states)
    promise(row.has_secrets or not row.secrets, "secrets from nowhere", row)
    if row.has_secrets:
        promise(row.secrets == (not over), "secrets kept after the end, or gone before", row, states)
        promise(not (over and row.preview), "the original was kept", row)


class _Handed(BaseException):
    """Carries the parcels out of `delivery.transmit`; it lets no worker clean up, as a kill would not."""


class _Hands:
    """A transport that leaves every step to whoever catches the parcels."""

    name = "scripted"

    def transmit(self, batch: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        raise _Handed(batch, ledger)

    def close(self) -> None:
        pass


def handed(services: Services, jobs: Sequence[Job], ledger: Ledger) -> list[Parcel]:
    """What `delivery.transmit` hands to its transport."""
    try:
        delivery.transmit(services, jobs, ledger)
    except _Handed as given:
        return list(given.args[0])
    return []


def services_for(store: Any, now: Callable[[], datetime], policy: RetryPolicy, **limits: Any) -> Services:
    return Services(
        settings=Settings(lease_seconds=LEASE.total_seconds(), **limits),
        store=store,
        templates=None,  # type: ignore[arg-type]  # no mail here has a template
        transport=_Hands(),
        policy=policy,
        providers={},
        defaults={},
        app_context=contextlib.nullcontext,
        publish=lambda wakeups: None,
        now=now,
    )


@dataclass
class Copy:
    """One time that the text of a delivery began to leave. There may be a copy unless it was refused."""

    token: str
    refused: bool = False
    taken: bool = False


@dataclass(frozen=True)
class Accepted:
    """The message that an idempotency key names."""

    id: str
    content: Any
    at: datetime


@dataclass
class World:
    """A store, its clock, and what is known of every copy."""

    store: Store
    now: datetime = NOW
    broker_listens: bool = True
    trusted: datetime | None = None  # when leases may be taken back again; None: at any time
    set_back: bool = False
    copies: dict[int, list[Copy]] = field(default_factory=dict)
    keys: dict[tuple[str, str], Accepted] = field(default_factory=dict)
    bytes_of: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.store.begin() as connection:
            connection.execute(sa.delete(messages))
        self.services = services_for(self.store, lambda: self.now, POLICY)
        self.services.publish = self._publish
        self.rows, self.messages = self._read()

    def _publish(self, _wakeups: Any) -> None:
        if not self.broker_listens:
            raise ConnectionError

    # What every step is measured by

    @contextlib.contextmanager
    def step(
        self,
        *transitions: str,
        mine: Callable[[Any], bool] = lambda _row: False,
        fields: Collection[str] = (),
    ) -> Iterator[None]:
        """Do a step that takes these transitions, of rows that are ``mine`` by how they were before.

        Other rows must stay as they are; ``fields`` are those that may change beside a transition.
        """
        yield
        before, (self.rows, self.messages) = self.rows, self._read()
        for id_, row in self.rows.items():
            old = before.get(id_)
            if old is None:
                promise("accept" in transitions, "a delivery from nowhere", row)
                promise(row.state in TRANSITIONS["accept"][1], "accepted as what it cannot be", row)
            elif row != old:
                self._check_change(old, row, transitions, mine, fields)
            check_row(row, self.copies_left(id_))
        promise(before.keys() <= self.rows.keys(), "a delivery is gone", before.keys() - self.rows.keys())
        for id_, message in self.messages.items():
            check_message(message, [State(row.state) for row in self.rows.values() if row.message == id_])

    def _check_change(self, old: Any, new: Any, transitions: Any, mine: Any, fields: Any) -> None:
        promise(mine(old), "somebody changed what was not theirs", old, new, transitions)
        changed = {name for name in new._fields if getattr(old, name) != getattr(new, name)}
        if changed <= {"published_at", *fields}:
            return
        check_transition(State(old.state), State(new.state), transitions)
        if new.state == State.SENT and "settle" not in transitions:
            took = [copy for copy in self.copies[old.id] if copy.taken and copy.token == old.lease_token]
            promise(took, "sent without a copy", new)
        if new.state == State.FAILED and "finish" in transitions:
            left = [c for c in self.copies[old.id] if not c.refused and c.token == old.lease_token]
            promise(not left, "a worker said failed of what may have arrived", new)
        if new.state == State.EXPIRED:
            promise(old.expires_at is not None and old.expires_at <= self.now, "expired early", old)
        if new.state == State.SENDING:
            promise(ready(old, self.now), "claimed before or after its time", old)

    def _read(self) -> tuple[Rows, Mapping[str, Any]]:
        m = messages.c
        whole = sa.select(
            m.id,
            m.ended_at,
            m.erased_at,
            m.expires_at,
            m.has_secrets,
            m.secrets.is_not(None).label("secrets"),
            m.preview.is_not(None).label("preview"),
        )
        with self.store.read() as connection:
            rows = connection.execute(sa.select(deliveries).order_by(deliveries.c.id)).all()
            known = {row.id: row for row in connection.execute(whole)}
        in_order = dict.fromkeys(row.message for row in rows)  # so that a history can be repeated
        return {row.id: row for row in rows}, {id_: known[id_] for id_ in in_order}

    def copies_left(self, id_: int) -> int:
        """How many copies of a delivery may exist since a person last allowed another."""
        return sum(not copy.refused for copy in self.copies.setdefault(id_, []))

    def of(self, message: str) -> list[Any]:
        return [row for row in self.rows.values() if row.message == message]

    def claimed_by(self, how: str, what: str) -> list[Any]:
        """The deliveries that a worker gets by such a claim, or some of which it gets if they are many."""
        found = [row for row in self.rows.values() if ready(row, self.now)]
        if how == "message":
            return [row for row in found if row.message == what]
        return [row for row in found if row.lane == what and (row.crashes > 0) == (how == "suspect")]

    def is_settled(self, how: str, what: str) -> bool:
        """Which of them it gets does not depend on how a database orders what is due since the same time."""
        waits = sorted(row.not_before for row in self.claimed_by(how, what))
        first = AT_ONCE[how]
        return len(waits) <= first or waits[first - 1] < waits[first]

    def claimable(self) -> list[str]:
        """The messages of which a worker would get something now."""
        return list(dict.fromkeys(row.message for row in self.rows.values() if ready(row, self.now)))

    def meant_for(self, deed: str) -> list[str]:
        """The messages that a person's deed would change; any if there is none."""
        leaves = TRANSITIONS[deed][0] if deed in TRANSITIONS else FINAL
        found = dict.fromkeys(row.message for row in self.rows.values() if row.state in leaves)
        return list(found) or list(self.messages)

    def waiting(self) -> list[timedelta]:
        """How long what is not due yet still has to wait."""
        waits = {row.not_before - self.now for row in self.rows.values() if row.state in CLAIMABLE}
        return sorted(wait + MOMENT for wait in waits if wait > timedelta(0))

    # Callers

    def accept(self, key: str | None, scope: str, content: Mapping[str, Any]) -> str | None:
        """Accept a message through the outbox. None if its key is taken by other content."""
        message = Message.create(
            sender="me@example.test", subject="Hello", now=self.now, idempotency_key=key, **content
        )
        known, number = self._known(key, scope), len(self.messages)
        with self.step("accept"):
            try:
                id_ = outbox.accept(self.services, message, session=None, scope=scope)
            except IdempotencyConflict:
                id_ = None
        if known is None:
            promise(id_ is not None and len(self.messages) == number + 1, "it was not accepted", key)
            assert id_ is not None
            promise(len(self.of(id_)) == len(message.envelope()), "not one delivery for each recipient", id_)
            if key:
                self.keys[scope, key] = Accepted(id_, content, self.now)
            return id_
        promise(id_ == (known.id if known.content == content else None), "the key names another", known, id_)
        promise(len(self.messages) == number, "a second message under one key", known)
        return id_

    def _known(self, key: str | None, scope: str) -> Accepted | None:
        known = self.keys.get((scope, key)) if key else None
        return known if known is not None and known.at >= self.now - KEEP_KEYS else None

    # People

    def cancel(self, message: str) -> int:
        return self._by_hand("cancel", message, lambda: outbox.cancel(self.services, message, by="ada"))

    def settle(self, message: str, outcome: State) -> int:
        def act() -> int:
            return outbox.settle(self.services, message, outcome=outcome, by="ada")

        return self._by_hand("settle", message, act)

    def reschedule(self, message: str, send_at: datetime) -> int:
        deadline = self.messages[message].expires_at
        if deadline is not None and deadline <= send_at:
            return 0

        def act() -> int:
            return outbox.reschedule(self.services, message, send_at=send_at, by="ada")

        return self._by_hand("reschedule", message, act)

    def retry(self, message: str) -> int:
        row, ids = self.messages[message], self._leaves("retry", message)
        if row.has_secrets and row.erased_at:
            with self.step(), contextlib.suppress(SecretErased):
                outbox.retry(self.services, message, by="ada")
            return 0
        allowed = {id_: self.copies[id_] for id_ in ids}
        self.copies.update({id_: [] for id_ in ids})  # before the step is checked: they decided already
        changed = self._by_hand("retry", message, lambda: outbox.retry(self.services, message, by="ada"))
        assert changed == len(allowed)
        return changed

    def _leaves(self, transition: str, message: str) -> set[int]:
        return {row.id for row in self.of(message) if row.state in TRANSITIONS[transition][0]}

    def _by_hand(self, transition: str, message: str, act: Callable[[], int]) -> int:
        """It changes all that it may, says how many that is, and nothing of what it may not."""
        expected, before, changed = self._leaves(transition, message), self.rows, 0
        with self.step(transition, mine=lambda row: row.message == message), contextlib.suppress(WrongState):
            changed = act()
        promise(changed == len(expected), f"{transition} says a wrong number", changed, expected)
        moved = {id_ for id_, row in self.rows.items() if row.state != before[id_].state}
        promise(moved <= expected, f"{transition} moved others", moved, expected)
        if transition != "reschedule":
            promise(moved == expected, f"{transition} left some", moved, expected)
        return changed

    def resend(self, message: str, key: str | None) -> str | None:
        gone = self.messages[message].has_secrets and self.messages[message].ended_at is not None
        known, number, new = self._known(key, f"resend:{message}"), len(self.messages), None
        with self.step("accept"), contextlib.suppress(SecretErased):
            new = outbox.resend(self.services, message, by="ada", idempotency_key=key)
        promise((new is None) == gone, "resent with a hole, or not resent", message)
        if new is None:
            return None
        if known is None:
            promise(len(self.messages) == number + 1, "it was not accepted", message)
        if known is not None:
            promise(new == known.id and len(self.messages) == number, "a double click sent two", known, new)
        elif key:
            self.keys[f"resend:{message}", key] = Accepted(new, None, self.now)
        return new

    # The sweeper and the clock

    def sweep(self) -> None:
        """What the sweeper does, in its order: after a clock was set back it waits before it takes leases."""
        if self.set_back:
            longest = timedelta(seconds=POLICY.backoff_max_seconds)
            healed = self.step(mine=lambda _: True, fields=("lease_until", "not_before"))
            with healed, self.store.begin() as connection:
                sweeps.heal(connection, self.now, LEASE, longest)
            self.set_back, self.trusted = False, self.now + LEASE
            ahead = {State.SENDING: LEASE, State.QUEUED: timedelta(0), State.DEFERRED: longest}
            for row in self.rows.values():
                until = row.lease_until or row.not_before
                in_reach = row.state not in ahead or until <= self.now + ahead[row.state]
                promise(in_reach, "it waits for the clock that was set back", row)
        if self.trusted is None or self.now >= self.trusted:
            self.reap()

    def reap(self) -> None:
        def over(row: Any) -> bool:
            late = row.expires_at is not None and row.expires_at <= self.now and row.state in CLAIMABLE
            return late or (row.state == State.SENDING and row.lease_until < self.now)

        lost = {id_ for id_, row in self.rows.items() if over(row)}
        with self.step("reap", "expire", mine=over):
            outbox.reap_and_expire(self.services)
        left = [id_ for id_ in lost if self.rows[id_].state == State.SENDING]
        promise(not left, "the sweeper left what was lost", left)

    def due(self) -> list[str]:
        """The lanes for which the sweeper publishes wake-ups now."""
        with self.step(mine=lambda row: row.state in CLAIMABLE):
            wakeups = outbox.due(self.services)
            outbox.wake(self.services, wakeups)
        return list(dict.fromkeys(wakeup.lane for wakeup in wakeups))

    def adopt(self, lanes: Collection[str]) -> None:
        adopted = self.step(mine=lambda row: row.lane not in lanes, fields=("lane",))
        with adopted, self.store.begin() as connection:
            sweeps.adopt(connection, lanes)

    def pass_time(self, span: timedelta, hands: Sequence[Hand] = ()) -> None:
        """Time passes, or is set back. Whoever is awake renews its lease meanwhile."""
        self.now += span
        self.set_back |= span < timedelta(0)
        if self.trusted is not None and span < timedelta(0):
            self.trusted += span
        for hand in hands:
            if hand.busy and not hand.frozen:
                hand.renew()


class Hand:
    """A worker, one step at a time: claim, render, then each parcel's text and its answer."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.number = world, name, 0
        self.die()

    def die(self) -> None:
        """Killed: it forgets all, and cleans nothing up."""
        self.lease = Lease("", LEASE)
        self.claimed: list[Any] = []
        self.parcels: list[Parcel] = []
        self.jobs: dict[str, Job] = {}
        self.refused: dict[str, Result] = {}
        self.texting: dict[str, Copy] = {}
        self.frozen = False

    @property
    def busy(self) -> bool:
        return bool(self.claimed or self.parcels)

    @property
    def stage(self) -> str:
        """What it would do next: idle, claimed, parcel or text."""
        if self.claimed:
            return "claimed"
        return ("text" if self.texting else "parcel") if self.parcels else "idle"

    def _mine(self, row: Any) -> bool:
        return bool(row.lease_token == self.lease.token)

    def claim(self, how: str, what: str) -> int:
        """Claim by ``message``, or the ``due`` or the ``suspect`` of a lane, those that are due longest."""
        world, self.number = self.world, self.number + 1
        self.lease = Lease(f"{self.name}{self.number}", LEASE)
        token, now = self.lease.token, world.now
        those = {row.id: row for row in world.claimed_by(how, what)}
        with world.step("claim", mine=lambda row: row.id in those), world.store.begin() as connection:
            if how == "message":
                claimed = delivery_rows.claim(connection, what, token, now, LEASE)
            elif how == "suspect":
                claimed = delivery_rows.claim_suspect(connection, what, token, now, LEASE)
            else:
                claimed = delivery_rows.claim_due(connection, what, AT_ONCE[how], token, now, LEASE)
        self.claimed = sorted(claimed, key=lambda one: one.id)
        got = {one.id for one in claimed}
        promise(got <= those.keys(), "it claimed what it was not to", got, those)
        promise(len(got) == min(len(those), AT_ONCE[how]), "it left what was due", got, those)
        waited = [those[id_].not_before for id_ in got]
        left = [row.not_before for id_, row in those.items() if id_ not in got]
        promise(not got or not left or max(waited) <= min(left), "it left what was due longer", waited, left)
        held = {id_ for id_, row in world.rows.items() if self._mine(row)}
        promise(held == got, "it holds something else than it was told", held, got)
        return len(got)

    def render(self) -> None:
        """Freeze the bytes, and get the parcels ready."""
        with self.world.step():
            jobs = delivery.jobs_of(self.claimed)
            self.ledger = StoreLedger(self.world.services, self.lease, jobs)
            delivery.prepare(self.world.services, self.lease, jobs, self.ledger)
        self.claimed = []
        for job in jobs:
            if job.settled:  # only for who comes late, after the secrets have been erased
                promise(not self.holds(job), "it could not be rendered", job)
        self.jobs = {job.message: job for job in jobs}
        self.parcels = handed(self.world.services, jobs, self.ledger)

    def holds(self, job: Job) -> bool:
        """Whether any delivery of the job is still its own."""
        return any(self._mine(row) for row in self.world.of(job.message))

    def renew(self) -> None:
        renewed = self.world.step(mine=self._mine, fields=("lease_until",))
        with renewed, self.world.store.begin() as connection:
            delivery_rows.renew(connection, [self.lease.token], self.world.now + LEASE)

    def text(self, refused: Mapping[str, Result]) -> bool:
        """The server said 354, and refused some recipients before. True if the text begins to leave."""
        world, parcel = self.world, self.parcels[0]
        job = self.jobs[parcel.id]
        self.refused = dict(refused)
        with world.step(mine=self._mine, fields=("marked_at",)):
            leaves = parcel.id in self.ledger.update((), (parcel,))
        if not leaves:
            self._settle({r: Result(Stage.DATA, problem=LEASE_LOST) for r in parcel.recipients})
            return False
        known = world.bytes_of.setdefault(parcel.id, parcel.data)
        promise(parcel.data == known, "a copy with other bytes", parcel.id)
        for claimed in job.claimed:
            if claimed.recipient not in refused:
                row = world.rows[claimed.id]
                check_text(row, self.lease.token, world.now, world.copies_left(claimed.id))
                self.texting[claimed.recipient] = Copy(self.lease.token)
                world.copies[claimed.id].append(self.texting[claimed.recipient])
        return True

    def answer(self, how: str) -> None:
        """The server's answer to the text arrives, or does not."""
        for copy in self.texting.values():
            copy.refused, copy.taken = how in NO_COPY, how == "250"
        results = {r: self.refused.get(r, ANSWERS[how]) for r in self.parcels[0].recipients}
        self.texting = {}
        self._settle(results)

    def refuse(self, how: str) -> None:
        """The conversation ends before the text."""
        self._settle(dict.fromkeys(self.parcels[0].recipients, FAULTS[how]))

    def _settle(self, results: dict[str, Result]) -> None:
        parcel = self.parcels.pop(0)
        with self.world.step("finish", mine=self._mine):
            self.ledger.update([(parcel, Receipt("scripted", results))], ())

    def work_off(self) -> None:
        """All that is left of a claim, with a server that takes everything."""
        if self.stage == "claimed":
            self.render()
        while self.parcels:
            if self.stage == "text" or self.text({}):
                self.answer("250")


def quieten(world: World, hands: Sequence[Hand]) -> int:
    """Kill everybody, and let a sweeper and an honest worker go on until nothing is left to be done.

    Answers the rounds that took. Nothing may take more of them, or more time, than leases, waits and
    schedules explain; and the worker only looks where a wake-up sends it.
    """
    for hand in hands:
        hand.die()
    world.broker_listens = True
    worker, began = Hand(world, "honest"), world.now
    world.sweep()
    waits = [row.not_before - world.now for row in world.rows.values() if row.state in CLAIMABLE]
    longest = timedelta(seconds=POLICY.backoff_max_seconds)
    for row in world.rows.values():
        promise(
            row.state != State.DEFERRED or row.not_before - world.now <= longest, "it waits too long", row
        )
    bound = 2 * LEASE + max([timedelta(0), *waits]) + timedelta(minutes=2)
    for rounds in range(1, 5):
        open_ = [row for row in world.rows.values() if row.state in CLAIMABLE or row.state == State.SENDING]
        if not open_:
            promise(world.now - began <= bound, "it took too long", world.now - began, bound)
            return rounds
        ahead = [row.not_before - world.now for row in open_] if rounds > 1 else []
        world.pass_time(max([LEASE + MOMENT, *(wait + MOMENT for wait in ahead)]))
        world.sweep()
        for lane in world.due():
            while worker.claim("suspect", lane) or worker.claim("due", lane):
                worker.work_off()
    raise Broken(f"stuck: {open_}")
