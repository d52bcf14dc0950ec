"""The newcomer's walk through the account pages, in a browser and with the whole service around them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from werkzeug.serving import make_server

from mailer.app import create_app
from mailer.testing import recording
from mailer.worker import work_once
from tests.web.accounts_service import CHEAP

if TYPE_CHECKING:
    import flask
    from playwright.sync_api import Page

ADA = "ada@example.test"
PASSWORD = "correct horse battery"
NEW = "another long password"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[flask.Flask, str]]:
    """The service on a port of its own."""
    app = create_app(
        {
            "MAILER_DATA_DIR": str(tmp_path),
            "MAILER_SMTP_URL": "memory://",
            "SECURITY_PASSWORD_HASH_PASSLIB_OPTIONS": CHEAP,
            "ACCOUNTS_ANSWER_SECONDS": 0,
        }
    )
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield app, f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def link_of(app: flask.Flask, base: str) -> str:
    """The link of the only mail that is due; the port is the test's own."""
    with recording(app) as outbox, app.app_context():
        work_once(app.extensions["mailer"])
    [mail] = outbox
    return base + "/" + mail.link.split("/", 3)[3]


def test_a_newcomer_walks_through(service, page: Page) -> None:
    """Sign up, verify, log out, reset, log in: by clicking, with nothing that the page's policy refuses."""
    app, base = service
    refused: list[str] = []
    page.on("console", lambda said: refused.append(said.text) if "Content Security" in said.text else None)
    page.goto(base)
    page.get_by_role("main").get_by_role("link", name="Sign up").click()
    page.get_by_label("Email address").fill(ADA)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    page.get_by_role("heading", name="Check your mail").wait_for()
    page.goto(link_of(app, base))
    assert page.url == f"{base}/verify"  # AU8: the token has left the address
    page.get_by_role("button", name="Confirm my address").click()
    page.get_by_text("Your address is confirmed").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("link", name="Forgot your password?").click()
    page.get_by_label("Email address").fill(ADA)
    page.get_by_role("button", name="Mail me a link").click()
    page.get_by_role("heading", name="Check your mail").wait_for()
    page.goto(link_of(app, base))
    page.get_by_label("New password").fill(NEW)
    page.get_by_role("button", name="Set the password").click()
    page.get_by_text("Your password is changed").wait_for()
    page.get_by_label("Email address").fill(ADA)
    page.get_by_label("Password").fill(NEW)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Your account").wait_for()
    assert refused == []


def test_pages_fit_a_narrow_window(service, page: Page) -> None:
    """Nothing scrolls sideways at 320 pixels."""
    _app, base = service
    page.set_viewport_size({"width": 320, "height": 600})
    for path in ("/", "/signup", "/login", "/forgot", "/signup/sent", "/verify", "/verify/again"):
        page.goto(base + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path


def test_the_console_stands_beside_them(service) -> None:
    """The front page leads to the console, which has a door of its own."""
    app, base = service
    client = app.test_client()
    home = client.get("/", base_url=base)
    assert 'href="/console/"' in home.text
    assert "/console/login" in client.get("/console/", base_url=base).location


def test_the_inbox_is_shown_where_mail_goes_there(tmp_path: Path) -> None:
    """Only the embedded inbox gets a link."""
    for url, shown in (("smtp://127.0.0.1:1025", True), ("smtp://127.0.0.1:2525", False), (None, True)):
        app = create_app({"MAILER_DATA_DIR": str(tmp_path), "MAILER_SMTP_URL": url})
        home = app.test_client().get("/", base_url="http://localhost")
        assert ("http://127.0.0.1:8025" in home.text) is shown
