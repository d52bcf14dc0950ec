"""The real clients, unmodified, against a running service: resend for Python and Node, django-anymail, curl.

And the page that says how to move: its blocks are run as they stand there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import resend

from tests.conftest import not_had
from tests.faults.conftest import until
from tests.flows.dev_process import Dev, running

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "how-to" / "move-from-resend.md"
MAIL = {"from": "Acme <a@acme.test>", "to": ["ada@example.test"], "subject": "Hello", "html": "<p>Hello</p>"}


class Running:
    """`mailer dev` with a key for its API."""

    def __init__(self, dev: Dev) -> None:
        self.dev, self.url = dev, f"{dev.web}/api"
        self.key = self.new_key("--scope", "admin")

    def new_key(self, *options: str) -> str:
        made = self.dev.run("keys", "create", "clients", *options)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def mail(self, subject: str) -> dict:
        """The one mail of that subject in the inbox."""
        until(lambda: self._found(subject), what=f"a mail {subject!r}")
        [mail] = self._found(subject)
        return mail

    def _found(self, subject: str) -> list[dict]:
        return [mail for mail in self.dev.mails() if mail["Subject"] == subject]


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("dev"), MAILER_API_RATE="1000/second") as dev:
        yield Running(dev)


@pytest.fixture
def client(service, monkeypatch):
    """The `resend` package, pointed at us by its one line."""
    monkeypatch.setattr(resend, "api_url", service.url)
    monkeypatch.setattr(resend, "api_key", service.key)
    return resend


# resend for Python


def test_python_sends_and_looks(service, client):
    """Send with everything, fetch, list; what was sent arrives."""
    sent = client.Emails.send(
        {
            **MAIL,
            "subject": "From Python",
            "cc": "c@example.test",
            "bcc": ["d@example.test"],
            "reply_to": "r@acme.test",
            "text": "Hello",
            "headers": {"X-Entity-Ref-ID": "1"},
            "tags": [{"name": "category", "value": "confirm"}],
            "attachments": [
                {"filename": "a.txt", "content": list(b"hello"), "content_type": "text/plain"},
                {"filename": "l.png", "content": "aGk=", "content_id": "logo"},
            ],
        },
        {"idempotency_key": "python-1"},
    )
    shown = client.Emails.get(sent["id"])
    assert (shown["subject"], shown["html"]) == ("From Python", "<p>Hello</p>")
    assert shown["tags"] == [{"name": "category", "value": "confirm"}]
    until(lambda: client.Emails.get(sent["id"])["last_event"] == "sent", what="sent")
    assert service.mail("From Python")["Attachments"] == 1
    page = client.Emails.list({"limit": 1})
    assert (page["object"], page["data"][0]["id"]) == ("list", sent["id"])


def test_python_sends_a_template(service, client):
    """The application's own, by its name."""
    template = {"id": "welcome", "variables": {"name": "Ada"}}
    sent = client.Emails.send({"from": "a@acme.test", "to": "ada@example.test", "template": template})
    until(lambda: client.Emails.get(sent["id"])["last_event"] == "sent", what="sent")
    assert "Hello Ada" in client.Emails.get(sent["id"])["text"]


def test_python_sends_batches(service, client):
    """Strict and permissive, and with a key."""
    good = [{**MAIL, "subject": f"Batch {n}"} for n in range(3)]
    ids = [entry["id"] for entry in client.Batch.send(good, {"idempotency_key": "python-2"})["data"]]
    again = client.Batch.send(good, {"idempotency_key": "python-2"})
    assert [entry["id"] for entry in again["data"]] == ids
    for n in range(3):
        service.mail(f"Batch {n}")
    with pytest.raises(resend.exceptions.ValidationError):
        client.Batch.send([*good, {**MAIL, "to": "x"}])
    some = client.Batch.send([{**MAIL, "to": "x"}, MAIL], {"batch_validation": "permissive"})
    assert (len(some["data"]), some["errors"][0]["index"]) == (1, 0)


def test_python_reschedules_and_cancels(client):
    """By plain English and by ISO time."""
    sent = client.Emails.send({**MAIL, "scheduled_at": "in 1 hour"})
    assert client.Emails.get(sent["id"])["last_event"] == "scheduled"
    changed = client.Emails.update({"id": sent["id"], "scheduled_at": "2030-01-01T00:00:00Z"})
    assert changed["id"] == sent["id"]
    assert client.Emails.get(sent["id"])["scheduled_at"] == "2030-01-01T00:00:00+00:00"
    assert client.Emails.cancel(sent["id"])["object"] == "email"
    assert client.Emails.get(sent["id"])["last_event"] == "canceled"


def test_python_gets_its_typed_errors(client, monkeypatch):
    """Each class that the package knows, by what raises it there."""
    errors = resend.exceptions
    with pytest.raises(errors.ValidationError) as caught:
        client.Emails.send({**MAIL, "to": "nobody"})
    assert caught.value.code == 422
    with pytest.raises(errors.MissingRequiredFieldsError):
        client.Emails.send({"from": "a@acme.test", "to": "b@example.test", "subject": "x"})
    with pytest.raises(errors.ResendError) as caught:
        client.Emails.get("01a20a1c-6691-7617-9162-8017db76123f")
    assert (caught.value.code, caught.value.error_type) == (404, "not_found")
    client.Emails.send(MAIL, {"idempotency_key": "python-3"})
    with pytest.raises(errors.ResendError) as caught:
        client.Emails.send({**MAIL, "subject": "Other"}, {"idempotency_key": "python-3"})
    assert (caught.value.code, caught.value.error_type) == (409, "invalid_idempotent_request")
    monkeypatch.setattr(resend, "api_key", "re_wrong")
    with pytest.raises(errors.InvalidApiKeyError):
        client.Emails.send(MAIL)


# resend for Node


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory) -> Path:
    """A folder with the npm package, each file checked against the hashes of the lock."""
    if not (shutil.which("node") and shutil.which("npm")):
        not_had("no Node: apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "client.mjs"):
        shutil.copy(HERE / "node" / name, folder)
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    got = subprocess.run(npm, cwd=folder, capture_output=True, text=True, timeout=100)
    if got.returncode:
        not_had("no npm package resend: npm ci cannot fetch it")
    return folder


def test_node_does_all_of_it(service, node_modules):
    """Send, batch, fetch, list, reschedule, cancel, and errors as values with their names."""
    environment = {**os.environ, "RESEND_BASE_URL": service.url, "RESEND_API_KEY": service.key}
    ran = subprocess.run(
        ["node", "client.mjs"], cwd=node_modules, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["errors"] == {"missing": "missing_required_field", "bad": "validation_error",
                              "unknown": "not_found", "key": "invalid_api_key"}  # fmt: skip
    assert told["events"] == ["scheduled", "canceled"]
    assert told["repeated"] is True
    assert told["batch"] == 2
    assert told["permissive"] == [1, 0]
    assert told["listed"] == told["sent"]
    assert service.mail("From Node")["Attachments"] == 1


# django-anymail


def test_anymail_does_all_of_it(service):
    """Its Resend backend: tags, metadata, files, schedule, batches, errors; what we leave out is named."""
    environment = {**os.environ, "SERVICE": service.url, "KEY": service.key}
    ran = subprocess.run(
        [sys.executable, HERE / "anymail_client.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["status"] == ["queued"]
    assert len(set(told["batch"].values())) == 2
    assert told["error"] == 422
    assert "not understood: idempotency_key" in told["warning"]
    resend.api_url, resend.api_key = service.url, service.key
    shown = resend.Emails.get(told["id"])
    assert shown["labels"] == ["confirm"]
    assert {"name": "user", "value": "1"} in shown["tags"]
    first = resend.Emails.get(told["batch"]["b@example.test"])
    assert first["tags"] == [{"name": "u", "value": "b"}]
    assert resend.Emails.get(told["later"])["last_event"] == "scheduled"
    mail = service.mail("From anymail")
    assert mail["Attachments"] == 1


# The page


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}.*?\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("language", ["python", "js", "sh"])
def test_the_page_on_moving_is_true(service, language, request, tmp_path):
    """Each of its programs sends its mail, with the key and the address of this service in their place."""
    code = blocks(language)[0]
    program = code.replace("http://127.0.0.1:8000/api", service.url).replace("re_...", service.key)
    assert program.count(service.key) == 1
    assert program.count(service.url) == 1
    subject = re.search(r"Moved with \w+", program)[0]
    if language == "python":
        command, folder = [sys.executable, "-c", program], tmp_path
    elif language == "js":
        folder = request.getfixturevalue("node_modules")
        (folder / "moved.mjs").write_text(program)
        command = ["node", "moved.mjs"]
    else:
        if not shutil.which("curl"):
            not_had("no curl: apt-get install curl")
        command, folder = ["sh", "-ec", program], tmp_path
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    service.mail(subject)
