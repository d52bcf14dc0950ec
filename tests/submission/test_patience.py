"""How long the door waits for whom, how many it holds, and who waits for whom: in the test's process."""

from __future__ import annotations

import smtplib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email import policy

import pytest

from mailer import outbox
from mailer.admission import KNOWN_SECONDS
from mailer.errors import StoreError
from mailer.store import queries
from mailer.submission import server, session
from tests.faults.conftest import until
from tests.submission.in_process import Hall
from tests.submission.process import hello, submit
from tests.web.api.service import Caller


def connect(hall: Hall) -> socket.socket:
    return socket.create_connection(("127.0.0.1", hall.port), timeout=10)


def trickle(connection: socket.socket) -> None:
    for _ in range(200):
        connection.sendall(b"X-Slow: x\r\n")
        time.sleep(0.05)


def heard(connection: socket.socket) -> bytes:
    """All of it, until the door closes."""
    with connection, connection.makefile("rb") as file:
        return file.read()


@pytest.mark.parametrize(
    "octets", [b"", b"EHLO x\r\n", b"NOO", b"X" * 5_000, b"EHLO x\r\nAUTH LOGIN\r\nYQ=="]
)
def test_a_stranger_who_says_nothing_more_is_disconnected(tmp_path, monkeypatch, octets):
    """Before a greeting, after it, in the middle of a line, in a line without an end, in a log-in."""
    monkeypatch.setattr(session, "STRANGER_SECONDS", 0.3)
    with Hall(tmp_path) as hall:
        began, connection = time.monotonic(), connect(hall)
        connection.sendall(octets)
        assert heard(connection).startswith(b"220 ")
        assert 0.2 < time.monotonic() - began < 5


def test_a_slow_text_ends(tmp_path, monkeypatch):
    """However steadily it trickles; nothing of it is accepted."""
    monkeypatch.setattr(session, "TEXT_SECONDS", 0.5)
    with Hall(tmp_path) as hall, hall.client() as client:
        client.mail("a@acme.test")
        client.rcpt("ada@example.test")
        client.docmd("DATA")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            trickle(client.sock)
        client.close()
        assert hall.count() == 0


def test_who_has_a_key_may_pause(tmp_path, monkeypatch):
    """For longer than a stranger may."""
    monkeypatch.setattr(session, "STRANGER_SECONDS", 0.5)
    with Hall(tmp_path) as hall, hall.client() as client:
        time.sleep(1)
        submit(client, hello())


def test_so_many_conversations_and_no_more(tmp_path, monkeypatch):
    """The next one is told to come again; when one has left, there is room."""
    monkeypatch.setattr(server, "MAX_CONVERSATIONS", 3)
    with Hall(tmp_path) as hall:
        held = [connect(hall) for _ in range(3)]
        assert all(each.recv(100).startswith(b"220 ") for each in held)
        assert heard(connect(hall)).startswith(b"421 4.7.0 Too many connections")
        held.pop().close()

        def is_let_in() -> bool:
            with connect(hall) as again:
                return again.recv(100).startswith(b"220 ")

        until(is_let_in, what="room for one more")
        for each in held:
            each.close()


def test_a_text_waits_for_its_turn(tmp_path, monkeypatch):
    """So many are read at a time; the next is asked for when one has ended."""
    monkeypatch.setattr(server, "MAX_TEXTS", 1)
    with Hall(tmp_path) as hall, hall.client() as first, hall.client() as second:
        for client in (first, second):
            client.mail("a@acme.test")
            client.rcpt("ada@example.test")
        assert first.docmd("DATA")[0] == 354
        second.putcmd("DATA")
        second.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.sock.recv(1, socket.MSG_PEEK)
        second.sock.settimeout(10)
        first.close()  # in the middle of it
        assert second.getreply()[0] == 354
        second.close()


def test_a_slow_store_makes_only_its_own_client_wait(tmp_path, monkeypatch):
    """Accepting is done in threads: another conversation goes on meanwhile."""
    go_on, accept = threading.Event(), outbox.accept

    def slow(*args, **options):
        assert go_on.wait(10)
        return accept(*args, **options)

    monkeypatch.setattr(server.outbox, "accept", slow)
    with Hall(tmp_path) as hall, hall.client() as waiting, hall.client() as other:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(submit(waiting, hello())))
        thread.start()
        assert other.noop()[0] == 250
        assert other.mail("a@acme.test")[0] == 250
        assert not answers
        go_on.set()
        thread.join(10)
        assert len(answers) == 1


@pytest.mark.parametrize(("fault", "code"), [(StoreError("away"), 451), (RuntimeError("secret"), 451)])
def test_a_fault_is_told_without_its_words(tmp_path, monkeypatch, caplog, fault, code):
    """Nothing was accepted, nothing of the fault is shown, and the conversation goes on."""
    accept = outbox.accept
    with Hall(tmp_path) as hall, hall.client() as client:
        monkeypatch.setattr(server.outbox, "accept", lambda *_args, **_options: (_ for _ in ()).throw(fault))
        client.mail("a@acme.test")
        client.rcpt("ada@example.test")
        answer, said = client.data(hello().as_bytes(policy=policy.SMTP))
        assert (answer, said[:5]) == (code, b"4.3.0")
        assert b"secret" not in said
        monkeypatch.setattr(server.outbox, "accept", accept)
        submit(client, hello())
        assert hall.count() == 1
    assert hall.key not in caplog.text
    assert "ada@" not in caplog.text


def test_what_is_answered_is_committed_and_told_to_the_broker(tmp_path):
    """RT1: another connection to the store sees it before the client hears of it."""
    with Hall(tmp_path) as hall, hall.client() as client:
        id_ = submit(client, hello())
        with hall.services.store.read() as connection:
            assert queries.show(connection, id_) is not None
        assert hall.published == [[id_]]


def test_twenty_at_once_with_one_key_are_one_mail_on_postgres(tmp_path, fresh_postgres_url):
    """Whose insert was first decides; all are told its id."""

    def send(_number: int) -> str:
        with hall.client() as client:
            return submit(client, hello(Idempotency_Key="twenty"))

    with Hall(tmp_path, database_url=fresh_postgres_url, secret_keys="k" * 40) as hall:
        with ThreadPoolExecutor(20) as threads:
            assert len(set(threads.map(send, range(20)))) == 1
        assert hall.count() == 1


def test_both_doors_count_together_in_redis(tmp_path, redis_url):
    """A key's rate is that of requests and mails; who guessed at the one is shut out of the other."""
    with Hall(tmp_path, broker_url=redis_url, api_rate="3/hour") as hall:
        caller = Caller(hall, hall.key)
        caller.send()
        with hall.client() as client:
            submit(client, hello())
            caller.send()
            assert client.mail("a@acme.test")[0] == 451
        for _ in range(30):
            assert Caller(hall, "re_wrong").get("/emails").status_code == 403
        time.sleep(KNOWN_SECONDS)
        with pytest.raises(smtplib.SMTPAuthenticationError, match="Too many wrong keys"), hall.client():
            pass
