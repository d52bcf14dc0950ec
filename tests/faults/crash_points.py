"""Killed at a named point: between any two statements, around each commit and each publish.

A child is forked that does one thing, a call or an attempt, and ends itself with SIGKILL when it comes to the
point asked for: nothing is closed, flushed or rolled back, as when the machine's memory runs out. Its
parent then looks what is left.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from mailer.services import Services

_STATEMENT = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM|SELECT).*?(mailer_\w+)", re.DOTALL)


class Points:
    """The points that a process comes to, in order, and the one at which it is killed."""

    def __init__(self, services: Services, kill_at: int | None) -> None:
        self.names: list[str] = []
        self._kill_at = kill_at
        engine = services.store.engine
        sa.event.listen(engine, "before_cursor_execute", self._statement)
        self._around(engine.dialect, "do_commit", "commit")
        self._around(services, "publish", "publish")
        self._around(services.transport, "transmit", "transmit")

    def _statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found = _STATEMENT.search(statement)
        self.reached(f"before {found[1].lower()} {found[2]}" if found else f"before {statement.split()[0]}")

    def _around(self, owner: Any, name: str, word: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any) -> Any:
            self.reached(f"before {word}")
            answer = original(*args)
            self.reached(f"after {word}")
            return answer

        setattr(owner, name, wrapped)

    def reached(self, name: str) -> None:
        """Note the point, or die at it."""
        if len(self.names) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)


def points_of(services: Services, act: Callable[[], object]) -> list[str]:
    """The names of the points that ``act`` comes to."""
    names, killed = _forked(services, act, None)
    assert not killed
    return names


def killed_at(services: Services, act: Callable[[], object], point: int) -> bool:
    """Do it in a child that is killed at its n-th point; answer whether it came so far."""
    return _forked(services, act, point)[1]


def _forked(services: Services, act: Callable[[], object], kill_at: int | None) -> tuple[list[str], bool]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            services.store.engine.dispose(close=False)  # its sockets are the parent's
            points = Points(services, kill_at)
            act()
            os.write(writing, json.dumps(points.names).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the child ended with {code}"
    return (json.loads(told) if code == 0 else []), code != 0
