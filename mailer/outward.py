"""Ask a server at an address that a stranger gave: on the public network only, with limits (WH3, AT5).

``requests-hardened`` resolves the name once, refuses what is not public (loopback, private, link-local,
shared, multicast, IPv4 in IPv6 clothes, NAT64) and connects to the address that it checked, so that a name
which changes its mind meanwhile gains nothing. Here are the rest of the rules: https on its own port, no
user in the address, no redirects, no proxies of the environment, and an end to the waiting.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
from requests_hardened import Config, HTTPSession  # type: ignore[import-untyped] # it has no types
from requests_hardened.ip_filter_adapter import IPFilterAdapter  # type: ignore[import-untyped] # as above
from urllib3.exceptions import HTTPError

from mailer.headers import control_in

MAX_URL = 2_000
SILENCE = 5.0
"""Seconds to connect in, and between two words of a server."""


class NotAllowed(Exception):
    """The address is none that may be asked. The text says why, and nothing of our network."""


class Unreachable(Exception):
    """No answer in time, or none that can be read: a stable word, such as ``timeout``."""


def check(url: str, *, local: bool = False) -> None:
    """Raises NotAllowed. ``local``: http, any port and this machine are fine, too."""
    if len(url) > MAX_URL or control_in(url) or " " in url:
        raise NotAllowed("is no address")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NotAllowed("is no address") from None
    if not parts.hostname or parts.scheme not in (("https", "http") if local else ("https",)):
        raise NotAllowed("does not begin with https://")
    if parts.username is not None or parts.password is not None:
        raise NotAllowed("has a user in it; leave that out")
    if port not in (None, 443) and not local:
        raise NotAllowed("names a port; leave that out")
    if parts.hostname.endswith(".") or "%" in parts.netloc or "\\" in url:
        raise NotAllowed("has an odd host")


@contextlib.contextmanager
def conversation(seconds: float, *, local: bool = False, silence: float = SILENCE) -> Iterator[HTTPSession]:
    """A session for one request to an address that `check` let pass, for so many seconds at most.

    The answer is read within the block. Raises Unreachable.
    """
    try:
        with _session(local, silence) as session, _deadline(session, seconds) as late:
            yield session
            if late.is_set():  # what was cut looks like an end
                raise requests.Timeout
    except requests.Timeout:
        raise Unreachable("timeout") from None
    except (requests.RequestException, HTTPError, OSError, ValueError):  # ValueError: of an odd host name
        raise Unreachable("no_answer") from None


def _session(local: bool, silence: float) -> HTTPSession:
    session = HTTPSession(
        Config(
            ip_filter_enable=True,
            ip_filter_allow_loopback_ips=local,
            never_redirect=True,
            default_timeout=(SILENCE, silence),
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
