"""Workers on a real Redis, with SQLite and Postgres: the same job as the embedded default."""

from __future__ import annotations

import signal

import redis

from mailer import Secret, send_email
from tests.faults.conftest import until, view, wait
from tests.peer import Say, Script, SmtpPeer

HI = {"subject": "Hi", "text": "Hello"}


def test_worker_sends_and_stops_warm(dispatcher, redis_url, monkeypatch):
    """The same job as the embedded default, and SIGTERM ends it cleanly (RT1, PD3)."""
    with SmtpPeer() as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        with app.app_context():
            ids = [
                send_email.delay(to=f"canary{n}@x.test", subject=f"canary {n}", text="hi").id
                for n in range(20)
            ]
            secret = send_email.delay(
                "reset_password",
                to="canary@x.test",
                context={"name": "x", "link": Secret("https://x.test/canary")},
            )
        with redis.Redis.from_url(redis_url) as client:
            kept = b"".join(
                b"".join(client.lrange(k, 0, -1)) for k in client.scan_iter() if client.type(k) == b"list"
            )
        assert b'"task": "mailer.send_email"' in kept, "the wake-ups are in Redis"
        assert b"canary" not in kept, "PD3: and nothing but ids"
        worker = dispatcher.start_worker("--concurrency", "2")
        assert {wait(app, id_) for id_ in [*ids, secret.id]} == {"sent"}
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert len(peer.accepted) == 21
    assert "canary" not in dispatcher.logs(), "IN6, PD4: nor do logs name people or links"


def test_prefork_works_too(dispatcher):
    """Forked children have database and broker sockets of their own."""
    with SmtpPeer() as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        dispatcher.start_worker("--pool", "prefork", "--concurrency", "2")
        with app.app_context():
            ids = [send_email.delay(to=f"a{n}@x.test", **HI).id for n in range(10)]
        assert {wait(app, id_) for id_ in ids} == {"sent"}
    assert len(peer.accepted) == 10


def test_a_deferred_mail_is_tried_again_from_the_store(dispatcher, redis_url):
    """RT6: nothing waits in the broker; the retry comes from the row when it is due."""
    dispatcher.environment |= {"MAILER_RETRY_BACKOFF": "0.5"}
    with SmtpPeer(Script(rcpt=[Say(450, "4.2.0 greylisted"), Say(250)])) as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        dispatcher.start_worker()
        with app.app_context():
            id_ = send_email.delay(to="a@x.test", **HI).id
        until(lambda: view(app, id_).state == "deferred", what="the first try")
        with redis.Redis.from_url(redis_url) as client:
            waiting = [k for k in client.scan_iter() if client.type(k) == b"list" and client.llen(k)]
            assert waiting == []
            assert not client.exists("unacked")
        assert wait(app, id_) == "sent"
    assert [d.attempts for d in view(app, id_).deliveries] == [2]


def test_garbage_in_the_queue_hurts_nobody(dispatcher):
    """CE1, CE2: foreign tasks, pickles and bad arguments are dropped; the worker goes on."""
    import celery

    with SmtpPeer() as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        task = app.extensions["mailer.send_email"]
        queue = task.queues.name("default")
        stranger = celery.Celery(broker=dispatcher.environment["MAILER_BROKER_URL"], set_as_current=False)
        stranger.conf.update(task_serializer="json", accept_content=["json", "pickle"])
        stranger.send_task(task.name, ["reset_password"], {"to": "a@x.test"}, queue=queue)
        stranger.send_task("somebody.elses", [1], queue=queue)
        stranger.send_task(task.name, ["x"], queue=queue, serializer="pickle")
        dispatcher.start_worker()
        with app.app_context():
            assert wait(app, send_email.delay(to="a@x.test", **HI).id) == "sent"
        assert dispatcher.workers[0].poll() is None
    assert len(peer.accepted) == 1


def test_without_any_broker_a_worker_finds_the_rows(dispatcher, monkeypatch):
    """A host application needs no Redis to try it: memory:// and a worker of its own process."""
    with SmtpPeer() as peer:
        dispatcher.environment |= {
            "MAILER_SMTP_URL": f"smtp://127.0.0.1:{peer.port}",
            "MAILER_BROKER_URL": "memory://",
        }
        monkeypatch.setenv("MAILER_BROKER_URL", "memory://")
        app = dispatcher.app()
        worker = dispatcher.start_worker()
        with app.app_context():
            ids = [send_email.delay(to=f"a{n}@x.test", **HI).id for n in range(5)]
        assert {wait(app, id_) for id_ in ids} == {"sent"}
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    assert len(peer.accepted) == 5


def test_applications_share_a_broker(any_broker, tmp_path):
    """Each has a prefix of its own: no worker takes what is another's."""
    with SmtpPeer() as peer:
        apps = {}
        for name in ("one", "two"):
            dispatcher = any_broker("redis")
            dispatcher.set("MAILER_SMTP_URL", f"smtp://127.0.0.1:{peer.port}")
            dispatcher.set("MAILER_QUEUE_PREFIX", name)
            dispatcher.set("MAILER_DATABASE_URL", f"sqlite:///{tmp_path / name}.db")
            apps[name] = dispatcher, dispatcher.app()
        with apps["two"][1].app_context():
            theirs = [send_email.delay(to=f"two{n}@x.test", **HI).id for n in range(5)]
        with apps["one"][1].app_context():
            ours = [send_email.delay(to=f"one{n}@x.test", **HI).id for n in range(5)]
        apps["one"][0].start_worker()
        assert {wait(apps["one"][1], id_) for id_ in ours} == {"sent"}
        assert {wait(apps["two"][1], id_, 0) for id_ in theirs} == {"queued"}
        apps["two"][0].start_worker()
        assert {wait(apps["two"][1], id_) for id_ in theirs} == {"sent"}
    assert len(peer.accepted) == 10
    assert "wakeup.idle" not in apps["one"][0].logs()
