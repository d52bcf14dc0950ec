"""A way of so many milliseconds there and back: a proxy that hands everything on later.

Started as a program, ``python -m bench.distance PORT SECONDS``, it says on which port it listens. A
connection takes one round trip to open, as on a network; each packet takes half of one in either direction.
Loss and the slow start of new connections are not imitated: both would favour whoever keeps connections.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import Any

from tests import servers


class Distance:
    """A running proxy to a port of this machine; ``port`` is its own."""

    def __init__(self, port: int, seconds: float) -> None:
        command = servers.launched(
            [sys.executable, "-m", "bench.distance", str(port), str(seconds)], None, signal.SIGTERM
        )
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(10)


class _End(asyncio.Protocol):
    """One end of a way: what comes in here goes out at the other end after half a round trip."""

    def __init__(self, half: float) -> None:
        self._half = half
        self._loop = asyncio.get_running_loop()
        self._early: list[bytes] = []
        self._gone = False
        self.transport: Any = None
        self.other: _End | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._loop.call_later(self._half, self._hand_on, data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._loop.call_later(self._half, self._close_other)

    def joined(self, other: _End) -> None:
        self.other = other
        for data in self._early:
            other.transport.write(data)
        if self._gone:
            other.transport.close()

    def _hand_on(self, data: bytes) -> None:
        if self.other:
            self.other.transport.write(data)
        else:
            self._early.append(data)

    def _close_other(self) -> None:
        self._gone = True
        if self.other:
            self.other.transport.close()


class _Near(_End):
    """The end where the client is: with it begins the way to the other."""

    def __init__(self, half: float, port: int) -> None:
        super().__init__(half)
        self._port = port

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._task = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        await asyncio.sleep(3 * self._half)  # the handshake, and the way of its last packet
        _, far = await self._loop.create_connection(lambda: _End(self._half), "127.0.0.1", self._port)
        far.joined(self)
        self.joined(far)


async def _serve(port: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Near(seconds / 2, port), "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
