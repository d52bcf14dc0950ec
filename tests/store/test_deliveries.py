"""The transitions of a delivery, on both databases."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from mailer.events import Event
from mailer.states import CLAIMABLE, FINAL, TRANSITIONS, State
from mailer.store import by_hand, queries, sweeps
from mailer.store import deliveries as rows
from mailer.store import messages as message_rows
from mailer.store.deliveries import Finish, Wakeup
from mailer.store.messages import Rendered
from mailer.store.models import deliveries
from tests.store.conftest import NOW, new_message

LEASE = timedelta(seconds=60)
LATER = NOW + timedelta(minutes=5)
LIMITS = {"crash_limit": 3, "unknown_limit": 3}


def put_in(store, message: str, state: State, **values) -> None:
    """Set a delivery's state by hand, with what the constraints want beside it."""
    values = {
        "state": state,
        "lease_token": "held" if state is State.SENDING else None,
        "lease_until": NOW + LEASE if state is State.SENDING else None,
        "ended_at": NOW if state in FINAL else None,
        **values,
    }
    with store.begin() as connection:
        connection.execute(sa.update(deliveries).where(deliveries.c.message == message).values(**values))


def claim(store, message: str, token: str = "t", now=NOW):
    with store.begin() as connection:
        return rows.claim(connection, message, token, now, LEASE)


def finish(store, claimed, state: State, token: str = "t", **more):
    outcome = Finish(claimed.id, claimed.message, state, "because", **more)
    with store.begin() as connection:
        held = rows.hold(connection, [claimed.id], token)
        return rows.finish(connection, [outcome], held, NOW)


def mark(connection, jobs, token: str, now):
    held = rows.hold(connection, [id_ for job in jobs.values() for id_ in job], token)
    return rows.mark(connection, jobs, held, now)


def shown(store, message: str):
    with store.read() as connection:
        return queries.show(connection, message)


@pytest.mark.parametrize("state", State)
def test_claim_leaves_only_claimable_states(store, accept, state):
    """RT4: a claim takes what is scheduled, queued or deferred and due, and nothing else."""
    message = accept()
    put_in(store, message, state)
    assert bool(claim(store, message)) == (state in CLAIMABLE)


def test_a_claim_is_won_once(store, accept):
    """RT4: of ten workers that hear of a message at the same time, one gets it."""
    message, won, start = accept(), [], threading.Barrier(10)

    def work(n: int) -> None:
        start.wait()
        won.extend(claim(store, message, token=f"w{n}"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(won) == 1
    assert won[0].attempt == 1


def test_not_yet_due_and_expired_are_not_claimed(store, accept):
    """RT6, RT8: neither a schedule in the future nor a deadline in the past can be claimed."""
    assert not claim(store, accept(send_at=LATER))
    assert not claim(store, accept(expires_at=LATER), now=LATER)


def test_claim_due_takes_the_longest_due_first(store, accept):
    """Claims in numbers go by due time and stop at the limit."""
    older = {"created_at": NOW - timedelta(seconds=9)}
    second, first, elsewhere = accept(), accept(**older), accept(lane="bulk", **older)
    with store.begin() as connection:
        assert [c.message for c in rows.claim_due(connection, "default", 1, "t", NOW, LEASE)] == [first]
        assert [c.message for c in rows.claim_due(connection, "default", 9, "t", NOW, LEASE)] == [second]
        assert rows.claim_due(connection, "default", 9, "t", NOW, LEASE) == []
        assert rows.waiting(connection, ["critical", "default", "bulk"], NOW) == ["bulk"]
        assert [c.message for c in rows.claim_due(connection, "bulk", 9, "t", NOW, LEASE)] == [elsewhere]


def test_what_lost_a_worker_is_claimed_alone(store, accept):
    """A message that kills its worker must not take its neighbours along each time."""
    suspects, innocent = [accept(), accept()], accept()
    with store.begin() as connection:
        connection.execute(sa.update(deliveries).where(deliveries.c.message.in_(suspects)).values(crashes=1))
        assert [c.message for c in rows.claim_due(connection, "default", 9, "t", NOW, LEASE)] == [innocent]
        first = rows.claim_suspect(connection, "default", "u", NOW, LEASE)
        second = rows.claim_suspect(connection, "default", "v", NOW, LEASE)
        assert [c.message for c in first + second] == suspects
        assert rows.claim_suspect(connection, "default", "w", NOW, LEASE) == []


def test_a_late_worker_changes_nothing(store, accept):
    """RT4: after its lease was taken back, a worker can neither mark, renew nor finish."""
    message = accept()
    [claimed] = claim(store, message, "late")
    with store.begin() as connection:
        assert sweeps.reap(connection, LATER, **LIMITS) == 1
    [again] = claim(store, message, "fresh", now=LATER)
    with store.begin() as connection:
        assert not mark(connection, {"m": [claimed.id]}, "late", LATER)
    assert finish(store, claimed, State.FAILED, "late") == []
    assert finish(store, again, State.SENT, "fresh")
    assert shown(store, message).state is State.SENT


def test_a_mark_is_on_all_or_on_none(store, accept):
    """If one recipient's lease is lost no text goes out, so no other must seem to have a copy."""
    message = accept(recipients=[("a@x.test", "to"), ("b@x.test", "to")])
    one, other = claim(store, message)
    finish(store, one, State.DEFERRED, "t", not_before=LATER)
    with store.begin() as connection:
        assert not mark(connection, {"m": [one.id, other.id]}, "t", NOW)
        marks = connection.scalars(sa.select(deliveries.c.marked_at).where(deliveries.c.message == message))
        assert list(marks) == [None, None]
        assert mark(connection, {"m": [other.id]}, "t", NOW)


def test_rows_of_a_batch_are_locked_in_one_order(store, accept):
    """Two who change several rows must not wait for each other; on SQLite nobody can."""
    one, other = claim(store, accept(recipients=[("a@x.test", "to"), ("b@x.test", "to")]))
    with store.begin() as connection:
        assert list(rows.hold(connection, [other.id, one.id], "t")) == [one.id, other.id]


def test_a_job_that_lost_a_lease_does_not_hold_back_its_neighbours(store, accept):
    """Of a batch, those leave that are still ours; the torn one bears no mark."""
    [mine], [lost] = claim(store, accept()), claim(store, accept())
    finish(store, lost, State.DEFERRED, "t", not_before=LATER)
    with store.begin() as connection:
        assert mark(connection, {"mine": [mine.id], "lost": [lost.id]}, "t", NOW) == {"mine"}


def test_mark_fails_once_the_lease_ran_out(store, accept):
    """The fence: a worker that was frozen past its lease does not send, even if nobody else has it yet."""
    [claimed] = claim(store, accept())
    with store.begin() as connection:
        assert not mark(connection, {"m": [claimed.id]}, "t", LATER)
        assert mark(connection, {"m": [claimed.id]}, "t", NOW)
        rows.renew(connection, ["t"], LATER + LEASE)
        assert mark(connection, {"m": [claimed.id]}, "t", LATER)


@pytest.mark.parametrize("state", sorted(TRANSITIONS["finish"][1]))
def test_finish_records_state_reply_and_event(store, accept, state):
    """SC5: what the server said stays with the delivery and in the timeline."""
    message = accept()
    [claimed] = claim(store, message)
    data = {"recipient": "ada@example.test", "code": 421, "reply": "later"}
    assert finish(store, claimed, state, code=421, reply="later", not_before=LATER, data=data)
    view = shown(store, message)
    [delivery] = view.deliveries
    assert (delivery.state, delivery.code, delivery.reply, delivery.attempts) == (state, 421, "later", 1)
    assert (view.events[-1].name, view.events[-1].data) == (state, data)
    assert (view.ended_at is not None) == (state in FINAL)


def test_finish_can_give_the_attempt_back(store, accept):
    """SC7: a fault of the transport costs the message no attempt."""
    message = accept()
    [claimed] = claim(store, message)
    finish(store, claimed, State.DEFERRED, not_before=LATER, counts=False)
    assert shown(store, message).deliveries[0].attempts == 0


@pytest.mark.parametrize(
    ("marked", "policy", "crashes", "unknowns", "expected"),
    [
        (False, "retry", 0, 0, State.DEFERRED),
        (False, "hold", 0, 0, State.DEFERRED),
        (True, "retry", 0, 0, State.DEFERRED),
        (True, "retry", 0, 2, State.UNCERTAIN),
        (True, "hold", 0, 0, State.UNCERTAIN),
        (False, "retry", 2, 0, State.FAILED),
        (True, "retry", 2, 0, State.UNCERTAIN),
        (True, "hold", 2, 0, State.UNCERTAIN),
    ],
)
def test_reap_decides_by_mark_policy_and_crashes(store, accept, marked, policy, crashes, unknowns, expected):
    """RT5: a lost worker's message is tried again, held for a person, or ended after three crashes."""
    message = accept(on_uncertain=policy)
    put_in(
        store, message, State.SENDING, crashes=crashes, unknowns=unknowns, marked_at=NOW if marked else None
    )
    with store.begin() as connection:
        assert sweeps.reap(connection, NOW, **LIMITS) == 0, "the lease still runs"
        assert sweeps.reap(connection, LATER, **LIMITS) == 1
    view = shown(store, message)
    assert view.state is expected
    assert [e.name for e in view.events[-2:]] == ["worker_lost", expected]
    assert view.deliveries[0].not_before <= LATER, "RT5: the lease was waited for already"


def test_expire_ends_what_was_not_sent_in_time(store, accept):
    """RT8: a passed deadline ends as expired, which is not failed."""
    message = accept(expires_at=LATER)
    with store.begin() as connection:
        assert sweeps.expire(connection, NOW) == 0
        assert sweeps.expire(connection, LATER) == 1
    assert shown(store, message).state is State.EXPIRED


def test_due_publishes_once_and_again_after_a_while(store, accept):
    """RT1: a wake-up without effect is repeated, but not on every sweep."""
    message, again = accept(), timedelta(seconds=30)
    with store.begin() as connection:
        assert sweeps.due(connection, "default", NOW, again, 10) == [], "accept noted it as published"
        assert sweeps.due(connection, "default", LATER, again, 10) == [Wakeup(message, "default")]
        assert sweeps.due(connection, "default", LATER, again, 10) == []
        sweeps.unpublish(connection, [message])
        assert sweeps.due(connection, "default", LATER, again, 10) == [Wakeup(message, "default")]


def test_a_schedule_is_published_when_due(store, accept):
    """RT6: delays live in the database."""
    message = accept(send_at=LATER)
    with store.begin() as connection:
        assert sweeps.due(connection, "default", NOW, LEASE, 10) == []
        assert sweeps.due(connection, "default", LATER, LEASE, 10) == [Wakeup(message, "default")]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("transition", ["cancel", "reschedule", "retry", "settle"])
def test_people_may_only_do_what_the_table_allows(store, accept, transition, state):
    """A transition leaves the states it is listed for, and a row elsewhere stays untouched."""
    message = accept()
    put_in(store, message, state)
    with store.begin() as connection:
        act = {
            "cancel": lambda: by_hand.cancel(connection, message, "ada", NOW),
            "reschedule": lambda: by_hand.reschedule(connection, message, LATER, "ada", NOW),
            "retry": lambda: by_hand.retry(connection, message, "ada", NOW),
            "settle": lambda: by_hand.settle(connection, message, State.SENT, "ada", NOW),
        }[transition]
        changed = act()
    may, to = TRANSITIONS[transition]
    assert changed == (state in may)
    assert shown(store, message).state in (to if changed else {state})


def test_secrets_are_erased_when_the_message_ends(store, accept):
    """PD2: at the end the secret values are gone and the masked bytes take the original's place."""
    message = accept(secrets={"0": "s3cret"}, recipients=[("a@x.test", "to"), ("b@x.test", "to")])
    first, second = claim(store, message)
    with store.begin() as connection:
        frozen = {message: Rendered(b"link s3cret", b"link ******", "Hi")}
        assert message_rows.freeze(connection, frozen, "t", store.sealer) == {message}
        assert not message_rows.freeze(connection, frozen, "t", store.sealer), "frozen once"
    finish(store, first, State.SENT)
    with store.read() as connection:
        row = message_rows.load_sealed(connection, [message])[message]
        assert message_rows.rendered_of(row, store.sealer) == b"link s3cret"
        assert message_rows.content_of(row, store.sealer)[1] == {"0": "s3cret"}
        assert message_rows.sizes(connection, [message])[message] > len(b"link s3cret")
        assert message_rows.open_rendered(connection, message, store.sealer) == b"link s3cret"
        assert message_rows.open_preview(connection, message, store.sealer) == b"link ******"
    finish(store, second, State.SENT)
    with store.read() as connection:
        assert message_rows.open_rendered(connection, message, store.sealer) == b"link ******"
        assert message_rows.open_content(connection, message, store.sealer)[1] is None


def test_freeze_needs_the_lease(store, accept):
    """MF7: only the worker that holds the message decides on its bytes."""
    message = accept()
    with store.begin() as connection:
        assert not message_rows.freeze(
            connection, {message: Rendered(b"x", None, "s")}, "nobody", store.sealer
        )


def test_content_is_unreadable_in_the_row(store, accept):
    """PD1: neither context nor secret stands in the database in clear."""
    accept(content=b'{"context": {"name": "Canary-Ada"}}', secrets={"0": "Canary-token"})
    with store.read() as connection:
        dump = repr(connection.exec_driver_sql("SELECT * FROM mailer_messages").all())
    assert "Canary" not in dump


def test_an_idempotency_key_is_taken_once(store):
    """RT10: fifty parallel inserts under one key make one message."""
    taken, start = [], threading.Barrier(10)

    def insert() -> None:
        start.wait()
        new = new_message(idempotency_key="k", fingerprint="f")
        with store.begin() as connection:
            taken.append(message_rows.accept(connection, new, store.sealer))

    threads = [threading.Thread(target=insert) for _ in range(10)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sorted(taken) == [False] * 9 + [True]


@pytest.mark.parametrize(
    "nonsense",
    [
        {"state": "lost"},
        {"state": "sent", "ended_at": None},
        {"state": "queued", "lease_token": "t", "lease_until": 1.0},
        {"attempts": -1},
        {"kind": "by"},
    ],
)
def test_the_database_refuses_nonsense(store, accept, nonsense):
    """Constraints hold even against code that is wrong."""
    message = accept()
    assignments = ", ".join(f"{k} = {v!r}" if v is not None else f"{k} = NULL" for k, v in nonsense.items())
    with pytest.raises(IntegrityError), store.begin() as connection:
        connection.exec_driver_sql(f"UPDATE mailer_deliveries SET {assignments} WHERE message = '{message}'")


def test_search_finds_by_person_subject_id_and_state(store, accept):
    """Did she get it? One search by any of the words people have."""
    one = accept(recipients=[("Ada@example.test", "to"), ("bob@example.test", "bcc")], subject="Order 7")
    two = accept(recipients=[("eve@100%.example.test", "to")], template="receipt", tags=["shop"])

    def ids(**wanted):
        with store.read() as connection:
            return [m.id for m in queries.search(connection, queries.Search(**wanted))]

    assert ids(text="ADA@") == ids(text="order") == ids(text=one) == ids(tag="signup") == [one]
    assert ids(text="100%") == ids(template="receipt") == [two]
    assert ids(text="%") == [two], "a % is a character here, not a wildcard"
    assert len(ids(state=State.QUEUED)) == 2
    assert ids(state=State.SENT) == []
    newest = ids(limit=1)
    assert len(ids(before=newest[0])) == 1


def test_a_store_can_be_summed_up(store, accept):
    """What the console's first page says: how many there are, in which states, of which templates."""
    accept(), accept(template="reset_password"), accept(template=None, send_at=LATER)
    with store.read() as connection:
        assert queries.total(connection) == 3
        assert queries.counts(connection) == {State.QUEUED: 2, State.SCHEDULED: 1}
        assert queries.templates_in_use(connection) == ["reset_password", "welcome"]
        assert queries.states(connection, "unknown") == []
        theirs = queries.clock(connection)
        assert message_rows.load(connection, "unknown") is None
    assert (theirs is None) == (store.engine.dialect.name == "sqlite")


def test_an_idempotency_key_is_released(store, accept):
    """RT10: the oldest first, in small steps; one that is released names nothing, another may have it."""
    keys = [accept(idempotency_key=f"k{n}", fingerprint="f", created_at=NOW + n * LEASE) for n in range(4)]
    with store.begin() as connection:
        assert message_rows.idempotent_twin(connection, "", "k0").id == keys[0]
        assert message_rows.idempotent_twin(connection, "other scope", "k0") is None
        assert message_rows.release_keys(connection, NOW + 3 * LEASE, 2) == 2
        assert message_rows.release_keys(connection, NOW + 3 * LEASE, 2) == 1
        assert message_rows.idempotent_twin(connection, "", "k2") is None
        message_rows.release_key(connection, keys[3])
        assert message_rows.idempotent_twin(connection, "", "k3") is None


def test_a_timeline_keeps_its_order(store, accept):
    """Events are read as they were added, also those of one moment."""
    message = accept()
    with store.begin() as connection:
        told = [(Event.RESENT, {"by": "ada", "as": str(n)}) for n in range(5)]
        message_rows.add_events(connection, message, NOW, told)
    assert [e.data["as"] for e in shown(store, message).events[1:]] == list("01234")
