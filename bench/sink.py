"""A mail server that takes everything and writes down when: next door, or with TLS and a log-in.

Started as a program it says on its standard output which port it listens on. Then it answers, line by line,
what it is asked on its standard input: ``count`` with how many mails it took, ``taken`` with their recipients
and times (of the system-wide monotonic clock) as JSON, and ``forget``, after which it counts anew.

It offers pipelining, reads each packet once, and keeps no mail, so that it takes little of what the sender
could use. One recipient to a mail is all that the measurements send.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests import servers
from tests.authority import Authority

END = b"\r\n.\r\n"
USER, PASSWORD = "bench", "bench"


class Sink:
    """A running sink, as the one who measures sees it."""

    def __init__(self, folder: Path | None = None) -> None:
        """With a folder, it wants TLS and a log-in; the certificate of its authority is put there."""
        command = servers.launched(
            [sys.executable, "-m", "bench.sink", *([str(folder)] if folder else [])], None, signal.SIGTERM
        )
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())
        self.ca_file = str(folder / "ca.pem") if folder else None

    def count(self) -> int:
        """How many mails it took since `forget`."""
        return int(self._ask("count"))

    def taken(self) -> list[tuple[str, float]]:
        """Recipient and time of each mail since then, in seconds of the monotonic clock, in order."""
        return [(to, at) for to, at in json.loads(self._ask("taken"))]

    def times(self) -> list[float]:
        """The times alone."""
        return [at for _, at in self.taken()]

    def forget(self) -> None:
        """Count anew."""
        self._ask("forget")

    def wait_for(self, mails: int, patience_seconds: float) -> bool:
        """Wait until it took so many; False if it got none for so long."""
        last, give_up = -1, 0.0
        while (count := self.count()) < mails:
            if count > last:
                last, give_up = count, time.monotonic() + patience_seconds
            if time.monotonic() > give_up:
                return False
            time.sleep(0.05)
        return True

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(10)

    def _ask(self, question: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()


class _Session(asyncio.Protocol):
    """One connection. Commands may come many at once (RFC 2920)."""

    def __init__(self, taken: list[tuple[str, float]], context: ssl.SSLContext | None) -> None:
        self._taken, self._context = taken, context
        self._buffer, self._text, self._recipient = bytearray(), False, ""
        self._transport: Any = None
        self._upgrade: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        first, self._transport = self._transport is None, transport
        if first:
            transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._upgrade and not self._upgrade.done():
            return  # the handshake has only just ended: what is said behind it is answered in a moment
        answers: list[bytes] = []
        while (done := self._next(answers)) is not None:
            del self._buffer[:done]
        if answers:
            self._transport.write(b"".join(answers))

    def _next(self, answers: list[bytes]) -> int | None:
        """Read one thing; answer how many octets it had, None if it is not there as a whole."""
        if self._text:
            # Behind DATA's own line end a dot ends an empty text, too; nobody sends one here.
            found = self._buffer.find(END)
            if found < 0:
                return None
            self._text = False
            self._taken.append((self._recipient, time.monotonic()))
            answers.append(b"250 2.0.0 taken\r\n")
            return found + len(END)
        found = self._buffer.find(b"\r\n")
        if found < 0:
            return None
        answers.append(self._obey(self._buffer[:found].decode("latin-1")))
        return found + 2

    def _obey(self, line: str) -> bytes:
        match line[:4].upper():
            case "EHLO":
                more = b""
                if self._context:
                    more = b"250-AUTH PLAIN LOGIN\r\n" if self._upgrade else b"250-STARTTLS\r\n"
                return b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n" + more + b"250 SIZE 50000000\r\n"
            case "RCPT":
                self._recipient = line.partition("<")[2].partition(">")[0]
            case "DATA":
                self._text = True
                return b"354 go on\r\n"
            case "STAR":
                self._upgrade = asyncio.get_running_loop().create_task(self._start_tls())
                return b"220 go on\r\n"
            case "AUTH":
                return b"235 2.7.0 welcome\r\n"
            case "QUIT":
                return b"221 bye\r\n"
        return b"250 ok\r\n"

    async def _start_tls(self) -> None:
        assert self._context
        loop = asyncio.get_running_loop()
        self._transport = await loop.start_tls(self._transport, self, self._context, server_side=True)
        loop.call_soon(self.data_received, b"")


async def _serve(context: ssl.SSLContext | None) -> None:
    taken: list[tuple[str, float]] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Session(taken, context), "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    while question := await asyncio.to_thread(sys.stdin.readline):
        if question.strip() == "forget":
            taken.clear()
        print(json.dumps(taken) if question.strip() == "taken" else len(taken), flush=True)


if __name__ == "__main__":
    safe = Authority(Path(sys.argv[1])).context("127.0.0.1", "localhost") if sys.argv[1:] else None
    asyncio.run(_serve(safe))
