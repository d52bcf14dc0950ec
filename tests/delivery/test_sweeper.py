"""The sweeper, the heartbeat and the clock: what goes on while the broker or the time does not."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from mailer import send_email
from mailer.drain import Drain
from mailer.errors import StoreError
from mailer.heartbeat import BEAT_SECONDS, MISSED, PROBE_SECONDS
from mailer.store import clock as clock_module
from mailer.store import deliveries as rows
from mailer.store import queries, workers
from mailer.store.clock import Clock
from mailer.store.models import deliveries
from mailer.sweeper import Sweeper
from mailer.transports import Result, Stage
from tests.delivery.conftest import build, state

HI = {"subject": "Hi", "text": "Hello"}
LEASE = timedelta(seconds=60)


@pytest.fixture
def steady(monkeypatch):
    """The clock that nobody can set; a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def wall(alone):
    """The clock that somebody sets."""
    now = [alone.extensions["mailer"].now()]
    alone.extensions["mailer"].now = lambda: now[0]
    return now


@pytest.fixture
def sweeper(alone):
    services = alone.extensions["mailer"]
    services.publish = (published := []).extend
    found = Sweeper(services, Drain(services))
    found.published = published
    return found


def sweep(sweeper, steady=None, wall=None, seconds=1.0):
    """Let time pass, and sweep once, as the thread does."""
    if steady:
        steady[0] += seconds
    if wall:
        wall[0] += timedelta(seconds=seconds)
    sweeper.sweep()
    if sweeper._hand is not None:
        sweeper._hand.join(10)


def unreachable(_wakeups):
    raise ConnectionError("refused")


def shown(app, id_):
    with app.extensions["mailer"].store.read() as connection:
        return queries.show(connection, id_)


def claim(services, id_, token="t"):
    with services.store.begin() as connection:
        return rows.claim(connection, id_, token, services.now(), LEASE)


def test_the_broker_is_told_of_a_few_only(alone, sweeper, wall):
    """However much is due, and however often nobody listens, the broker is not flooded."""
    ids = set()
    with alone.app_context():
        for n in range(100):
            ids.add(send_email.delay(to=f"a{n}@x.test", countdown=5, **HI).id)
    wall[0] += timedelta(seconds=10)
    for _ in range(20):
        sweep(sweeper, None, wall)
    told = [wakeup.message for wakeup in sweeper.published if wakeup.message in ids]
    assert 8 <= len(told) <= 50, "only the longest due are told of"
    assert len(set(told)) == len(told), "each once in 30 s"


def test_without_a_broker_the_sweeper_sends(alone, sweeper, wall):
    """RT2: while the broker does not listen, mails go out all the same, if more slowly."""
    services = alone.extensions["mailer"]
    services.publish = unreachable
    ids = [send_email.delay(to=f"a{n}@x.test", **HI).id for n in range(5)]
    wall[0] += timedelta(seconds=1)
    sweep(sweeper)
    assert [state(alone, id_) for id_ in ids] == ["sent"] * 5


def test_a_worker_that_hears_nothing_sends_by_itself_and_says_so(alone, steady, wall, sweeper, caplog):
    """A broker that takes wake-ups and brings none: after a minute the worker stops to rely on it."""
    accepted = send_email.delay(to="a@x.test", **HI)
    for _ in range(MISSED * PROBE_SECONDS // BEAT_SECONDS + 1):
        sweep(sweeper, steady, wall, BEAT_SECONDS)
    assert "worker.stalled" in caplog.text
    sweep(sweeper, steady, wall)
    assert accepted.state == "sent"
    sweeper.heartbeat.consumed()
    assert not sweeper.heartbeat.stalled


def test_a_silent_server_does_not_keep_the_sweeper_from_its_work(alone, steady, wall, sweeper):
    """RT11: while a mail that it sends by itself hangs, what was lost is taken back and the worker beats."""
    services, reached, hanging = alone.extensions["mailer"], threading.Event(), threading.Event()
    services.publish = unreachable
    lost = send_email.delay(to="lost@x.test", **HI).id
    claim(services, lost)
    send_email.delay(to="slow@x.test", **HI)

    def hang(_recipient):
        reached.set()
        hanging.wait(10)
        return Result(Stage.CONNECT, problem="timed out")

    services.transport.answer = hang
    try:
        sweeper.sweep()
        assert reached.wait(10)
        steady[0] += 120
        wall[0] += timedelta(seconds=120)
        sweeper.sweep()
        assert state(alone, lost) == "deferred"
        assert sweeper._hand.is_alive()
    finally:
        hanging.set()
        sweeper._hand.join(10)


def test_a_worker_of_other_queues_sends_nothing(alone, wall):
    """A host's worker on queues of its own only tells of what is due: who serves the lanes sends."""
    services = alone.extensions["mailer"]
    services.publish = unreachable
    sweeper = Sweeper(services, Drain(services, lanes=[]))
    accepted = send_email.delay(to="a@x.test", **HI)
    sweep(sweeper, None, wall)
    assert accepted.state == "queued"
    with services.store.read() as connection:
        assert workers.present(connection) == []


def test_a_row_for_each_worker(alone, sweeper):
    """It appears with the first beat, and goes with the worker."""
    services = alone.extensions["mailer"]
    sweep(sweeper)
    with services.store.read() as connection:
        (row,) = workers.present(connection)
    assert row.consumed_at is None
    sweeper.start()
    sweeper.stop()
    with services.store.read() as connection:
        assert workers.present(connection) == []


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_clock_that_is_set_takes_nobodys_lease(alone, sweeper, steady, wall, jump):
    """RT4, RT5: who is alive keeps its lease; who is dead loses it within two leases, not an hour later."""
    services = alone.extensions["mailer"]
    alive, dead = (send_email.delay(to=f"{who}@x.test", **HI).id for who in ("alive", "dead"))
    claim(services, alive, "alive")
    claim(services, dead, "dead")
    waiting = send_email.delay(to="waiting@x.test", **HI).id
    sweep(sweeper, steady, wall)
    wall[0] += jump
    for _ in range(7):
        sweep(sweeper, steady, wall, 20)
        with services.store.begin() as connection:
            rows.renew(connection, ["alive"], services.now() + LEASE)
    assert state(alone, alive) == "sending"
    assert state(alone, dead) == "deferred"
    assert claim(services, waiting), "what was accepted before is due after"


def test_what_need_not_be_kept_goes(alone, sweeper, steady, wall):
    """PD2: the sweeper erases bodies after a week; not at once where the clock has only been set."""
    services = alone.extensions["mailer"]
    sweep(sweeper, steady, wall)
    accepted = send_email.delay(to="a@x.test", **HI)
    assert Drain(services).run() == (1, None)
    sweep(sweeper, steady, wall, 61)
    wall[0] += timedelta(days=8)
    sweep(sweeper, steady, wall)
    assert shown(alone, accepted.id).body_erased_at is None
    sweep(sweeper, steady, wall, 61)
    assert shown(alone, accepted.id).body_erased_at == wall[0]


def test_lanes_that_are_gone_are_served_as_default(alone, sweeper):
    """A web process that still knows a lane which workers know no longer."""
    accepted = send_email.delay(to="a@x.test", **HI)
    services = alone.extensions["mailer"]
    with services.store.begin() as connection:
        connection.execute(sa.update(deliveries).values(lane="gone"))
    sweep(sweeper)
    assert Drain(services).run() == (1, None)
    assert accepted.state == "sent"


# What time it is


def test_on_postgres_it_is_the_databases_time(monkeypatch, fresh_postgres_url, tmp_path):
    """A worker whose clock is an hour off has the same time as all the others."""
    from mailer import Mailer

    app = build(
        tmp_path, Mailer(), name="there", MAILER_DATABASE_URL=fresh_postgres_url, MAILER_SECRET_KEYS="k" * 32
    )
    now = app.extensions["mailer"].now
    real = datetime.now(UTC)
    monkeypatch.setattr(clock_module, "wall", lambda: real.timestamp() + 3600)
    assert abs(now() - real) < timedelta(seconds=5)


def test_a_clock_without_its_database_goes_on(monkeypatch, postgres_url):
    """The time is never a reason to fail; it is asked for again later."""
    engine = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert abs(Clock(engine)() - datetime.now(UTC)) < timedelta(seconds=5)


def test_what_a_drain_leaves_is_said(alone):
    """A worker that must stop says that there is more; StoreError comes through to whoever runs it."""
    services = alone.extensions["mailer"]
    send_email.delay(to="a@x.test", **HI)
    drain = Drain(services)
    drain.stopping = True
    assert drain.run() == (0, "default")
    services.store.engine.dispose()
    with services.store.begin() as connection:
        connection.exec_driver_sql("DROP TABLE mailer_deliveries")
    drain.stopping = False
    with pytest.raises(StoreError):
        drain.run()
