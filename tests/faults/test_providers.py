"""Providers that fail, under real workers: no mail fails by it, others take over, and queues drain."""

from __future__ import annotations

import json
import signal
import time

import redis
from click.testing import CliRunner
from flask.cli import ScriptInfo

from mailer import send_email
from mailer.cli import mailer
from mailer.store import queries
from tests.faults.conftest import until, view, wait
from tests.peer import Copy, Script, Silence, SmtpPeer
from tests.servers import free_port

HI = {"subject": "Hi", "text": "Hello"}


def send(app, count: int = 1, **fields) -> list[str]:
    with app.app_context():
        return [send_email.delay(to=f"a{n}@x.test", **HI | fields).id for n in range(count)]


def transports(app, *args: str):
    done = CliRunner().invoke(mailer, ["transports", *args], obj=ScriptInfo(create_app=lambda: app))
    assert done.exit_code == 0, done.output
    return {found["name"]: found for found in json.loads(done.stdout)} if "--json" in args else done.stdout


def states(app) -> dict[str, int]:
    with app.extensions["mailer"].store.read() as connection:
        return {str(state): number for state, number in queries.counts(connection).items()}


def test_a_wrong_password_fails_no_mail_and_the_queue_drains_when_it_is_right(dispatcher):
    """SC7: the provider is put to rest with a reason, no try is used up, all leaves once it is mended."""
    with SmtpPeer(Script(credentials=("me", "right-word"))) as peer:
        url = f"smtp://me:%s@127.0.0.1:{peer.port}?allow_plain_auth_loopback=1&starttls=off"
        dispatcher.set("MAILER_TRANSPORTS", f"ses={url % 'wrong-word'}")
        app = dispatcher.app()
        ids = send(app, 30)
        worker = dispatcher.start_worker()
        until(lambda: states(app) == {"deferred": 30}, what="all to be put off")
        # A moment after its mails were put off.
        until(lambda: transports(app, "--json")["ses"]["state"] == "resting", what="the provider to rest")
        found = transports(app, "--json")["ses"]
        assert found["reason"] == "auth_failed"
        assert "check the user name and password in MAILER_TRANSPORTS (ses)" in found["why"]
        assert {d.attempts for id_ in ids for d in view(app, id_).deliveries} == {0}
        assert peer.verbs().count("AUTH") <= 4, "the account must not be locked by trying"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
        dispatcher.set("MAILER_TRANSPORTS", f"ses={url % 'right-word'}")
        dispatcher.start_worker()
        transports(app, "resume", "ses")
        assert {wait(app, id_) for id_ in ids} == {"sent"}
    assert len(peer.accepted) == 30
    assert "wrong-word" not in dispatcher.logs()


def test_a_provider_that_is_back_gets_what_waited_without_a_hand(dispatcher):
    """SC7: the rest of 5 seconds ends, one mail finds out, and everything else follows at once."""
    peer = SmtpPeer(port=free_port())
    dispatcher.set("MAILER_TRANSPORTS", f"only=smtp://127.0.0.1:{peer.port}")
    app = dispatcher.app()
    ids = send(app, 100)
    dispatcher.start_worker()
    until(lambda: states(app) == {"deferred": 100}, what="all to be put off")
    with peer:
        assert {wait(app, id_, 15) for id_ in ids} == {"sent"}
    assert len(peer.accepted) == 100
    assert transports(app, "--json")["only"]["state"] == "working"


def test_a_dead_provider_costs_nobody_a_wait(dispatcher):
    """RT11: a server that takes connections and says nothing rests; all mails go by the other."""
    with SmtpPeer(Script(greeting=Silence())) as dead, SmtpPeer() as good:
        dispatcher.set(
            "MAILER_TRANSPORTS",
            f"dead=smtp://127.0.0.1:{dead.port}?timeout=2 good=smtp://127.0.0.1:{good.port}",
        )
        app = dispatcher.app()
        dispatcher.start_worker()
        ids = send(app, 20) + send(app, 5, lane="critical")
        assert {wait(app, id_, 15) for id_ in ids} == {"sent"}
        [sent] = [e for e in view(app, ids[-1]).events if e.name == "sent"]
        assert (sent.data["transport"], sent.data["attempt"]) == ("good", 1)
        found = transports(app, "--json")["dead"]
        assert (found["state"], found["reason"]) == ("resting", "greeting_refused")
    assert len(good.accepted) == 25


def test_forked_workers_share_what_they_know(any_broker):
    """A fault that one process met keeps the others from trying: one log-in, not one for each."""
    with SmtpPeer(Script(credentials=("me", "right-word"))) as peer, SmtpPeer() as good:
        dispatcher = any_broker("redis")
        dispatcher.set(
            "MAILER_TRANSPORTS",
            f"ses=smtp://me:wrong@127.0.0.1:{peer.port}?allow_plain_auth_loopback=1&starttls=off "
            f"good=smtp://127.0.0.1:{good.port}",
        )
        app = dispatcher.app()
        dispatcher.start_worker("--pool", "prefork", "--concurrency", "2")
        dispatcher.start_worker()
        [first] = send(app)
        assert wait(app, first) == "sent"
        until(lambda: transports(app, "--json")["ses"]["state"] == "resting", what="the rest")
        before = peer.connections
        assert {wait(app, id_) for id_ in send(app, 50)} == {"sent"}
    assert before <= 3
    assert peer.connections <= 2 * before


class Timed(SmtpPeer):
    """A peer that notes when it took each copy."""

    def keep(self, copy: Copy) -> None:
        self.times = [*getattr(self, "times", []), time.monotonic()]
        super().keep(copy)

    def most_in_a_second(self) -> int:
        return max(sum(start <= at < start + 1 for at in self.times) for start in self.times)


def test_workers_together_keep_to_a_rate(dispatcher):
    """SR6: two workers with a backlog never send more than 10 in any second, and lose no try."""
    with Timed() as peer:
        dispatcher.set("MAILER_TRANSPORTS", f"slow=smtp://127.0.0.1:{peer.port}?rate=10")
        app = dispatcher.app()
        ids = send(app, 50)
        for _ in range(2):
            dispatcher.start_worker()
        assert {wait(app, id_, 30) for id_ in ids} == {"sent"}
        assert peer.most_in_a_second() <= 10
        assert peer.times[-1] - peer.times[0] < 10
        assert {d.attempts for id_ in ids for d in view(app, id_).deliveries} == {1}
    assert len(peer.accepted) == 50
    with redis.Redis.from_url(dispatcher.environment["MAILER_BROKER_URL"]) as client:
        assert client.keys("test-*:places:slow, rate"), "they counted in the broker's Redis"
    assert "limits.redis_away" not in dispatcher.logs()


def test_a_slow_domain_holds_up_no_other(dispatcher):
    """RT11: a domain that may get one mail in five seconds is behind the others, not before them."""
    with Timed() as peer:
        dispatcher.set("MAILER_TRANSPORTS", f"only=smtp://127.0.0.1:{peer.port}?domain_rate=0.2")
        app = dispatcher.app()
        with app.app_context():
            slow = [send_email.delay(to=f"a{n}@slow.test", **HI).id for n in range(40)]
            quick = [send_email.delay(to=f"a@quick{n}.test", **HI).id for n in range(40)]
        dispatcher.start_worker()
        assert {wait(app, id_, 10) for id_ in quick} == {"sent"}
        assert 1 <= sum("slow.test" in copy.recipients[0] for copy in peer.accepted) <= 3
        waiting = view(app, slow[-1]).deliveries[0]
        assert (waiting.state, waiting.reason, waiting.attempts) == ("deferred", "waiting_for_limit", 0)
