"""The console's door: who gets in and how, what a form must carry, and what the host notices of it."""

from __future__ import annotations

import re

import flask
import pytest
from flask_wtf import CSRFProtect

from mailer import operators
from mailer.errors import ConfigError
from mailer.operators import Role
from mailer.states import State
from mailer.web.console import init_console
from tests.web.consoles import PASSWORD, Console, fields_of, log_in, press

pytestmark = pytest.mark.usefixtures("quick_hashes")


@pytest.fixture
def console(tmp_path) -> Console:
    return Console(tmp_path)


# Getting in


def test_nothing_is_shown_to_who_is_not_in(console):
    """UI4: every page leads to the log-in first, and back afterwards."""
    id_ = console.send(attempt=True)
    client = console.client(None)
    for path in (
        "/console/",
        "/console/messages?q=x",
        f"/console/messages/{id_}",
        f"/console/messages/{id_}/html",
    ):
        answer = client.get(path)
        assert answer.status_code == 303
        assert answer.location.startswith("/console/login?next=")
    assert client.get("/console/login").status_code == 200


def test_a_password_lets_in(console):
    """UI4: the cookie is out of reach for scripts and other sites, and leads to where the person wanted."""
    operators.create_operator(console.services, "ada", "viewer", PASSWORD)
    answer = log_in(console.client(None), "Ada", target="/console/messages?q=x")
    cookie = next(c for c in answer.headers.getlist("Set-Cookie") if c.startswith("mailer_console="))
    assert answer.location == "/console/messages?q=x"
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert len(cookie.partition("=")[2].partition(";")[0]) == 43  # 256 bits


def test_over_https_the_cookie_belongs_to_the_host(tmp_path):
    """UI4, UI6: Secure, __Host- and HSTS follow the base URL."""
    console = Console(tmp_path, base_url="https://mail.acme.test")
    operators.create_operator(console.services, "ada", "viewer", PASSWORD)
    answer = log_in(console.client(None), "ada")
    cookie = next(c for c in answer.headers.getlist("Set-Cookie") if c.startswith("__Host-mailer_console="))
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_a_refusal_does_not_say_what_was_wrong(console):
    """UI4: a wrong password, an unknown name and a person without password get the same answer."""
    operators.create_operator(console.services, "ada@acme.test", "viewer", PASSWORD)
    operators.create_operator(console.services, "bob@acme.test", "viewer")
    answers = set()
    for name in ("ada@acme.test", "bob@acme.test", "eve@acme.test"):
        answer = log_in(console.client(None), name, "wrong password")
        token = fields_of(answer)["csrf_token"]
        answers.add((answer.status_code, answer.text.replace(name, "").replace(token, "")))
    assert len(answers) == 1
    assert "do not match" in answers.pop()[1]


def test_guessing_is_slowed_down_by_account_and_by_address(console):
    """UI4: after ten tries at an account, or thirty from an address, even the right password waits."""
    operators.create_operator(console.services, "ada", "viewer", PASSWORD)

    def guess(name: str, address: str, password: str = "wrong password") -> int:
        client = console.client(None)
        token = fields_of(client.get("/console/login"))["csrf_token"]
        data = {"csrf_token": token, "name": name, "password": password}
        return client.post("/console/login", data=data, environ_base={"REMOTE_ADDR": address}).status_code

    assert [guess("ada", f"192.0.2.{n}") for n in range(10)] == [403] * 10
    assert guess("ADA ", "192.0.2.99", PASSWORD) == 429
    assert [guess(f"name{n}", "198.51.100.1") for n in range(30)] == [403] * 30
    assert guess("somebody", "198.51.100.1") == 429
    assert guess("somebody", "198.51.100.2") == 403


def test_processes_count_guesses_together(tmp_path, redis_url):
    """UI4: with Redis as the broker, a second web process knows what the first one counted."""
    first, second = (Console(tmp_path, broker_url=redis_url) for _ in range(2))
    for _ in range(10):
        assert log_in(first.client(None), "ada", "wrong password").status_code == 403
    assert log_in(second.client(None), "ada", "wrong password").status_code == 429


def test_the_door_works_while_redis_is_away(tmp_path):
    """The throttle then counts in memory: nobody is locked out, nobody guesses for free."""
    console = Console(tmp_path, broker_url="redis://127.0.0.1:1/0")
    operators.create_operator(console.services, "ada", "viewer", PASSWORD)
    assert log_in(console.client(None), "ada").status_code == 303
    for _ in range(9):
        log_in(console.client(None), "ada", "wrong password")
    assert log_in(console.client(None), "ada").status_code == 429


def test_logging_in_renews_the_session_and_logging_out_ends_it(console):
    """UI4: an old token opens nothing after the log-in, and none does after the log-out."""
    operators.create_operator(console.services, "ada", "viewer", PASSWORD)
    client = console.client(Role.VIEWER)
    before = client.get_cookie("mailer_console").value
    fields = fields_of(client.get("/console/"))
    data = {"csrf_token": fields["csrf_token"], "name": "ada", "password": PASSWORD}
    client.post("/console/login", data=data)
    after = client.get_cookie("mailer_console").value
    assert after != before
    assert operators.person_of(console.services, before) is None
    assert press(client, "/console/logout", "/console/").location == "/console/login"
    assert operators.person_of(console.services, after) is None
    client.set_cookie("mailer_console", after)
    assert client.get("/console/").status_code == 303


def test_a_link_is_used_by_its_button_only(console):
    """UI5: a scanner's GET changes nothing; the button lets in, once; the address goes to nobody else."""
    operators.create_operator(console.services, "ada", "admin")
    path = operators.make_login_link(console.services, "ada").removeprefix("http://localhost")
    client = console.client(None)
    for _ in range(3):
        page = client.get(path)
        assert page.status_code == 200
        assert page.headers["Referrer-Policy"] == "no-referrer"
        assert page.headers["Cache-Control"] == "no-store"
    assert client.post(path).status_code == 400
    assert press(client, path).location == "/console/messages"
    assert client.get("/console/").status_code == 200
    again = press(console.client(None), path)
    assert (again.status_code, "does not open any more" in again.text) == (403, True)
    assert not again.headers.getlist("Set-Cookie")[1:]


@pytest.mark.parametrize(
    "target",
    ["//evil.test", "/\\evil.test", "https:evil.test", "https://evil.test", "\\\\evil.test",
     "javascript:alert(1)", "/\t/evil.test", "/ok\r\nSet-Cookie: a=b", "evil.test", "///evil.test",
     "/%0d\x00", "", "/" + "a" * 3000],
)  # fmt: skip
def test_the_way_back_is_a_path_on_this_host(console, target):
    """UI9: whatever ``next`` says, the log-in never leads to another site."""
    operators.create_operator(console.services, "ada", "viewer", PASSWORD)
    assert log_in(console.client(None), "ada", target=target).location == "/console/messages"


# Forms


@pytest.mark.parametrize("deed", ["resend", "retry", "cancel"])
def test_deeds_need_the_token_and_a_post(console, deed):
    """UI5: without the token, with another person's, by GET or from another site nothing happens."""
    id_ = console.send()
    client, path = console.client(), f"/console/messages/{id_}/{deed}"
    foreign = fields_of(console.client(Role.ADMIN).get(f"/console/messages/{id_}"))
    fields = fields_of(client.get(f"/console/messages/{id_}"))
    assert client.post(path).status_code == 400
    assert client.post(path, data=foreign).status_code == 400
    assert client.get(path).status_code == 405
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
    ):
        assert client.post(path, data=fields, headers=headers).status_code == 400
    assert [m.state for m in console.everything()] == [State.QUEUED]


def test_log_in_and_log_out_need_the_token_too(console):
    """UI5: nobody is logged in or out by another site."""
    client = console.client()
    assert client.post("/console/login", data={"name": "ada", "password": "x"}).status_code == 400
    assert client.post("/console/logout").status_code == 400
    assert client.get("/console/").status_code == 200


def test_looking_changes_nothing(console):
    """UI5: no GET writes to a message or its timeline."""
    id_ = console.send(attempt=True)
    before = console.show(id_)
    client = console.client()
    for path in ("", "?part=text", "?part=source", "?part=files", "/html"):
        assert client.get(f"/console/messages/{id_}{path}").status_code == 200
    assert console.show(id_) == before


# Headers and the host


def test_every_page_forbids_what_it_does_not_need(console):
    """UI6: a policy without unsafe-inline, no framing, no caching, no sniffing; errors included."""
    id_ = console.send(attempt=True)
    client = console.client()
    paths = ["/console/", f"/console/messages/{id_}", "/console/messages/x", "/console/enter/x"]
    answers = [client.get(path) for path in paths] + [
        client.post("/console/logout"),
        console.client(None).get("/console/login"),
    ]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'",
                     "form-action 'self'"):  # fmt: skip
            assert part in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] in ("same-origin", "no-referrer")
        assert not re.search(r"<script(?! src=)|\sstyle=|\son\w+=", answer.text)


def test_the_store_being_away_is_said_plainly(console):
    """503 with the next step, no stack."""
    client = console.client()
    with console.services.store.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE mailer_sessions")
    answer = client.get("/console/")
    assert answer.status_code == 503
    assert "mailer db upgrade" in answer.text


def test_the_host_keeps_its_own_ways(tmp_path):
    """The host's forms need no token of ours, its pages get no headers of ours."""
    app = flask.Flask("host")
    app.add_url_rule("/hook", view_func=lambda: "done", methods=["POST"], endpoint="hook")
    console = Console(tmp_path, app=app)
    answer = console.client(None).post("/hook")
    assert answer.text == "done"
    assert "Content-Security-Policy" not in answer.headers


@pytest.mark.parametrize("first", [True, False])
def test_a_host_with_its_own_csrf_protection(tmp_path, first):
    """Whichever is set up first, a log-in works, and the host's key is left alone."""
    app = flask.Flask("host")
    app.secret_key = "the host's own secret"
    if first:
        CSRFProtect(app)
    console = Console(tmp_path, app=app)
    if not first:
        CSRFProtect(app)
    operators.create_operator(console.services, "ada", "viewer", PASSWORD)
    assert log_in(console.client(None), "ada").location == "/console/messages"
    assert app.secret_key == "the host's own secret"


def test_a_console_needs_mailer(tmp_path):
    """The error says what to call."""
    with pytest.raises(ConfigError, match="call mailer.init_app"):
        init_console(flask.Flask("host"))
