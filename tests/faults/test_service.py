"""The service as an operator runs it: `mailer web` and `mailer worker`, Redis between them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

import pytest

from mailer.inbox import Inbox
from tests import servers
from tests.conftest import had
from tests.faults.conftest import QUICK, ROOT, until


@pytest.fixture
def service(tmp_path, database_url):
    """Start `mailer` commands with one environment; they are ended with the test."""
    with Inbox(tmp_path / "inbox.db", smtp_port=0, web_port=0) as inbox:
        web, broker = servers.free_port(), servers.free_port()
        environment = {
            **os.environ,
            **QUICK,
            "MAILER_DATABASE_URL": database_url,
            "MAILER_BROKER_URL": f"redis://127.0.0.1:{broker}/0",
            "MAILER_SMTP_URL": f"smtp://127.0.0.1:{inbox.smtp_port}",
            "MAILER_DATA_DIR": str(tmp_path / "data"),
            "MAILER_WEB_PORT": str(web),
        }
        started: list[subprocess.Popen] = []

        def start(*command: str) -> subprocess.Popen:
            with (tmp_path / f"{command[0]}.log").open("w") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "mailer", *command],
                    cwd=ROOT,
                    env=environment,
                    stdout=log,
                    stderr=log,
                )
            started.append(process)
            return process

        start.inbox, start.url, start.broker_port = inbox, f"http://127.0.0.1:{web}", broker
        yield start
        for process in started:
            process.kill()
            process.wait(5)


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(f"{url}/healthz", timeout=2).status == 200
    except OSError:
        return False


def sign_up(url: str, address: str) -> float:
    """Sign up as a browser does; answer the seconds the form took."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    page = browser.open(f"{url}/signup").read().decode()
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)[1]
    fields = {"csrf_token": token, "email": address, "password": "a long enough pass phrase"}
    form = urllib.request.Request(
        f"{url}/signup", urllib.parse.urlencode(fields).encode(), {"Referer": f"{url}/signup"}
    )
    started = time.monotonic()
    assert "Check your mail" in browser.open(form).read().decode()
    return time.monotonic() - started


def test_sign_up_does_not_notice_that_the_broker_is_down(service):
    """RT2: sign-up answers within a second with no broker, and the mail arrives when it is back."""
    service("web")
    service("worker")
    until(lambda: answers(service.url), what="the web server")
    assert sign_up(service.url, "ada@example.com") < 1
    assert not service.inbox.mailbox.messages()
    with had(servers.redis(service.broker_port)):
        [mail] = service.inbox.mailbox.wait_for(1, timeout=40)
        assert mail.subject.startswith("Confirm")
        assert sign_up(service.url, "bob@example.com") < 1
        service.inbox.mailbox.wait_for(2, timeout=20)
