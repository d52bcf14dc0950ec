"""The console in a real browser: a hostile mail stays a picture, and the pages work as people use them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from werkzeug.serving import make_server

from mailer import operators
from mailer.operators import Role
from tests.web.consoles import Console

HOSTILE = """<!doctype html><html><head>
<meta http-equiv="refresh" content="0;url={evil}/refresh">
<meta http-equiv="Content-Security-Policy" content="default-src *; script-src 'unsafe-inline'">
<base href="{evil}/">
<link rel="stylesheet" href="{evil}/style.css"><link rel="preconnect" href="{evil}">
<link rel="dns-prefetch" href="{evil}"><link rel="prefetch" href="{evil}/prefetch">
<link rel="icon" href="{evil}/icon"><link rel=preload as=image href='{evil}/preload'>
<style>@import url({evil}/import.css); body {{ background: url({evil}/background) }}
@font-face {{ font-family: x; src: url({evil}/font) }} p {{ font-family: x }}</style>
<script src="{evil}/script.js"></script>
</head><body background="{evil}/attribute" onload="document.getElementById('mark').textContent = 'ran'">
<p id="mark">untouched</p>
<script>document.getElementById('mark').textContent = 'ran'; fetch('{evil}/fetch');
new WebSocket('{ws}')</script>
<ifr<link>ame src="{evil}/pieces"></iframe><FRAMESET><frame src={evil}/f></FRAMESET>
<img src=x onerror="document.getElementById('mark').textContent = 'ran'; new Image().src = '{evil}/onerror'">
<img src="{evil}/pixel.gif" srcset="{evil}/2x 2x"><picture><source srcset="{evil}/source"><img></picture>
<svg onload="document.getElementById('mark').textContent = 'ran'"><image href="{evil}/svg"/>
<use href="{evil}/use#a"/></svg>
<video src="{evil}/video" autoplay poster="{evil}/poster"></video><audio src="{evil}/audio" autoplay></audio>
<iframe src="{evil}/frame"></iframe><iframe srcdoc="<script>parent.mark.textContent='ran'</script>"></iframe>
<object data="{evil}/object"></object><embed src="{evil}/embed">
<form action="{evil}/form"><input name=a autofocus onfocus="this.form.submit()"><button>x</button></form>
<details open ontoggle="document.getElementById('mark').textContent = 'ran'"><summary>x</summary></details>
<a href="javascript:document.getElementById('mark').textContent='ran'" id="js">js</a>
<a href="{evil}/link" id="link" ping="{evil}/ping">link</a>
</body></html>"""


@pytest.fixture
def console(tmp_path) -> Iterator[Console]:
    """A console that a browser can reach at ``console.url``."""
    made = Console(tmp_path)
    server = make_server("127.0.0.1", 0, made.app, threaded=True)
    made.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def evil() -> Iterator[tuple[str, list[str]]]:
    """A server of somebody else: its address, and what reached it, even if only a connection."""
    reached: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_note, args=(listener, reached), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", reached


def _note(listener: socket.socket, reached: list[str]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        reached.append("somebody connected")
        connection.close()


def be(page, console: Console, role: Role) -> None:
    """Let the browser be somebody of this role."""
    cookie = {"name": "mailer_console", "value": console.session(role), "url": console.url}
    page.context.add_cookies([cookie | {"httpOnly": True, "sameSite": "Lax"}])


def send_hostile(console: Console, evil: str) -> str:
    markup = HOSTILE.format(evil=evil, ws=evil.replace("http", "ws", 1))
    return console.send(html=markup, text=markup, subject=f"<img src={evil}/subject>", attempt=True)


def test_a_hostile_mail_runs_nothing_and_reaches_nobody(console, page, evil):
    """UI1, UI2: 0 scripts run and 0 requests leave, in the frame as well as opened by itself."""
    address, reached = evil
    id_ = send_hostile(console, address)
    be(page, console, Role.SUPPORT)
    page.goto(f"{console.url}/console/messages/{id_}", wait_until="networkidle")
    frame = page.frame_locator("iframe.preview__frame")
    assert frame.locator("#mark").inner_text() == "untouched"
    frame.locator("#js").click()
    frame.locator("#link").click()
    page.wait_for_timeout(300)  # there is nothing to wait for: that is the point
    page.goto(f"{console.url}/console/messages/{id_}/html", wait_until="networkidle")
    assert page.locator("#mark").inner_text() == "untouched"
    page.locator("#js").click()
    page.locator("#link").click()
    page.wait_for_timeout(300)
    assert page.locator("#mark").inner_text() == "untouched"
    for part in ("text", "source", "files"):
        page.goto(f"{console.url}/console/messages/{id_}?part={part}", wait_until="networkidle")
    assert reached == []


def test_the_canary_sings(page, evil):
    """The proof above is one: without the policy the same mail does run, and does reach the other server."""
    address, reached = evil
    page.set_content(HOSTILE.format(evil=address, ws=address.replace("http", "ws", 1)))
    page.wait_for_timeout(300)
    assert reached


def test_from_the_link_to_a_second_copy(console, page):
    """The walk of a newcomer: enter, find, open, look, resend, log out; the policy holds throughout."""
    complaints = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    id_ = console.send(subject="Verify your address", html="<p>Hello <b>Ada</b></p>", attempt=True)
    operators.create_operator(console.services, "ada", "admin")
    link = operators.make_login_link(console.services, "ada")
    page.goto(link.replace("http://localhost", console.url))
    page.get_by_role("button", name="Enter").click()
    page.get_by_role("searchbox").fill("ada@example")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Verify your address").click()
    assert page.frame_locator("iframe").locator("p").inner_text() == "Hello Ada"
    page.get_by_role("link", name="Text", exact=True).click()
    page.get_by_text("Hello there").wait_for()
    page.get_by_role("button", name="Resend").dblclick()
    page.get_by_text("This is the new message").wait_for()
    assert [copy in page.url for copy in console.show(id_).resent_as] == [True]
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in to the console").wait_for()
    assert complaints == []


def test_the_list_refreshes_itself(console, page):
    """With JavaScript a new message appears without a click, and what was focused stays so."""
    first = console.send(subject="First")
    be(page, console, Role.VIEWER)
    page.goto(f"{console.url}/console/")
    page.locator(f"#m-{first}").focus()
    console.send(subject="Second")
    page.get_by_text("Second").wait_for()
    assert page.evaluate("document.activeElement.id") == f"m-{first}"


def test_it_fits_a_telephone_and_the_dark(console, browser):
    """400 pixels wide, dark, without JavaScript: nothing sticks out, and the list can be used."""
    console.send(
        subject="A subject that goes on and on " * 5,
        to="somebody.with.a.long.name@a.long.domain.example.test",
    )
    context = browser.new_context(
        viewport={"width": 400, "height": 800}, color_scheme="dark", java_script_enabled=False
    )
    page = context.new_page()
    be(page, console, Role.SUPPORT)
    page.goto(f"{console.url}/console/")
    box = page.locator(".row").bounding_box()
    assert box["x"] + box["width"] <= 400
    page.locator(".row").click()
    for part in (".head", ".recipients", ".aside", ".preview"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400, part
    context.close()
