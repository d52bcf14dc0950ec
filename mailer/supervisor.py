"""``mailer worker --processes N``: starts N workers, starts anew what dies, and passes signals on.

Runs as a program of its own in place of the command that was checked, with the standard library alone: it
needs a fraction of a worker's memory, and shares no connection with anybody. A worker whose supervisor is
gone, even killed with -9, finds the end of a pipe and stops as it would on SIGTERM.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

PIPE = "MAILER_SUPERVISOR_PIPE"
"""The environment variable that tells a worker the number of the pipe to its supervisor."""

LOOK_SECONDS = 0.1
SETTLED_SECONDS = 10
"""A worker that lived so long had started well: it is replaced at once."""
LONGEST_WAIT_SECONDS = 30


class Child:
    """One worker: its process, and when to start the next if it has died."""

    def __init__(self, number: int, command: Sequence[str], pipe: int) -> None:
        self.number, self._command, self._pipe = number, command, pipe
        self.start_at, self.wait = 0.0, 1.0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """A new process in a session of its own, so that Ctrl-C comes from us alone, and once."""
        self.started = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 (the command we were started with)
            self._command,
            env={**os.environ, PIPE: str(self._pipe)},
            pass_fds=[self._pipe],
            start_new_session=True,
        )

    def buried(self) -> int | None:
        """The exit code of a process that has ended since the last look, and then it is forgotten."""
        if self.process is None or self.process.poll() is None:
            return None
        code, self.process = self.process.returncode, None
        self.wait = 1.0 if self.settled else min(self.wait * 2, LONGEST_WAIT_SECONDS)
        self.start_at = time.monotonic() + (0 if self.settled else self.wait)
        return code

    @property
    def settled(self) -> bool:
        """Whether it lived long enough to have started well."""
        return time.monotonic() - self.started >= SETTLED_SECONDS


class Supervisor:
    """Keeps workers running until it is told to stop."""

    def __init__(self, command: Sequence[str], processes: int) -> None:
        pipe, self._held = os.pipe()  # nobody ever writes: workers wait for its end
        self._children = [Child(number, command, pipe) for number in range(1, processes + 1)]
        self._stopping = self._any_settled = False
        self._code = 0

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or until no worker starts at all; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._pass_on)
        while not self._over():
            for child in self._children:
                self._look_after(child)
            time.sleep(LOOK_SECONDS)
        return self._code

    def _over(self) -> bool:
        return self._stopping and all(child.process is None for child in self._children)

    def _look_after(self, child: Child) -> None:
        code = child.buried()
        if code is not None:
            self._died(child, code)
        if child.process is None and not self._stopping and time.monotonic() >= child.start_at:
            child.start()
        self._any_settled = self._any_settled or (child.process is not None and child.settled)

    def _died(self, child: Child, code: int) -> None:
        if self._stopping:
            self._code = self._code or max(code, 0)
            return
        if code > 0 and not self._any_settled:  # a setting is wrong, and it has said so
            self._code = code
            self._pass_on(signal.SIGTERM)
            return
        say(
            "worker.died",
            process=child.number,
            code=code,
            next_in=round(child.start_at - time.monotonic(), 1),
        )

    def _pass_on(self, number: int, _frame: FrameType | None = None) -> None:
        """The first asks workers to finish what they hold; Celery takes a second for an order to drop it."""
        self._stopping = True
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)


def say(event: str, **fields: object) -> None:
    """A log line as workers write them."""
    print(f"event={event}", *(f"{key}={value}" for key, value in fields.items()), file=sys.stderr, flush=True)


def take_over(processes: int) -> None:
    """Become the supervisor of workers that are started as this process was, but for ``--processes``."""
    command = [*sys.orig_argv, "--processes", "1"]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, __file__, str(processes), *command])  # noqa: S606 (no shell wanted)


def stop_without_supervisor() -> None:
    """In a worker: stop, as on SIGTERM, once the supervisor is gone."""
    if PIPE in os.environ:
        pipe = int(os.environ[PIPE])
        threading.Thread(target=_wait_for_end, args=(pipe,), name="mailer-supervised", daemon=True).start()


def _wait_for_end(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(Supervisor(sys.argv[2:], int(sys.argv[1])).run())
