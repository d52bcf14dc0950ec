"""``mailer dev`` as a person starts it: a process of its own, on free ports, in an empty folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import servers


@dataclass
class Dev:
    """A running ``mailer dev``."""

    process: subprocess.Popen
    web: str
    inbox: str
    console_link: str
    environment: dict[str, str]
    folder: Path

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a ``mailer`` command in a shell beside it."""
        command = [sys.executable, "-m", "mailer", *args]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def mails(self, query: str = "") -> list[dict]:
        """The inbox's mails, newest first, through its JSON API."""
        path = f"/api/v1/search?query={query}" if query else "/api/v1/messages"
        with urllib.request.urlopen(self.inbox + path) as response:
            return json.load(response)["messages"]

    def wait_for_mails(self, count: int, query: str = "", seconds: float = 10) -> list[dict]:
        deadline = time.monotonic() + seconds
        while len(found := self.mails(query)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} mails: {self.log()}"
            time.sleep(0.02)
        return found

    def text(self, mail: dict) -> str:
        with urllib.request.urlopen(f"{self.inbox}/api/v1/message/{mail['ID']}") as response:
            return json.load(response)["Text"]

    def link(self, mail: dict) -> str:
        return re.findall(r"https?://\S+", self.text(mail))[0]

    def log(self) -> str:
        return (self.folder / "dev.log").read_text()

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@contextlib.contextmanager
def running(folder: Path, **environment: str) -> Iterator[Dev]:
    """Start it, and end it with the block if the block has not."""
    web, inbox, smtp = (servers.free_port() for _ in range(3))
    ports = {
        "MAILER_WEB_PORT": str(web),
        "MAILER_INBOX_PORT": str(inbox),
        "MAILER_INBOX_SMTP_PORT": str(smtp),
    }
    merged = {**os.environ, **ports, "PYTHONUNBUFFERED": "1", **environment}
    with (folder / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailer", "dev"], cwd=folder, env=merged, stdout=log, stderr=log
        )
    try:
        link = _console_link(process, folder / "dev.log")
        yield Dev(process, f"http://127.0.0.1:{web}", f"http://127.0.0.1:{inbox}", link, merged, folder)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(5)


def _console_link(process: subprocess.Popen, log: Path, seconds: float = 30) -> str:
    deadline = time.monotonic() + seconds
    while not (found := re.search(r"https?://\S+/console/enter/\S+", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found[0]
