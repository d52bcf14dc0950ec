"""A small host application with a console, and the deeds of people in it."""

from __future__ import annotations

import html
import re
from typing import Any

import flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from mailer import Mailer, delivery, operators, send_email
from mailer.operators import Role
from mailer.store.migrations import upgrade
from mailer.store.queries import MessageView, Search, search, show
from mailer.web.console import init_console

HOST = "http://localhost"
PASSWORD = "correct horse battery"


class Console:
    """An application with nothing but Mailer and its console, on SQLite, carrying mail to memory."""

    url = HOST

    def __init__(self, folder: Any, *, app: flask.Flask | None = None, **settings: Any) -> None:
        self.app = app or flask.Flask("host")
        self.app.config.update(
            MAILER_DATA_DIR=folder,
            MAILER_BASE_URL=settings.pop("base_url", HOST),
            MAILER_DEFAULT_SENDER="Acme <no-reply@acme.test>",
            MAILER_SMTP_URL=settings.pop("smtp_url", "memory://"),
            **{f"MAILER_{name.upper()}": value for name, value in settings.items()},
        )
        Mailer().init_app(self.app)
        init_console(self.app)
        self.services = self.app.extensions["mailer"]
        self.services.publish = lambda wakeups: None  # nobody listens: a test attempts when it wants to
        upgrade(self.services.store.engine)

    def send(self, *args: Any, attempt: bool = False, **fields: Any) -> str:
        """Accept a message, and make one attempt at it if asked to."""
        if not args:
            fields = {"subject": "Hello", "text": "Hello there"} | fields
        with self.app.app_context():
            id_ = send_email.delay(*args, **{"to": "ada@example.test"} | fields).id
        if attempt:
            delivery.deliver(self.services, id_)
        return id_

    def show(self, id_: str) -> MessageView:
        with self.services.store.read() as connection:
            found = show(connection, id_)
        assert found is not None
        return found

    def everything(self) -> list[MessageView]:
        """All messages, newest first."""
        with self.services.store.read() as connection:
            return search(connection, Search())

    def client(self, role: str | Role | None = Role.SUPPORT) -> FlaskClient:
        """A browser; with a role, somebody of that role is logged in."""
        client = self.app.test_client()
        if role is not None:
            client.set_cookie("mailer_console", self.session(role))
        return client

    def session(self, role: str | Role) -> str:
        name = f"{role}@acme.test"
        with self.services.store.read() as connection:
            known = operators.rows.operator(connection, name)
        if known is None:
            operators.create_operator(self.services, name, role)
        link = operators.make_login_link(self.services, name)
        token = operators.enter(self.services, link.rpartition("/")[2])
        assert token is not None
        return token


def fields_of(page: TestResponse) -> dict[str, str]:
    """The hidden fields of a page's forms."""
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page.text)
    return {name: html.unescape(value) for name, value in found}


def press(client: FlaskClient, path: str, on: str | None = None, **fields: str) -> TestResponse:
    """Look at the page ``on`` and send its form to ``path``."""
    page = client.get(on or path)
    kept = {k: v for k, v in fields_of(page).items() if k in ("csrf_token", "nonce", "next")}
    return client.post(path, data=kept | fields)


def log_in(client: FlaskClient, name: str, password: str = PASSWORD, target: str = "") -> TestResponse:
    return press(client, "/console/login", name=name, password=password, next=target)
