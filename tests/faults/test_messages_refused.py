"""What a stranger puts into the worker's queue by hand: nothing runs, nothing is sent, the worker lives."""

from __future__ import annotations

import json
import pickle
import uuid

import kombu
import pytest
import redis

from mailer import send_email
from tests.faults.conftest import until, wait
from tests.peer import SmtpPeer

HI = {"subject": "Hi", "text": "Hello"}
TASK = "mailer.send_email"


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self):
        return open, (self.trace, "w")


def in_json(args, kwargs=None) -> bytes:
    return json.dumps([args, kwargs or {}, {}]).encode()


def encoded(trace: str) -> dict[str, tuple[str, bytes]]:
    """Bodies that are not JSON, by name; each would leave a trace if it were read."""
    id_ = str(uuid.uuid4())
    yaml = f"- [!!python/object/apply:builtins.open [{trace}, w]]\n- {{}}\n- {{}}\n"
    msgpack = b"\x93\x91\xd9\x24" + id_.encode() + b"\x80\x80"  # [[id], {}, {}]
    return {
        "pickle": ("application/x-python-serialize", pickle.dumps([[Bomb(trace)], {}, {}])),
        "pickle that lies": ("application/json", pickle.dumps([[Bomb(trace)], {}, {}])),
        "yaml": ("application/x-yaml", yaml.encode()),
        "msgpack": ("application/x-msgpack", msgpack),
        "text": ("text/plain", b"x"),
        "half": ("application/json", b'[["'),
        "deep": ("application/json", b"[" * 50_000),
    }


BAD_ARGUMENTS = {
    "none": ([], {}),
    "no id": (["x"], {}),
    "two": ([str(uuid.uuid4())] * 2, {}),
    "a number": ([7], {}),
    "a list": ([["x"]], {}),
    "upper case": ([str(uuid.uuid4()).upper()], {}),
    "a call": (["reset_password"], {"to": "a@x.test", "subject": "Hi", "text": "Hello"}),
}


def put(url: str, queue: str, body: bytes, content_type: str = "application/json", task: str = TASK) -> None:
    """One message, as any program with access to the broker could write it."""
    id_ = str(uuid.uuid4())
    headers = {"lang": "py", "task": task, "id": id_, "root_id": id_, "parent_id": None, "group": None}
    with kombu.Connection(url) as connection, connection.channel() as channel:
        kombu.Producer(channel).publish(
            body,
            routing_key=queue,
            content_type=content_type,
            content_encoding="binary",
            headers=headers,
            correlation_id=id_,
        )


@pytest.fixture
def database_url(tmp_path) -> str:
    """What is refused never comes as far as a database, so one will do."""
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_the_worker_refuses_them_and_sends_the_next_mail(dispatcher, redis_url, tmp_path, pool):
    """CE1, CE2: pickle, yaml, msgpack, unknown tasks, bad arguments: refused, said in the log, gone."""
    trace = tmp_path / "trace"
    with SmtpPeer() as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        queue = app.extensions["mailer.send_email"].queues.name("default")
        for content_type, body in encoded(str(trace)).values():
            put(redis_url, queue, body, content_type)
        for args, kwargs in BAD_ARGUMENTS.values():
            put(redis_url, queue, in_json(args, kwargs))
        put(redis_url, queue, in_json([], {"self": 1}))  # Python refuses the call before we see it
        put(redis_url, queue, in_json([1]), task="somebody.elses")
        put(redis_url, queue, in_json(["touch", str(trace)]), task="os.system")
        put(redis_url, queue, in_json([str(uuid.uuid4())]))  # well formed, and nobody's
        for shape in (b'{"args": 1}', b'["args"]', b"[{}, {}, {}]", b"[[], [], {}]", b"[[], {}, 7]"):
            put(redis_url, queue, shape)
        with redis.Redis.from_url(redis_url) as client:
            worker = dispatcher.start_worker("--pool", pool)
            with app.app_context():
                assert wait(app, send_email.delay(to="a@x.test", **HI).id) == "sent"
            until(lambda: not client.exists(queue), what="the queue to be empty")
            until(lambda: dispatcher.logs().count("wakeup.refused") >= len(BAD_ARGUMENTS), what="the log")
            with app.app_context():
                assert wait(app, send_email.delay(to="b@x.test", **HI).id) == "sent"
        assert worker.poll() is None
    assert [copy.recipients for copy in peer.accepted] == [("a@x.test",), ("b@x.test",)]
    assert not trace.exists(), "nothing that arrived was run"
    assert "ContentDisallowed" in dispatcher.logs()


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"7", b"[1, 2, 3, 4]"])
def test_a_body_of_another_shape_is_refused_too(dispatcher, redis_url, body):
    """CE2: celery/worker/strategy.py unpacks three parts outside of what it catches."""
    with SmtpPeer() as peer:
        dispatcher.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = dispatcher.app()
        put(redis_url, app.extensions["mailer.send_email"].queues.name("default"), body)
        worker = dispatcher.start_worker()
        with app.app_context():
            id_ = send_email.delay(to="a@x.test", **HI).id
        until(lambda: worker.poll() is not None or wait(app, id_, 0) == "sent", what="either end")
        assert worker.poll() is None
