"""Storms about time: everything due at once, and clocks that are set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from mailer.store import clock
from tests.backlog import accept_together, small
from tests.faults.ground import LEASE_SECONDS, Ground, datetime_in
from tests.faults.host import CLOCK_FILE, ahead, set_ahead


def same_second(ground: Ground) -> None:
    """All mails are scheduled for the same second; none may leave before it."""
    services = ground.app.extensions["mailer"]
    due = datetime_in(4 + ground.messages / 400, services)
    due_at = time.monotonic() + (due - services.now()).total_seconds()
    with ground.sink.listening():
        ground.start_workers(3)
        for first in range(0, ground.messages, 250):
            accept_at_once(ground, range(first, min(first + 250, ground.messages)), due)
        ground.due = {r: max(due_at, accepted) for r, accepted in ground.accepted.items()}
        ground.say(f"all accepted, {due_at - time.monotonic():.0f} s before they are due")
        time.sleep(max(0, due_at - time.monotonic()))
        ground.finish()
    if min(ground.sink.first_at.values(), default=due_at) < due_at - 0.05:
        ground.problems.append("a mail left before its time")


def accept_at_once(ground: Ground, numbers: range, due: datetime) -> None:
    """Accept these mails in one transaction: ten thousand calls would take longer than what is measured."""
    services = ground.app.extensions["mailer"]
    recipients = [f"a{number}@x.test" for number in numbers]
    policies = ["hold" if number % 2 else "retry" for number in numbers]
    pairs = zip(recipients, policies, strict=True)
    accept_together(services, [small(services, r, send_at=due, on_uncertain=p) for r, p in pairs])
    ground.accepted |= dict.fromkeys(recipients, time.monotonic())


HOUR = 3600


def clock_steps(ground: Ground) -> None:
    """While mails flow, a clock is set an hour forward, back, an hour back, and right again.

    On Postgres it is that of one worker's machine; SQLite's processes share a machine, so there it is that
    of all workers and callers. Nobody is killed, so nothing may be doubled, and nobody waits for the hour:
    at most for a lease, whose mail was on its way when it seemed to be over.
    """
    pause = 5 if ground.messages >= 100 else 2.5
    folder = ground.dispatcher.folder
    everybody, nobody = folder / "clock", folder / "clock-of-the-others"
    with ground.sink.listening():
        ground.dispatcher.environment[CLOCK_FILE] = str(everybody)
        ground.start_workers(1)
        if ground.store == "postgres":
            ground.dispatcher.environment[CLOCK_FILE] = str(nobody)
        ground.start_workers(2)
        here = everybody if ground.store == "sqlite" else nobody
        with our_clock(here), ground.calling(ground.messages, pause * 5) as going:
            for step in (HOUR, 0, -HOUR, 0):
                time.sleep(pause)
                ground.say(f"clock {step / HOUR:+.0f} h")
                set_ahead(everybody, step)
            while going():
                time.sleep(0.1)
            ground.finish()
    waits = [ground.sink.first_at[r] - at for r, at in ground.accepted.items() if r in ground.sink.first_at]
    if max(waits, default=0) > LEASE_SECONDS + 5:
        ground.problems.append(f"a mail waited {max(waits):.0f} s for a clock")


@contextmanager
def our_clock(path: Path) -> Iterator[None]:
    """Let the callers of this process go by the clock that the file sets."""
    right = clock.wall
    clock.wall = lambda: right() + ahead(path)
    try:
        yield
    finally:
        clock.wall = right
