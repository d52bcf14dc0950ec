"""The SMTP side: accepts every mail for everybody, keeps it, and relays nothing.

It runs an event loop of its own in one thread. Offered are SIZE, 8BITMIME, SMTPUTF8 and AUTH (any user and
password are accepted, so that an application's production settings work unchanged); PIPELINING and STARTTLS
are not. Nothing a client sends ends the server: a fault in one connection is answered there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import threading
from collections import OrderedDict

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from mailer.inbox.behaviour import Behaviour, behaviour_of
from mailer.inbox.mailbox import Mailbox

MAX_MESSAGE_BYTES = 25 * 1024 * 1024
MAX_RECIPIENTS = 1_000
IDLE_SECONDS = 300.0
_MAX_REMEMBERED = 10_000


class SmtpServer:
    """Serves SMTP on a listening socket, which it owns from then on."""

    def __init__(self, mailbox: Mailbox, listener: socket.socket, *, max_message_bytes: int) -> None:
        self._listener = listener
        self._handler = _Handler(mailbox)
        self._max_message_bytes = max_message_bytes
        self._thread = threading.Thread(target=self._run, name="mailer-inbox-smtp", daemon=True)
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def start(self) -> None:
        """Serve in a thread; returns when connections are accepted."""
        # At lower levels the library writes addresses and whole mails, reset links included, to this log.
        logging.getLogger("mail.log").setLevel(logging.ERROR)
        self._thread.start()
        self._started.wait()

    def stop(self, timeout: float) -> None:
        """Close every connection and end the thread, waiting at most ``timeout`` seconds for it."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await self._loop.create_server(self._connection, sock=self._listener)
        self._started.set()
        await self._stop.wait()
        server.close()
        await self._hang_up()

    async def _hang_up(self) -> None:
        clients = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await asyncio.sleep(0)  # lets the closed transports report, so that none is left for the collector

    def _connection(self) -> SMTP:
        return SMTP(
            self._handler,
            data_size_limit=self._max_message_bytes,
            enable_SMTPUTF8=True,
            hostname="inbox.localhost",
            ident="Mailer inbox",
            timeout=IDLE_SECONDS,
            auth_require_tls=False,
            authenticator=lambda *_: AuthResult(success=True),
            loop=self._loop,
        )


class _Handler:
    """The hooks aiosmtpd calls: each returns the reply, or raises `CancelledError` to hang up unanswered."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        # Whom a `once` behaviour has hit, and who may pass at the next try.
        self._hit: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        behaviour = behaviour_of(address)
        if len(envelope.rcpt_tos) >= MAX_RECIPIENTS:
            return "452 4.5.3 Too many recipients"
        if behaviour.drop == "rcpt":
            raise asyncio.CancelledError
        if behaviour.rcpt_reply is not None and self._strikes(behaviour, envelope, address):
            return await _say(server, behaviour.rcpt_reply)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        behaviours = [behaviour_of(address) for address in envelope.rcpt_tos]
        await asyncio.sleep(max(behaviour.delay_seconds for behaviour in behaviours))
        refusal = next((behaviour.text_reply for behaviour in behaviours if behaviour.text_reply), None)
        if refusal is not None:
            return await _say(server, refusal)
        if any(behaviour.drop == "before-text" for behaviour in behaviours):
            raise asyncio.CancelledError
        reply = await self._keep(envelope)
        if any(self._drops_after_text(envelope, address) for address in envelope.rcpt_tos):
            raise asyncio.CancelledError
        return reply

    async def handle_exception(self, error: Exception) -> str:
        """Answer a fault instead of letting it end the connection. Its text may be hostile: leave it out."""
        return f"451 4.3.0 The inbox failed to handle this ({type(error).__name__})"

    def _drops_after_text(self, envelope: Envelope, address: str) -> bool:
        behaviour = behaviour_of(address)
        return behaviour.drop == "after-text" and self._strikes(behaviour, envelope, address)

    def _strikes(self, behaviour: Behaviour, envelope: Envelope, address: str) -> bool:
        """Tell whether a behaviour applies this time: always, or for ``once`` at every other try."""
        if not behaviour.once:
            return True
        key = (envelope.mail_from or "", address.lower())
        if key in self._hit:
            del self._hit[key]
            return False
        self._hit[key] = None
        if len(self._hit) > _MAX_REMEMBERED:
            self._hit.popitem(last=False)
        return True

    async def _keep(self, envelope: Envelope) -> str:
        raw = envelope.original_content or b""
        try:
            mail = await asyncio.to_thread(
                self._mailbox.add, raw, mail_from=envelope.mail_from or "", recipients=list(envelope.rcpt_tos)
            )
        except sqlite3.Error:  # the disk is full, say: the client keeps the mail and tries again
            return "452 4.3.1 The inbox cannot write to its file"
        return f"250 2.0.0 Ok: kept as {mail.id}"


async def _say(server: SMTP, reply: str) -> str:
    """Return the reply; a 421 is said here and then the connection closes, as RFC 5321 section 3.8 asks."""
    if reply.startswith("421"):
        await server.push(reply)
        raise asyncio.CancelledError
    return reply
