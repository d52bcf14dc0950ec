"""A small host application with the HTTP API, in the test's process, and clients that have a key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from mailer import Mailer, delivery, keys
from mailer.store import queries
from mailer.store.migrations import upgrade
from mailer.store.queries import MessageView
from mailer.web.api import init_api
from mailer.worker import work_once

HELLO = {"from": "Acme <a@acme.test>", "to": ["ada@example.test"], "subject": "Hello", "text": "Hello there"}


class ApiService:
    """An application with nothing but Mailer and its API, on SQLite, carrying mail to memory."""

    def __init__(self, folder: Path, prefix: str = "/api", **settings: Any) -> None:
        self.app = flask.Flask("host", static_folder=None, root_path=str(folder))
        self.app.config.update(
            MAILER_DATA_DIR=str(folder),
            MAILER_SMTP_URL="memory://",
            **{f"MAILER_{name.upper()}": value for name, value in settings.items()},
        )
        self.mailer = Mailer(self.app)
        init_api(self.app, url_prefix=prefix)
        self.prefix, self.services = prefix, self.app.extensions["mailer"]
        self.published: list[list[str]] = []
        self.services.publish = lambda wakeups: self.published.append([w.message for w in wakeups])
        upgrade(self.services.store.engine)

    def caller(self, *scopes: str, **options: Any) -> Caller:
        """Somebody with a key of these scopes; without any, of all."""
        made, token = keys.create(self.services, "test", scopes=scopes or ["admin"], **options)
        return Caller(self, token, made.id)

    def attempt(self) -> None:
        """Send everything that is due."""
        with self.app.app_context():
            while work_once(self.services):
                pass

    def deliver(self, id_: str) -> None:
        delivery.deliver(self.services, id_)

    def sent(self) -> list[Any]:
        """Parcels that the configured transport carried."""
        return list(self.services.transport.parcels)

    def show(self, id_: str) -> MessageView:
        with self.services.store.read() as connection:
            found = queries.show(connection, id_)
        assert found is not None
        return found

    def count(self) -> int:
        with self.services.store.read() as connection:
            return queries.total(connection)


class Caller:
    """A client of the API with a key; ``token`` None: without."""

    def __init__(self, service: ApiService, token: str | None, id_: str = "") -> None:
        self.service, self.token, self.id = service, token, id_
        self.client: FlaskClient = service.app.test_client()

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> TestResponse:
        headers = dict(options.pop("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            options["json"] = body
        return self.client.open(self.service.prefix + path, method=method, headers=headers, **options)

    def get(self, path: str, **options: Any) -> TestResponse:
        return self.ask("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> TestResponse:
        return self.ask("POST", path, body, **options)

    def send(self, key: str | None = None, **fields: Any) -> str:
        """Send a mail that is good, with these fields; answer its id."""
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.post("/emails", HELLO | fields, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json["id"]

    def refused(self, status: int, name: str, *args: Any, **options: Any) -> str:
        """Ask for something, make sure of the error, and answer its message."""
        answer = self.ask(*args, **options)
        assert answer.mimetype == "application/json"
        assert (answer.status_code, answer.json["statusCode"], answer.json["name"]) == (
            status,
            status,
            name,
        ), answer.text
        return answer.json["message"]
