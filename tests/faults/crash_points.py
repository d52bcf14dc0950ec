"""Killed at a named point: between any two statements, around each commit, each publish, each word of SMTP.

A child is forked that does one thing, a call or an attempt, and ends itself with SIGKILL when it comes to the
point asked for: nothing is closed, flushed or rolled back, as when the machine's memory runs out. Its
parent then looks what is left.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from mailer import breaker, slowdown, tally
from mailer.breaker import Breaker
from mailer.limits import SharedLimits
from mailer.services import Services
from mailer.store import suppressions
from mailer.tally import Tally
from mailer.transports.route import Route
from mailer.transports.wire import Wire

_CHANGE = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)")
_READ = re.compile(r"(SELECT).*?\bFROM\s+(\w+)", re.DOTALL)


class Points:
    """The points that a process comes to, in order, and the one at which it is killed.

    Their names say what is about to happen, or has just happened, and for which time if it was not the first.
    """

    def __init__(self, services: Services, kill_at: str | None) -> None:
        self.names: list[str] = []
        self._kill_at, self._times = kill_at, Counter[str]()
        self._thread, self._statement = threading.current_thread(), "nothing"
        self.watch(services.store.engine)
        self._around(services, "publish", lambda *_: "publish", after=True)
        self._around(services.transport, "transmit", lambda *_: "transmit")
        self._around(Wire, "send", lambda _wire, data, *_: f"send {_word(data)}", loop=True)
        self._around(Wire, "answer", lambda *_: "hear", loop=True)

    def watch(self, engine: sa.Engine) -> None:
        """Count the statements and commits of this engine, too."""
        sa.event.listen(engine, "before_cursor_execute", self._before_statement)
        self._around(engine.dialect, "do_commit", lambda *_: f"commit of {self._statement}", after=True)

    def _before_statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found = _CHANGE.search(statement) or _READ.search(statement)
        self._statement = f"{found[1].lower()} {found[2]}" if found else statement.split()[0].lower()
        self.reached(f"before {self._statement}")

    def _around(
        self, owner: Any, name: str, word: Callable[..., str], *, after: bool = False, loop: bool = False
    ) -> None:
        # After most things comes at once the point before the next. SMTP is spoken on a thread of its own,
        # for which the one that acts waits.
        original = getattr(owner, name)

        def wrapped(*args: Any) -> Any:
            doing = word(*args)
            self.reached(f"before {doing}", loop)
            answer = original(*args)
            if after:
                self.reached(f"after {doing}")
            return answer

        setattr(owner, name, wrapped)

    def reached(self, what: str, loop: bool = False) -> None:
        """Note the point, or die at it. What threads beside the one that acts do is left out."""
        if not loop and threading.current_thread() is not self._thread:
            return
        self._times[what] += 1
        name = what if self._times[what] == 1 else f"{what}, time {self._times[what]}"
        if name == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)


def _word(data: bytes) -> str:
    return "text" if data.endswith(b"\r\n.\r\n") else data.split()[0].decode()


def _forget_the_time(services: Services) -> None:
    """What is read or written now and then is so in every child: all take the same way."""
    route = services.transport
    if isinstance(route, Route):
        assert isinstance(route.gates, Breaker)
        assert isinstance(route.limits, SharedLimits)
        assert isinstance(route.tally, Tally)
        route.gates._read_at = route.limits._slowdowns._read_at = route.tally._flushed_at = -math.inf
        # Once, however slow the machine is.
        breaker.KNOWN_SECONDS = slowdown.KNOWN_SECONDS = tally.FLUSH_SECONDS = 1e6
    services.store.suppressed._looked = -math.inf
    suppressions.LOOK_EVERY = 1e6


Act = Callable[[Points], object]


def points_of(services: Services, act: Act) -> list[str]:
    """The names of the points that ``act`` comes to. What it does is done."""
    names, killed = _forked(services, act, None)
    assert not killed
    return names


def killed_at(services: Services, act: Act, point: str) -> bool:
    """Do it in a child that is killed at this point; answer whether it came so far."""
    return _forked(services, act, point)[1]


def _forked(services: Services, act: Act, kill_at: str | None) -> tuple[list[str], bool]:
    services.now()  # on Postgres that is a question now and then; the child need not ask it
    reading, writing = os.pipe()
    with warnings.catch_warnings():  # from 3.12 on: the child of a process with threads may wait for a lock
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            services.store.engine.dispose(close=False)  # its sockets are the parent's
            _forget_the_time(services)
            points = Points(services, kill_at)
            act(points)
            os.write(writing, json.dumps(points.names).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the child ended with {code}"
    return (json.loads(told) if code == 0 else []), code != 0
