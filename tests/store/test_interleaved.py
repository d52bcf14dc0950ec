"""Two transactions at once: each pair of transitions, the second begun before the first has committed.

On SQLite only one writes at a time. On Postgres each statement sees what was committed when it began, so
here one transaction is held open while the other does its work, or waits.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from mailer.errors import BodyErased
from mailer.states import FINAL, State
from mailer.store import Store, by_hand, sweeps
from mailer.store import deliveries as rows
from mailer.store.deliveries import Finish
from mailer.store.models import deliveries, messages
from tests.store.conftest import NOW

LEASE = timedelta(seconds=60)
EARLIER, LATER = NOW - timedelta(seconds=1), NOW + timedelta(minutes=5)
LIMITS = {"crash_limit": 1, "unknown_limit": 3}


@dataclass(frozen=True)
class Deed:
    """A transition: the state it is for, and what it does to a message whose delivery has the id."""

    state: State
    do: Callable[[Any, str, int], Any]
    values: dict[str, Any] = field(default_factory=dict)


def finished(as_: State) -> Callable[[Any, str, int], Any]:
    def finish(c: Any, message: str, id_: int) -> Any:
        held = rows.hold(c, [id_], f"t{id_}")
        return rows.finish(c, [Finish(id_, message, as_, "x")], held, LATER)

    return finish


def mark(c: Any, _: str, id_: int) -> Any:
    return rows.mark(c, {"m": [id_]}, rows.hold(c, [id_], f"t{id_}"), EARLIER)


DEEDS = {
    "claim": Deed(State.QUEUED, lambda c, message, _: rows.claim(c, message, "new", NOW, LEASE)),
    "claim due": Deed(State.QUEUED, lambda c, *_: rows.claim_due(c, "default", 9, "due", NOW, LEASE)),
    "mark": Deed(State.SENDING, mark),
    "sent": Deed(State.SENDING, finished(State.SENT)),
    "deferred": Deed(State.SENDING, finished(State.DEFERRED)),
    "reap": Deed(State.SENDING, lambda c, *_: sweeps.reap(c, LATER, **LIMITS)),
    "expire": Deed(State.QUEUED, lambda c, *_: sweeps.expire(c, LATER), {"expires_at": LATER}),
    "cancel": Deed(State.QUEUED, lambda c, message, _: by_hand.cancel(c, message, "", LATER)),
    "retry": Deed(State.UNCERTAIN, lambda c, message, _: by_hand.retry(c, message, "", LATER)),
    "retry failed": Deed(State.FAILED, lambda c, message, _: by_hand.retry(c, message, "", LATER)),
    "settle": Deed(State.UNCERTAIN, lambda c, message, _: by_hand.settle(c, message, State.SENT, "", LATER)),
    "reschedule": Deed(State.QUEUED, lambda c, message, _: by_hand.reschedule(c, message, LATER, "", NOW)),
}  # fmt: skip
BOTH = {"mark": {"mark", "sent", "deferred"}, "reschedule": {"cancel", "reschedule"}}
"""What may follow on the same delivery; of all others only the first takes effect."""


def put(store: Store, message: str, deeds: list[Deed]) -> list[int]:
    """Bring the deliveries of a message to the states that the deeds are for; answer their ids."""
    with store.begin() as connection:
        d = deliveries.c
        ids = list(connection.scalars(sa.select(d.id).where(d.message == message).order_by(d.id)))
        for id_, deed in zip(ids, deeds, strict=True):
            sending = deed.state is State.SENDING
            values = {
                "state": deed.state,
                "lease_token": f"t{id_}" if sending else None,
                "lease_until": NOW if sending else None,
                "ended_at": NOW if deed.state in FINAL else None,
                **deed.values,
            }
            connection.execute(sa.update(deliveries).where(d.id == id_).values(**values))
    return ids


def overlap(store: Store, first: Callable[[Any], Any], second: Callable[[Any], Any]) -> list[Any]:
    """Do both; the first commits once the second has done its work or waits. Answers what each did."""
    process: queue.Queue[int] = queue.Queue()
    may_commit = threading.Event()

    def other() -> Any:
        with store.begin() as connection:
            process.put(connection.scalar(sa.text("SELECT pg_backend_pid()")))
            answer = second(connection)
            process.put(0)
            may_commit.wait(10)
        return answer

    with ThreadPoolExecutor(1) as pool:
        with store.begin() as connection:
            answer = first(connection)
            after = pool.submit(other)
            number = process.get(timeout=10)
            while process.empty() and not waits(store, number) and not after.done():
                time.sleep(0.001)
        may_commit.set()
        try:
            return [answer, after.result(timeout=10)]
        except BodyErased:  # its secrets went meanwhile: the retry is refused, and nothing of it written
            return [answer, 0]


def waits(store: Store, process: int) -> bool:
    """Whether a server process waits for a lock that another has."""
    with store.read() as connection:
        blocked = sa.text("SELECT cardinality(pg_blocking_pids(:process)) > 0")
        return bool(connection.scalar(blocked, {"process": process}))


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
@pytest.mark.parametrize("first", DEEDS)
def test_a_message_ends_with_its_last_delivery(store, accept, first):
    """RT4, RT12: whoever acts on the other recipient meanwhile, a message ends exactly if all of it has.

    One that never ends keeps its secrets for ever; one that ends too early loses them before they left.
    """
    two = [("a@x.test", "to"), ("b@x.test", "to")]
    for second in DEEDS:
        message, deeds = accept(recipients=two, secrets={"0": "s3cret"}), [DEEDS[first], DEEDS[second]]
        a, b = put(store, message, deeds)
        overlap(store, lambda c: deeds[0].do(c, message, a), lambda c: deeds[1].do(c, message, b))
        with store.begin() as connection:
            found = connection.scalars(sa.select(deliveries.c.state)).all()
            ended, kept = connection.execute(sa.select(messages.c.ended_at, messages.c.secrets)).one()
            connection.execute(sa.delete(messages))
        over = all(state in FINAL for state in found)
        assert (ended is not None, kept is None) == (over, over), (first, second, found)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
@pytest.mark.parametrize("first", DEEDS)
def test_one_of_two_transitions_wins(store, accept, first):
    """RT4: of two that change one delivery at once one takes effect, and the other says that it did not."""
    for second, deed in DEEDS.items():
        if deed.state is not DEEDS[first].state:
            continue
        message, deeds = accept(), [DEEDS[first], deed]
        [id_] = put(store, message, [replace(deed, values=deeds[0].values | deed.values)])
        done = overlap(store, lambda c: deeds[0].do(c, message, id_), lambda c: deeds[1].do(c, message, id_))
        with store.begin() as connection:
            connection.execute(sa.delete(messages))
        assert [bool(answer) for answer in done] == [True, second in BOTH.get(first, ())], (first, second)
