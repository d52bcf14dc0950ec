"""One conversation: what is said to each command, and within which bounds.

aiosmtpd reads lines and texts, and speaks STARTTLS; what a command means is said here, with the answers of
RFC 6409 and an enhanced code in each. Whatever asks the store runs in a thread, so that others go on.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import collections
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from aiosmtpd.smtp import SMTP, Envelope, Session, TLSSetupException

from mailer import keys
from mailer.address import Address
from mailer.admission import NotAdmitted
from mailer.errors import InvalidAddress, MailerError, StoreError
from mailer.keys import Scope
from mailer.store.keys import KeyRow
from mailer.submission import replies
from mailer.telemetry import log

STRANGER_SECONDS = 60.0
"""How long somebody without a key may say nothing."""
IDLE_SECONDS = 300.0
"""RFC 5321 section 4.5.3.2.7: five minutes, between two commands."""
TEXT_SECONDS = 600.0
"""For a whole text, from DATA on."""
MAX_FAILURES = 3
"""Wrong keys in one conversation."""
_MAX_LINE = 1_000

_COMMAND = re.compile(r"([A-Za-z]+): ?<([^<>\s]*)>(?: +(.*))?")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")  # RFC 5321 section 4.1.2
_Answer = TypeVar("_Answer")


def note(error: BaseException | None) -> None:
    """Log a fault of ours by its kind. That clients vanish, or speak no TLS, is none."""
    theirs = asyncio.IncompleteReadError | ConnectionError | ssl.SSLError | TLSSetupException
    if not isinstance(error, theirs):
        log.error("submission.failed", error=type(error).__name__)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A text and whom it is for."""

    recipients: tuple[Address, ...]
    text: bytes


class House(Protocol):
    """What a conversation needs of the door it is held at. The calls block; each may raise StoreError."""

    needs_tls: bool
    max_recipients: int
    texts: asyncio.Semaphore
    stopping: bool

    def identify(self, token: str, ip: str | None) -> KeyRow:
        """Whose key this is. Raises NotAdmitted."""

    def admit(self, token: str) -> str | None:
        """Why there may be no mail with this key now: a reply; None if there may."""

    def accept(self, token: str, mail: Submitted) -> str:
        """The reply to a text."""

    def opened(self, session: Conversation) -> bool:
        """Somebody connected; False if there are too many."""

    def closed(self, session: Conversation) -> None:
        """Somebody left."""

    async def in_thread(self, call: Callable[..., _Answer], *args: Any) -> _Answer:
        """Run a call that blocks."""


@dataclass(frozen=True, slots=True)
class Command:
    """What stands behind MAIL and RCPT: a path, and parameters by their names in upper case."""

    path: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, word: str, arg: str) -> Command | None:
        """None for what does not follow RFC 5321 section 4.1.2; a blank behind the colon is let pass."""
        found = _COMMAND.fullmatch(arg)
        if found is None or found[1].upper() != word:
            return None
        parameters = [_PARAMETER.fullmatch(each) for each in (found[3] or "").split()]
        if None in parameters:
            return None
        return cls(found[2], {each[1].upper(): each[2] or "" for each in parameters if each is not None})

    def problem(self, is_utf8: bool) -> str | None:
        """A reply if the path is not for this mail."""
        if self.path.isascii() or is_utf8:
            return None
        return "553 5.6.7 An address beyond ASCII needs SMTPUTF8"

    def problem_of_mail(self, limit: int) -> str | None:
        """A reply if MAIL cannot have these parameters; a mail has at most ``limit`` octets."""
        given = self.parameters
        if unknown := set(given) - {"SIZE", "BODY", "SMTPUTF8", "AUTH"}:
            return f"555 5.5.4 MAIL does not take {min(unknown)[:20]} here"
        if given.get("BODY", "7BIT").upper() not in ("7BIT", "8BITMIME"):
            return "501 5.5.4 BODY is 7BIT or 8BITMIME"
        size = given.get("SIZE", "0")
        if not (size.isascii() and size.isdigit() and len(size) <= 20):  # RFC 1870 section 4
            return "501 5.5.4 SIZE is a number of octets"
        return f"552 5.3.4 A mail has at most {limit} octets here" if int(size) > limit else None


class _Texts:
    """Where the library brings a text to."""

    async def handle_DATA(self, server: Conversation, _session: Session, envelope: Envelope) -> str:
        return await server.handle_text(envelope.original_content or b"")


class Conversation(SMTP):
    """The commands. `SMTP` finds them by their names."""

    # The library counts with 512 and adds to a number that all conversations share.
    command_size_limit = _MAX_LINE
    command_size_limits = collections.defaultdict(lambda: _MAX_LINE)

    def __init__(self, house: House, *, hostname: str, max_bytes: int, tls: ssl.SSLContext | None) -> None:
        super().__init__(
            _Texts(),
            data_size_limit=max_bytes,
            enable_SMTPUTF8=True,
            hostname=hostname,
            ident="ESMTP Mailer",
            tls_context=tls,
            timeout=STRANGER_SECONDS,
            loop=asyncio.get_running_loop(),
        )
        self._house = house
        self._token: str | None = None
        self._recipients: dict[str, Address] = {}
        self._has_mail = self._is_utf8 = self._is_known = False
        self._failures = 0
        self.busy = False
        """A text is being read or accepted: a stop waits for it."""

    # Coming and going

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection, or TLS within one, which begins everything afresh (RFC 3207 section 4.2)."""
        self._token = None
        self._timeout_duration = STRANGER_SECONDS
        if not self._is_known:
            self._is_known = True
            if not self._house.opened(self):
                self._hang_up_on(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """It is over, for whatever reason."""
        self._house.closed(self)
        super().connection_lost(error)

    def end(self) -> None:
        """Close, with a word, what is in no text."""
        if not self.busy and self.transport is not None:
            self._hang_up_on(self.transport)

    def _hang_up_on(self, transport: Any) -> None:
        transport.write(f"{replies.STOPPING if self._house.stopping else replies.TOO_MANY}\r\n".encode())
        transport.close()

    async def push(self, status: str | bytes) -> None:
        """Say one line. Every refusal has an enhanced code (RFC 2034)."""
        await super().push(replies.enhanced(str(status)))

    async def handle_exception(self, error: Exception) -> str:
        """A fault in one conversation is answered there; its kind goes to the log, nothing to the client."""
        if isinstance(error, StoreError):
            return replies.STORE_AWAY
        note(error)
        return replies.FAULT

    # Greeting

    async def smtp_EHLO(self, hostname: str | None) -> None:
        """What there is: RFC 1870, 6152, 6531, 2920, 2034, 3207, 4954."""
        offers = [f"SIZE {self.data_size_limit}", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES"]
        if self.tls_context is not None and not self._is_secret:
            offers.append("STARTTLS")
        if self._may_log_in:
            offers.append("AUTH PLAIN LOGIN")
        await self._greet(hostname, offers)

    async def smtp_HELO(self, hostname: str | None) -> None:
        """Without extensions there is no AUTH, so nothing can be sent."""
        await self._greet(hostname, [])

    async def _greet(self, hostname: str | None, offers: list[str]) -> None:
        if not hostname:
            await self.push("501 5.5.4 Say who you are: EHLO hostname")
            return
        self._set_post_data_state()
        assert self.session is not None
        self.session.host_name, self.session.extended_smtp = hostname, bool(offers)
        *lines, last = (self.hostname, *offers)
        await super().push("\r\n".join([*(f"250-{each}" for each in lines), f"250 {last}"]))

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        """Once."""
        if self._is_secret:
            await self.push("503 5.5.1 TLS is on already")
        elif self.tls_context is None:
            await self.push("502 5.5.1 There is no TLS here")
        else:
            await super().smtp_STARTTLS(arg or "")

    @property
    def _is_secret(self) -> bool:
        return self.transport is not None and self.transport.get_extra_info("sslcontext") is not None

    @property
    def _may_log_in(self) -> bool:
        return self._is_secret or not self._house.needs_tls

    # Logging in

    async def smtp_AUTH(self, arg: str | None) -> None:
        """PLAIN and LOGIN (RFC 4954, RFC 4616): any user name, and an API key as the password."""
        await self.push(await self._auth(arg or ""))
        if self._failures >= MAX_FAILURES and self.transport is not None:
            await self.push("421 4.7.0 Too many wrong keys")
            self.transport.close()

    async def _auth(self, arg: str) -> str:
        mechanism, _, initial = arg.partition(" ")
        assert self.session is not None
        if not self.session.extended_smtp:
            return "503 5.5.1 Begin with EHLO"
        if not self._may_log_in:
            return "538 5.7.11 Begin with STARTTLS"
        if self._token is not None or self._has_mail:
            return "503 5.5.1 You are logged in, or in the middle of a mail"
        if mechanism.upper() not in ("PLAIN", "LOGIN"):
            return "504 5.5.4 PLAIN and LOGIN are known here"
        try:
            token = await self._password(mechanism.upper(), initial.strip())
        except ValueError:  # UnicodeDecodeError is one
            return "501 5.5.2 That is no answer in base64"
        return await self._log_in(token)

    async def _password(self, mechanism: str, initial: str) -> str:
        if mechanism == "PLAIN":
            _identity, _user, password = (await self._response("", initial)).split(b"\0")
        else:
            await self._response("Username:", initial)
            password = await self._response("Password:", "")
        return password.decode()

    async def _response(self, challenge: str, initial: str) -> bytes:
        """Raises ValueError."""
        given = initial.encode()
        if not given:
            await super().push(f"334 {base64.b64encode(challenge.encode()).decode()}")
            try:
                given = (await self._reader.readuntil(b"\n")).strip()
            except asyncio.LimitOverrunError as exc:
                await self._reader.read(exc.consumed)
                raise ValueError("too long") from None
        if given == b"=":  # RFC 4954 section 4: an empty one
            return b""
        try:
            return base64.b64decode(given, validate=True)
        except binascii.Error:  # also for "*", which gives up
            raise ValueError("not base64") from None

    async def _log_in(self, token: str) -> str:
        assert self.session is not None
        ip = self.session.peer[0] if isinstance(self.session.peer, tuple) else None
        try:
            key = await self._house.in_thread(self._house.identify, token, ip)
        except NotAdmitted as exc:
            self._failures += 1
            return replies.not_admitted(exc)
        except StoreError:
            return "454 4.3.0 The store does not answer; try again"
        if not keys.may(key, Scope.SEND):
            self._failures += 1
            return replies.NO_SCOPE
        self._token, self._timeout_duration = token, IDLE_SECONDS
        self._reset_timeout()
        return "235 2.7.0 Welcome"

    # A mail

    async def smtp_MAIL(self, arg: str | None) -> None:
        """Begin one. Whether the key is still good, and how often it asked, is looked at here."""
        await self.push(await self._mail(arg or ""))

    async def _mail(self, arg: str) -> str:
        if not self._may_log_in:
            return replies.NO_TLS
        if self._token is None:
            return replies.NO_KEY
        if self._has_mail:
            return "503 5.5.1 A mail was begun; RSET gives it up"
        command = Command.parse("FROM", arg)
        if command is None:
            return "501 5.5.4 Syntax: MAIL FROM:<local@domain>"
        is_utf8 = "SMTPUTF8" in command.parameters
        refused = command.problem(is_utf8) or command.problem_of_mail(self.data_size_limit or 0)
        refused = refused or await self._house.in_thread(self._house.admit, self._token)
        if refused is not None:
            self._token = None if refused == replies.NO_LONGER else self._token
            return refused
        self._has_mail, self._is_utf8 = True, is_utf8
        return "250 2.1.0 Ok"

    async def smtp_RCPT(self, arg: str | None) -> None:
        """One more who gets it; twice is once."""
        await self.push(self._rcpt(arg or ""))

    def _rcpt(self, arg: str) -> str:
        if not self._has_mail:
            return "503 5.5.1 Begin with MAIL" if self._token else replies.NO_KEY
        command = Command.parse("TO", arg)
        if command is None:
            return "501 5.5.4 Syntax: RCPT TO:<local@domain>"
        if refused := command.problem(self._is_utf8):
            return refused
        if command.parameters:
            return "555 5.5.4 RCPT takes no parameters here"
        try:
            address = Address.parse(command.path, "recipient")
        except InvalidAddress as exc:
            return f"553 5.1.3 {exc}"
        if address.key not in self._recipients and len(self._recipients) >= self._house.max_recipients:
            return "452 4.5.3 Too many recipients; send another mail to the others"
        self._recipients.setdefault(address.key, address)
        return "250 2.1.5 Ok"

    async def smtp_DATA(self, arg: str | None) -> None:
        """The text. So many are read at a time, and each within its time."""
        if arg:
            await self.push("501 5.5.4 DATA takes no parameters")
        elif not self._recipients:
            await self.push("503 5.5.1 Begin with RCPT" if self._token else replies.NO_KEY)
        else:
            await self._read_text()

    async def _read_text(self) -> None:
        assert self.envelope is not None
        self.envelope.rcpt_tos = list(self._recipients)  # the library looks whether there are any
        self.busy = True
        self._reset_timeout(TEXT_SECONDS)
        try:
            async with self._house.texts:
                await super().smtp_DATA("")
        finally:
            self._set_post_data_state()  # the library does not if it raises
            self.busy = False
            if self.transport is not None:
                self._reset_timeout()
        if self._house.stopping:
            self.end()

    async def handle_text(self, text: bytes) -> str:
        """The answer to a text."""
        assert self._token is not None
        mail = Submitted(tuple(self._recipients.values()), text)
        try:
            return await self._house.in_thread(self._house.accept, self._token, mail)
        except MailerError as exc:
            return replies.refusal(exc)

    async def smtp_VRFY(self, arg: str | None) -> None:
        """Nobody is told who there is."""
        await self.push("252 2.5.0 Send a mail and see")

    async def smtp_HELP(self, arg: str | None) -> None:
        """A page is longer than a line."""
        await self.push("214 2.0.0 See the page on sending by SMTP in the documentation of Mailer")

    def _set_post_data_state(self) -> None:
        super()._set_post_data_state()  # type: ignore[no-untyped-call] # the library has it so
        self._recipients = {}
        self._has_mail = self._is_utf8 = False
