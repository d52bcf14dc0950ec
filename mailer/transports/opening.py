"""Opening a connection: name look-up, greeting, TLS, log-in. Nothing of value goes before TLS is verified."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator

from mailer.transports import Reply, Stage
from mailer.transports.loop import loop_thread
from mailer.transports.transcript import Transcript
from mailer.transports.url import Security, SmtpConfig
from mailer.transports.wire import FOREVER, Answer, Broken, Wire, reply_of

_Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


class Fault(Exception):
    """No conversation came about. ``stage`` says how far it got, ``transcript`` what was said."""

    def __init__(self, stage: Stage, reply: Reply | None = None, problem: str = "") -> None:
        super().__init__(problem)
        self.stage, self.reply, self.problem = stage, reply, problem
        self.transcript: tuple[str, ...] = ()


class Opening:
    """The first words on one connection. ``features`` is what EHLO announced last, by lower-case keyword."""

    def __init__(self, config: SmtpConfig, context: ssl.SSLContext | None) -> None:
        self.features: dict[str, str] = {}
        self.transcript = Transcript()
        self._config, self._context, self._limits = config, context, config.timeouts

    async def open(self, session: ssl.SSLSession | None) -> Wire:
        """Connect, greet, protect, sign in. Raises Fault; then nothing stays open."""
        wire: Wire | None = None
        try:
            with _at(Stage.CONNECT):
                self._wire = wire = await connect(self._config)
            await self._introduce(session)
        except BaseException as exc:
            if wire is not None:
                wire.close()
            if isinstance(exc, Fault):
                exc.transcript = self.transcript.lines()
            raise
        wire.limit(FOREVER)
        return wire

    async def _introduce(self, session: ssl.SSLSession | None) -> None:
        self._wire.limit(self._limits.parcel)
        security, context = self._config.security, self._context
        if context is not None and security is Security.IMPLICIT:
            with _at(Stage.TLS):
                await self._wire.start_tls(context, self._config.host, session, self._limits.greeting)
        with _at(Stage.GREETING):
            _expect(220, await self._hear(), Stage.GREETING)
            await self._say_hello()
        if context is not None and security in (Security.REQUIRED, Security.OPTIONAL):
            with _at(Stage.TLS):
                await self._start_tls(context, session)
        if self._config.username is not None:
            with _at(Stage.AUTH):
                await self._sign_in(self._config.username, self._config.password or "")

    async def _say_hello(self) -> None:
        name = self._config.local_hostname
        if name is None:  # may ask a name server, so not on the loop's thread
            name = await asyncio.get_running_loop().run_in_executor(None, _machine_name)
        answer = await self._ask(f"EHLO {name}")
        plain = self._config.security is Security.NONE and not self._config.username
        if answer.code >= 500 and plain:
            answer = await self._ask(f"HELO {name}")
            self.features = {}
        else:
            self.features = _features(answer)
        _expect(250, answer, Stage.GREETING)

    async def _start_tls(self, context: ssl.SSLContext, session: ssl.SSLSession | None) -> None:
        if "starttls" not in self.features:
            if self._config.security is Security.REQUIRED:
                raise Fault(Stage.TLS, problem="the server does not offer STARTTLS, which is required")
            return
        self._wire.forget_after_this_reply()
        _expect(220, await self._ask("STARTTLS"), Stage.TLS)
        await self._wire.start_tls(context, self._config.host, session, self._limits.greeting)
        await self._say_hello()  # what was announced in clear is forgotten (RFC 3207 section 4.2)

    async def _sign_in(self, username: str, password: str) -> None:
        if not self._wire.encrypted and not (self._config.plain_auth_loopback and self._is_loopback()):
            raise Fault(Stage.TLS, problem="the connection has no TLS, so the password was not sent")
        offered = self.features.get("auth", "").upper().split()
        plain, user, word = (_base64(t) for t in (f"\0{username}\0{password}", username, password))
        # Some servers repeat the command they refuse.
        self.transcript.hide(plain, user, word, password)
        if "PLAIN" in offered:
            answer = await self._ask(f"AUTH PLAIN {plain}", shown="AUTH PLAIN ••••••")
        elif "LOGIN" in offered:
            answer = await self._ask("AUTH LOGIN")
            for secret in (user, word):
                if answer.code == 334:
                    answer = await self._ask(secret, shown="••••••")
        else:
            raise Fault(Stage.AUTH, problem="the server offers neither AUTH PLAIN nor AUTH LOGIN")
        reply = reply_of(answer)
        for secret in (plain, word, password):
            reply = Reply(reply.code, reply.text.replace(secret, "••••••"))
        if reply.code != 235:
            raise Fault(Stage.AUTH, reply)

    async def _ask(self, command: str, *, shown: str | None = None) -> Answer:
        self.transcript.said(shown or command)
        self._wire.send(f"{command}\r\n".encode(), 1)
        return await self._hear()

    async def _hear(self) -> Answer:
        answer = await self._wire.answer(self._limits.greeting)
        self.transcript.heard(answer)
        return answer

    def _is_loopback(self) -> bool:
        return ipaddress.ip_address(self._wire.peer).is_loopback


async def connect(config: SmtpConfig) -> Wire:
    """Open a connection, not yet encrypted, to the first address that answers. Raises Broken."""
    problem = Broken(f"the name {config.host} cannot be resolved")
    for address in await _addresses(config):
        try:
            return await _connect(address, config.timeouts.connect)
        except TimeoutError:
            problem = Broken(f"{config.name} did not answer in time", timed_out=True)
        except OSError as exc:
            why = os.strerror(exc.errno) if exc.errno else type(exc).__name__
            problem = Broken(f"no connection to {config.name}: {why}")
    raise problem


async def _addresses(config: SmtpConfig) -> list[_Address]:
    loop = asyncio.get_running_loop()
    try:
        try:  # an address needs no look-up
            return socket.getaddrinfo(  # type: ignore[return-value]
                config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except socket.gaierror:
            async with asyncio.timeout(config.timeouts.connect):
                return await loop.getaddrinfo(  # type: ignore[return-value]
                    config.host, config.port, type=socket.SOCK_STREAM
                )
    except TimeoutError:
        raise Broken(f"the name {config.host} was not resolved in time", timed_out=True) from None
    except OSError:
        raise Broken(f"the name {config.host} cannot be resolved") from None
    except UnicodeError:
        raise Broken(f"the name {config.host} is not a host name") from None


async def _connect(address: _Address, seconds: float) -> Wire:
    loop = asyncio.get_running_loop()
    sock = socket.socket(*address[:3])
    loop_thread().sockets.add(sock)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(seconds):
            await loop.sock_connect(sock, address[4])
        _, wire = await loop.create_connection(lambda: Wire(sock), sock=sock)
    except BaseException:
        sock.close()
        raise
    return wire


def _features(answer: Answer) -> dict[str, str]:
    """The keywords of a reply to EHLO, in lower case, each with its parameters (RFC 5321 section 4.1.1.1)."""
    features: dict[str, str] = {}
    for line in answer.lines[1:]:
        # AUTH=… is how mechanisms were announced before RFC 4954, and by some still is.
        keyword, _, parameters = line.decode(errors="replace").replace("=", " ", 1).partition(" ")
        known = features.get(keyword.lower(), "")
        features[keyword.lower()] = f"{known} {parameters}".strip()
    return features


@functools.cache
def _machine_name() -> str:
    """What to say in EHLO: the full name of this machine, or an address (RFC 5321 section 4.1.4)."""
    name = socket.getfqdn()
    if "." in name:
        return name
    with contextlib.suppress(OSError):
        return f"[{socket.gethostbyname(socket.gethostname())}]"
    return "[127.0.0.1]"


@contextlib.contextmanager
def _at(stage: Stage) -> Iterator[None]:
    try:
        yield
    except Broken as exc:
        raise Fault(stage, exc.reply, exc.problem if exc.reply is None else "") from None


def _expect(code: int, answer: Answer, stage: Stage) -> None:
    if answer.code != code:
        raise Fault(stage, reply_of(answer))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
