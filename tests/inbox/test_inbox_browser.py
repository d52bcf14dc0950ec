"""The inbox in a real browser: mails do nothing by themselves, people can click."""

from __future__ import annotations

import contextlib
import queue
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from mailer.inbox import Inbox

from .conftest import make_mail, put

EVIL = """<!doctype html><html><head>
<script>window.top.document.title = "ran"; fetch("http://evil.example/script");</script>
<script src="http://evil.example/script.js"></script>
<link rel="stylesheet" href="http://evil.example/style.css"><link rel="preconnect" href="http://evil.example">
<link rel="dns-prefetch" href="//evil.example"><link rel="icon" href="http://evil.example/icon">
<meta http-equiv="refresh" content="0; url=http://evil.example/refresh"><base href="http://evil.example/">
<style>@import "http://evil.example/import.css"; body { background: url(http://evil.example/background); }
@font-face { font-family: f; src: url(http://evil.example/font); } p { font-family: f; }</style></head>
<body onload="fetch('http://evil.example/onload')">
<img src="http://evil.example/pixel.gif"><img src=x onerror="document.title='ran'">
<iframe src="http://evil.example/frame"></iframe>
<iframe srcdoc="<script>top.document.title='ran'</script>"></iframe>
<object data="http://evil.example/object"></object><embed src="http://evil.example/embed">
<video src="http://evil.example/video" autoplay poster="http://evil.example/poster"></video>
<svg><image href="http://evil.example/svg"/><script>document.title='ran'</script></svg>
<form id="f" action="http://evil.example/form"><input autofocus onfocus="f.submit()">
<button>Go</button></form>
<a href="http://evil.example/ping" ping="http://evil.example/ping">x</a><p>Shown words</p></body></html>"""


@pytest.fixture
def evil() -> Iterator[tuple[str, queue.Queue[bytes]]]:
    """An address of the outside world, and what reaches it: the first bytes of every connection."""
    heard: queue.Queue[bytes] = queue.Queue()

    class Listener(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(1)
            with contextlib.suppress(OSError):
                heard.put(b"connected")
                heard.put(self.request.recv(1000))
                self.request.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/mail/latest", "/mail/latest/preview"])
def test_a_mail_does_nothing_by_itself(
    inbox: Inbox, browser: Any, evil: tuple[str, queue.Queue[bytes]], path: str
) -> None:
    """UI1: of a mail with everything that runs or loads, no script runs and nothing leaves the browser.

    A listener of its own counts, as a browser also reports requests that a policy stopped.
    """
    outside, heard = evil
    put(inbox.mailbox, make_mail(subject="Evil", html=EVIL.replace("http://evil.example", outside)))
    page = browser.new_page()
    page.goto(inbox.url + path, wait_until="networkidle")
    shown = page.frames[1] if path == "/mail/latest" else page
    expect(shown.get_by_text("Shown words")).to_be_visible()
    shown.get_by_role("button", name="Go").click()
    page.wait_for_load_state("networkidle")
    assert heard.empty()
    assert "ran" not in (page.title(), shown.evaluate("document.title"))
    page.close()


def test_the_listener_would_hear_an_unguarded_mail(
    browser: Any, evil: tuple[str, queue.Queue[bytes]]
) -> None:
    """The test above can fail: shown without the policy, the same mail runs and calls home."""
    outside, heard = evil
    page = browser.new_page()
    page.set_content(EVIL.replace("http://evil.example", outside), wait_until="commit")
    while not heard.get(timeout=10).startswith(b"GET /script "):
        pass
    page.close()


@pytest.mark.parametrize("where", ["aside", "frame", "text"])
def test_a_person_can_follow_the_link(inbox: Inbox, browser: Any, where: str) -> None:
    """The reset link opens in a new tab, from the list beside the mail, inside the mail, and from its text.

    The page it leads to is an ordinary one: not sandboxed, and it learns neither opener nor referrer.
    """
    target = f"{inbox.url}/livez?token=abc"
    put(
        inbox.mailbox,
        make_mail(text=f"Go to {target} .\n", html=f'<p>Hi <a href="{target}">Choose a password</a>'),
    )
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{inbox.url}/")
    page.get_by_role("link", name="Hello").click()
    if where == "text":
        page.get_by_role("link", name="Text", exact=True).click()
    link = {
        "aside": lambda: page.locator(".mail__aside").get_by_role("link", name="Choose a password"),
        "frame": lambda: page.frame_locator("iframe").get_by_role("link", name="Choose a password"),
        "text": lambda: page.locator(".mail__text").get_by_role("link", name=target),
    }[where]()
    with context.expect_page() as opened:
        link.click()
    opened.value.wait_for_load_state()
    assert opened.value.url == target
    assert opened.value.evaluate("[window.opener, document.referrer, window.origin]") == [None, "", inbox.url]
    context.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_the_window(inbox: Inbox, browser: Any, width: int, scheme: str) -> None:
    """Nothing scrolls sideways, in a phone's width or a desk's, with long words; scripts are not needed."""
    long = "x" * 300
    put(inbox.mailbox, make_mail(subject=long, text=f"{long} https://x.example/{long}\n", html=f"<p>{long}"))
    context = browser.new_context(
        viewport={"width": width, "height": 700}, color_scheme=scheme, java_script_enabled=False
    )
    page = context.new_page()
    for path in (
        "/",
        "/?q=nothing",
        "/mail/latest",
        "/mail/latest/text",
        "/mail/latest/headers",
        "/mail/latest/links",
    ):
        page.goto(inbox.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    context.close()


def test_a_person_can_search_and_delete(inbox: Inbox, browser: Any) -> None:
    """The search box finds, the button asks before it deletes, and both checks let it pass."""
    put(inbox.mailbox, make_mail(subject="Receipt"))
    put(inbox.mailbox, make_mail(subject="Reset"))
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(inbox.url)
    page.get_by_label("Search mails").fill("subject:receipt")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("link", name="Reset")).to_have_count(0)
    expect(page.get_by_role("link", name="Receipt")).to_be_visible()
    page.get_by_text("Delete these").click()
    page.get_by_role("button", name="Yes, delete").click()
    expect(page.get_by_text("The mails that matched were deleted.")).to_be_visible()
    assert [mail.subject for mail in inbox.mailbox.messages()] == ["Reset"]
    context.close()
