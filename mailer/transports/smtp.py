"""SMTP on Flask-Mail's seam: one verified, timed connection for each batch.

Top to bottom: `SmtpTransport` answers parcels with receipts; `SmtpConnection`, a Flask-Mail connection,
opens, reuses and replaces the connection; `Client`, an ``smtplib.SMTP``, speaks. What Flask-Mail offers
to tests and to listeners goes on working: ``record_messages``, ``MAIL_SUPPRESS_SEND`` and the signal.

This is the only module that imports ``smtplib`` or ``flask_mail``.
"""

from __future__ import annotations

import base64
import contextlib
import email
import email.charset
import email.message
import email.policy
import ipaddress
import logging
import smtplib
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any

import flask

from mailer.retry import LEASE_LOST
from mailer.transports import Ledger, Parcel, Receipt, Reply, Stage
from mailer.transports.conversation import Attempt, Conversation, canonical
from mailer.transports.url import Security, SmtpConfig, as_bool
from mailer.transports.wire import Broken, Wire, connect, reply_of, tls_context


@contextlib.contextmanager
def _charsets_kept() -> Iterator[None]:
    """Undo what importing Flask-Mail does to every ``email.mime`` text of the process: bodies in 8 bit.

    An application that imported Flask-Mail itself, earlier, keeps what it had.
    """
    before = email.charset.CHARSETS["utf-8"]
    yield
    email.charset.CHARSETS["utf-8"] = before


with _charsets_kept():
    import flask_mail

_log = logging.getLogger(__name__)
_PARTING_SECONDS = 1.0  # to read why a server closed, once it has


class Fault(Exception):
    """No conversation came about. ``stage`` says how far it got."""

    def __init__(self, stage: Stage, reply: Reply | None = None, problem: str = "") -> None:
        super().__init__(problem)
        self.stage, self.reply, self.problem = stage, reply, problem


class SmtpTransport:
    """Carries mail to one SMTP server. May be used by several threads at once.

    Each batch has one connection. A recipient that cannot be served at all is answered by a reply of
    our own with an enhanced code, as a server would have: 552 5.3.4 if the message exceeds the size the
    server announced, 553 5.6.7 for an address with non-ASCII local part at a server without SMTPUTF8.
    """

    def __init__(self, config: SmtpConfig, setting: str = "MAILER_SMTP_URL") -> None:
        """Raises ConfigError naming ``setting`` if the certificate authorities cannot be read."""
        self.config = config
        self.name = config.name
        self._mail = SmtpMail(config, tls_context(config, setting))

    def __repr__(self) -> str:
        return f"<SmtpTransport {self.name}>"

    def transmit(self, batch: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        """Carry the parcels in order over one connection; see `Transport`. Never raises."""
        with self._mail.connect() as connection:
            return [self._carry(connection, parcel, ledger) for parcel in batch]

    def close(self) -> None:
        """Nothing is kept between batches."""

    def _carry(self, connection: SmtpConnection, parcel: Parcel, ledger: Ledger) -> Receipt:
        started = time.monotonic()
        attempt = Attempt(parcel, canonical(parcel.data), ledger)
        try:
            connection.send(PreparedMessage(attempt))
        except Exception as exc:  # a bug: what is known is in the attempt, and the rest is said to be unknown
            _log.error("smtp.internal_error %s at %s", type(exc).__name__, attempt.stage)
            connection.drop()
            attempt.settle(problem=f"internal error: {type(exc).__name__}")
        attempt.settle(problem="internal error: no answer")
        results = {recipient: attempt.results[recipient] for recipient in parcel.recipients}
        receipt = Receipt(self.name, results, time.monotonic() - started)
        ledger.update([(parcel, receipt)], ())
        return receipt


class SmtpMail(flask_mail.Mail):
    """Flask-Mail's front door to one server."""

    def __init__(self, config: SmtpConfig, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self.config, self.context = config, context

    @property
    def suppress(self) -> bool:
        """Whether the current application asks for nothing to be sent (MAIL_SUPPRESS_SEND, TESTING)."""
        if not flask.has_app_context():
            return False
        app = flask.current_app
        state = app.extensions.get("mail")
        asked = app.config.get("MAIL_SUPPRESS_SEND", app.testing) if state is None else state.suppress
        return as_bool(asked, "MAIL_SUPPRESS_SEND")

    def connect(self) -> SmtpConnection:
        """A connection that opens with the first message."""
        return SmtpConnection(self)


class PreparedMessage(flask_mail.Message):
    """A finished message as Flask-Mail sees it: the bytes are fixed, the fields are there to be looked at."""

    def __init__(self, attempt: Attempt) -> None:
        parcel = attempt.parcel
        super().__init__(recipients=list(parcel.recipients), sender=parcel.sender or "<>")
        self.attempt = attempt

    def as_bytes(self) -> bytes:
        """The very bytes that go out."""
        return self.attempt.text

    def as_string(self) -> str:
        """The same as text."""
        return self.attempt.text.decode(errors="replace")

    def show(self) -> None:
        """Fill in ``subject``, ``body``, ``html`` and ``msgId``, for those who record or listen."""
        parsed = email.message_from_bytes(self.attempt.text, policy=email.policy.default)
        assert isinstance(parsed, email.message.EmailMessage)
        self.subject = str(parsed.get("Subject", ""))
        self.msgId = str(parsed.get("Message-ID", ""))
        self.reply_to = str(parsed["Reply-To"]) if "Reply-To" in parsed else None
        body, html = parsed.get_body(("plain",)), parsed.get_body(("html",))
        self.body = None if body is None else str(body.get_content())
        self.html = None if html is None else str(html.get_content())


class SmtpConnection(flask_mail.Connection):
    """Opens when it has to, replaces what broke, and gives up on a server that says nothing."""

    mail: SmtpMail
    host: Client | None

    def __enter__(self) -> SmtpConnection:
        self._fault: Fault | None = None
        return self

    def __exit__(self, exc_type: object = None, *_: object) -> None:
        if exc_type is None and self.host is not None:
            self.host.leave()
        self.drop()

    def configure_host(self) -> Client:
        """Open a connection, protected and signed in. Raises Fault."""
        with _at(Stage.CONNECT):
            client = Client(connect(self.mail.config), self.mail.config)
        try:
            client.open(self.mail.context)
        except BaseException:
            client.close()
            raise
        return client

    def send(self, message: flask_mail.Message, envelope_from: Any = None) -> None:
        """Carry a `PreparedMessage`; the answers are in its ``attempt``. Flask-Mail's listeners are told."""
        if not isinstance(message, PreparedMessage):
            raise TypeError("only a PreparedMessage can be sent here")
        if self.mail.suppress:
            _suppress(message.attempt)
        else:
            self._send(message.attempt)
        if any(result.accepted for result in message.attempt.results.values()):
            _tell_listeners(message)

    def drop(self) -> None:
        """Close without a word; the next message gets a new connection."""
        if self.host is not None:
            self.host.close()
            self.host = None

    def _send(self, attempt: Attempt) -> None:
        reused = self.host is not None
        try:
            self._carry(attempt)
        except Broken as exc:
            self.drop()
            # A kept connection may have been closed long ago: that costs the message no attempt (SC21).
            if reused and not exc.timed_out and attempt.stage is Stage.MAIL:
                attempt.stage = Stage.CONNECT
                self._send(attempt)
                return
            if exc.timed_out:
                self._fault = Fault(Stage.CONNECT, problem="not tried: the server had stopped answering")
            attempt.settle(problem=exc.problem)

    def _carry(self, attempt: Attempt) -> None:
        if self.host is None and self._fault is None:
            self._open()
        if self.host is None:
            if self._fault is not None:
                attempt.stage = self._fault.stage
                attempt.settle(self._fault.reply, self._fault.problem)
            return
        self.host.conversation.carry(attempt)
        if self.host.conversation.carried >= self.mail.config.max_messages:
            self.host.leave()
        if self.host.closed:
            self.host = None

    def _open(self) -> None:
        try:
            self.host = self.configure_host()
        except Fault as fault:
            # The rest of the batch would only wait for the same again.
            self._fault = fault.with_traceback(None)


class Client(smtplib.SMTP):
    """``smtplib`` over a `Wire`: bounded replies, a time limit for each, a result for each recipient."""

    def __init__(self, wire: Wire, config: SmtpConfig) -> None:
        super().__init__(local_hostname=config.local_hostname)
        self.wire, self.config, self.limits = wire, config, config.timeouts
        self.patience = self.limits.greeting
        self.command_encoding = "utf-8"  # an address beyond ASCII comes here only after SMTPUTF8
        self.closed = False
        self.conversation = Conversation(self, self.limits)

    # What smtplib's own methods call

    def send(self, s: Any) -> None:
        """Write a command. Raises Broken."""
        self.wire.send(s.encode(self.command_encoding) if isinstance(s, str) else s, self.limits.block)

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply within ``patience`` seconds. Raises Broken."""
        code, lines = self.wire.read_reply(self.patience)
        return code, b"\n".join(lines)

    def close(self) -> None:
        """Close without a word."""
        self.closed = True
        self.wire.close()

    def ask(self, command: str, seconds: float) -> Reply:
        """Give a command and read the reply to it. Raises Broken."""
        try:
            self.putcmd(command)
        except Broken:
            reply = self.parting_words()
            if reply is None:
                raise
            return reply
        return self.hear(seconds)

    def hear(self, seconds: float) -> Reply:
        """Read a reply. Raises Broken."""
        return reply_of(*self.wire.read_reply(seconds))

    def parting_words(self) -> Reply | None:
        """The refusal a server sent before it closed the connection on us, if there is one."""
        with contextlib.suppress(Broken):
            reply = self.hear(_PARTING_SECONDS)
            if reply.code >= 400:
                self.close()
                return reply
        return None

    def leave(self) -> None:
        """Say QUIT and close. Whatever comes of it changes no result (SC3)."""
        with contextlib.suppress(Broken):
            if not self.closed:
                self.ask("QUIT", self.limits.quit)
        self.close()

    # From the greeting to AUTH

    def open(self, context: ssl.SSLContext | None) -> None:
        """Greet, protect, sign in. Raises Fault."""
        self.wire.limit(self.limits.parcel)
        security = self.config.security
        if context is not None and security is Security.IMPLICIT:
            with _at(Stage.TLS):
                self.wire.start_tls(context, self.config.host, self.limits.greeting)
        with _at(Stage.GREETING):
            _expect(220, self.hear(self.limits.greeting), Stage.GREETING)
            self._say_hello()
        if context is not None and security in (Security.REQUIRED, Security.OPTIONAL):
            with _at(Stage.TLS):
                self._start_tls(context)
        if self.config.username is not None:
            with _at(Stage.AUTH):
                self._sign_in(self.config.username, self.config.password or "")

    def _say_hello(self) -> None:
        code, text = self.ehlo()
        plain = self.config.security is Security.NONE and not self.config.username
        if code >= 500 and plain:
            code, text = self.helo()
        _expect(250, reply_of(code, text.split(b"\n")), Stage.GREETING)

    def _start_tls(self, context: ssl.SSLContext) -> None:
        if not self.has_extn("starttls"):
            if self.config.security is Security.REQUIRED:
                raise Fault(Stage.TLS, problem="the server does not offer STARTTLS, which is required")
            return
        _expect(220, self.ask("STARTTLS", self.limits.greeting), Stage.TLS)
        self.wire.start_tls(context, self.config.host, self.limits.greeting)
        self._say_hello()  # what was announced in clear is forgotten (RFC 3207 section 4.2)

    def _sign_in(self, username: str, password: str) -> None:
        if not self.wire.encrypted and not (self.config.plain_auth_loopback and self._peer_is_loopback()):
            raise Fault(Stage.TLS, problem="the connection has no TLS, so the password was not sent")
        offered = self.esmtp_features.get("auth", "").upper().split()
        plain, user, word = (_base64(t) for t in (f"\0{username}\0{password}", username, password))
        if "PLAIN" in offered:
            reply = self._ask_to_sign_in(f"AUTH PLAIN {plain}")
        elif "LOGIN" in offered:
            reply = self._ask_to_sign_in("AUTH LOGIN", user, word)
        else:
            raise Fault(Stage.AUTH, problem="the server offers neither AUTH PLAIN nor AUTH LOGIN")
        for secret in (plain, word, password):
            # Some servers repeat the command they refuse.
            reply = Reply(reply.code, reply.text.replace(secret, "••••••"))
        _expect(235, reply, Stage.AUTH)

    def _ask_to_sign_in(self, command: str, *answers: str) -> Reply:
        reply = self.ask(command, self.limits.greeting)
        for answer in answers:
            if reply.code != 334:
                break
            reply = self.ask(answer, self.limits.greeting)
        return reply

    def _peer_is_loopback(self) -> bool:
        return ipaddress.ip_address(self.wire.sock.getpeername()[0]).is_loopback


@contextlib.contextmanager
def _at(stage: Stage) -> Iterator[None]:
    try:
        yield
    except Broken as exc:
        raise Fault(stage, problem=exc.problem) from None


def _expect(code: int, reply: Reply, stage: Stage) -> None:
    if reply.code != code:
        raise Fault(stage, reply)


def _suppress(attempt: Attempt) -> None:
    attempt.stage = Stage.DATA
    if attempt.parcel.id not in attempt.ledger.update((), (attempt.parcel,)):
        attempt.settle(problem=LEASE_LOST)
        return
    attempt.stage = Stage.TEXT
    attempt.settle(Reply(250, "2.0.0 suppressed: nothing was sent (MAIL_SUPPRESS_SEND or TESTING)"))


def _tell_listeners(message: PreparedMessage) -> None:
    if not flask_mail.email_dispatched.receivers or not flask.has_app_context():
        return
    try:
        message.show()
        app = flask.current_app._get_current_object()  # type: ignore[attr-defined]
        flask_mail.email_dispatched.send(app, message=message)
    except Exception as exc:  # a listener's trouble is not the mail's
        _log.warning("smtp.listener_failed %s", type(exc).__name__)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")
