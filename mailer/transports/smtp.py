"""SMTP on Flask-Mail's seam: many connections at once, kept, verified, timed and pipelined.

Top to bottom: `SmtpTransport` answers parcels with receipts; `SmtpMail` and `SmtpConnection` are Flask-Mail's
front door to the `Pool` of connections that this process keeps. What Flask-Mail offers to tests and to
listeners goes on working: ``record_messages``, ``MAIL_SUPPRESS_SEND`` and the signal.

This is the only module that imports ``flask_mail``.
"""

from __future__ import annotations

import contextlib
import email.charset
import logging
import ssl
import threading
from collections.abc import Collection, Iterator, Sequence
from email.message import Message
from typing import Any

import flask

from mailer.reading import bodies, clean, decode_words, parsed, text_of
from mailer.retry import LEASE_LOST
from mailer.transports import Ledger, Parcel, Receipt, Reply, Stage
from mailer.transports.attempt import Attempt, Errand
from mailer.transports.conversation import canonical
from mailer.transports.loop import loop_thread
from mailer.transports.pool import Pool
from mailer.transports.tls import tls_context
from mailer.transports.url import SmtpConfig, as_bool


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
_LOOK_SECONDS = 30.0  # how often to make sure that the loop, of which news are awaited, still runs
_GATHER_SECONDS, _MANY = 0.002, 16
"""With so many to come, news are gathered so long: telling ten costs about what telling one does."""


class SmtpTransport:
    """Carries mail to one SMTP server. May be used by several threads at once.

    A recipient that cannot be served at all is answered by a reply of our own with an enhanced code, as a
    server would have: 552 5.3.4 if the message exceeds the size the server announced, 553 5.6.7 for an
    address with non-ASCII local part at a server without SMTPUTF8.
    """

    def __init__(self, config: SmtpConfig, setting: str = "MAILER_SMTP_URL") -> None:
        """Raises ConfigError naming ``setting`` if the certificate authorities cannot be read."""
        self.config = config
        self.name = config.name
        self._mail = SmtpMail(config, tls_context(config, setting))

    def __repr__(self) -> str:
        return f"<SmtpTransport {self.name}>"

    def transmit(self, batch: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        """Carry the parcels, many at once; see `Transport`. Never raises."""
        errand = Errand([(parcel, canonical(parcel.data)) for parcel in batch])
        with self._mail.connect() as connection:
            connection.carry(errand, ledger)
        return [attempt.receipt(self.name) for attempt in errand.attempts]

    def close(self) -> None:
        """Say QUIT on every connection that has nothing to do; the others leave when they have not."""
        self._mail.close()


class SmtpMail(flask_mail.Mail):
    """Flask-Mail's front door to one server."""

    def __init__(self, config: SmtpConfig, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self.config, self.context = config, context
        self._pool: Pool | None = None

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
        """A way to this process's connections, which are opened when there is something to carry."""
        return SmtpConnection(self)

    def pool(self) -> Pool:
        """The connections of this process. One that was forked has none yet."""
        thread = loop_thread()
        pool = self._pool
        if pool is None or pool.thread is not thread:
            with _making_pools:
                pool = self._pool
                if pool is None or pool.thread is not thread:
                    pool = self._pool = Pool(self.config, self.context, thread)
        return pool

    def close(self) -> None:
        """Leave this process's connections, if it has any."""
        pool = self._pool
        if pool is not None and pool.thread.is_ours:
            pool.close()


_making_pools = threading.Lock()


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
        mail = parsed(self.attempt.text) or Message()
        self.subject = decode_words(str(mail.get("Subject", "")))
        self.msgId = clean(str(mail.get("Message-ID", "")))
        self.reply_to = decode_words(str(mail["Reply-To"])) if "Reply-To" in mail else None
        self.body, self.html = (None if part is None else text_of(part) for part in bodies(mail))


class SmtpConnection(flask_mail.Connection):
    """One call's way to the pool: hands in, passes on between the pool and the ledger, tells listeners."""

    mail: SmtpMail
    host: Pool | None  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        """The connections are kept for whoever comes next."""
        self.host = None

    def configure_host(self) -> Pool:  # type: ignore[override]
        """What carries: the connections of this process."""
        return self.mail.pool()

    def send(self, message: flask_mail.Message, envelope_from: Any = None) -> None:
        """Carry one `PreparedMessage` by itself; the answers are in its ``attempt``."""
        if not isinstance(message, PreparedMessage):
            raise TypeError("only a PreparedMessage can be sent here")
        self.carry(message.attempt.errand, _Unasked())

    def carry(self, errand: Errand, ledger: Ledger) -> None:
        """Carry an errand; the answers are in its attempts. Flask-Mail's listeners are told."""
        if self.host is None:
            self._suppress(errand, ledger)
        elif errand.attempts:
            self._carry(self.host, errand, ledger)

    def _carry(self, pool: Pool, errand: Errand, ledger: Ledger) -> None:
        pool.hand_in(errand)
        left = len(errand.attempts)
        try:
            while left:
                settled, asking = errand.hear(_LOOK_SECONDS, _GATHER_SECONDS if left >= _MANY else 0)
                if not (settled or asking or pool.thread.is_ours):
                    errand.fail("internal error: the event loop has stopped")
                leaving, why_not = self._update(ledger, settled, asking)
                pool.permit(asking, leaving, why_not)
                _tell_listeners(settled)
                left -= len(settled)
        finally:
            if left:
                pool.give_up(errand)

    def _update(
        self, ledger: Ledger, settled: Sequence[Attempt], asking: Sequence[Attempt]
    ) -> tuple[Collection[str], str]:
        """Tell and ask the ledger: whose text may go out, and why the others' may not."""
        if not (settled or asking):
            return (), ""
        told = [(attempt.parcel, attempt.receipt(self.mail.config.name)) for attempt in settled]
        try:
            return ledger.update(told, [attempt.parcel for attempt in asking]), LEASE_LOST
        except Exception as exc:  # a bug: nothing leaves that was not marked
            _log.error("smtp.internal_error %s in the ledger", type(exc).__name__)
            return (), f"internal error: {type(exc).__name__}"

    def _suppress(self, errand: Errand, ledger: Ledger) -> None:
        leaving, why_not = self._update(ledger, (), errand.attempts)
        for attempt in errand.attempts:
            if attempt.parcel.id in leaving:
                attempt.stage = Stage.TEXT
                attempt.give(Reply(250, "2.0.0 suppressed: nothing was sent (MAIL_SUPPRESS_SEND or TESTING)"))
            else:
                attempt.stage = Stage.DATA
                attempt.give(problem=why_not)
            attempt.settle()
        self._update(ledger, errand.attempts, ())
        _tell_listeners(errand.attempts)


class _Unasked:
    """The ledger of a message that nobody keeps books on."""

    def update(self, _: Sequence[tuple[Parcel, Receipt]], asking: Sequence[Parcel]) -> Collection[str]:
        """Every text may go out."""
        return [parcel.id for parcel in asking]


def _tell_listeners(settled: Sequence[Attempt]) -> None:
    if not flask_mail.email_dispatched.receivers or not flask.has_app_context():
        return
    app = flask.current_app._get_current_object()  # type: ignore[attr-defined]
    for attempt in settled:
        if not any(result.accepted for result in attempt.results.values()):
            continue
        try:
            message = PreparedMessage(attempt)
            message.show()
            flask_mail.email_dispatched.send(app, message=message)
        except Exception as exc:  # a listener's trouble is not the mail's
            _log.warning("smtp.listener_failed %s", type(exc).__name__)
