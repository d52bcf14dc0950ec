"""Octets to and from a server that may be slow, broken or hostile. Knows nothing of mail.

`Wire` reads whole replies against a deadline and within bounds, as many as are owed and not one more, and
writes against one. Whatever goes wrong is one exception, `Broken`, whose ``problem`` is fit for a person.
What arrived before something went wrong can still be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from mailer.replies import PROTOCOL_ERROR
from mailer.transports import Reply
from mailer.transports.tls import Tls, Untrusted

MAX_LINES = 100
MAX_LINE_BYTES = 4096
MAX_REPLY_BYTES = 65_536
MAX_TEXT_CHARS = 1000
CHUNK_BYTES = 65_536

FOREVER = float("inf")

# RFC 5321 section 4.2; a second digit over 5 is not in the standard and in use (571, 471).
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LATE = "the server did not answer in time"
_CLOSED = "the server closed the connection"


class Broken(Exception):
    """The connection cannot be used any more. ``timed_out`` tells silence from a loss.

    ``reply`` is what the server said when it hung up without having been asked: 421 and why.
    """

    def __init__(self, problem: str, *, timed_out: bool = False, reply: Reply | None = None) -> None:
        super().__init__(problem)
        self.problem, self.timed_out, self.reply = problem, timed_out, reply


class Answer(NamedTuple):
    """A reply as it came: its code, and its lines without code and line end."""

    code: int
    lines: list[bytes]


def reply_of(answer: Answer) -> Reply:
    """A reply as it may be stored and shown: one line, bounded, without control characters.

    An enhanced code that is repeated on every line stays on the first only.
    """
    texts = [_CONTROLS.sub("\ufffd", line.decode(errors="replace")) for line in answer.lines]
    if len(texts) > 1 and (enhanced := Reply(answer.code, texts[0]).enhanced):
        texts[1:] = [text.removeprefix(f"{enhanced} ") for text in texts[1:]]
    return Reply(answer.code, " ".join(texts).strip()[:MAX_TEXT_CHARS])


class Replies:
    """Takes octets as they come, and gives whole replies, one at a time."""

    def __init__(self) -> None:
        self._data, self._at = b"", 0
        self._lines: list[bytes] = []
        self._code, self._size = b"", 0

    def feed(self, data: bytes) -> None:
        """Take octets."""
        self._data, self._at = self._data[self._at :] + data, 0

    @property
    def pending(self) -> bool:
        """Whether there is anything that was not given yet."""
        return self._at < len(self._data) or bool(self._lines)

    def next(self) -> Answer | None:
        """The next whole reply, None if it has not come yet. Raises Broken.

        Anything but ``NNN text`` lines with one code, at most 100 of them, 4 KB each and 64 KB together,
        is a protocol error.
        """
        while (end := self._data.find(b"\n", self._at)) >= 0:
            line = self._data[self._at : end].removesuffix(b"\r")
            self._at = end + 1
            if self._take(line):
                answer = Answer(int(self._code), self._lines)
                self._lines, self._code, self._size = [], b"", 0
                return answer
        self._within_bounds(len(self._data) - self._at)
        return None

    def _take(self, line: bytes) -> bool:
        """Add a line; answer whether it was the last of its reply."""
        self._within_bounds(len(line))
        match = _LINE.fullmatch(line)
        if match is None or (self._code and match[1] != self._code):
            raise Broken(f"{PROTOCOL_ERROR}: the server's answer is not an SMTP reply")
        self._code = match[1]
        self._size += len(line)
        self._lines.append((match[3] or b"").strip())
        if match[2] != b"-":
            return True
        if len(self._lines) >= MAX_LINES or self._size > MAX_REPLY_BYTES:
            raise Broken(f"{PROTOCOL_ERROR}: the server's reply does not end")
        return False

    def _within_bounds(self, line_bytes: int) -> None:
        if line_bytes > MAX_LINE_BYTES:
            raise Broken(f"{PROTOCOL_ERROR}: a line of the server's answer is too long")


class Wire(asyncio.Protocol):
    """One connection. Lives on the event loop's thread, and is used by one coroutine at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._tls: Tls | None = None
        self._replies = Replies()
        self._answers: deque[Answer] = deque()
        self._owed = 1  # the greeting
        self._paused = self._deaf = False
        self._broken: Broken | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = self._until = FOREVER
        self._alarm: asyncio.TimerHandle | None = None

    # What the conversation calls

    def send(self, data: bytes, replies: int = 0) -> None:
        """Write ``data``, to which the server owes so many replies. Raises Broken."""
        self.check()
        self._owed += replies
        self._write(data if self._tls is None else self._tls.encrypted(data))

    async def send_all(self, data: bytes, seconds: float) -> bool:
        """Write as fast as the server reads, each chunk within ``seconds``. Raises Broken.

        Stops and answers False if a reply comes meanwhile: a server that hangs up has a reason.
        """
        for start in range(0, len(data), CHUNK_BYTES):
            await asyncio.sleep(0)  # other connections have something to say too, and so may this server
            if not await self.wait(lambda: not self._paused or self._answers, seconds):
                self.fail(_LATE, timed_out=True)
            if self._answers:
                return False
            self.send(data[start : start + CHUNK_BYTES])
        return True

    def owe(self, replies: int) -> None:
        """Expect so many replies more."""
        self._owed += replies

    async def answer(self, seconds: float) -> Answer:
        """The next reply, within ``seconds`` however slowly its octets come. Raises Broken."""
        if not self._answers and not await self.wait(self._has_answer, seconds):
            self.fail(_LATE, timed_out=True)
        return self._answers.popleft()

    async def wait(self, ready: Callable[[], object], seconds: float) -> bool:
        """Wait until ``ready()``, which is looked at when something happens; False if time is up first.

        Raises Broken if the connection is lost before.
        """
        until = min(self._loop.time() + seconds, self._deadline)
        while not ready():
            self.check()
            if self._loop.time() >= until:
                return False
            self._set_alarm(until)
            self._waiter = self._loop.create_future()
            await self._waiter
        return True

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def limit(self, seconds: float) -> None:
        """Let nothing from now on take longer than ``seconds`` altogether; `FOREVER` lifts the limit."""
        self._deadline = FOREVER if seconds == FOREVER else self._loop.time() + seconds

    def check(self) -> None:
        """Raises Broken if the connection is."""
        if self._broken is not None:
            broken = self._broken
            raise Broken(broken.problem, timed_out=broken.timed_out, reply=broken.reply)

    def fail(self, problem: str, *, timed_out: bool = False) -> None:
        """Give the connection up. Raises Broken."""
        self._break(Broken(problem, timed_out=timed_out))
        self.check()

    def close(self) -> None:
        """Close without a word."""
        self._break(Broken("the connection was closed here"))
        if self._alarm is not None:
            self._alarm.cancel()

    def forget_after_this_reply(self) -> None:
        """Throw away what comes behind the next reply: it may have been put there (RFC 3207 section 4.2)."""
        self._deaf = True

    async def start_tls(
        self, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None, seconds: float
    ) -> None:
        """Encrypt from now on. Raises Broken."""
        self._replies = Replies()
        until = self._loop.time() + seconds
        try:
            self._tls = tls = Tls(context, host, session)
            while not tls.shake_hands():
                self._write(tls.unsent())
                self._news = False
                if not await self.wait(self._has_news, until - self._loop.time()):
                    self.fail(_LATE, timed_out=True)
        except Untrusted as exc:
            self._write(b"" if self._tls is None else self._tls.unsent())
            self.fail(str(exc))
        self._write(tls.unsent())
        self._deaf = False
        self._understand(b"")

    @property
    def encrypted(self) -> bool:
        """Whether TLS is on."""
        return self._tls is not None and self._tls.established

    @property
    def tls(self) -> Tls | None:
        """The TLS of this connection, if there is any."""
        return self._tls

    @property
    def peer(self) -> str:
        """The address at the other end."""
        return str(self._sock.getpeername()[0])

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop reads from now on."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Some octets came."""
        self._understand(data)

    def pause_writing(self) -> None:
        """The server does not read as fast as we write."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        self.wake()

    def eof_received(self) -> None:
        """The server will say nothing more, so there is nothing more to say to it."""
        self._break(Broken(_CLOSED))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. What the server said before it closed may still lie in the socket."""
        if exc is not None and self._broken is None:
            with contextlib.suppress(OSError):
                self._understand(self._sock.recv(MAX_REPLY_BYTES))
        self._break(_broken(exc))

    # How it is done

    _news = False  # more octets came for the handshake

    def _has_answer(self) -> bool:
        return bool(self._answers)

    def _has_news(self) -> bool:
        return self._news

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and self._broken is None:
            self._transport.write(data)

    def _understand(self, data: bytes) -> None:
        try:
            if self._tls is not None:
                data = self._decrypted(self._tls, data)
            self._replies.feed(data)
            self._take_replies()
        except Broken as exc:
            self._break(exc)
        except OSError as exc:
            self._break(Broken(f"the connection was lost: TLS {getattr(exc, 'reason', None) or 'error'}"))
        self.wake()

    def _decrypted(self, tls: Tls, data: bytes) -> bytes:
        tls.receive(data)
        self._news = True
        if not tls.established:
            return b""
        data = tls.decrypted()
        self._write(tls.unsent())
        return data

    def _take_replies(self) -> None:
        while self._owed and (answer := self._replies.next()) is not None:
            self._answers.append(answer)
            self._owed -= 1
        if not self._owed and self._replies.pending and not self._deaf:
            self._refuse_surplus()

    def _refuse_surplus(self) -> None:
        """Nobody asked for it: taken for the next answer, it could pass for a promise never made."""
        answer = self._replies.next()
        if answer is not None and answer.code == 421:  # RFC 5321 section 3.8: said at any time
            raise Broken(_CLOSED, reply=reply_of(answer))
        raise Broken(f"{PROTOCOL_ERROR}: the server answered without being asked")

    def _break(self, broken: Broken) -> None:
        if self._broken is None:
            self._broken = broken
            if self._transport is not None:
                self._transport.abort()
        self.wake()

    def _set_alarm(self, until: float) -> None:
        # One timer for all waits of a connection: most end long before it, and setting it anew costs time.
        self._until = until
        if until == FOREVER or (self._alarm is not None and self._alarm.when() <= until):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(until, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._broken is None and self._until != FOREVER and self._loop.time() < self._until:
            self._set_alarm(self._until)
        self.wake()


def _broken(exc: Exception | None) -> Broken:
    if exc is None:
        return Broken(_CLOSED)
    return Broken(f"the connection was lost: {getattr(exc, 'strerror', None) or type(exc).__name__}")
