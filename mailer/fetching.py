"""Get a file from an address that a stranger gave: from the public network only, with limits (WH3, AT5).

``requests-hardened`` resolves the name once, refuses what is not public (loopback, private, link-local,
shared, multicast, IPv4 in IPv6 clothes, NAT64) and connects to the address that it checked, so that a name
which changes its mind meanwhile gains nothing. Here are the rest of the rules: https on its own port, no
user in the address, no redirects, no proxies of the environment, and an end to the waiting.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests_hardened import Config, HTTPSession  # type: ignore[import-untyped] # it has no types
from requests_hardened.ip_filter_adapter import IPFilterAdapter  # type: ignore[import-untyped] # as above
from urllib3.exceptions import HTTPError

from mailer.errors import InvalidMessage
from mailer.headers import control_in

FIELD = "attachments"
MAX_URL = 2_000
MAX_SECONDS = 10.0
"""For one file, however slowly its server talks."""
_SILENCE = 5.0
_CHUNK = 65_536


def fetch(url: str, max_bytes: int, *, local: bool = False, seconds: float = MAX_SECONDS) -> bytes:
    """What stands at ``url``. ``local``: http, any port and this machine are fine, too.

    Raises InvalidMessage, field ``attachments``, that tells nothing of what is in our network: for an
    address that is not allowed, one that does not answer in time with 200, and more than ``max_bytes``.
    """
    _check(url, local)
    try:
        with _session(local) as session, _deadline(session, seconds) as late:
            content = _read(session, url, max_bytes)
            if late.is_set():  # what was cut looks like an end
                raise requests.Timeout
            return content
    except (requests.RequestException, HTTPError, OSError, ValueError):  # ValueError: of an odd host name
        raise _refused(
            "has a path that cannot be fetched; send the content, or a public https address"
        ) from None


def name_of(url: str) -> str:
    """The last part of its path, "" if there is none."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _check(url: str, local: bool) -> None:
    if len(url) > MAX_URL or control_in(url) or " " in url:
        raise _refused("has a path that is no address")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("has a path that is no address") from None
    if not parts.hostname or parts.scheme not in (("https", "http") if local else ("https",)):
        raise _refused("has a path that does not begin with https://")
    if parts.username is not None or parts.password is not None:
        raise _refused("has a path with a user in it; leave that out")
    if port not in (None, 443) and not local:
        raise _refused("has a path with a port; leave that out")
    if parts.hostname.endswith(".") or "%" in parts.netloc or "\\" in url:
        raise _refused("has a path with an odd host")


def _session(local: bool) -> HTTPSession:
    session = HTTPSession(
        Config(
            ip_filter_enable=True,
            ip_filter_allow_loopback_ips=local,
            never_redirect=True,
            default_timeout=(_SILENCE, _SILENCE),
            user_agent_override="Mailer",
        )
    )
    session.trust_env = False  # no proxy, and no password from a .netrc
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(scheme == "https://", local))
    return session


class _Adapter(IPFilterAdapter):  # type: ignore[misc] # as above
    """Remembers its connections, so that they can be cut."""

    def __init__(self, is_https: bool, local: bool) -> None:
        super().__init__(is_https_proto=is_https, allow_loopback=local)
        self.open: list[Any] = []
        self.over = False

    def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **named)
        adapter, made = self, pool.ConnectionCls

        class Remembered(made):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                super().connect()
                adapter.open.append(self.sock)
                if adapter.over:
                    raise TimeoutError

        pool.ConnectionCls = Remembered
        return pool

    def cut(self) -> None:
        """End every conversation: whoever waits for a word waits no longer."""
        self.over = True
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _deadline(session: HTTPSession, seconds: float) -> Iterator[threading.Event]:
    # Time limits of sockets begin anew with every octet: one a second could go on for days.
    late = threading.Event()

    def cut() -> None:
        late.set()
        for adapter in session.adapters.values():
            if isinstance(adapter, _Adapter):
                adapter.cut()

    timer = threading.Timer(max(seconds, 0.0), cut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _read(session: HTTPSession, url: str, max_bytes: int) -> bytes:
    # Unpacked by nobody: a few octets of gzip may become gigabytes.
    with session.get(url, stream=True, headers={"Accept-Encoding": "identity"}) as answer:
        if answer.status_code != 200 or answer.headers.get("Content-Encoding", "identity") != "identity":
            raise _refused(f"has a path whose server answers {answer.status_code}, not a plain file")
        content = bytearray()
        while chunk := answer.raw.read1(_CHUNK, decode_content=False):
            content += chunk
            if len(content) > max_bytes:
                raise _refused(f"has a path to more than {max_bytes:,} bytes; send a link instead")
        if (length := answer.headers.get("Content-Length", "")).isdigit() and int(length) != len(content):
            raise requests.ConnectionError("cut short")
        return bytes(content)


def _refused(problem: str) -> InvalidMessage:
    return InvalidMessage(FIELD, problem)


def remaining(until: float) -> float:
    """Seconds until a monotonic instant, at most what one file may take."""
    return min(MAX_SECONDS, until - time.monotonic())
