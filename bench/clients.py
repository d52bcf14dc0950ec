"""Clients of the HTTP API, each with a connection that it keeps: a process of its own.

``python -m bench.clients PORT TOKEN CLIENTS REQUESTS [BATCH]`` prints as JSON how many requests a second were
answered, and the milliseconds of each. A request asks for a mail of `bench.order`, or for a batch of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator

from bench.order import order


def requests(token: str, number: int, batch: int) -> Iterator[bytes]:
    """What goes over the wire, made before the clock runs."""
    for n in range(number):
        mails = [_mail(n * max(batch, 1) + place) for place in range(max(batch, 1))]
        body = json.dumps(mails if batch else mails[0]).encode()
        head = (
            f"POST /api/emails{'/batch' if batch else ''} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


def _mail(number: int) -> dict[str, object]:
    template = {"id": "order", "variables": order(number)}
    return {"to": f"p{number}@example.org", "template": template}


async def ask(port: int, clients: int, waiting: list[bytes]) -> tuple[float, list[float]]:
    """Answer the seconds that all of it took, and those of each request."""
    times: list[float] = []
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(clients)]
    began = time.perf_counter()
    await asyncio.gather(*(_client(reader, writer, waiting, times) for reader, writer in connections))
    took = time.perf_counter() - began
    for _, writer in connections:
        writer.close()
    return took, times


async def _client(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, waiting: list[bytes], times: list[float]
) -> None:
    while waiting:
        request, began = waiting.pop(), time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        answer = await reader.readexactly(int(length.partition(b":")[2]))
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise SystemExit(f"refused: {answer.decode()}")
        times.append(time.perf_counter() - began)


if __name__ == "__main__":
    port, token, clients, number, *batch = sys.argv[1:]
    wanted = list(requests(token, int(number), int(batch[0]) if batch else 0))
    seconds, each = asyncio.run(ask(int(port), int(clients), wanted))
    print(json.dumps({"rate": int(number) / seconds, "ms": [one * 1000 for one in each]}))
