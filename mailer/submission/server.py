"""``mailer smtp``: a process that listens, holds conversations in one event loop, and accepts in threads.

On SIGTERM or SIGINT it takes no further connection, ends those that are in no text, and gives the others
`STOP_SECONDS` to finish. Who got no 250 by then has sent nothing, and tries again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from mailer import keys, outbox
from mailer.admission import Admission, may_send_for, origin_of
from mailer.config import PREFIX, Settings
from mailer.errors import ConfigError
from mailer.listening import listen
from mailer.services import Services
from mailer.store.keys import KeyRow
from mailer.submission import replies
from mailer.submission.asking import message_of
from mailer.submission.session import Conversation, Submitted, note

MAX_CONVERSATIONS = 500
MAX_TEXTS = 32
"""Texts that are read or accepted at a time; each may take MAILER_MAX_MESSAGE_BYTES several times over."""
THREADS = 8
STOP_SECONDS = 20.0
_HOST, _PORT, _TLS_PORT = (f"{PREFIX}SUBMISSION_{name}" for name in ("HOST", "PORT", "TLS_PORT"))
_CERTIFICATE = f"{PREFIX}SUBMISSION_CERTIFICATE"

_Answer = TypeVar("_Answer")


def serve(services: Services, say: Callable[[str], None]) -> None:
    """Listen until SIGTERM or SIGINT; ``say`` is told where.

    Raises ConfigError naming the setting if a port is taken, or a certificate is missing or no good.
    """
    # At lower levels the library writes addresses and whole mails, reset links included, to this log.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    door = Door(services)
    door.listen()
    asyncio.run(_until_told(door, say))


async def _until_told(door: Door, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await door.run(stop, say)


class Door:
    """What all conversations share."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services, self._admission = services, Admission(services)
        self._tls = _tls(settings)
        self._listeners: list[tuple[socket.socket, ssl.SSLContext | None]] = []
        self._threads = ThreadPoolExecutor(THREADS, "mailer-smtp")
        self._conversations: set[Conversation] = set()
        self.needs_tls = not _is_this_machine(settings.submission_host)
        self.max_recipients = settings.max_recipients
        self.stopping = False

    def listen(self) -> None:
        """Take the ports. Raises ConfigError."""
        settings = self._services.settings
        host, tls_port = settings.submission_host, settings.submission_tls_port
        self._listeners.append((listen(host, settings.submission_port, _PORT), None))
        if tls_port is not None:
            if self._tls is None:
                raise ConfigError(_TLS_PORT, f"is set without a certificate; set {_CERTIFICATE}, too")
            self._listeners.append((listen(host, tls_port, _TLS_PORT), self._tls))

    async def run(self, stop: asyncio.Event, say: Callable[[str], None]) -> None:
        """Serve until the event; ``say`` is told where, once it does."""
        self.texts = asyncio.Semaphore(MAX_TEXTS)
        # The loop's own handler writes whole tracebacks, for clients that vanish, too.
        asyncio.get_running_loop().set_exception_handler(lambda _loop, told: note(told.get("exception")))
        servers = [
            await asyncio.get_running_loop().create_server(self._conversation, sock=listener, ssl=tls)
            for listener, tls in self._listeners
        ]
        for listener, tls in self._listeners:
            say(f"Listening on {_url(listener, tls)}")
        await stop.wait()
        for server in servers:
            server.close()
        await self._finish()

    async def _finish(self) -> None:
        self.stopping = True
        for conversation in list(self._conversations):
            conversation.end()
        until = time.monotonic() + STOP_SECONDS
        while self._conversations and time.monotonic() < until:
            if not any(each.busy for each in self._conversations):
                until = min(until, time.monotonic() + 1)  # for the last words to go out
            await asyncio.sleep(0.02)
        # A call that is in the store now has an end of its own: the store's timeouts.
        await asyncio.to_thread(self._threads.shutdown)

    def _conversation(self) -> Conversation:
        settings = self._services.settings
        return Conversation(
            self, hostname=socket.gethostname(), max_bytes=settings.max_message_bytes, tls=self._tls
        )

    # What conversations ask

    def opened(self, session: Conversation) -> bool:
        """Somebody connected; False if there are too many, or it is over."""
        self._conversations.add(session)
        return len(self._conversations) <= MAX_CONVERSATIONS and not self.stopping

    def closed(self, session: Conversation) -> None:
        """Somebody left."""
        self._conversations.discard(session)

    async def in_thread(self, call: Callable[..., _Answer], *args: Any) -> _Answer:
        """Run a call that blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)

    def identify(self, token: str, ip: str | None) -> KeyRow:
        """Whose key this is. Raises NotAdmitted or StoreError."""
        return self._admission.identify(token, ip)

    def admit(self, token: str) -> str | None:
        """Why there may be no mail with this key now; None if there may. Raises StoreError."""
        key = keys.who(self._services, token)
        if key is None:
            return replies.NO_LONGER
        allowance = self._admission.count(key)
        if allowance.granted:
            return None
        return f"451 4.7.1 Too many mails with this key; try again in {max(1, round(allowance.seconds))} s"

    def accept(self, token: str, mail: Submitted) -> str:
        """Commit a mail; the reply. Raises MailerError, and then nothing was accepted."""
        services = self._services
        key = keys.who(services, token)
        if key is None:
            return replies.NO_LONGER
        with services.app_context():
            asked = message_of(services, mail.text, mail.recipients)
            if not may_send_for(key, asked.message):
                return replies.OTHER_DOMAIN
            origin = origin_of(services, asked.message, key, asked.fingerprint)
            scope = f"smtp:{key.project}"
            id_ = outbox.accept(services, asked.message, session=None, scope=scope, origin=origin)
        return f"250 2.0.0 Ok: queued as {id_}"


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(settings: Settings) -> ssl.SSLContext | None:
    certificate, key = settings.submission_certificate, settings.submission_private_key
    if certificate is None:
        if not _is_this_machine(settings.submission_host):
            said = "is not this machine, and keys would cross the network unprotected"
            raise ConfigError(_HOST, f"{said}; set {_CERTIFICATE}, or 127.0.0.1")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password="")
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigError(_CERTIFICATE, f"cannot be used: {exc.strerror or exc}; give PEM files") from None
    return context


def _url(listener: socket.socket, tls: ssl.SSLContext | None) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'smtps' if tls else 'smtp'}://{shown}:{port}"
