"""Storms in which a process is killed at every point of what it does, one point after the other."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

from sqlalchemy.orm import Session

from mailer import send_email
from mailer.services import Services
from mailer.states import FINAL, State
from mailer.worker import work_once
from tests.faults.crash_points import killed_at, points_of
from tests.faults.ground import Ground


def caller_points(ground: Ground) -> None:
    """A web process is killed between any two statements of accepting and publishing, then calls again."""
    services, names = ground.app.extensions["mailer"], _names("caller")
    with ground.app.app_context(), ground.sink.listening():
        for joined in (False, True):
            first = next(names)
            ground.accepted[first] = time.monotonic()
            points = points_of(services, partial(_call, services, first, joined))
            for n, point in enumerate(points):
                name = next(names)
                call = partial(_call, services, name, joined)
                came_there = killed_at(services, call, n)
                accepted = name in ground.rows()
                ground.say(
                    f"{point}{', joined' if joined else ''}: {'whole' if accepted else 'nothing there'}"
                )
                if not came_there or accepted != ("after commit" in points[: n + 1]):
                    ground.problems.append(f"killed {point}: what is there is not what was committed")
                ground.accepted[name] = time.monotonic()
                call()  # as whoever got no answer does, with the same idempotency key
        recover(ground)
    if any(row.attempts != 1 for row in ground.rows().values()):
        ground.problems.append("a mail was tried more than once although no worker was killed")


def _call(services: Services, name: str, joined: bool) -> None:
    mail = {"to": name, "subject": "Hi", "text": "Hello", "idempotency_key": name}
    if not joined:
        send_email.delay(**mail)
        return
    with Session(services.store.engine) as session:
        send_email.delay(**mail, session=session)
        session.commit()


def worker_points(ground: Ground) -> None:
    """A worker is killed between any two statements of one attempt, for both policies."""
    services, names = ground.app.extensions["mailer"], _names("worker")
    with ground.app.app_context(), ground.sink.listening():
        for policy in ("retry", "hold"):
            _accept(ground, next(names), policy)
            for n, point in enumerate(points_of(services, partial(work_once, services))):
                name = next(names)
                _accept(ground, name, policy)
                if not killed_at(services, partial(work_once, services), n):
                    ground.problems.append(f"never came to {point}")
                copies, row = len(ground.sink.copies.get(name, [])), ground.rows()[name]
                ground.say(f"{point}, {policy}: {copies} copies, {row.state}")
                unknown = row.state == State.SENDING and row.marked_at is not None
                ground.windows += unknown and policy == "retry" and copies
                recover(ground)
                expected = copies if unknown and policy == "hold" else copies + (row.state not in FINAL)
                left, state = len(ground.sink.copies.get(name, [])), ground.rows()[name].state
                waits = State.UNCERTAIN if unknown and policy == "hold" else State.SENT
                if (left, state) != (expected, waits):
                    ground.problems.append(f"killed {point}, {policy}: {left} copies, {state}")


def _accept(ground: Ground, name: str, policy: str) -> None:
    ground.accepted[name] = time.monotonic()
    send_email.delay(to=name, subject="Hi", text="Hello", on_uncertain=policy)


def _names(who: str) -> Iterator[str]:
    return (f"{who}{n}@x.test" for n in itertools.count())


def recover(ground: Ground, rounds: int = 20) -> None:
    """What the next worker does, without waiting for the end of leases: it lives that much later."""
    services = ground.app.extensions["mailer"]
    now: Callable[[], object] = services.now
    lease = timedelta(seconds=services.settings.lease_seconds + 1)
    for n in range(rounds):
        services.now = lambda n=n: now() + lease * n  # type: ignore[operator]
        work_once(services)
        if all(row.state in FINAL or row.state == State.UNCERTAIN for row in ground.rows().values()):
            break
    else:
        ground.problems.append("not all mails came to an end")
    services.now = now
