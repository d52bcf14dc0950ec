"""One connection's mail transactions: MAIL, RCPT, DATA and the text, with a result for each recipient.

Reading order is the order on the wire. What has been answered is never unsaid: whatever breaks, the
attempt knows how far it came and whom it has an answer for.

Where the server offers PIPELINING (RFC 2920), an envelope is one write, and the next one's goes out right
behind the text of the one before: a round trip a mail. Every reply is matched to its command either way.
"""

from __future__ import annotations

import re
import time
from typing import Protocol

from mailer.replies import PROTOCOL_ERROR
from mailer.transports import Reply, Result, Stage
from mailer.transports.attempt import Attempt, Command
from mailer.transports.url import Timeouts
from mailer.transports.wire import CHUNK_BYTES, FOREVER, Answer, Broken, Wire, reply_of


class Source(Protocol):
    """Where the next parcels come from: `mailer.transports.pool.Channel`."""

    def following(self) -> Attempt | None:
        """A parcel that this connection may carry next, None if there is none or it has carried enough."""


class Conversation:
    """The transactions of one connection, one after the other.

    ``carried`` counts the texts sent, ``kept`` says whether the connection is older than the attempt, and
    ``over`` that it is closed. ``current`` and ``following`` are in its hands when it breaks.
    """

    def __init__(self, wire: Wire, features: dict[str, str], limits: Timeouts, source: Source) -> None:
        self._wire, self._features, self._limits, self._source = wire, features, limits, source
        self._pipelining = "pipelining" in features
        self.carried = 0
        self.kept = self.over = False
        self.current: Attempt | None = None
        self.following: Attempt | None = None
        self._left_open = False  # a transaction was begun and not ended

    async def carry(self, attempt: Attempt) -> None:
        """Carry a message, and those that follow it at once. Raises Broken."""
        self.current = attempt
        if self._prepare(attempt):
            self._wire.send(*self._envelope_of(attempt))
        while self.current is not None:
            attempt = self.current
            if not attempt.settled and await self._envelope(attempt) and await self._may_leave(attempt):
                await self._text(attempt)
            attempt.settle()
            self.kept = True
            self.current, self.following = self.following, None

    async def leave(self) -> None:
        """Say QUIT. Whatever comes of it changes no result (SC3). Raises Broken."""
        self._wire.limit(FOREVER)
        self._wire.send(b"QUIT\r\n", 1)
        await self._wire.answer(self._limits.quit)

    # Before anything is sent

    def _prepare(self, attempt: Attempt) -> bool:
        """Write down the commands of an envelope. If the server cannot carry it, it is settled: False."""
        attempt.stage, attempt.began, attempt.predecessors = Stage.MAIL, time.monotonic(), self.carried
        refusal = self._refusal(attempt)
        if refusal is None:
            attempt.commands = [self._mail(attempt), *self._rcpts(attempt), _DATA]
            if len(attempt.commands) > 2:
                return True
        attempt.give(refusal)
        attempt.settle()
        return False

    def _refusal(self, attempt: Attempt) -> Reply | None:
        """The reply of a server that cannot carry it, given in its place."""
        sender, text, limit = attempt.parcel.sender, attempt.text, self._features.get("size", "")
        if limit.isdecimal() and 0 < int(limit[:18]) < len(text):
            return Reply(552, f"5.3.4 not sent: {len(text)} octets, the server takes {limit}")
        if _has_utf8_headers(text) and "smtputf8" not in self._features:
            return Reply(553, "5.6.7 not sent: an address in a header needs SMTPUTF8, which the server lacks")
        if not text.isascii() and "8bitmime" not in self._features:
            return Reply(554, "5.6.3 not sent: the message has octets over 127, the server takes none")
        if not _is_mailbox(sender):
            return Reply(553, "5.1.7 not sent: the sender's address cannot be written in a command")
        if not sender.isascii() and "smtputf8" not in self._features:
            return Reply(553, "5.6.7 not sent: the sender's address needs SMTPUTF8, which the server lacks")
        return None

    def _mail(self, attempt: Attempt) -> Command:
        parcel, options = attempt.parcel, ""
        if "size" in self._features:
            options += f" SIZE={len(attempt.text)}"
        if not attempt.text.isascii():
            options += " BODY=8BITMIME"
        everybody = parcel.sender + "".join(parcel.recipients)
        if "smtputf8" in self._features and (not everybody.isascii() or _has_utf8_headers(attempt.text)):
            options += " SMTPUTF8"
        return Command(Stage.MAIL, f"MAIL FROM:<{parcel.sender}>{options}\r\n".encode())

    def _rcpts(self, attempt: Attempt) -> list[Command]:
        commands = []
        for recipient in dict.fromkeys(attempt.parcel.recipients):
            refusal = self._cannot_address(recipient)
            if refusal is None:
                commands.append(Command(Stage.RCPT, f"RCPT TO:<{recipient}>\r\n".encode(), recipient))
            else:
                attempt.results[recipient] = Result(Stage.RCPT, refusal)
        return commands

    def _cannot_address(self, recipient: str) -> Reply | None:
        if not recipient or not _is_mailbox(recipient):
            return Reply(553, "5.1.3 not sent: the address cannot be written in a command")
        if not recipient.isascii() and "smtputf8" not in self._features:
            return Reply(553, "5.6.7 not sent: the address needs SMTPUTF8, which the server lacks")
        return None

    # The envelope

    def _envelope_of(self, attempt: Attempt) -> tuple[bytes, int]:
        """What of an envelope is sent at once, and how many replies it is owed."""
        if self._left_open:
            # Needed after a refusal only: the answer to the text ends a transaction (RFC 5321, 4.1.1.4).
            attempt.commands.insert(0, _RSET)
        self._left_open = True
        at_once = attempt.commands[: self._at_once(attempt)]
        attempt.commands_sent = len(at_once)
        return b"".join([command.line for command in at_once]), len(at_once)

    def _at_once(self, attempt: Attempt) -> int:
        return len(attempt.commands) if self._pipelining else 1

    async def _envelope(self, attempt: Attempt) -> bool:
        """Hear the answers to the commands, up to 354; answer whether the text is wanted."""
        self._wire.limit(self._limits.parcel)
        refused, welcome = False, 0
        for number, command in enumerate(attempt.commands):
            if number >= self._at_once(attempt):
                if refused or (command is _DATA and not welcome):
                    return False
                self._wire.send(command.line, 1)
                attempt.commands_sent += 1
            if not refused:
                attempt.stage = command.stage
            answer = await self._wire.answer(self._seconds(command.stage))
            attempt.answers.append(answer)
            if command is _DATA:
                return await self._data(attempt, answer, welcome, refused)
            good = answer.code // 100 == 2  # 251 and 252 too (RFC 5321 section 3.5.3)
            if command.stage is Stage.RCPT:
                welcome += good
            if good:
                continue
            if command is _RSET:
                raise Broken("the server refused to start afresh")
            if self._ends(attempt, command, answer):
                return False
            refused = refused or command.stage is Stage.MAIL
        return False

    def _ends(self, attempt: Attempt, command: Command, answer: Answer) -> bool:
        """Note a refusal; answer whether it is the end of the conversation."""
        # After 421 the server closes (RFC 5321 section 3.8); after 1xx, 2xx or 3xx in the wrong place
        # nobody knows where the conversation stands.
        ends = answer.code == 421 or answer.code < 400
        if answer.code == 421 and command.stage is Stage.MAIL and self.kept:
            raise Broken("the server closed the kept connection")
        if ends or command.stage is not Stage.RCPT:
            attempt.give(reply_of(answer))
        else:
            attempt.answer(command.recipient, reply_of(answer))
        if ends:
            self.close()
        return ends

    async def _data(self, attempt: Attempt, answer: Answer, welcome: int, refused: bool) -> bool:
        if answer.code != 354:
            self._ends(attempt, _DATA, answer)
            return False
        if welcome and not refused:
            return True
        attempt.settle()
        if welcome:
            self.close()  # the text must not go out, and without it nothing else can
        else:
            # Nobody is to get it, and yet it is asked for: a lone dot is the way out (RFC 2920 section 3.1).
            self._wire.send(b".\r\n", 1)
            if (await self._wire.answer(self._limits.end_of_data)).code == 421:
                self.close()
            self._left_open = False
        return False

    def _seconds(self, stage: Stage) -> float:
        if stage is Stage.DATA:
            return self._limits.data
        return self._limits.rcpt if stage is Stage.RCPT else self._limits.mail

    # The text

    async def _may_leave(self, attempt: Attempt) -> bool:
        self._wire.check()
        attempt.ask_to_leave(self._wire.wake)
        self._wire.limit(FOREVER)  # whoever is asked is not the server
        await self._wire.wait(lambda: attempt.may_leave is not None, FOREVER)
        if not attempt.may_leave:
            self.close()  # the only way out of 354 that sends nothing
            attempt.give(problem=attempt.why_not)
            return False
        return True

    async def _text(self, attempt: Attempt) -> None:
        stuffed = _dot_stuffed(attempt.text)
        self._wire.check()
        attempt.stage, attempt.text_sent = Stage.TEXT, True
        cut_short = not await self._send_text(stuffed)
        answer = await self._wire.answer(self._limits.end_of_data)
        if cut_short and answer.code < 400:
            self._wire.fail(f"{PROTOCOL_ERROR}: the server answered before it had the whole text")
        attempt.answers.append(answer)
        attempt.give(reply_of(answer))
        self.carried += 1
        if cut_short or answer.code == 421 or answer.code // 100 not in (2, 4, 5):
            self.close()
            if self.following is not None:
                self._wire.check()

    async def _send_text(self, stuffed: bytes) -> bool:
        """Write the text, and the envelope of the next message behind it; False if it was cut short."""
        self._wire.owe(1)
        if len(stuffed) > CHUNK_BYTES:
            self._wire.limit(self._limits.parcel)
            if not await self._wire.send_all(stuffed, self._limits.block):
                return False
            self._wire.limit(FOREVER)  # the answer has a limit of its own; see Timeouts
            stuffed = b""
        self._left_open = False
        behind, replies = self._envelope_behind()
        self._wire.send(stuffed + behind, replies)
        return True

    def _envelope_behind(self) -> tuple[bytes, int]:
        while self._pipelining and (attempt := self._source.following()) is not None:
            if self._prepare(attempt):
                self.following = attempt
                return self._envelope_of(attempt)
        return b"", 0

    def close(self) -> None:
        """Close without a word."""
        self.over = True
        self._wire.close()


_RSET = Command(Stage.MAIL, b"RSET\r\n")
_DATA = Command(Stage.DATA, b"DATA\r\n")


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


def _has_utf8_headers(text: bytes) -> bool:
    """Whether the mail, and not only its body, may travel with SMTPUTF8 alone (RFC 6531 section 3.6)."""
    return not (text.isascii() or text.partition(b"\r\n\r\n")[0].isascii())


def _is_mailbox(address: str) -> bool:
    if not address.isascii() and re.search("[\ud800-\udfff]", address):
        return False
    return not address or (len(address) <= 320 and _MAILBOX.fullmatch(address) is not None)
