"""``mailer smtp`` as a person starts it: a process, a key, and an inbox that its mail is carried to."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from mailer.inbox import Inbox, Mail
from tests import servers
from tests.faults.conftest import QUICK, ROOT, until


class DoorProcess:
    """Can be killed and started again; what it accepted goes to the inbox with `deliver`."""

    def __init__(self, folder: Path, inbox: Inbox, **environment: str) -> None:
        self.folder, self.inbox, self.port = folder, inbox, servers.free_port()
        self.environment = {
            **os.environ,
            **QUICK,
            "MAILER_SMTP_URL": f"smtp://127.0.0.1:{inbox.smtp_port}",
            "MAILER_DATA_DIR": str(folder / "data"),
            "MAILER_SUBMISSION_PORT": str(self.port),
            "MAILER_API_RATE": "100000/second",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self.process: subprocess.Popen | None = None
        self.key = self.new_key()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "mailer", *command]
        where = {"cwd": ROOT, "env": self.environment}
        return subprocess.run(whole, **where, capture_output=True, text=True, timeout=60)

    def new_key(self, *options: str) -> str:
        made = self.run("keys", "create", "door", *options)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    @property
    def log(self) -> str:
        return (self.folder / "smtp.log").read_text()

    def start(self) -> None:
        (self.folder / "smtp.log").write_text("")
        with (self.folder / "smtp.log").open("a") as log:
            command = [sys.executable, "-m", "mailer", "smtp"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        until(lambda: "Listening" in self.log or self.process.poll() is not None, what="the door")
        assert self.process.poll() is None, self.log

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def connect(self, key: str | None = "", **options: object) -> smtplib.SMTP:
        """A client that is logged in, unless the key is None."""
        client = smtplib.SMTP("127.0.0.1", self.port, timeout=20, **options)
        client.ehlo("client.test")
        try:
            if key is not None:
                client.login("apikey", key or self.key)
        except smtplib.SMTPException:
            client.close()
            raise
        return client

    def deliver(self) -> None:
        ran = self.run("worker", "--once")
        assert ran.returncode == 0, ran.stderr

    def mails(self) -> list[Mail]:
        """What arrived, oldest first."""
        return list(reversed(self.inbox.mailbox.messages(limit=5000)))

    def arrived(self, mail: Mail) -> EmailMessage:
        parsed = message_from_bytes(self.inbox.mailbox.raw(mail.id), policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


def queued_as(reply: bytes) -> str:
    """The id in the answer to a text."""
    found = re.fullmatch(rb"2\.0\.0 Ok: queued as ([0-9a-f-]{36})", reply)
    assert found is not None, reply
    return found[1].decode()


def submit(
    client: smtplib.SMTP, mail: EmailMessage | bytes, *recipients: str, sender: str = "a@acme.test"
) -> str:
    """Send a mail and answer its id; octets go as they are."""
    raw = mail if isinstance(mail, bytes) else mail.as_bytes(policy=policy.SMTP)
    code, said = client.mail(sender)
    assert code == 250, said
    for recipient in recipients or ("ada@example.test",):
        code, said = client.rcpt(recipient)
        assert code == 250, said
    code, said = client.data(raw)
    if code != 250:
        raise smtplib.SMTPDataError(code, said)
    return queued_as(said)


def hello(text: str = "Hello\n", cte: str | None = None, **headers: str | None) -> EmailMessage:
    """A mail that is good; a header named None is left out."""
    mail = EmailMessage()
    fields = {"From": "Acme <a@acme.test>", "To": "ada@example.test", "Subject": "Hello"}
    for name, value in {**fields, **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
        if value is not None:
            mail[name] = value
    mail.set_content(text, cte=cte)
    return mail


@contextlib.contextmanager
def running(folder: Path, **environment: str) -> Iterator[DoorProcess]:
    """A door and its inbox, ended with the block."""
    with Inbox(folder / "inbox.db", smtp_port=0, web_port=0) as inbox:
        door = DoorProcess(folder, inbox, **environment)
        door.start()
        try:
            yield door
        finally:
            if door.process.poll() is None:
                door.process.kill()
                door.process.wait(5)


def trusting(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
