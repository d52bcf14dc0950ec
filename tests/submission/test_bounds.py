"""The conversation itself: TLS, what EHLO offers, limits, and what happens when something is away or ends."""

from __future__ import annotations

import contextlib
import signal
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.authority import Authority
from tests.faults.conftest import until
from tests.submission.process import DoorProcess, hello, running, submit, trusting


def lines(door: DoorProcess, octets: bytes, timeout: float = 20) -> list[str]:
    """Everything the door says to these octets, until it closes."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=timeout) as connection:
        connection.sendall(octets)
        return connection.makefile("rb").read().decode().splitlines()


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, authority) -> Iterator[tuple[DoorProcess, int]]:
    """A door that listens on every address, with a certificate, and its port where TLS begins at once."""
    authority.context("localhost", "127.0.0.1")
    port = servers.free_port()
    environment = {
        "MAILER_SUBMISSION_HOST": "0.0.0.0",  # noqa: S104 (it is what is tried)
        "MAILER_SUBMISSION_CERTIFICATE": str(authority.folder / "localhost.pem"),
        "MAILER_SUBMISSION_TLS_PORT": str(port),
    }
    with running(tmp_path_factory.mktemp("guarded"), **environment) as door:
        yield door, port


def test_on_the_network_a_key_is_taken_under_tls_only(guarded, authority):
    """Neither offered nor taken before; after STARTTLS it is both, and STARTTLS is offered no more."""
    door, _port = guarded
    with door.connect(key=None) as client:
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH", "PLAIN AGEAYg==") == (538, b"5.7.11 Begin with STARTTLS")
        assert client.docmd("MAIL", "FROM:<a@acme.test>") == (530, b"5.7.0 Begin with STARTTLS")
        client.starttls(context=trusting(authority.ca_file))
        client.ehlo("client.test")
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN"]
        assert "starttls" not in client.esmtp_features
        assert client.docmd("STARTTLS")[0] == 503
        client.login("mailer", door.key)
        submit(client, hello(Subject="TLS"))
    door.deliver()
    assert [mail.subject for mail in door.mails()] == ["TLS"]


def test_tls_from_the_first_octet(guarded, authority):
    """RFC 8314: submissions."""
    door, port = guarded
    with smtplib.SMTP_SSL("localhost", port, timeout=20, context=trusting(authority.ca_file)) as client:
        client.login("mailer", door.key)
        submit(client, hello())


def test_what_was_said_before_tls_is_forgotten(guarded):
    """RFC 3207 section 4.2 and CVE-2021-38371: nothing that came in the clear counts under TLS."""
    door, _port = guarded
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
        connection.sendall(b"EHLO x\r\nSTARTTLS\r\nNOOP injected\r\n")
        until_220 = b""
        while b"220 Ready" not in until_220:
            until_220 += connection.recv(4096)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with contextlib.suppress(ssl.SSLError, OSError), context.wrap_socket(connection) as secret:
            secret.sendall(b"MAIL FROM:<a@x.test>\r\nQUIT\r\n")
            said = secret.makefile("rb").read()
            assert b"OK" not in said
            assert said.startswith(b"530 5.7.0")


def test_a_handshake_that_fails_costs_nobody_else(guarded):
    """Garbage after STARTTLS and on the other port."""
    door, port = guarded
    for where, octets in ((door.port, b"EHLO x\r\nSTARTTLS\r\n"), (port, b"")):
        with socket.create_connection(("127.0.0.1", where), timeout=10) as connection:
            connection.sendall(octets)
            time.sleep(0.2)
            connection.sendall(b"\x16\x03garbage" * 50)
    with door.connect(key=None) as client:
        assert client.noop()[0] == 250
    assert door.log.count("\n") == 2, "nothing but where it listens"


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"MAILER_SUBMISSION_HOST": "0.0.0.0"}, "MAILER_SUBMISSION_HOST"),  # noqa: S104
        ({"MAILER_SUBMISSION_TLS_PORT": "0"}, "MAILER_SUBMISSION_TLS_PORT"),
        ({"MAILER_SUBMISSION_CERTIFICATE": "/nowhere.pem"}, "MAILER_SUBMISSION_CERTIFICATE"),
        ({"MAILER_SUBMISSION_CERTIFICATE": __file__}, "MAILER_SUBMISSION_CERTIFICATE"),
    ],
)
def test_it_does_not_start_unprotected(door, environment, named):
    """One line that names the setting and the next step, and exit code 5."""
    other = DoorProcess.__new__(DoorProcess)
    other.environment = door.environment | {"MAILER_SUBMISSION_PORT": "0"} | environment
    ran = other.run("smtp")
    assert ran.returncode == 5
    assert ran.stderr.startswith(f"mailer: {named}: ")
    assert ran.stderr.count("\n") == 1


def test_a_taken_port_is_named(door):
    """The second start."""
    ran = door.run("smtp")
    assert ran.returncode == 5
    assert "MAILER_SUBMISSION_PORT" in ran.stderr


# Limits


def test_what_is_offered(door):
    """To a client on this machine."""
    with door.connect(key=None) as client:
        assert set(client.esmtp_features) == {
            "size", "8bitmime", "smtputf8", "pipelining", "enhancedstatuscodes", "auth",
        }  # fmt: skip
        assert client.esmtp_features["size"] == "10000000"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("MAIL FROM:<a@acme.test> SIZE=10000001", "552 5.3.4"),
        ("MAIL FROM:<a@acme.test> SIZE=x", "501 5.5.4"),
        ("MAIL FROM:<a@acme.test> BODY=BINARYMIME", "501 5.5.4"),
        ("MAIL FROM:<a@acme.test> RET=FULL", "555 5.5.4"),
        ("MAIL FROM:<a@acme.test> =", "501 5.5.4"),
        ("MAIL FROM:a@acme.test", "501 5.5.4"),
        ("MAIL TO:<a@acme.test>", "501 5.5.4"),
        ("MAIL", "501 5.5.4"),
        ("MAIL FROM:<ä@acme.test>", "553 5.6.7"),
        ("RCPT TO:<a@acme.test>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("DATA now", "501 5.5.4"),
        ("VRFY ada", "252 2.5.0"),
        ("EXPN list", "502 5.5.1"),
        ("HELP", "214 2.0.0"),
        ("NOOP", "250 2.0.0"),
        ("RSET now", "501 5.5.4"),
        ("BDAT 10", "500 5.5.2"),
        ("X" * 2_000, "500 5.5.2"),
        ("MAIL FROM:<" + "a" * 990 + ">", "500 5.5.2"),
        ("AUTH PLAIN", "503 5.5.1"),
        ("STARTTLS", "502 5.5.1"),
        ("EHLO", "501 5.5.4"),
    ],
)
def test_every_answer_has_an_enhanced_code(client, command, answer):
    """RFC 2034, the library's own answers included; the conversation goes on."""
    client.command_encoding = "utf-8"
    code, said = client.docmd(command)
    assert f"{code} {said.decode()}".startswith(f"{answer} ")
    assert client.noop()[0] == 250


def test_recipients(client):
    """Each for itself; 50 is enough, the same one again costs nothing."""
    client.command_encoding = "utf-8"
    assert client.mail("a@acme.test", ["SMTPUTF8", "BODY=8BITMIME", "SIZE=100"])[0] == 250
    for path, answer in (("ada", 553), ("a@b@c.test", 553), ("@x.test:a@y.test", 553), ("", 553),
                         ("a%b@x.test", 553), ("ä@x.test", 250)):  # fmt: skip
        assert client.docmd(f"RCPT TO:<{path}>")[0] == answer, path
    assert client.docmd("RCPT TO:<a@x.test> NOTIFY=NEVER")[0] == 555
    codes = [client.rcpt(f"a{number}@x.test")[0] for number in range(49)]
    assert codes == [250] * 49
    assert client.rcpt("one-more@x.test") == (
        452,
        b"4.5.3 Too many recipients; send another mail to the others",
    )
    assert client.rcpt("A0@x.test")[0] == 250
    assert client.docmd("MAIL FROM:<b@acme.test>")[0] == 503
    assert client.rset()[0] == 250
    assert client.docmd("RCPT TO:<a@x.test>")[0] == 503


def test_a_text_that_is_too_long(door, client):
    """Told after its end, whatever SIZE said; the next one is taken."""
    client.mail("a@acme.test")
    client.rcpt("ada@example.test")
    code, said = client.data(hello().as_bytes() + (b"x" * 70 + b"\r\n") * 150_000)
    assert (code, said[:5]) == (552, b"5.3.4")
    submit(client, hello())


def test_a_pipelined_conversation(door):
    """RFC 2920: all of it in one packet, answered in order."""
    import base64

    login = base64.b64encode(f"\0x\0{door.key}".encode()).decode()
    said = lines(
        door,
        f"EHLO x\r\nAUTH PLAIN {login}\r\nMAIL FROM:<a@acme.test>\r\nRCPT TO:<bad>\r\n"
        "RCPT TO:<ada@example.test>\r\nDATA\r\nFrom: a@acme.test\r\nSubject: Pipelined\r\n\r\nx\r\n.\r\n"
        "MAIL FROM:<>\r\nRSET\r\nQUIT\r\n".encode(),
    )
    codes = [line[:3] for line in said if line[3] == " "]
    assert codes == ["220", "250", "235", "250", "553", "250", "354", "250", "250", "250", "221"]


def test_hostile_headers_cost_no_time(door, client):
    """Comments in comments, words without an end: refused at once."""
    for header in (b"From: " + (b"(" * 900 + b"\r\n ") * 30, b"To: " + b"<,\r\n " * 1_500,
                   b"Subject: " + b"=?utf-8?q?a\r\n " * 1_500):  # fmt: skip
        began = time.monotonic()
        with pytest.raises(smtplib.SMTPDataError) as caught:
            submit(client, b"From: a@acme.test\r\nSubject: x\r\n" + header + b"\r\n\r\nx\r\n")
        assert caught.value.smtp_code == 554
        assert time.monotonic() - began < 2


# Away, too many, ended


def test_a_rate_is_that_of_the_key(tmp_path):
    """451 with 4.7.1 for the one who asks too much, and for nobody else."""
    with (
        running(tmp_path, MAILER_API_RATE="3/hour") as door,
        door.connect() as client,
        door.connect(key=door.new_key()) as other,
    ):
        for _ in range(3):
            submit(client, hello())
        code, said = client.mail("a@acme.test")
        assert (code, said[:5]) == (451, b"4.7.1")
        submit(other, hello())


def test_who_tries_keys_is_shut_out(tmp_path):
    """Thirty within a minute; then not even a right one is looked at (AK3)."""
    with running(tmp_path) as door:
        codes = [code for _ in range(11) for code in three_wrong_keys(door)]
        assert codes[:30] == [535] * 30
        assert set(codes[30:]) == {454}
        with pytest.raises(smtplib.SMTPAuthenticationError, match="Too many wrong keys"):
            door.connect()


def three_wrong_keys(door: DoorProcess) -> list[int]:
    """What is said to them, before the door closes."""
    said = lines(door, b"EHLO x\r\n" + b"AUTH PLAIN AGEAYg==\r\n" * 3)
    assert said[-1].startswith("421 4.7.0")
    return [int(line[:3]) for line in said[-4:-1]]


def test_a_store_that_is_away_accepts_nothing(tmp_path):
    """451 4.3.0 wherever it is asked; when it is back, the same conversation goes on."""
    with running(tmp_path) as door, door.connect() as client:
        submit(client, hello(Subject="Before"))
        client.mail("a@acme.test")
        client.rcpt("ada@example.test")
        database = Path(door.environment["MAILER_DATA_DIR"]) / "mailer.db"
        import sqlite3

        # Renaming tables is a store without tables: it answers, and not as it should.
        def rename(one: str, other: str) -> None:
            with contextlib.closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA legacy_alter_table=ON")
                connection.execute(f"ALTER TABLE {one} RENAME TO {other}")
                connection.commit()

        rename("mailer_api_keys", "away")
        code, said = client.data(hello().as_bytes())
        assert (code, said[:5]) == (451, b"4.3.0")
        code, said = client.mail("a@acme.test")
        assert (code, said[:5]) == (451, b"4.3.0")
        rename("away", "mailer_api_keys")
        submit(client, hello(Subject="After"))
        door.deliver()
        assert [mail.subject for mail in door.mails()] == ["Before", "After"]


def test_sigterm_finishes_a_text_and_tells_the_others(tmp_path):
    """Who is in a text gets their 250, who is not 421; nobody new gets in; exit code 0."""
    with running(tmp_path) as door:
        idle, busy = door.connect(), door.connect()
        busy.mail("a@acme.test")
        busy.rcpt("ada@example.test")
        assert busy.docmd("DATA")[0] == 354
        raw = hello(Subject="In time").as_bytes().replace(b"\n", b"\r\n")
        busy.send(raw[:50])
        door.process.send_signal(signal.SIGTERM)
        assert idle.getreply()[0] == 421
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", door.port), timeout=1).close()
        busy.send(raw[50:] + b".\r\n")
        assert busy.getreply()[0] == 250
        assert door.process.wait(10) == 0
        idle.close()
        busy.close()
        door.deliver()
        assert [mail.subject for mail in door.mails()] == ["In time"]


def test_killed_right_after_the_answer_nothing_is_lost(tmp_path):
    """RT1: kill -9 while clients send. What was answered is there, and who asks again doubles nothing."""
    with running(tmp_path) as door:
        answered: set[str] = set()
        stop = threading.Event()

        def send(client: int) -> None:
            for number in range(1_000):
                name = f"{client}-{number}"
                while name not in answered and not stop.is_set():
                    with contextlib.suppress(OSError, smtplib.SMTPException), door.connect() as connection:
                        submit(connection, hello(Subject=name, Idempotency_Key=name))
                        answered.add(name)
                if stop.is_set():
                    return

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            for kills in range(1, 3):
                until(lambda wanted=10 * kills: len(answered) >= wanted, seconds=60, what="answers")
                door.end(signal.SIGKILL)
                door.start()
            until(lambda: len(answered) >= 40, seconds=60, what="answers after the last start")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        door.end()
        door.deliver()
        subjects = [mail.subject for mail in door.mails()]
        assert len(subjects) == len(set(subjects))
        assert answered <= set(subjects)
