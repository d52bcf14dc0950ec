"""What is kept for how long, who is forgotten, and how a key becomes dispensable, on both databases."""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from mailer import retention
from mailer.address import Address
from mailer.errors import BodyErased, ConfigError, InvalidAddress
from mailer.operators import create_operator
from mailer.retention import BURST, EVERY, Tidied, Tidying
from mailer.sealing import Sealer
from mailer.states import State
from mailer.store import Store, accounts, by_hand, queries, resealing, second_factors
from mailer.store import deliveries as delivery_rows
from mailer.store import messages as message_rows
from mailer.store import retention as rows
from mailer.store.deliveries import Finish
from mailer.store.messages import Rendered
from mailer.store.models import deliveries, events, messages, metadata, tags
from mailer.store.queries import Search, search
from tests.store.backlog import analyze, plan_of
from tests.store.conftest import NOW

DAY = timedelta(days=1)
ADA = "ada@example.test"


@pytest.fixture
def services(store):
    """Just what the use cases need, with a clock that stands until a test moves it."""
    clock = SimpleNamespace(now=NOW)
    settings = SimpleNamespace(keep_bodies=7 * 86400, keep_messages=90 * 86400, keep_idempotency_keys=86400)
    return SimpleNamespace(store=store, settings=settings, clock=clock, now=lambda: clock.now)


def attempt(store, message: str, state: State = State.SENT, now=NOW, reply="250 ok", render=True) -> None:
    """Claim what is due, freeze the mail's bytes, and record that all of it ended like this."""
    with store.begin() as connection:
        claimed = delivery_rows.claim(connection, message, "t", now, timedelta(minutes=1))
        if render:
            bytes_ = Rendered(b"To: ada, code 493201", b"To: ada, code masked", "Hello Ada")
            message_rows.freeze(connection, {message: bytes_}, "t", store.sealer)
        outcomes = [
            Finish(
                c.id,
                message,
                state,
                "because",
                reply=reply,
                not_before=now + DAY,
                data={"recipient": c.recipient, "reply": reply},
            )
            for c in claimed
        ]
        delivery_rows.finish(connection, outcomes, [o.id for o in outcomes], now)


def row(store, message: str):
    with store.read() as connection:
        found = connection.execute(sa.select(messages).where(messages.c.id == message))
        return found.mappings().one_or_none()


def view(store, message: str):
    with store.read() as connection:
        return queries.show(connection, message)


def ids(store) -> set[str]:
    with store.read() as connection:
        return set(connection.scalars(sa.select(messages.c.id)))


def forget(services, address: str = ADA):
    return retention.forget(services, address, by="eve")


# What is kept for a while


def test_a_body_is_erased_and_the_rest_stays(store, accept):
    """PD2: after its time nothing a mail said is left, and who got it and what was answered still is."""
    message = accept(secrets={"0": "493201"}, metadata={"order": "7"})
    attempt(store, message)
    with store.begin() as connection:
        assert rows.erase_bodies(connection, NOW - DAY, NOW) == 0
        assert rows.erase_bodies(connection, NOW, NOW + DAY) == 1
        assert rows.erase_bodies(connection, NOW, NOW + DAY) == 0, "once"
    left = row(store, message)
    gone = ("content", "secrets", "rendered", "preview", "subject")
    assert {left[name] for name in gone} == {None}
    assert (left["body_erased_at"], left["ended_at"]) == (NOW + DAY, NOW)
    assert (left["tags"], left["metadata"]) == (["signup"], {"order": "7"})
    shown = view(store, message)
    assert [(d.recipient, d.state, d.reply) for d in shown.deliveries] == [(ADA, State.SENT, "250 ok")]
    assert [e.name for e in shown.events] == ["accepted", "sent"]


def test_only_what_has_ended_is_touched(services, accept):
    """PD2: a mail that waits, is being sent or is uncertain keeps everything, however old it is."""
    store, kept = services.store, {accept(), accept(send_at=NOW + 300 * DAY), accept(), accept()}
    waits, _, sending, doubt = sorted(kept)
    for message, state in ((waits, State.DEFERRED), (doubt, State.UNCERTAIN)):
        attempt(store, message, state)
    with store.begin() as connection:
        delivery_rows.claim(connection, sending, "t", NOW, timedelta(minutes=1))
    services.clock.now = NOW + 1000 * DAY
    assert retention.tidy(services) == Tidied()
    assert ids(store) == kept
    assert all(row(store, message)["content"] for message in kept)


def test_each_thing_goes_when_its_time_is_over(services, accept):
    """PD2: keys after a day, bodies after a week, messages with deliveries and events after 90 days."""
    store = services.store
    first = accept(idempotency_key="k", fingerprint="f")
    attempt(store, first)
    copy = accept(resent_from=first, send_at=NOW + 1000 * DAY)
    for days, expected in (
        (0.5, Tidied()),
        (1.5, Tidied(keys=1)),
        (6.9, Tidied()),
        (7.1, Tidied(bodies=1)),
        (89.9, Tidied()),
        (90.1, Tidied(messages=1)),
    ):
        services.clock.now = NOW + days * DAY
        assert retention.overdue(services) == expected
        assert retention.tidy(services) == expected
    assert ids(store) == {copy}
    assert row(store, copy)["resent_from"] is None
    with store.read() as connection:
        for table in (deliveries, events):
            assert set(connection.scalars(sa.select(table.c.message))) == {copy}


def test_a_kept_key_keeps_its_message(services, accept):
    """IK: with an eager policy, too, a call that is repeated within a day finds what it made."""
    message = accept(idempotency_key="k", fingerprint="f")
    attempt(services.store, message)
    services.settings.keep_bodies = services.settings.keep_messages = 0
    services.clock.now = NOW + DAY / 2
    assert retention.overdue(services) == retention.tidy(services) == Tidied(bodies=1)
    services.clock.now = NOW + 2 * DAY
    assert retention.overdue(services) == Tidied(keys=1, messages=1)
    assert retention.tidy(services) == Tidied(keys=1, messages=1)


def test_tags_go_with_their_message(services, accept):
    """What is removed, or was about a person who is forgotten, is found by no tag and leaves no row."""
    tagged = [accept(tags=["shop", f"order-{n}"]) for n in range(3)]
    accept(tags=["shop"], recipients=[("bob@example.test", "to")])
    for message in tagged[:2]:
        attempt(services.store, message)
    with services.store.begin() as connection:
        assert rows.purge(connection, NOW, limit=1) == 1
    forget(services)
    with services.store.read() as connection:
        assert [m.tags for m in search(connection, Search(tag="shop"))] == [["shop"]]
        assert list(connection.scalars(sa.select(tags.c.tag))) == ["shop"]


def test_a_step_is_small(services, accept):
    """PD2: no step touches more than its limit, the longest ended goes first, and steps come to an end."""
    made = [accept() for _ in range(5)]
    for number, message in enumerate(made):
        attempt(services.store, message, now=NOW + number * timedelta(seconds=1))
    services.clock.now = NOW + 8 * DAY
    assert retention.tidy(services, limit=2) == Tidied(bodies=2)
    assert [row(services.store, m)["body_erased_at"] is not None for m in made] == [True] * 2 + [False] * 3
    services.clock.now = NOW + 91 * DAY
    assert retention.tidy(services, limit=2) == Tidied(messages=2, bodies=2)
    assert ids(services.store) == set(made[2:])
    assert retention.tidy_all(services) == Tidied(messages=3)
    assert ids(services.store) == set()


def test_several_workers_tidy_at_once(services, accept):
    """PD2: what one holds the others leave out; nothing is done twice and nobody waits."""
    for _ in range(12):
        attempt(services.store, accept(), render=False)
    services.clock.now = NOW + 8 * DAY
    done, start = [], threading.Barrier(4)

    def work() -> None:
        start.wait()
        done.extend(retention.tidy(services, limit=2).bodies for _ in range(8))

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert sum(done) == 12


@pytest.mark.parametrize(
    ("index", "step"),
    [("with_body", lambda c: rows.erase_bodies(c, NOW, NOW)), ("ended", lambda c: rows.purge(c, NOW))],
)
def test_a_step_walks_its_index_only(store, index, step):
    """PD2: finding what is over costs what is over, not what is kept: here five of 5,000."""
    fields = {"lane": "bulk", "sender": "me@x.test", "message_id": "<x>", "tags": [], "metadata": {}}
    fields |= {"created_at": NOW - DAY, "has_secrets": False}
    made = [{"id": f"m-{n}", "ended_at": NOW + (n - 4) * timedelta(seconds=1)} for n in range(5000)]
    with store.begin() as connection:
        connection.execute(sa.insert(messages), [fields | one for one in made])
    analyze(store)
    found = plan_of(store, "mailer_messages", step)
    assert f"ix_mailer_messages_{index}" in found, found
    assert "SCAN mailer_messages" not in found, found
    assert "Seq Scan on mailer_messages" not in found, found


def test_tidying_is_cheap_to_ask_every_second(services, monkeypatch):
    """PD2: once a minute; at once again while there is more, but no more than a burst of steps."""
    backlog = [Tidied(bodies=rows.LIMIT)] * 2 + [Tidied(bodies=1)]
    monkeypatch.setattr(retention, "tidy", lambda _: backlog.pop(0) if backlog else Tidied())
    tidying = Tidying(services)
    assert [tidying.step() is not None for _ in range(5)] == [True, True, True, False, False]
    services.clock.now += EVERY - timedelta(seconds=1)
    assert tidying.step() is None
    services.clock.now += timedelta(seconds=1)
    assert tidying.step() == Tidied()
    assert tidying.step() is None
    services.clock.now -= DAY
    assert tidying.step() == Tidied(), "a clock that was set back does not stop it for a day"
    monkeypatch.setattr(retention, "tidy", lambda _: Tidied(keys=rows.LIMIT))
    services.clock.now += EVERY
    assert [tidying.step() is not None for _ in range(BURST + 2)] == [True] * BURST + [False] * 2


def test_tidying_that_fails_waits_its_minute(services, monkeypatch):
    """PD2: a store that is away is not asked every second."""
    answers = iter([ConfigError("x", "no"), Tidied()])
    monkeypatch.setattr(retention, "tidy", lambda _: _raise_or(next(answers)))
    tidying = Tidying(services)
    with pytest.raises(ConfigError):
        tidying.step()
    assert tidying.step() is None
    services.clock.now += EVERY
    assert tidying.step() == Tidied()


def _raise_or(answer):
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_nothing_reads_or_retries_what_is_gone(store, accept):
    """PD2: whoever needs content that was erased is told so, and nothing is queued that nobody could send."""
    message = accept()
    attempt(store, message, State.FAILED)
    with store.begin() as connection:
        rows.erase_bodies(connection, NOW, NOW)
    with store.read() as connection, pytest.raises(BodyErased):
        message_rows.open_content(connection, message, store.sealer)
    with pytest.raises(BodyErased), store.begin() as connection:
        by_hand.retry(connection, message, "eve", NOW)
    assert view(store, message).state is State.FAILED, "rolled back"
    with store.read() as connection:
        assert message_rows.open_preview(connection, message, store.sealer) is None


def test_a_retry_and_an_erasure_meet(services, accept):
    """PD2: of the two, one wins whole: queued with its content, or ended without; never queued without."""
    store = services.store
    made = [accept() for _ in range(40)]
    for message in made:
        attempt(store, message, State.FAILED, render=False)
    start, erased = threading.Barrier(2), []

    def work() -> None:
        start.wait()
        for message in made:
            with contextlib.suppress(BodyErased), store.begin() as connection:
                by_hand.retry(connection, message, "eve", NOW)

    def erase() -> None:
        start.wait()
        for _ in range(10):
            with store.begin() as connection:
                erased.append(rows.erase_bodies(connection, NOW, NOW, limit=4))

    threads = [threading.Thread(target=work), threading.Thread(target=erase)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    with store.read() as connection:
        query = sa.select(messages.c.content, messages.c.ended_at, deliveries.c.state).join(deliveries)
        left = connection.execute(query).all()
    outcomes = {(r.content is not None, r.ended_at is not None, r.state) for r in left}
    assert outcomes <= {(True, False, "queued"), (False, True, "failed")}
    assert sum(erased) == sum(r.content is None for r in left)


# People


def test_no_table_knows_who_was_forgotten(services, accept):
    """PD5: mails sent, failed, waiting, and mails to others that name the address; and the account."""
    store = services.store
    told = {
        "content": json.dumps({"context": {"name": ADA}}).encode(),
        "subject": f"For {ADA}",
        "metadata": {"who": ADA},
    }
    sent = accept(**told, tags=[f"to:{ADA}"], idempotency_key=f"verify:{ADA}", fingerprint="f")
    attempt(store, sent, reply=f"250 <{ADA}> ok")
    failed = accept(recipients=[("Ada@example.test", "to"), ("bob@example.test", "cc")])
    attempt(
        store, failed, State.FAILED, reply="550 <ADA@Example.TEST>: see https://x.test/?u=ada%40example.test"
    )
    waits = accept(send_at=NOW + DAY)
    doubt = accept(on_uncertain="hold")
    attempt(store, doubt, State.UNCERTAIN)
    bobs = accept(recipients=[("bob@example.test", "to")], **told)
    attempt(store, bobs, reply=f"250 forwarded from {ADA}")
    other = accept(recipients=[("bob@example.test", "to")])
    attempt(store, other, reply=f"251 will go to <{ADA}>, too")
    with store.begin() as connection:
        accounts.sign_up(connection, "Ada@example.test", ADA, "hash", "hash", NOW)
        accounts.sign_up(connection, "bob@example.test", "bob@example.test", "hash", "hash", NOW)
    assert ADA in dump(store)
    done = forget(services, "ADA@EXAMPLE.test")
    assert done.complete
    assert (done.messages, done.cancelled, done.bodies, done.accounts) == (6, 1, 5, 1)
    assert ADA not in dump(store)
    assert "ada%40" not in dump(store)
    for message, state in ((sent, "sent"), (waits, "cancelled"), (doubt, "failed")):
        shown = view(store, message)
        assert [(d.recipient, d.state, d.reply) for d in shown.deliveries] == [(done.pseudonym, state, None)]
        assert shown.events[-1].data == {"by": "eve"}
        assert (row(store, message)["content"], shown.body_erased_at) == (None, NOW)
    assert sorted(d.recipient for d in view(store, failed).deliveries) == ["bob@example.test", done.pseudonym]
    assert view(store, other).deliveries[0].reply == f"251 will go to <{done.pseudonym}>, too"
    assert row(store, other)["content"] is not None, "it does not speak of her"
    assert forget(services).messages == 0, "nothing is left to do"
    with store.read() as connection:
        assert list(connection.scalars(sa.select(accounts.users.c.email))) == ["bob@example.test"]


def dump(store) -> str:
    """Every row of every table there is, ours or not, in lower case; bytes as text."""
    with store.read() as connection:
        found = []
        for name in sa.inspect(connection).get_table_names():
            for line in connection.execute(sa.text(f'SELECT * FROM "{name}"')):  # noqa: S608
                found += [v.decode("latin-1") if isinstance(v, bytes | memoryview) else v for v in line]
    return "\n".join(v if isinstance(v, str) else json.dumps(v, default=str) for v in found).lower()


def test_the_dump_sees_every_table(store):
    """The test above is only worth what it searches."""
    with store.read() as connection:
        there = set(sa.inspect(connection).get_table_names())
    assert set(metadata.tables) <= there


def test_a_pseudonym_is_the_same_each_time_and_no_address(services, accept):
    """PD5: two mails to one person stay two mails to one person; without the key nobody can guess who."""
    store = services.store
    first, second = accept(), accept(recipients=[("ADA@example.test", "to")])
    done = forget(services)
    assert {view(store, m).deliveries[0].recipient for m in (first, second)} == {done.pseudonym}
    assert Sealer([b"other" * 8]).pseudonym(ADA) not in done.pseudonym
    with pytest.raises(InvalidAddress):
        Address.parse(done.pseudonym)


@pytest.mark.parametrize(
    "neighbour",
    ["bob.ada@example.test", "xada@example.test", "ada@example.test.example", "o'ada@example.test",
     "ada@sub.example.test", "bob+ada@example.test", "a_a@example.test"],
)  # fmt: skip
def test_neighbours_are_left_alone(services, accept, neighbour):
    """PD5: an address that only looks similar is another person's, also where it holds % or _."""
    message = accept(recipients=[(neighbour, "to")], subject=f"For {neighbour}", metadata={"who": neighbour})
    attempt(services.store, message, reply=f"250 <{neighbour}>", render=False)
    before = dump(services.store)
    assert forget(services, ADA).messages == 0
    assert forget(services, "a.a@example.test").messages == 0
    assert dump(services.store) == before


@pytest.mark.parametrize("address", ["zoë@bücher.example", "o'brien+x@example.test", "a_b@example.test"])
def test_every_kind_of_address_is_found(services, accept, address):
    """PD5: addresses beyond ASCII, too, in JSON, in both forms of the domain."""
    stored = Address.parse(address).addr_spec
    message = accept(recipients=[(stored, "to")], tags=[stored], metadata={"who": address})
    attempt(services.store, message, reply=f"250 '{address}' <{stored}>")
    done = forget(services, address)
    assert done.bodies == 1
    for form in {stored, address, json.dumps(stored)[1:-1], json.dumps(address)[1:-1]}:
        assert form not in dump(services.store)


def test_what_leaves_right_now_is_left_to_the_next_run(services, accept):
    """PD5: a mail that a worker holds cannot be called back; all else is done, and the answer says so."""
    store = services.store
    held, done = accept(), accept()
    with store.begin() as connection:
        claimed = delivery_rows.claim(connection, held, "t", NOW, timedelta(minutes=1))
    attempt(store, done)
    first = forget(services)
    assert (first.leaving, first.messages, first.complete) == (1, 1, False)
    with store.begin() as connection:
        told = {"reply": f"450 {ADA} is busy", "data": {"recipient": ADA}}
        outcome = Finish(claimed[0].id, held, State.DEFERRED, "busy", not_before=NOW, **told)
        delivery_rows.finish(connection, [outcome], [outcome.id], NOW)
    second = forget(services)
    assert (second.leaving, second.cancelled, second.complete) == (0, 1, True)
    assert ADA not in dump(store)
    with store.begin() as connection:
        assert delivery_rows.claim(connection, held, "t", NOW + DAY, timedelta(minutes=1)) == []


def test_others_still_get_their_mail(services, accept):
    """PD5, promise 2: what is under way to others is not taken from them; it is erased when it has ended."""
    store = services.store
    both = accept(recipients=[(ADA, "to"), ("bob@example.test", "to")], tags=["x"], subject="Hello both")
    first = forget(services)
    assert (first.cancelled, first.waiting, first.bodies, first.complete) == (1, 1, 0, False)
    assert ADA not in dump(store)
    assert row(store, both)["content"] is not None
    assert forget(services).messages == 0, "nothing to do for now"
    with store.begin() as connection:
        assert by_hand.retry(connection, both, "eve", NOW) == 0, "nobody can send to a pseudonym"
    attempt(store, both)
    assert {d.state for d in view(store, both).deliveries} == {State.CANCELLED, State.SENT}
    second = forget(services)
    assert (second.waiting, second.bodies, second.complete) == (0, 1, True)
    assert (row(store, both)["content"], row(store, both)["subject"]) == (None, None)


def test_nothing_can_be_sent_to_a_pseudonym(services, accept):
    """PD5: a person's retry of the others leaves the forgotten one out."""
    store = services.store
    both = accept(recipients=[(ADA, "to"), ("bob@example.test", "to")])
    with store.begin() as connection:
        ada, bob = sorted(
            delivery_rows.claim(connection, both, "t", NOW, timedelta(minutes=1)), key=lambda c: c.recipient
        )
        outcomes = [
            Finish(ada.id, both, State.FAILED, "no"),
            Finish(bob.id, both, State.DEFERRED, "later", not_before=NOW + DAY),
        ]
        delivery_rows.finish(connection, outcomes, [o.id for o in outcomes], NOW)
    assert forget(services).waiting == 1
    with store.begin() as connection:
        assert by_hand.retry(connection, both, "eve", NOW) == 1
        claimed = delivery_rows.claim(connection, both, "t", NOW, timedelta(minutes=1))
    assert [c.recipient for c in claimed] == ["bob@example.test"]


def test_our_own_sender_and_people_of_the_console_stay(services, accept):
    """PD5: what is left on purpose is said."""
    attempt(services.store, accept(sender=f"Acme <{ADA}>", recipients=[("bob@example.test", "to")]))
    create_operator(services, ADA, "support")
    done = forget(services)
    assert (done.messages, done.as_sender, done.as_operator) == (0, 1, 1)


def test_a_claim_and_a_request_to_forget_meet(services, accept):
    """PD5: whoever comes first, a mail is either sent to the person or cancelled, and then never sent."""
    store = services.store
    made = [accept() for _ in range(30)]
    claimed, start = [], threading.Barrier(2)

    def work() -> None:
        start.wait()
        for message in made:
            with store.begin() as connection:
                claimed.extend(delivery_rows.claim(connection, message, "t", NOW, timedelta(minutes=1)))

    worker = threading.Thread(target=work)
    worker.start()
    start.wait()
    done = forget(services)
    worker.join()
    assert len(claimed) + done.cancelled == len(made)
    assert {c.recipient for c in claimed} <= {ADA}
    assert done.leaving <= len(claimed)


# Keys

OLD, NEW = b"k" * 32, b"n" * 32


def rotated(services) -> SimpleNamespace:
    """The services with a new key in front."""
    return SimpleNamespace(**vars(services) | {"store": Store(services.store.engine, Sealer([NEW, OLD]))})


def test_an_old_key_can_go_once_everything_is_resealed(services, accept):
    """PD1: content, secrets, original, preview and second factors open with the new key alone."""
    store = services.store
    waits = accept(secrets={"0": "493201"}, send_at=NOW + DAY)
    held = accept(secrets={"0": "493201"})
    attempt(store, held, State.DEFERRED)
    ended = accept()
    attempt(store, ended)
    eve = create_operator(services, "eve", "support")
    with store.begin() as connection:
        second_factors.offer(connection, eve.id, "SECRET", store.sealer)
    counted = []
    done = retention.reseal(rotated(services), told=counted.append)
    assert (done.messages, done.second_factors, done.left) == (3, 1, 0)
    assert counted == [3]
    only = Sealer([NEW])
    with store.read() as connection:
        for message in (waits, held, ended):
            content, secrets = message_rows.open_content(connection, message, only)
            assert content == {"context": {"name": "Ada"}}
            assert secrets == ({} if message == ended else {"0": "493201"})
        assert message_rows.open_rendered(connection, held, only) == b"To: ada, code 493201"
        assert message_rows.open_preview(connection, held, only) == b"To: ada, code masked"
        assert message_rows.open_rendered(connection, ended, only) == b"To: ada, code masked"
        assert second_factors.factor(connection, eve.id, only).secret == "SECRET"
    assert retention.reseal(rotated(services)) == retention.Rotated()


def test_what_was_erased_meanwhile_stays_erased(services, accept):
    """PD1, PD2: a value that is gone, or another one, when the resealed one comes is left as it is."""
    store, sealer = services.store, Sealer([NEW, OLD])
    ended, held = accept(), accept(secrets={"0": "493201"})
    attempt(store, ended)
    attempt(store, held, State.DEFERRED)
    with store.read() as connection:
        read = [resealing.reseal(connection, sealer, m) for m in (ended, held)]
    forget(services)
    with store.begin() as connection:
        assert resealing.write_back(connection, read) == set()
    gone = ("content", "secrets", "rendered", "preview")
    assert {row(store, m)[name] for m in (ended, held) for name in gone} == {None}


def test_a_message_that_a_worker_holds_is_resealed_after_all(services, accept, monkeypatch):
    """PD1: what changed between reading and writing is read again; none is left behind."""
    message = accept(secrets={"0": "493201"})
    attempt(services.store, message, State.DEFERRED)
    write, meddled = resealing.write_back, []

    def meddle(connection, found, **how):
        if not meddled:
            meddled.append(True)
            connection.execute(sa.update(messages).values(rendered=messages.c.preview, preview=None))
        return write(connection, found, **how)

    monkeypatch.setattr(resealing, "write_back", meddle)
    assert retention.reseal(rotated(services)).messages == 1
    with services.store.read() as connection:
        opened = message_rows.open_rendered(connection, message, Sealer([NEW]))
    assert opened == b"To: ada, code masked"


def test_many_are_resealed_in_small_steps(services, accept):
    """PD1: page by page, and no page twice."""
    made = [accept() for _ in range(230)]
    counted = []
    assert retention.reseal(rotated(services), told=counted.append).messages == len(made)
    assert counted == [100, 200, 230]


def test_what_no_key_opens_is_counted(services, accept):
    """PD1: a message whose key was removed too early does not stop the others."""
    accept()
    broken = accept()
    with services.store.begin() as connection:
        altered = Sealer([b"gone" * 8]).seal(b"{}", broken)
        connection.execute(sa.update(messages).where(messages.c.id == broken).values(content=altered))
    done = retention.reseal(rotated(services))
    assert (done.messages, done.left) == (1, 1)


@pytest.mark.parametrize("column", ["content", "secrets", "rendered", "preview"])
def test_a_sealed_value_does_not_open_in_another_row(store, accept, column):
    """PD1: whoever can write to the table cannot show one person's mail as another's."""
    mine, yours = accept(secrets={"0": "1"}), accept(secrets={"0": "2"})
    attempt(store, mine, State.DEFERRED)
    attempt(store, yours, State.DEFERRED)
    with store.begin() as connection:
        moved = connection.scalar(sa.select(messages.c[column]).where(messages.c.id == mine))
        connection.execute(sa.update(messages).where(messages.c.id == yours).values({column: moved}))
    openers = {"rendered": message_rows.open_rendered, "preview": message_rows.open_preview}
    opens = openers.get(column, message_rows.open_content)
    with store.read() as connection:
        opens(connection, mine, store.sealer)
        with pytest.raises(ConfigError, match="moved"):
            opens(connection, yours, store.sealer)
