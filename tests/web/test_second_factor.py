"""The pages of the second factor: turned on, asked for, turned off; and that nothing leads around it."""

from __future__ import annotations

import base64
import re
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from urllib.parse import unquote

import pyotp
import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server
from werkzeug.test import TestResponse

from mailer import operators, second_factor
from mailer.cli import mailer
from mailer.sealing import Sealer
from tests.web.consoles import PASSWORD, Console, log_in, press

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
FACTOR = "/console/account/second-factor"

pytestmark = pytest.mark.usefixtures("quick_hashes")


@pytest.fixture
def clock():
    """Stands until a test moves it."""
    return SimpleNamespace(now=NOW)


@pytest.fixture
def console(tmp_path, clock) -> Console:
    """A console with one person, Ada, who has a password."""
    made = Console(tmp_path)
    made.services.now = lambda: clock.now
    operators.create_operator(made.services, "ada", "viewer", PASSWORD)
    return made


@pytest.fixture
def secret(console, clock) -> str:
    """What Ada's app holds; her second factor is on."""
    client = console.client(None)
    log_in(client, "ada")
    made = secret_on(press(client, FACTOR, "/console/account"), client)
    turned_on = press(client, f"{FACTOR}/on", FACTOR, code=code(clock, made))
    assert turned_on.location == "/console/account?done=on"
    clock.now += timedelta(minutes=2)
    return made


def secret_on(answer: TestResponse, client: FlaskClient) -> str:
    """The key as a person reads it off the page they are led to."""
    assert answer.location == FACTOR
    key = re.search(r'class="setup__key mono">(.*?)</p>', client.get(FACTOR).text, re.DOTALL)
    return "".join(re.findall(r"<span>(\w+)</span>", key[1]))


def code(clock, secret: str, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(clock.now, counter_offset=steps)


def half_in(console, **given) -> FlaskClient:
    """A browser in which Ada's password was given."""
    client = console.client(None)
    assert log_in(client, "ada", **given).location.startswith("/console/login/code")
    return client


def enter(client: FlaskClient, typed: str) -> TestResponse:
    return press(client, "/console/login/code", code=typed)


# Turning it on


@pytest.mark.parametrize("role", ["viewer", "support", "admin"])
def test_it_is_offered_to_everybody(console, role):
    """UI4: each role has an account page that says who they are and offers the second factor."""
    page = console.client(role).get("/console/account")
    assert page.status_code == 200
    assert f"{role}@acme.test" in page.text
    assert "Turn on" in page.text


def test_the_account_page_is_for_who_is_in(console):
    """UI4: like every page, it leads to the log-in first."""
    for path in ("/console/account", FACTOR):
        assert console.client(None).get(path).location.startswith("/console/login?next=")


def test_looking_makes_no_secret(console):
    """UI5: before the button was pressed there is nothing to show, and no GET changes that."""
    client = console.client()
    assert client.get(FACTOR).location == "/console/account"
    for path in (FACTOR, f"{FACTOR}/on", f"{FACTOR}/off"):
        assert client.post(path).status_code == 400  # nor a POST without the token
    assert client.get(f"{FACTOR}/on").status_code == 405
    assert client.get(FACTOR).location == "/console/account"


def test_the_picture_holds_the_key_and_no_address_does(console, clock):
    """UI4: the secret stands in the page, which no cache keeps; never in a URL that a log could hold."""
    client = console.client()
    made = secret_on(press(client, FACTOR, "/console/account"), client)
    page = client.get(FACTOR)
    assert page.headers["Cache-Control"] == "no-store"
    picture = unquote(re.search(r'src="(data:image/svg\+xml[^"]*)"', page.text)[1])
    assert "<svg" in picture
    assert len(base64.b32decode(made)) == 20  # 160 bits, as RFC 4226 recommends
    answer = press(client, f"{FACTOR}/on", FACTOR, code=code(clock, made))
    assert made not in answer.location + page.request.url


def test_the_page_stays_until_the_code_is_right(console, clock):
    """A mistyped code leaves the same secret to try again; one in use is not shown any more."""
    client = console.client()
    made = secret_on(press(client, FACTOR, "/console/account"), client)
    refused = press(client, f"{FACTOR}/on", FACTOR, code=code(clock, made, 9))
    assert (refused.status_code, "not right" in refused.text) == (403, True)
    spaced = f"{code(clock, made)[:3]} {code(clock, made)[3:]}"
    assert press(client, f"{FACTOR}/on", FACTOR, code=spaced).status_code == 303
    assert "now asks for a code" in client.get("/console/account?done=on").text
    assert client.get(FACTOR).location == "/console/account"
    assert press(client, FACTOR, "/console/account").location == FACTOR  # an old page's button
    assert client.get(FACTOR).location == "/console/account"


# Logging in


def test_the_log_in_asks_for_the_code_and_leads_on(console, clock, secret):
    """UI4: no session before the code; after it, where the person wanted to go."""
    client = console.client(None)
    answer = log_in(client, "ada", target="/console/messages?q=x")
    assert client.get_cookie("mailer_console") is None
    assert client.get("/console/").status_code == 303
    asked = client.get(answer.location)
    assert 'autocomplete="one-time-code"' in asked.text
    done = press(client, "/console/login/code", answer.location, code=code(clock, secret))
    assert done.location == "/console/messages?q=x"
    assert client.get("/console/").status_code == 200
    assert client.get_cookie("mailer_console_half") is None


def test_the_half_way_token_is_a_key_to_nothing_else(console, clock, secret):
    """UI4: put into the session's cookie, it opens no page."""
    client = half_in(console)
    client.set_cookie("mailer_console", client.get_cookie("mailer_console_half").value)
    assert client.get("/console/").status_code == 303


def test_over_https_the_half_way_cookie_belongs_to_the_host(tmp_path):
    """UI4: as strict as the session's cookie, and gone after five minutes."""
    console = Console(tmp_path, base_url="https://mail.acme.test")
    ada = operators.create_operator(console.services, "ada", "viewer", PASSWORD)
    second_factor.offer(console.services, ada)
    made = second_factor.offered(console.services, ada).secret
    assert second_factor.turn_on(console.services, ada, pyotp.TOTP(made).now(), "")
    answer = log_in(console.client(None), "ada")
    cookie = next(
        c for c in answer.headers.getlist("Set-Cookie") if c.startswith("__Host-mailer_console_half=")
    )
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=300"} <= set(cookie.split("; "))


def test_a_wrong_code_and_a_used_one_get_the_same_answer(console, clock, secret):
    """UI4: the page does not tell an eavesdropper that a code was right once."""
    client, used = half_in(console), code(clock, secret)
    assert enter(half_in(console), used).status_code == 303
    said = [enter(client, typed) for typed in (used, code(clock, secret, 9), "", "x" * 10_000)]
    assert {answer.status_code for answer in said} == {403}
    assert all("not right, or was used already" in answer.text for answer in said)
    assert enter(client, code(clock, secret, 1)).status_code == 303


def test_guessing_codes_is_slowed_down_by_account(console, clock, secret):
    """UI4: after ten tries, from wherever, even the right code waits; so it does for turning off."""
    insider = console.client(None)
    link = operators.make_login_link(console.services, "ada").removeprefix("http://localhost")
    press(insider, link)
    client = half_in(console)
    assert [enter(client, code(clock, secret, 9)).status_code for _ in range(10)] == [403] * 10
    refused = enter(client, code(clock, secret))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "900")
    assert enter(half_in(console), code(clock, secret)).status_code == 429
    assert press(insider, f"{FACTOR}/off", "/console/account", code=code(clock, secret)).status_code == 429


def test_who_is_too_slow_begins_again(console, clock, secret):
    """UI4: the password counts for five minutes; without it the second page leads to the first."""
    assert console.client(None).get("/console/login/code?next=//evil.test").location == (
        "/console/login?next=/console/messages"
    )
    client = half_in(console)
    page = client.get("/console/login/code")
    clock.now += timedelta(minutes=5)
    token = re.search(r'name="csrf_token" value="([^"]*)"', page.text)[1]
    late = client.post("/console/login/code", data={"csrf_token": token, "code": code(clock, secret)})
    assert (late.status_code, "took too long" in late.text) == (403, True)
    assert client.get("/console/login/code").location.startswith("/console/login?")


def test_the_code_needs_the_token_of_a_form_too(console, clock, secret):
    """UI5: nobody is logged in by another site, and such a try uses nothing up."""
    client, typed = half_in(console), code(clock, secret)
    assert client.post("/console/login/code", data={"code": typed}).status_code == 400
    assert enter(client, typed).status_code == 303


@pytest.mark.parametrize("target", ["//evil.test", "https://evil.test", "/\\evil.test"])
def test_the_way_on_stays_on_this_host(console, clock, secret, target):
    """UI9: whatever the second page's ``next`` says."""
    client = half_in(console)
    page = client.get("/console/login/code").text
    token = re.search(r'name="csrf_token" value="([^"]*)"', page)[1]
    data = {"csrf_token": token, "code": code(clock, secret), "next": target}
    assert client.post("/console/login/code", data=data).location == "/console/messages"


# Turning it off


def test_turning_off_takes_a_code(console, clock, secret):
    """UI4: who finds a browser open cannot do it; the person can."""
    client = half_in(console)
    enter(client, code(clock, secret))
    off = f"{FACTOR}/off"
    assert press(client, off, "/console/account", code=code(clock, secret)).status_code == 403  # used
    clock.now += timedelta(minutes=1)
    assert press(client, off, "/console/account", code=code(clock, secret)).location.endswith("?done=off")
    assert log_in(console.client(None), "ada").location == "/console/messages"
    assert press(client, off, "/console/account", code="123456").location == "/console/account"


def test_who_lost_the_app_is_helped_on_the_command_line(console, secret):
    """UI4: a link skips the code, as its maker could turn it off; a reset turns it off."""
    link = operators.make_login_link(console.services, "ada").removeprefix("http://localhost")
    assert press(console.client(None), link).location == "/console/messages"
    run = console.app.test_cli_runner().invoke
    assert "asks for no code" in run(mailer, ["user", "reset-2fa", "Ada"]).output
    assert "off already" in run(mailer, ["user", "reset-2fa", "ada"]).output
    assert log_in(console.client(None), "ada").location == "/console/messages"


def test_a_key_that_is_gone_is_said_plainly(tmp_path, console, clock, secret):
    """Without the key no code can be checked: 503, the setting, and the way out; never a way in."""
    console.services.store.sealer = Sealer([b"another key".ljust(32)])
    answer = enter(half_in(console), code(clock, secret))
    assert answer.status_code == 503
    assert "MAILER_SECRET_KEYS" in answer.text
    assert "reset-2fa" in answer.text


# In a browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_and_needs_no_script(console, clock, browser, scheme):
    """400 pixels, no JavaScript: from the button to the next log-in; the picture shows, the policy holds."""
    server = make_server("127.0.0.1", 0, console.app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = browser.new_context(
        viewport={"width": 400, "height": 800}, color_scheme=scheme, java_script_enabled=False
    )
    page, complaints = context.new_page(), []
    page.on("console", lambda said: complaints.append(said.text))

    def log_in_there() -> None:
        page.goto(f"http://127.0.0.1:{server.server_port}/console/login")
        page.get_by_label("Name or").fill("ada")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()

    def submit(button: str) -> None:
        page.get_by_label("Code from").fill(code(clock, made))
        page.get_by_role("button", name=button).click()
        clock.now += timedelta(minutes=1)

    log_in_there()
    page.get_by_role("link", name="Account: ada").click()
    page.get_by_role("button", name="Turn on").click()
    made = page.locator(".setup__key").inner_text().replace(" ", "").replace("\n", "")
    for part in (".setup__picture", ".setup__key", "#code"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400, part
        assert box["height"] > 20
    submit("Turn on")
    page.get_by_text("now asks for a code").wait_for()
    page.get_by_role("button", name="Log out").click()
    log_in_there()
    page.get_by_role("heading", name="One more step").wait_for()
    submit("Log in")
    page.get_by_role("link", name="Account: ada").click()
    submit("Turn off")
    page.get_by_text("asks for no code any more").wait_for()
    # We may be quicker than the page, and be in a field before it puts the cursor there.
    assert [said for said in complaints if not said.startswith("Autofocus processing was blocked")] == []
    context.close()
    server.shutdown()
    server.server_close()
