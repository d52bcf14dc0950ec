"""Every history of one delivery with two workers: the graph of all the states it can come to.

What a step does to the rows is done by the store's own statements, once for each state of the rows, in a
savepoint that is taken back. Workers, copies and time are plain values, so states can be compared: times are
seconds from now, and what is over for long is as over as what is over since a moment.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mailer.job import Job, Lease
from mailer.ledger import StoreLedger
from mailer.retry import LEASE_LOST, RetryPolicy
from mailer.states import CLAIMABLE, FINAL, TRANSITIONS, State
from mailer.store import Store, by_hand, sweeps
from mailer.store import deliveries as delivery_rows
from mailer.store import messages as message_rows
from mailer.store.deliveries import Claimed
from mailer.store.models import deliveries, messages
from mailer.transports import Parcel, Receipt, Result, Stage
from tests.store.conftest import NOW, new_message
from tests.store.model import (
    ANSWERS,
    FAULTS,
    LEASE,
    NO_COPY,
    Broken,
    check_message,
    check_row,
    check_text,
    check_transition,
    handed,
    promise,
    ready,
    services_for,
)

POLICY = RetryPolicy(max_retries=1, jitter=False, max_uncertain_tries=2, backoff_max_seconds=60)
CRASHES = 2
TO = "ada@example.test"
OVER = -5
ROUNDS = 2
A_WHILE = 61  # seconds: a lease, and the wait after a first try


class Row(NamedTuple):
    """The delivery and the end of its message. ``lease_token`` is A, B, or X for one that nobody has."""

    state: State
    on_uncertain: str
    attempts: int
    crashes: int
    unknowns: int
    not_before: int
    expires_at: int | None
    lease_token: str | None
    lease_until: int | None
    marked_at: int | None
    ended_at: int | None = None
    secrets: bool = True


TIMES = ("not_before", "expires_at", "lease_until", "marked_at", "ended_at")


class Hand(NamedTuple):
    """What a worker knows of its claim. ``counts``: its text left since a person last decided."""

    attempt: int
    unknowns: int
    expires_at: int | None
    texting: bool = False
    counts: bool = True


class Spot(NamedTuple):
    """All there is to know at one moment."""

    row: Row
    hands: tuple[Hand | None, Hand | None]
    copies: int = 0
    retries: int = 0


@dataclass(frozen=True)
class Explored:
    """How much there was: states, steps between them, and different changes of rows."""

    states: int
    steps: int
    changes: int


class Held:
    """A store whose transactions are part of one that is never committed."""

    def __init__(self, connection: Connection, store: Store) -> None:
        self.connection, self.sealer = connection, store.sealer

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        yield self.connection

    read = begin


def explore(store: Store, policy: str, deadline: int | None, secret: bool, depth: int = 99) -> Explored:
    """Take every step from every state; raise Broken, with the way there, where a promise does not hold.

    ``deadline`` is seconds from now; ``secret`` says whether the message has one, which goes with its end.
    """
    with store.engine.begin() as connection:
        graph = Graph(connection, store, policy, deadline, secret)
        try:
            return graph.explore(depth)
        finally:
            connection.rollback()


class Graph:
    def __init__(
        self, connection: Connection, store: Store, policy: str, deadline: int | None, secret: bool
    ) -> None:
        self.connection, self.changed, self.secret = connection, dict[Any, Any](), secret
        self.services = services_for(Held(connection, store), lambda: NOW, POLICY, crash_limit=CRASHES)
        new = new_message(
            on_uncertain=policy,
            expires_at=None if deadline is None else NOW + timedelta(seconds=deadline),
            secrets={"0": "s3cret"} if secret else {},
            recipients=[(TO, "to")],
        )
        message_rows.accept(connection, new, store.sealer)
        self.message = new.id
        self.id = connection.scalar(sa.select(deliveries.c.id).where(deliveries.c.message == new.id))
        self.sealed = connection.scalar(sa.select(messages.c.secrets).where(messages.c.id == new.id))
        self.first = Spot(self.read(), (None, None))

    # The search

    def explore(self, depth: int) -> Explored:
        way: dict[Spot, tuple[Spot, str] | None] = {self.first: None}
        steps, edge = 0, deque([(self.first, 0)])
        while edge:
            spot, deep = edge.popleft()
            name = "until it is quiet"
            try:
                self.check_quiet(spot)
                for name, step in self.steps(spot) if deep < depth else ():
                    steps += 1
                    after = canonical(step())
                    if after not in way:
                        way[after] = spot, name
                        edge.append((after, deep + 1))
            except Exception as exc:
                raise Broken(f"{exc} after: {', '.join([*self.way_to(spot, way), name])}") from exc
        return Explored(len(way), steps, len(self.changed))

    @staticmethod
    def way_to(spot: Spot, way: dict[Spot, tuple[Spot, str] | None]) -> list[str]:
        names = []
        while (before := way[spot]) is not None:
            spot, name = before
            names.append(name)
        return names[::-1]

    def steps(self, spot: Spot) -> Iterator[tuple[str, Callable[[], Spot]]]:
        """What can happen next."""
        for at, (name, hand) in enumerate(zip("AB", spot.hands, strict=True)):
            if hand is None:
                yield f"claim {name}", lambda at=at: self.claim(spot, at)
                continue
            yield f"die {name}", lambda at=at: self.die(spot, at)
            if spot.row.lease_token == name:
                yield f"renew {name}", lambda at=at: self.renew(spot, at)
            if hand.texting:
                for answer in ("250", "451", "550", "lost"):
                    yield f"{answer} {name}", lambda at=at, how=answer: self.answer(spot, at, how)
            else:
                yield f"text {name}", lambda at=at: self.text(spot, at)
                for fault in ("no connection", "450"):
                    yield f"{fault} {name}", lambda at=at, how=fault: self.answer(spot, at, how)
        yield "time", lambda: self.time(spot)
        yield "reap", lambda: self.sweep(spot, "reap")
        yield "expire", lambda: self.sweep(spot, "expire")
        yield "cancel", lambda: self.person(spot, "cancel", by_hand.cancel)
        for seconds in (OVER, 30):
            when = NOW + timedelta(seconds=seconds)
            yield (
                f"reschedule {seconds}",
                lambda when=when: self.person(spot, "reschedule", by_hand.reschedule, when),
            )
        yield "settle", lambda: self.person(spot, "settle", by_hand.settle, State.SENT)
        gone = self.secret and spot.row.ended_at is not None
        if spot.retries == 0 and not gone:
            yield "retry", lambda: self.person(spot, "retry", by_hand.retry)

    # The steps

    def claim(self, spot: Spot, at: int) -> Spot:
        name = "AB"[at]

        def claim(c: Connection) -> list[Claimed]:
            return delivery_rows.claim(c, self.message, "A", NOW, LEASE)

        row, claimed = self.change("claim", spot.row, claim, name)
        self.check(spot, row, "claim")
        promise(bool(claimed) == ready(spot.row, 0), "claimed, or not, against its state", spot.row)
        if not claimed:
            return spot
        [one] = claimed
        hand = Hand(one.attempt, one.unknowns, spot.row.expires_at)
        return spot._replace(row=row, hands=put(spot.hands, at, hand))

    def text(self, spot: Spot, at: int) -> Spot:
        name, hand = "AB"[at], spot.hands[at]
        assert hand is not None

        def text(_: Connection) -> bool:
            parcel, ledger = self.parcel(hand)
            if ledger.update((), (parcel,)):
                return True
            ledger.update([(parcel, Receipt("", {TO: Result(Stage.DATA, problem=LEASE_LOST)}))], ())
            return False

        row, leaves = self.change(f"text {hand}", spot.row, text, name)
        self.check(spot, row, "finish", owner=name)
        if not leaves:
            return self.orphaned(spot._replace(row=row, hands=put(spot.hands, at, None)), name)
        check_text(row, name, 0, spot.copies)
        hand = hand._replace(texting=True, counts=True)
        return spot._replace(row=row, hands=put(spot.hands, at, hand), copies=spot.copies + 1)

    def answer(self, spot: Spot, at: int, how: str) -> Spot:
        """An answer to the text, or what came before the text."""
        name, hand = "AB"[at], spot.hands[at]
        assert hand is not None
        result = ANSWERS[how] if hand.texting else FAULTS[how]

        def answer(_: Connection) -> None:
            parcel, ledger = self.parcel(hand)
            ledger.update([(parcel, Receipt("", {TO: result}))], ())

        row, _ = self.change(f"{how} {hand}", spot.row, answer, name)
        after = spot
        if hand.texting and hand.counts and how in NO_COPY:
            after = after._replace(copies=spot.copies - 1)
        self.check(after, row, "finish", owner=name)
        if spot.row.lease_token == name:
            promise((row.state == State.SENT) == (how == "250"), "sent without 250, or the reverse", row)
            promise(row.state != State.FAILED or how != "lost", "failed, and it may have arrived", row)
        return self.orphaned(after._replace(row=row, hands=put(spot.hands, at, None)), name)

    def renew(self, spot: Spot, at: int) -> Spot:
        name = "AB"[at]

        def renew(c: Connection) -> None:
            delivery_rows.renew(c, ["A"], NOW + LEASE)

        row, _ = self.change("renew", spot.row, renew, name)
        self.check(spot, row, "", owner=name)
        return spot._replace(row=row)

    def die(self, spot: Spot, at: int) -> Spot:
        return self.orphaned(spot._replace(hands=put(spot.hands, at, None)), "AB"[at])

    @staticmethod
    def orphaned(spot: Spot, name: str) -> Spot:
        """Nobody has the lease that was this worker's."""
        row = spot.row._replace(lease_token="X") if spot.row.lease_token == name else spot.row
        return spot._replace(row=row)

    def time(self, spot: Spot) -> Spot:
        row = spot.row._replace(**{name: later(getattr(spot.row, name)) for name in TIMES})
        first, second = [h and h._replace(expires_at=later(h.expires_at)) for h in spot.hands]
        return spot._replace(row=row, hands=(first, second))

    def sweep(self, spot: Spot, what: str) -> Spot:
        def sweep(c: Connection) -> int:
            if what == "expire":
                return sweeps.expire(c, NOW)
            return sweeps.reap(c, NOW, crash_limit=CRASHES, unknown_limit=POLICY.max_uncertain_tries)

        row, changed = self.change(what, spot.row, sweep)
        self.check(spot, row, what)
        old = spot.row
        late = old.expires_at is not None and old.expires_at <= 0 and old.state in CLAIMABLE
        lost = old.state == State.SENDING and old.lease_until is not None and old.lease_until < 0
        promise(bool(changed) == (late if what == "expire" else lost), f"{what} is wrong", old, row)
        return spot._replace(row=row)

    def person(self, spot: Spot, deed: str, do: Callable[..., int], *more: Any) -> Spot:
        row, changed = self.change(
            f"{deed} {more}", spot.row, lambda c: do(c, self.message, *more, "ada", NOW)
        )
        promise(changed == (spot.row.state in TRANSITIONS[deed][0]), f"{deed} says a wrong number", changed)
        after = spot
        if deed == "retry" and changed:
            first, second = [h and h._replace(counts=False) for h in spot.hands]
            after = spot._replace(copies=0, retries=spot.retries + 1, hands=(first, second))
        self.check(after, row, deed)
        return after._replace(row=row)

    # What is asked of each

    def check(self, spot: Spot, row: Row, transition: str, owner: str | None = None) -> None:
        """A step may have brought the row of ``spot`` to this, by one transition or none."""
        old = spot.row
        if row != old:
            theirs = owner is None or old.lease_token == owner
            promise(theirs, "a late worker changed something", old, row)
            beside = row._replace(marked_at=old.marked_at, lease_until=old.lease_until)
            if owner is None or beside != old:
                check_transition(old.state, row.state, [transition] if transition else [])
            promise(row.state != State.EXPIRED or old.expires_at == OVER, "expired early", old)
        check_row(row, spot.copies)
        ended = SimpleNamespace(
            ended_at=row.ended_at, has_secrets=self.secret, secrets=row.secrets, preview=False
        )
        check_message(ended, [row.state])

    def check_quiet(self, spot: Spot) -> None:
        """Once everybody has died, a sweeper and one worker bring it to an end in a few rounds."""
        spot = self.die(self.die(spot, 0), 1)
        for _ in range(ROUNDS):
            for _ in range(10):
                spot = self.time(spot)
            spot = self.sweep(self.sweep(spot, "reap"), "expire")
            if self.claim(spot, 0) is spot:
                break
            spot = self.text(self.claim(spot, 0), 0)
            spot = self.answer(spot, 0, "250") if spot.hands[0] else spot
        promise(spot.row.state in FINAL or spot.row.state == State.UNCERTAIN, "stuck", spot)

    # The rows

    def parcel(self, hand: Hand) -> tuple[Parcel, StoreLedger]:
        deadline = None if hand.expires_at is None else NOW + timedelta(seconds=hand.expires_at)
        policy = self.first.row.on_uncertain
        claimed = Claimed(self.id, self.message, TO, hand.attempt, hand.unknowns, policy, deadline, NOW)
        job = Job(self.message, [claimed], NOW, data=b"mail")
        ledger = StoreLedger(self.services, Lease("A", LEASE), [job])
        [parcel] = handed(self.services, [job], ledger)
        return parcel, ledger

    def change(
        self, name: str, row: Row, act: Callable[[Connection], Any], hand: str = "A"
    ) -> tuple[Row, Any]:
        """What the step makes of the row, and answers. Done only once for each row, and by A for B, too."""
        row = row if hand == "A" else swapped(row)
        if (name, row) not in self.changed:
            self.write(row)
            answer = act(self.connection)
            self.changed[name, row] = self.read(), answer
        after, answer = self.changed[name, row]
        return after if hand == "A" else swapped(after), answer

    def write(self, row: Row) -> None:
        values = row._asdict() | {name: stamp(getattr(row, name)) for name in TIMES}
        values |= {"id": self.id, "message": self.message, "kept": self.sealed if row.secrets else None}
        self.connection.execute(_WRITE, values)
        self.connection.execute(_WRITE_END, values)

    def read(self) -> Row:
        row = Row(*self.connection.execute(_READ, {"id": self.id}).one())
        times = {name: seconds(getattr(row, name)) for name in TIMES}
        return row._replace(state=State(row.state), secrets=bool(row.secrets), **times)


_OF_DELIVERY = [name for name in Row._fields if name != "secrets"]
_WRITE = sa.text(
    f"UPDATE {deliveries} SET {', '.join(f'{name} = :{name}' for name in _OF_DELIVERY)} WHERE id = :id"
)
_WRITE_END = sa.text(
    f"UPDATE {messages} SET ended_at = :ended_at, erased_at = :ended_at, secrets = :kept WHERE id = :message"
)
_READ = sa.text(
    f"SELECT {', '.join(f'd.{name}' for name in _OF_DELIVERY[:-1])}, m.ended_at, m.secrets IS NOT NULL "
    f"FROM {deliveries} d JOIN {messages} m ON m.id = d.message WHERE d.id = :id"
)


def put(hands: tuple[Hand | None, Hand | None], at: int, hand: Hand | None) -> tuple[Any, Any]:
    return (hand, hands[1]) if at == 0 else (hands[0], hand)


def swapped(row: Row) -> Row:
    """The same with A in place of B, and B in place of A."""
    return row._replace(lease_token={"A": "B", "B": "A"}.get(row.lease_token or "", row.lease_token))


def canonical(spot: Spot) -> Spot:
    """The same for states that differ only in the workers' names, or in how what is over has ended."""
    row = spot.row
    if row.state in FINAL:
        deadline = row.expires_at if row.state == State.FAILED else None  # it may be retried
        row = row._replace(attempts=0, crashes=0, unknowns=0, not_before=OVER, marked_at=None)
        spot = spot._replace(row=row._replace(expires_at=deadline), copies=0)
    other = spot._replace(row=swapped(spot.row), hands=spot.hands[::-1])
    return min(spot, other, key=hash)


def later(left: int | None) -> int | None:
    if left is None:
        return None
    return left - A_WHILE if left > A_WHILE else OVER


def seconds(stamped: float | None) -> int | None:
    if stamped is None:
        return None
    left = round(stamped - NOW.timestamp())
    return left if left > 0 else OVER


def stamp(left: int | None) -> float | None:
    return None if left is None else NOW.timestamp() + left
