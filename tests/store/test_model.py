"""The state machine as a whole: random histories, and every history of one message.

``MODEL_EXAMPLES`` sets how many histories are tried, for a longer look than a test run has time for.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mailer.sealing import Sealer
from mailer.secret import Secret
from mailer.states import CLAIMABLE, State
from mailer.store import Store, create_engine
from mailer.store.migrations import upgrade
from tests.store.model import ANSWERS, FAULTS, LEASE, MOMENT, REFUSALS, Hand, World, quieten

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "25"))
STAGES = ("idle", "claimed", "parcel", "text")
LANES = ("critical", "default", "bulk")
SECRET = Secret("839201")
STUCK = (State.FAILED, State.UNCERTAIN)
EVENTS = ["lease", "lease", "due", "due", "sweep", "back", "around", 1, 20, 120, 90_000]
"""What happens beside workers and people; a number is so many seconds, in which leases are renewed."""
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
        hand.claim(how, pick(self.world.messages if how == "message" else LANES, number))

    @precondition(lambda self: any(hand.busy for hand in self.hands))
    @rule(who=any_of, kill=st.booleans())
    def a_worker_is_killed_or_freezes(self, who, kill):
        hand = pick([hand for hand in self.hands if hand.busy], who)
        hand.frozen = True
        if kill:
            hand.die()

    # The sweeper, the clock and what is around

    @rule(what=st.sampled_from(EVENTS), how=any_of)
    def time_passes(self, what, how):
        world = self.world
        if what == "lease":  # whatever they are at, all workers freeze for longer than it lasts
            world.pass_time(LEASE + MOMENT)
        elif what == "due":
            world.pass_time(pick(world.waiting() or [MOMENT], how), self.hands)
        elif what == "back":
            world.pass_time(-pick([90, 7_200], how) * MOMENT, self.hands)
        elif what == "around":
            world.broker_listens = how % 2 > 0
            world.adopt(pick([LANES, LANES[:2]], how))
        elif what != "sweep":
            world.pass_time(what * MOMENT, self.hands)
        if what == "sweep" or how % 2:
            world.sweep()
            world.due()

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
        left = [row.state for row in self.world.rows.values() if row.state in CLAIMABLE]
        assert not left


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
