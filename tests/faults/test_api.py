"""The HTTP API's promise, with a real web process that is really killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from mailer.inbox import Inbox
from tests import servers
from tests.faults.conftest import QUICK, ROOT, until

MAIL = {"from": "a@acme.test", "to": "ada@example.test", "text": "Hello"}


class Web:
    """`mailer web` that can be killed and started again, a worker, and a key."""

    def __init__(self, folder, inbox) -> None:
        self.folder, port = folder, servers.free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **os.environ,
            **QUICK,
            "MAILER_SMTP_URL": f"smtp://127.0.0.1:{inbox.smtp_port}",
            "MAILER_DATA_DIR": str(folder / "data"),
            "MAILER_WEB_PORT": str(port),
            "MAILER_API_RATE": "100000/second",
        }
        made = self.run("keys", "create", "kill", "--scope", "admin")
        assert made.returncode == 0, made.stderr
        self.key = made.stdout.strip()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "mailer", *command]
        where = {"cwd": ROOT, "env": self.environment}
        return subprocess.run(whole, **where, capture_output=True, text=True, timeout=60)

    def start(self) -> subprocess.Popen:
        with (self.folder / "web.log").open("a") as log:
            command = [sys.executable, "-m", "mailer", "web"]
            process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        until(self.answers, what="the web server")
        return process

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.url}/healthz", timeout=2).status == 200
        except OSError:
            return False

    def ask(self, method: str, path: str, body: object = None, key: str = "") -> dict:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        headers |= {"Idempotency-Key": key} if key else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api{path}", data, headers, method=method)
        return json.load(urllib.request.urlopen(request, timeout=10))


@pytest.fixture
def inbox(tmp_path):
    with Inbox(tmp_path / "inbox.db", smtp_port=0, web_port=0) as started:
        yield started


@pytest.fixture
def web(tmp_path, inbox):
    return Web(tmp_path, inbox)


def test_killed_at_any_point_nothing_is_lost_and_nothing_doubled(web, inbox):
    """RT1, RT10: kill -9 while clients send. What was answered is there.

    Who got no answer asks again with the same key; in the end each mail went out once.
    """
    answered: dict[str, str] = {}
    stop = threading.Event()

    def send(client: int) -> None:
        for number in range(1000):
            name = f"{client}-{number}"
            while name not in answered:
                if stop.is_set():
                    return
                try:
                    answered[name] = web.ask("POST", "/emails", MAIL | {"subject": name}, key=name)["id"]
                except (OSError, http.client.HTTPException, ValueError):
                    stop.wait(0.02)

    process = web.start()
    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    [thread.start() for thread in threads]
    try:
        for kills in range(1, 3):
            until(lambda wanted=15 * kills: len(answered) >= wanted, what="answers")
            process.send_signal(signal.SIGKILL)
            process.wait(5)
            process = web.start()
        until(lambda: len(answered) >= 60, what="answers after the last start")
    finally:
        stop.set()
        [thread.join() for thread in threads]
    try:
        for id_ in answered.values():
            assert web.ask("GET", f"/emails/{id_}")["id"] == id_
    finally:
        process.kill()
        process.wait(5)
    assert web.run("worker", "--once").returncode == 0
    subjects = [mail.subject for mail in inbox.mailbox.messages(limit=5000)]
    assert len(subjects) == len(set(subjects)), "a retry with the same key doubles nothing"
    assert set(answered) <= set(subjects)
