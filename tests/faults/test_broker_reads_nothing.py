"""All of Redis, and all that is said to it: nobody's name, address, subject, text or token is in it."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading

import celery
import pytest
import redis

from mailer import Secret, send_email
from tests.faults import overriding_host
from tests.faults.conftest import QUICK, Dispatcher, until, view, wait
from tests.faults.test_overridden import Host
from tests.peer import Say, Script, SmtpPeer

# As different from each other as can be, so that a hit says what leaked.
ADDRESS, NAME, SUBJECT, TOKEN = "zoltan.canary@quux.test", "Zoltánka", "Grümpfzwerg", "tok-9f1XyzzyPlugh"
BODY, KEY, TAG, NOTE = "blubberquark", "idem-frobnitz", "tagwibble", "notewobble"
CANARIES = [
    ADDRESS,
    "zoltan.canary",
    "quux.test",
    NAME,
    "Zolt",
    SUBJECT,
    "zwerg",
    TOKEN,
    BODY,
    KEY,
    TAG,
    NOTE,
]
LOUD = {
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    "task_store_errors_even_if_ignored": True,
    "task_ignore_result": False,
    "task_track_started": True,
    "result_extended": True,
}


class Eavesdropper:
    """Hears every command that Redis is given, by MONITOR."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._connection = self._client.connection_pool.get_connection()
        self._connection.send_command("MONITOR")
        assert self._connection.read_response() == b"OK"
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            while True:
                self.heard.append(bytes(self._connection.read_response()))
        except Exception:  # closed
            return

    def text(self) -> bytes:
        return b"\n".join(list(self.heard))

    def close(self) -> None:
        self._connection.disconnect()
        self._client.close()
        self._thread.join(2)


def everything(url: str) -> bytes:
    """Each key of each database, its kind and all that it holds."""
    found = []
    with redis.Redis.from_url(url, single_connection_client=True) as client:
        read = {
            b"string": client.get,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"hash": client.hgetall,
            b"stream": client.xrange,
            b"none": lambda key: None,  # gone meanwhile
        }
        for name in client.info("keyspace"):
            client.select(int(name.removeprefix("db")))
            found += [key + b" " + repr(read[client.type(key)](key)).encode() for key in client.scan_iter()]
    return b"\n".join(found)


def hits(haystack: bytes) -> set[str]:
    """The canaries in it, in any of the forms that JSON, repr, MONITOR and base64 give them."""
    texts = [haystack]
    for word in set(re.split(rb"""[\s"'\\]+""", haystack)):
        with contextlib.suppress(ValueError):
            texts.append(base64.b64decode(word, validate=True))
    text = b"\n".join(texts).decode("utf-8", "replace").lower()
    return {canary for canary in CANARIES if any(form in text for form in forms(canary))}


def forms(canary: str) -> set[str]:
    """As it is, as JSON escapes it, and as repr and MONITOR do."""
    octets = "".join(f"\\x{octet:02x}" if octet > 126 else chr(octet) for octet in canary.encode())
    return {form.lower() for form in (canary, json.dumps(canary)[1:-1], octets)}


def environment(redis_url, tmp_path) -> dict[str, str]:
    return QUICK | {
        "MAILER_DATABASE_URL": f"sqlite:///{tmp_path / 'store.db'}",
        "MAILER_BROKER_URL": redis_url,
        "MAILER_DATA_DIR": str(tmp_path / "data"),
        "MAILER_RETRY_BACKOFF": "0.5",
        overriding_host.SETTINGS: json.dumps(LOUD | {"result_backend": redis_url}),
    }


@pytest.mark.parametrize("kind", [Dispatcher, Host], ids=["as it is", "events and results on"])
def test_redis_never_holds_or_hears_them(kind, redis_url, tmp_path, monkeypatch):
    """PD3: payload, argsrepr, results and events, before, while and after delivery: 0 hits."""
    found = environment(redis_url, tmp_path)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    host = kind(found, tmp_path)
    script = Script(rcpt=[Say(450, "4.2.0 later"), Say(250)])  # one is tried twice
    with SmtpPeer(script) as peer, contextlib.closing(Eavesdropper(redis_url)) as spy:
        found["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}"
        app = host.app()
        with app.app_context():
            ids = [accept(n) for n in range(5)]
            ids += [send_email.delay(to=ADDRESS, subject=SUBJECT, text=BODY, countdown=0.5).id]
        waiting = everything(redis_url)
        try:
            host.start_worker()
            assert {wait(app, id_) for id_ in ids} == {"sent"}
            # A worker that is awake sends most of them without a wake-up of their own.
            until(lambda: ids[0].encode() in spy.text(), what="MONITOR to hear of the first")
        finally:
            for worker in host.workers:
                host.kill(worker)
        after = everything(redis_url)
        attempts = [d.attempts for id_ in ids for d in view(app, id_).deliveries]
        assert sorted(attempts) == [1, 1, 1, 1, 1, 2]
    assert len(peer.accepted) == 6
    assert hits(b"\n".join([waiting, after, spy.text()])) == set()
    assert hits("".join(c.data.decode() for c in peer.accepted).encode()), "they were in the mails, though"


def accept(n: int) -> str:
    return send_email.delay(
        "reset_password",
        to=f"{NAME} <{ADDRESS}>",
        context={"name": NAME, "link": Secret(f"https://quux.test/{TOKEN}")},
        metadata={"note": NOTE},
        tags=[TAG],
        idempotency_key=f"{KEY}-{n}",
    ).id


def test_the_eavesdropper_would_have_heard_them(redis_url):
    """The test above is worth what its ears are: a plain Celery task that is given a mail leaks all of it."""
    naive = celery.Celery("naive", broker=redis_url, backend=redis_url, set_as_current=False)
    with contextlib.closing(Eavesdropper(redis_url)) as spy:
        naive.send_task("send", [CANARIES], queue="naive")
        held = everything(redis_url)
        until(lambda: hits(spy.text()) == set(CANARIES), 5, "MONITOR to hear of it")
    assert hits(held) == set(CANARIES)
    naive.close()
