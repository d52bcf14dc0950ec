"""A door in the test's process, on an application that carries mail to memory."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import threading
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mailer import keys
from mailer.submission import Door
from tests.web.api.service import ApiService


class Hall(ApiService):
    """An application, and a door to it in a thread."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **{"submission_port": 0, "api_rate": "100000/second", **settings})
        _made, self.key = keys.create(self.services, "door")
        self.door = Door(self.services)
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.door.run(self._stop, self._heard))
        self._loop.close()

    def _heard(self, said: str) -> None:
        self.port = urlsplit(said.split()[-1]).port or 0
        self._ready.set()

    def __enter__(self) -> Hall:
        self.door.listen()
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    @contextlib.contextmanager
    def client(self) -> Iterator[smtplib.SMTP]:
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as client:
            client.ehlo("client.test")
            client.login("mailer", self.key)
            yield client

    def arrived(self, id_: str) -> EmailMessage:
        """Send a mail, and read what left."""
        self.deliver(id_)
        parsed = message_from_bytes(self.sent()[-1].data, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed
