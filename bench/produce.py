"""A process that calls: ``python -m bench.produce CONTENDER N [--every SECONDS] [--lane LANE] [--prefix P]``.

Prints as JSON how long the calls took, what this process used of a CPU meanwhile, and when each began, on the
system-wide monotonic clock, by recipient.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Send = Callable[[int, str], object]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("number", type=int)
    parser.add_argument("--every", type=float, default=0.0)
    parser.add_argument("--lane")
    parser.add_argument("--prefix", default="p")
    args = parser.parse_args()
    context, send = CONTENDERS[args.contender](args.lane)
    with context:
        send(0, f"{args.prefix}-first@example.org")  # what only the first call costs
        print(json.dumps(calls(send, args.number, args.every, args.prefix)))


def calls(send: Send, number: int, every: float, prefix: str) -> dict[str, object]:
    """Call so often, one call every so many seconds at most."""
    began: dict[str, float] = {}
    start, cpu = time.monotonic(), time.process_time()
    for n in range(number):
        to = f"{prefix}{n}@example.org"
        if every:
            time.sleep(max(0.0, start + n * every - time.monotonic()))
        began[to] = time.monotonic()
        send(n, to)
    return {"seconds": time.monotonic() - start, "cpu": time.process_time() - cpu, "began": began}


def _recipe(_lane: str | None) -> tuple[AbstractContextManager[object], Send]:
    from bench.order import order
    from bench.recipe import send_email

    return nullcontext(), lambda n, to: send_email.delay(to, order(n))


def _post_office(_lane: str | None) -> tuple[AbstractContextManager[object], Send]:
    from bench.post_office import send

    return nullcontext(), send


def _product(lane: str | None) -> tuple[AbstractContextManager[object], Send]:
    from bench.product import create_app, send

    options = {"lane": lane} if lane else {}
    return create_app().app_context(), lambda n, to: send(n, to, **options)


CONTENDERS = {"recipe": _recipe, "post_office": _post_office, "product": _product}

if __name__ == "__main__":
    main()
