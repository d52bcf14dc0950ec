"""The service's account pages on a small application, and people who walk through them."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from mailer import Mailer
from mailer.store.migrations import upgrade
from mailer.web.accounts import init_accounts
from mailer.worker import work_once

HOST = "http://localhost"
PASSWORD = "correct horse battery"
CHEAP = {"argon2__rounds": 1, "argon2__memory_cost": 8, "argon2__parallelism": 1}


class Service:
    """An application with nothing but the account pages, on SQLite, carrying mail to memory."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        self.app = flask.Flask("service", static_folder=None)
        self.app.config.update(
            MAILER_DATA_DIR=str(folder),
            MAILER_BASE_URL=HOST,
            MAILER_DEFAULT_SENDER="Acme <no-reply@acme.test>",
            MAILER_SITE_NAME="Acme",
            MAILER_SMTP_URL="memory://",
            TRUSTED_HOSTS=["localhost"],
            SECURITY_PASSWORD_HASH_PASSLIB_OPTIONS=CHEAP,
            ACCOUNTS_ANSWER_SECONDS=0,
            RATELIMIT_ENABLED=False,
        )
        self.app.config.update(config)
        init_accounts(self.app, Mailer())
        self.services = self.app.extensions["mailer"]
        upgrade(self.services.store.engine)

    def visitor(self) -> Visitor:
        """Somebody with a browser that has never been here."""
        return Visitor(self, self.app.test_client())

    def member(self, address: str = "ada@acme.test", password: str = PASSWORD) -> Visitor:
        """Somebody who signed up, confirmed the address, and is logged in."""
        visitor = self.visitor()
        assert visitor.sign_up(address, password).status_code == 303
        assert visitor.open(self.link()).confirm().location == "/account"
        return visitor

    def mails(self) -> list[EmailMessage]:
        """What was mailed so far, everything that is due included."""
        with self.app.app_context():
            while work_once(self.services):
                pass
        return [
            email.message_from_bytes(parcel.data, policy=email.policy.default)  # type: ignore[misc]
            for parcel in self.services.transport.parcels
        ]

    def link(self, mail: EmailMessage | None = None) -> str:
        """The link with a token in a mail, the last one if none is given."""
        text = (mail or self.mails()[-1]).get_body(("plain",)).get_content()  # type: ignore[union-attr]
        found = re.search(r"https?://\S+token=\S+", text)
        assert found, text
        return found[0]

    def rows(self, sql: str) -> list[Any]:
        with self.services.store.read() as connection:
            return connection.exec_driver_sql(sql).all()


class Visitor:
    """A browser. Deeds go through the form of a page, as a person's do."""

    def __init__(self, service: Service, client: FlaskClient) -> None:
        self.service = service
        self.client = client

    def post(self, path: str, **fields: str) -> TestResponse:
        return self.client.post(path, data={"csrf_token": self.form_token(path), **fields})

    def form_token(self, path: str) -> str:
        page = self.client.get(path).text
        found = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)
        assert found, page
        return found[1]

    def sign_up(self, address: str, password: str = PASSWORD) -> TestResponse:
        return self.post("/signup", email=address, password=password)

    def log_in(self, address: str, password: str = PASSWORD) -> TestResponse:
        return self.post("/login", email=address, password=password)

    def forget(self, address: str) -> TestResponse:
        return self.post("/forgot", email=address)

    def open(self, link: str) -> Visitor:
        """Follow a link of a mail, on this service."""
        parts = urlsplit(link)
        self.client.get(f"{parts.path}?{parts.query}", follow_redirects=True)
        return self

    def confirm(self, **fields: str) -> TestResponse:
        return self.post("/verify", **fields)

    def reset(self, password: str) -> TestResponse:
        return self.post("/reset", password=password)

    @property
    def is_in(self) -> bool:
        return self.client.get("/account").status_code == 200
