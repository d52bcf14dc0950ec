"""The state machine as a whole: random histories, and every history of one message.

``MODEL_EXAMPLES`` sets how many histories are tried, for a longer look than a test run has time for.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mailer import outcomes
from mailer.ledger import StoreLedger
from mailer.retry import RetryPolicy
from mailer.sealing import Sealer
from mailer.secret import Secret
from mailer.states import State
from mailer.store import Store, by_hand, create_engine, sweeps
from mailer.store import deliveries as delivery_rows
from mailer.store import messages as message_rows
from mailer.store.migrations import upgrade
from mailer.store.models import deliveries
from tests.store.graph import explore
from tests.store.model import ANSWERS, FAULTS, LEASE, MOMENT, REFUSALS, Broken, Hand, World, quieten

d = deliveries.c
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "20"))
STAGES = ("idle", "claimed", "parcel", "text")
LANES = ("critical", "default", "bulk")
SECRET = Secret("839201")
STUCK = (State.FAILED, State.UNCERTAIN)
MOST = 5
"""So many messages in one history; more only take longer."""

any_of = st.integers(0, 59)
"""Which of those there are; see `pick`."""
contents = st.fixed_dictionaries(
    {
        "to": st.sampled_from([["a@x.test"], ["a@x.test", "b@x.test"]]),
        "text": st.sampled_from(["Hello", "Bye", SECRET]),
        "on_uncertain": st.sampled_from(["retry", "hold"]),
        "lane": st.sampled_from(["default", "default", "bulk"]),
        "countdown": st.sampled_from([None, None, None, 90]),
        "expires_in": st.sampled_from([None, None, None, 100, 4_000]),
    }
)


def pick(things: Any, number: int) -> Any:
    found = list(things)
    return found[number % len(found)]


class Machine(RuleBasedStateMachine):
    """Callers, three workers, a sweeper, people and a clock, in any order."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.store)
        self.hands = [Hand(self.world, name) for name in "ABC"]

    # Callers

    @initialize(first=contents)
    def begin(self, first):
        self.world.accept(None, "", first)

    @precondition(lambda self: len(self.world.messages) < MOST)
    @rule(
        content=contents, key=st.sampled_from([None, "k"]), scope=st.sampled_from(["", "http"]), again=any_of
    )
    def accept(self, content, key, scope, again):
        if self.world.keys and again % 3 == 0:
            (scope, key), known = pick(self.world.keys.items(), again)
            content = known.content or content
        self.world.accept(key, scope, content)

    # Workers

    steps = rule(number=any_of, how=any_of, refused=any_of, until=st.sampled_from(["", *STAGES]))

    @steps
    def first_works(self, number, how, refused, until):
        self.work(self.hands[0], number, how, refused, until)

    @steps
    def second_works(self, number, how, refused, until):
        self.work(self.hands[1], number, how, refused, until)

    @steps
    def third_works(self, number, how, refused, until):
        self.work(self.hands[2], number, how, refused, until)

    def work(self, hand: Hand, number: int, how: int, refused: int, until: str) -> None:
        """One step, or several with nothing in between. Who was frozen goes on as if nothing were."""
        hand.frozen = False
        for _ in STAGES:
            self.step(hand, number, how, refused)
            if not until or hand.stage in ("idle", until):
                break

    def step(self, hand: Hand, number: int, how: int, refused: int) -> None:
        if hand.stage == "idle":
            hand.claim("message", pick(self.world.claimable() or self.world.messages, number))
        elif hand.stage == "claimed":
            hand.render()
        elif hand.stage == "text":
            hand.answer(pick(ANSWERS, how))
        elif refused % 3 == 0:
            hand.refuse(pick(FAULTS, how))
        else:
            some = hand.parcels[0].recipients[1:] if refused % 3 == 1 else ()
            hand.text(dict.fromkeys(some, pick(REFUSALS.values(), how)))

    @precondition(lambda self: any(hand.stage == "idle" for hand in self.hands))
    @rule(who=any_of, number=any_of, how=st.sampled_from(["message", "due", "suspect"]))
    def claim(self, who, number, how):
        """Whatever a worker is told of, be it due or not."""
        hand = pick([hand for hand in self.hands if hand.stage == "idle"], who)
        what = pick(self.world.messages if how == "message" else LANES, number)
        if self.world.is_settled(how, what):  # or a history could not be repeated
            hand.claim(how, what)

    @precondition(lambda self: any(hand.busy for hand in self.hands))
    @rule(who=any_of, kill=st.booleans())
    def a_worker_is_killed_or_freezes(self, who, kill):
        hand = pick([hand for hand in self.hands if hand.busy], who)
        hand.frozen = True
        if kill:
            hand.die()

    @precondition(lambda self: any(hand.busy for hand in self.hands))
    @rule(who=any_of, how=any_of, number=any_of, until=st.sampled_from(["", *STAGES]))
    def a_worker_comes_back_late(self, who, how, number, until):
        """It freezes until its lease is over. Its mails may have been taken back, and got by another."""
        late = pick([hand for hand in self.hands if hand.busy], who)
        others = [hand for hand in self.hands if hand is not late]
        self.world.pass_time(LEASE + MOMENT, others)
        if how % 4:
            self.sweep()
        if how % 2:
            self.work(pick(others, who), number, how, 2, until)
        self.work(late, number, how, 2, until)

    # The sweeper, the clock and what is around

    @rule(what=st.sampled_from(["lease", "due", 1, 20, 120, 90_000]), how=any_of)
    def time_passes(self, what, how):
        """A number is so many seconds, in which those who are awake renew their leases."""
        if what == "lease":  # whatever they are at, all workers freeze for longer than it lasts
            self.world.pass_time(LEASE + MOMENT)
        elif what == "due":
            self.world.pass_time(pick(self.world.waiting() or [MOMENT], how), self.hands)
        else:
            self.world.pass_time(what * MOMENT, self.hands)
        if how % 2:
            self.sweep()

    @rule(what=st.sampled_from(["sweep", "clock", "broker", "lanes"]), how=any_of)
    def something_else_happens(self, what, how):
        if what == "clock":
            self.world.pass_time(-pick([90, 7_200], how) * MOMENT, self.hands)
        elif what == "broker":
            self.world.broker_listens = not self.world.broker_listens
        elif what == "lanes":
            self.world.adopt(LANES[:2])
        if what == "sweep" or how % 2:
            self.sweep()

    def sweep(self) -> None:
        self.world.sweep()
        self.world.due()

    # People

    @rule(
        deed=st.sampled_from(["cancel", "reschedule", "retry", "settle", "resend"]), number=any_of, how=any_of
    )
    def decide(self, deed, number, how):
        """A person does something, mostly to what it is meant for."""
        self.decide_on(
            deed, pick(self.world.meant_for(deed) if how % 5 else self.world.messages, number), how
        )

    def decide_on(self, deed: str, message: str, how: int) -> None:
        world = self.world
        if deed == "cancel":
            world.cancel(message)
        elif deed == "reschedule":
            world.reschedule(message, world.now + pick([-10 * MOMENT, 30 * MOMENT, 90 * MOMENT], how))
        elif deed == "retry":
            world.retry(message)
        elif deed == "settle":
            world.settle(message, pick([State.SENT, State.FAILED], how))
        elif deed == "resend" and len(world.messages) < MOST:
            world.resend(message, pick([None, "click"], how))

    @precondition(lambda self: any(row.state in STUCK for row in self.world.rows.values()))
    @rule(number=any_of, deed=st.sampled_from(["retry", "settle"]))
    def decide_what_is_stuck(self, number, deed):
        self.decide_on(deed, pick(self.world.meant_for(deed), number), number)

    def teardown(self) -> None:
        quieten(self.world, self.hands)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def kept_store(request):
    """A migrated store for this module, SQLite's in memory: thousands of histories are written to it."""
    if request.param == "sqlite":
        engine = create_engine("sqlite://")
        upgrade(engine)
        yield Store(engine, Sealer([b"k" * 32]))
        engine.dispose()
    else:
        engine = request.getfixturevalue("migrated_postgres")
        store = Store(engine, Sealer([b"k" * 32]))
        yield store
        World(store)  # leaves no row to others


def histories(store: Store, examples: int, **more: Any) -> None:
    """Try so many histories on the store; raise what the first bad one raised."""
    machine = type("Machine", (Machine,), {"store": store})
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=checks, **more
        ),
    )


def test_promises_hold_in_any_history(kept_store):
    """RT1, RT4, RT5, RT8, RT10, RT12: whoever does what when, nothing is lost, doubled, late or stuck."""
    histories(kept_store, EXAMPLES)


CASES = {
    "hold": ("hold", None, True),
    "hold, with a deadline": ("hold", 100, False),
    "retry": ("retry", None, False),
    "retry, with a deadline": ("retry", 100, True),
}


@pytest.mark.parametrize("kept_store", ["sqlite"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_promises_hold_in_every_history_of_one_mail(kept_store, case):
    """RT4, RT5, RT8: from every state that two workers, a sweeper and a person can bring it to."""
    explored = explore(kept_store, *CASES[case])
    print(explored)
    assert explored.states > 500
    assert explored.steps > 7_000


@pytest.mark.parametrize("kept_store", ["postgres"], indirect=True)
@pytest.mark.parametrize("case", ["hold", "retry, with a deadline"])
def test_promises_hold_in_every_short_history_on_postgres(kept_store, case):
    """RT4, RT5, RT8: the same statements do the same there, as far as eight steps lead."""
    explored = explore(kept_store, *CASES[case], depth=8)
    print(explored)
    assert explored.states > 150
    assert explored.steps > 1_000


# What the two must find: each of these breaks one promise.


def leave_although_late(patch):
    patch.setattr(delivery_rows, "mark", lambda _, jobs, *__: frozenset(jobs))


def leave_while_nobody_took_the_lease_yet(patch):
    def mark(connection, jobs, held, now):
        return real_mark(connection, jobs, held, now - 10 * LEASE)

    real_mark = delivery_rows.mark
    patch.setattr(delivery_rows, "mark", mark)


def leave_after_the_deadline(patch):
    patch.setattr(StoreLedger, "_in_time", lambda self, job: True)


def cancel_what_is_leaving(patch):
    def cancel(connection, message, by, now):
        leaving = sa.update(deliveries).where(d.message == message, d.state == State.SENDING)
        connection.execute(leaving.values(state=State.QUEUED, lease_token=None, lease_until=None))
        return real(connection, message, by, now)

    real = by_hand.cancel
    patch.setattr(by_hand, "cancel", cancel)


def take_back_without_asking_for_the_policy(patch):
    def reap(connection, now, **limits):
        reaped = real(connection, now, **limits)
        held = sa.update(deliveries).where(d.state == State.UNCERTAIN)
        connection.execute(held.values(state=State.DEFERRED))
        return reaped

    real = sweeps.reap
    patch.setattr(sweeps, "reap", reap)


def forget_that_there_may_be_a_copy(patch):
    def reap(connection, now, **limits):
        reaped = real(connection, now, **limits)
        connection.execute(sa.update(deliveries).values(unknowns=0))
        return reaped

    real = sweeps.reap
    patch.setattr(sweeps, "reap", reap)


def take_back_nothing(patch):
    patch.setattr(sweeps, "reap", lambda *_, **__: 0)


def finish_although_late(patch):
    def hold(connection, ids, token):
        stolen = sa.update(deliveries).where(d.id.in_(ids), d.state == State.SENDING)
        connection.execute(stolen.values(lease_token=token))
        return real(connection, ids, token)

    real = delivery_rows.hold
    patch.setattr(delivery_rows, "hold", hold)


def claim_what_another_has(patch):
    def claim(connection, message, *more):
        other = sa.update(deliveries).where(d.message == message, d.state == State.SENDING)
        connection.execute(other.values(state=State.QUEUED, lease_token=None, lease_until=None))
        return real(connection, message, *more)

    real = delivery_rows.claim
    patch.setattr(delivery_rows, "claim", claim)


def try_again_what_is_to_be_held(patch):
    def judge(result, **more):
        return real(result, **more | {"on_uncertain": "retry"})

    real = outcomes.judge
    patch.setattr(outcomes, "judge", judge)


def never_end_a_message(patch):
    patch.setattr(message_rows, "close_ended", lambda *_: None)


def wait_for_ever(patch):
    patch.setattr(RetryPolicy, "delay", lambda *_: 1e7)


def forget_the_key(patch):
    def accept(connection, new, sealer, **more):
        return real(connection, replace(new, idempotency_key=None), sealer, **more)

    real = message_rows.accept
    patch.setattr(message_rows, "accept", accept)


def wake_nobody(patch):
    patch.setattr(sweeps, "due", lambda *_: [])


def heal_nothing(patch):
    patch.setattr(sweeps, "heal", lambda *_: None)


@pytest.mark.parametrize("kept_store", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("flaw", "case"),
    [
        (leave_although_late, "hold"),
        (leave_while_nobody_took_the_lease_yet, "hold"),
        (leave_after_the_deadline, "retry, with a deadline"),
        (cancel_what_is_leaving, "retry"),
        (take_back_without_asking_for_the_policy, "hold"),
        (forget_that_there_may_be_a_copy, "retry"),
        (take_back_nothing, "retry"),
        (finish_although_late, "retry"),
        (claim_what_another_has, "hold"),
        (try_again_what_is_to_be_held, "hold"),
        (never_end_a_message, "hold"),
        (wait_for_ever, "retry"),
    ],
)
def test_a_flaw_is_found_in_the_histories_of_one_mail(kept_store, monkeypatch, flaw, case):
    """RT4, RT5, RT8: the search sees each of the things that it is there to see."""
    flaw(monkeypatch)
    with pytest.raises(Broken):
        explore(kept_store, *CASES[case])


@pytest.mark.parametrize("kept_store", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "flaw", [leave_although_late, never_end_a_message, forget_the_key, wake_nobody, heal_nothing]
)
def test_a_flaw_is_found_in_random_histories(kept_store, monkeypatch, flaw):
    """RT1, RT4, RT10: so do the random histories, in as many as a test run has time for."""
    flaw(monkeypatch)
    with pytest.raises(Broken):
        histories(
            kept_store,
            50,
            phases=[Phase.generate],
            derandomize=True,
            database=None,
            report_multiple_bugs=False,
        )
