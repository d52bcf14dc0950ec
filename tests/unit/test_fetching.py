"""Files that a stranger's address names: from the public network only, in time, and not too much."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mailer import fetching
from mailer.errors import InvalidMessage
from mailer.fetching import fetch

INSIDE = [
    "https://127.0.0.1/", "https://localhost/", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
    "https://0177.0.0.1/", "https://0.0.0.0/", "https://0/", "https://[::1]/", "https://[::]/",
    "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/", "https://[2001:0:1::1]/", "https://[fe80::1%25lo]/", "https://[fd00::1]/",
    "https://10.0.0.1/", "https://172.16.0.1/", "https://192.168.0.1/", "https://169.254.169.254/latest/",
    "https://100.64.0.1/", "https://224.0.0.1/", "https://255.255.255.255/", "https://localhost./",
]  # fmt: skip
ODD = [
    "", "file:///etc/passwd", "ftp://example.com/", "http://example.com/", "https://", "https:///x", "x",
    "https://user:password@example.com/", "https://example.com@127.0.0.1/", "https://example.com:22/",
    "https://example.com:0x50/", "https://exa mple.com/", "https://example.com/\r\nX: y", "https://[::1",
    "https://example.com\\@127.0.0.1/", "https://" + "a" * 2000, "https://exam%70le.com/",
]  # fmt: skip


@pytest.fixture
def no_connection(monkeypatch):
    """Fail the test if a socket is connected to anything."""
    tried = []
    monkeypatch.setattr(socket.socket, "connect", lambda _self, where: tried.append(where))
    yield
    assert tried == []


@pytest.mark.parametrize("url", [*INSIDE, *ODD], ids=lambda url: url[:40])
def test_nothing_inside_is_asked(url, no_connection):
    """WH3, AT5: whatever an address of our own network is spelled like, no packet goes there."""
    with pytest.raises(InvalidMessage, match="^attachments: has a path") as caught:
        fetch(url, 100)
    assert "127.0.0.1" not in str(caught.value)


def test_a_name_that_leads_inside_is_refused(monkeypatch, no_connection):
    """WH3: what counts is the address that would be connected to."""
    inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: inside)
    with pytest.raises(InvalidMessage):
        fetch("https://files.example.test/a.pdf", 100)


def test_a_name_that_changes_its_mind_gains_nothing(monkeypatch):
    """WH3: it is resolved once, and that address is connected to (DNS rebinding)."""
    asked, connected = [], []

    def rebinding(host, port, *_args, **_named):
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address if host.isalpha() else host, port))]

    def connect(_self, where):
        connected.append(where[0])
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(InvalidMessage):
        fetch("https://rebinding/", 100)
    assert asked.count("rebinding") == 1
    assert "127.0.0.1" not in connected


@contextmanager
def serving(answer) -> Iterator[str]:
    """A server on this machine whose answer to GET is `answer(handler)`; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *_args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def answering(status: int, body: bytes = b"", **headers: str):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_a_file_is_fetched():
    """As it is; its name is the last part of the path."""
    with serving(answering(200, b"content")) as url:
        assert fetch(f"{url}/a%20b.pdf?x=1", 100, local=True) == b"content"
    assert fetching.name_of(f"{url}/x/a%20b.pdf?x=1") == "a b.pdf"
    assert fetching.name_of(url) == ""


@pytest.mark.parametrize(
    "answer",
    [
        answering(302, Location="http://127.0.0.1:1/"),
        answering(404, b"no"),
        answering(200, b"x" * 101),
        answering(200, b"x", Content_Encoding="gzip"),
        answering(200, b"x", Content_Length="50"),
        lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"),
        lambda handler: None,
    ],
    ids=["redirect", "missing", "too large", "packed", "cut short", "no HTTP", "nothing"],
)
def test_what_is_no_plain_file_is_refused(answer):
    """No redirect is followed, nothing is unpacked, no more is read than allowed."""
    with serving(answer) as url, pytest.raises(InvalidMessage, match="^attachments: "):
        fetch(url, 100, local=True)


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_server_that_drips_is_cut(where):
    """A word a moment would never meet the time limit of a socket; all of it has a time limit, too."""

    def drip(handler):
        if where == "body":
            handler.send_response(200)
            handler.end_headers()
        try:
            for _ in range(200):
                handler.wfile.write(b"X-A: b\r\n" if where == "head" else b"x")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    def dripping_head(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        drip(handler)

    with serving(drip if where == "body" else dripping_head) as url:
        began = time.monotonic()
        with pytest.raises(InvalidMessage):
            fetch(url, 10_000, local=True, seconds=0.5)
        assert time.monotonic() - began < 3
