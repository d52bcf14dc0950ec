"""One connection's mail transactions: MAIL, RCPT, DATA and the text, with a result for each recipient.

Reading order is the order on the wire. What has been answered is never unsaid: whatever breaks, the
attempt knows how far it came and whom it has an answer for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol

from mailer.retry import LEASE_LOST
from mailer.transports import Ledger, Parcel, Reply, Result, Stage
from mailer.transports.url import Timeouts
from mailer.transports.wire import Broken, Wire


@dataclass(slots=True)
class Attempt:
    """One parcel in the hands of a connection: how far it came, and the answers so far."""

    parcel: Parcel
    text: bytes = field(repr=False)
    ledger: Ledger = field(repr=False)
    stage: Stage = Stage.CONNECT
    text_sent: bool = False
    results: dict[str, Result] = field(default_factory=dict)

    def settle(self, reply: Reply | None = None, problem: str = "") -> None:
        """Give this result to everyone who has none yet."""
        for recipient in self.parcel.recipients:
            self.answer(recipient, reply, problem)

    def answer(self, recipient: str, reply: Reply | None, problem: str = "") -> None:
        """Give this result to one recipient, unless there is one."""
        self.results.setdefault(recipient, Result(self.stage, reply, self.text_sent, problem))


class Line(Protocol):
    """An open connection on which commands can be given: `mailer.transports.smtp.Client`."""

    wire: Wire
    esmtp_features: dict[str, str]

    def ask(self, command: str, seconds: float) -> Reply:
        """Give a command and read the reply. Raises Broken."""

    def hear(self, seconds: float) -> Reply:
        """Read a reply. Raises Broken."""

    def parting_words(self) -> Reply | None:
        """The refusal that a server sent before it closed on us, if there is one."""

    def has_extn(self, opt: str) -> bool:
        """Whether EHLO announced an extension."""

    def close(self) -> None:
        """Close without a word."""


class Conversation:
    """The transactions of one connection, one after the other. ``carried`` counts the texts sent."""

    def __init__(self, line: Line, limits: Timeouts) -> None:
        self._line, self._limits = line, limits
        self.carried = 0
        self._used = False
        self._left_open = False  # a transaction was begun and not ended

    def carry(self, attempt: Attempt) -> None:
        """Send one message, answering every recipient. Raises Broken with the attempt as far as it came."""
        attempt.stage = Stage.MAIL
        self._line.wire.limit(self._limits.parcel)
        if self._left_open:
            self._begin_afresh()
        if (refusal := self._cannot_carry(attempt)) is not None:
            attempt.settle(refusal)
            return
        if self._mail(attempt) and self._rcpt(attempt) and self._data(attempt):
            self._text(attempt)
        self._used = True

    def _begin_afresh(self) -> None:
        # Needed after a refusal only: the answer to the text ends a transaction (RFC 5321 section 4.1.1.4).
        if self._line.ask("RSET", self._limits.mail).code // 100 != 2:
            raise Broken("the server refused to start afresh")
        self._left_open = False

    def _cannot_carry(self, attempt: Attempt) -> Reply | None:
        limit = self._line.esmtp_features.get("size", "")
        if limit.isdecimal() and 0 < int(limit[:18]) < len(attempt.text):
            return Reply(552, f"5.3.4 not sent: {len(attempt.text)} octets, the server takes {limit}")
        if not attempt.text.isascii() and not self._line.has_extn("8bitmime"):
            return Reply(554, "5.6.3 not sent: the message has octets over 127, the server takes none")
        if not _is_mailbox(attempt.parcel.sender):
            return Reply(553, "5.1.7 not sent: the sender's address cannot be written in a command")
        if not attempt.parcel.sender.isascii() and not self._line.has_extn("smtputf8"):
            return Reply(553, "5.6.7 not sent: the sender's address needs SMTPUTF8, which the server lacks")
        return None

    def _mail(self, attempt: Attempt) -> bool:
        parcel, options = attempt.parcel, ""
        if self._line.has_extn("size"):
            options += f" SIZE={len(attempt.text)}"
        if not attempt.text.isascii():
            options += " BODY=8BITMIME"
        if self._line.has_extn("smtputf8") and not (parcel.sender + "".join(parcel.recipients)).isascii():
            options += " SMTPUTF8"
        self._left_open = True
        reply = self._line.ask(f"MAIL FROM:<{parcel.sender}>{options}", self._limits.mail)
        if reply.code == 421 and self._used:
            raise Broken("the server closed the kept connection")
        return self._goes_on(attempt, reply, reply.code // 100 == 2)

    def _rcpt(self, attempt: Attempt) -> bool:
        attempt.stage = Stage.RCPT
        welcome = 0
        for recipient in dict.fromkeys(attempt.parcel.recipients):
            reply = self._cannot_address(recipient)
            if reply is None:
                reply = self._line.ask(f"RCPT TO:<{recipient}>", self._limits.rcpt)
            if reply.code == 421:
                return self._goes_on(attempt, reply, False)
            if reply.code // 100 == 2:  # 251 and 252 too (RFC 5321 section 3.5.3)
                welcome += 1
            else:
                attempt.answer(recipient, reply)
        return welcome > 0

    def _cannot_address(self, recipient: str) -> Reply | None:
        if not recipient or not _is_mailbox(recipient):
            return Reply(553, "5.1.3 not sent: the address cannot be written in a command")
        if not recipient.isascii() and not self._line.has_extn("smtputf8"):
            return Reply(553, "5.6.7 not sent: the address needs SMTPUTF8, which the server lacks")
        return None

    def _data(self, attempt: Attempt) -> bool:
        attempt.stage = Stage.DATA
        reply = self._line.ask("DATA", self._limits.data)
        if not self._goes_on(attempt, reply, reply.code == 354):
            return False
        if attempt.parcel.id not in attempt.ledger.update((), (attempt.parcel,)):
            self._line.close()  # the only way out of 354 that sends nothing
            attempt.settle(problem=LEASE_LOST)
            return False
        return True

    def _text(self, attempt: Attempt) -> None:
        attempt.stage, attempt.text_sent = Stage.TEXT, True
        reply = self._send_text(attempt.text)
        self._left_open = False
        self.carried += 1
        self._goes_on(attempt, reply, False)

    def _send_text(self, text: bytes) -> Reply:
        try:
            self._line.wire.send(_dot_stuffed(text), self._limits.block)
        except Broken:
            reply = self._line.parting_words()
            if reply is None:
                raise
            return reply
        self._line.wire.limit(float("inf"))  # the answer has a limit of its own; see Timeouts
        return self._line.hear(self._limits.end_of_data)

    def _goes_on(self, attempt: Attempt, reply: Reply, wanted: bool) -> bool:
        """Whether the reply is the wanted one; if not, it is the answer for all who have none yet."""
        if not wanted:
            attempt.settle(reply)
            # After 421 the server closes (RFC 5321 section 3.8); after 1xx, 2xx or 3xx in the wrong place
            # nobody knows where the conversation stands.
            if reply.code == 421 or (attempt.stage is not Stage.TEXT and reply.code < 400):
                self._line.close()
        return wanted


def canonical(data: bytes) -> bytes:
    """CRLF and nothing else ends a line: a bare CR or LF is how mail is smuggled (RFC 5321 section 2.3.8)."""
    if not data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r"):
        data = re.sub(rb"\r\n|\r|\n", b"\r\n", data)
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def _dot_stuffed(text: bytes) -> bytes:
    """The text as it is sent, with the final dot (RFC 5321 section 4.5.2)."""
    stuffed = text.replace(b"\r\n.", b"\r\n..")
    return (b"." if stuffed.startswith(b".") else b"") + stuffed + b".\r\n"


# Not the grammar of addresses, which was checked long before: only what cannot leave its brackets.
_MAILBOX = re.compile(
    r'(?:"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*"|[^\s<>"@\x00-\x1f\x7f]+)@[^\s<>"@\x00-\x1f\x7f]+'
)


def _is_mailbox(address: str) -> bool:
    if re.search("[\ud800-\udfff]", address):
        return False
    return not address or (len(address) <= 320 and _MAILBOX.fullmatch(address) is not None)
