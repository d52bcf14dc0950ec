"""Storms in which a process is killed at every point of what it does, one point after the other."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from mailer import send_email
from mailer.services import Services
from mailer.states import FINAL, State
from mailer.store.models import deliveries, messages, tags
from mailer.worker import work_once
from tests.faults.crash_points import Points, killed_at, points_of
from tests.faults.ground import Ground

ORDERS = sa.Table("orders", sa.MetaData(), sa.Column("who", sa.String(80), primary_key=True))
"""The application's own table: what it commits together with the mails."""
TAG = "storm"


@dataclass(frozen=True)
class Call:
    """One way to have mails accepted: alone, or two of them in a transaction of the application's."""

    joined: bool
    keyed: bool

    def __str__(self) -> str:
        way = "two in the application's transaction" if self.joined else "one by itself"
        return f"{way}, {'with' if self.keyed else 'without'} a key"

    def recipients(self, name: str) -> list[str]:
        return [f"{name}-{n}@x.test" for n in range(2 if self.joined else 1)]

    def make(self, services: Services, name: str, points: Points | None = None) -> None:
        mails = [{"to": to, "subject": "Hi", "text": "Hello", "tags": [TAG]} for to in self.recipients(name)]
        for mail in mails if self.keyed else ():
            mail["idempotency_key"] = mail["to"]
        if not self.joined:
            send_email.delay(**mails[0])
            return
        engine = sa.create_engine(services.store.engine.url)  # as an application has it, without our settings
        if points:
            points.watch(engine)
        with Session(engine) as session:
            if session.scalar(sa.select(ORDERS.c.who).where(ORDERS.c.who == name)) is None:
                session.execute(sa.insert(ORDERS).values(who=name))
            for mail in mails:
                send_email.delay(**mail, session=session)
            session.commit()
        engine.dispose()


def caller_points(ground: Ground) -> None:
    """A web process is killed between any two statements of accepting and publishing, then calls again.

    Each mail is there as a whole, or nothing of it and of what the application committed with it. With an
    idempotency key the call is made again, and there must be one mail in the end.
    """
    services, names = ground.app.extensions["mailer"], (f"caller{n}" for n in itertools.count())
    with services.store.begin() as connection:
        ORDERS.create(connection)
    with ground.app.app_context(), ground.sink.listening():
        for call in (Call(joined, keyed) for joined in (False, True) for keyed in (True, False)):
            name = next(names)
            points = points_of(services, lambda p, name=name, call=call: call.make(services, name, p))
            _accepted(ground, call.recipients(name))
            for n, point in enumerate(points):
                name = next(names)
                came = killed_at(
                    services, lambda p, name=name, call=call: call.make(services, name, p), point
                )
                committed = any(p.startswith("after commit") for p in points[: n + 1])
                there = what_is_there(services, call, name)
                ground.say(f"{call}, killed {point}: {'whole' if committed else 'nothing there'}")
                if not came or there != ("whole" if committed else "nothing"):
                    ground.problems.append(f"{call}, killed {point}: {there} is there")
                if call.keyed:  # as whoever got no answer does
                    call.make(services, name)
                if call.keyed or committed:
                    _accepted(ground, call.recipients(name))
        recover(ground)
    if any(row.attempts != 1 for row in ground.rows().values()):
        ground.problems.append("a mail was tried more than once although no worker was killed")
    if set(ground.rows()) != set(ground.accepted):
        ground.problems.append("there are mails that nobody was told of")


def _accepted(ground: Ground, recipients: Sequence[str]) -> None:
    ground.accepted |= dict.fromkeys(recipients, time.monotonic())


def what_is_there(services: Services, call: Call, name: str) -> str:
    """ "whole", "nothing", or what there is: mails, their deliveries, their tags, and the order."""
    wanted = call.recipients(name)
    d, t = deliveries.c, tags.c
    whole = sa.select(d.recipient).join(messages, messages.c.id == d.message)
    with services.store.read() as connection:
        mails = set(connection.scalars(whole.where(d.recipient.in_(wanted), messages.c.content.is_not(None))))
        tagged = set(
            connection.scalars(whole.join(tags, t.message == d.message).where(d.recipient.in_(wanted)))
        )
        halves = connection.scalar(
            sa.select(sa.func.count()).where(~sa.exists().where(d.message == messages.c.id))
        )
        orders = connection.scalar(sa.select(sa.func.count()).where(ORDERS.c.who == name))
    if not (mails or tagged or halves or orders):
        return "nothing"
    if mails == tagged == set(wanted) and not halves and orders == int(call.joined):
        return "whole"
    return f"{len(mails)} mails, {len(tagged)} with tags, {halves} without recipients, {orders} orders"


def worker_points(ground: Ground) -> None:
    """A worker is killed between any two statements and any two words of SMTP of one attempt.

    For both policies, at the first attempt, and at the second, whose first was killed before the text. There
    are as many mails as points; asked for a single one, it leaves out the second attempt.
    """
    services, names = ground.app.extensions["mailer"], (f"worker{n}@x.test" for n in itertools.count())
    with ground.app.app_context(), ground.sink.listening():
        for policy, second in itertools.product(("retry", "hold"), (False, True)[: ground.messages]):
            points = _points_of_attempt(ground, next(names), policy, second)
            for n, point in enumerate(points):
                name = next(names)
                came = _prepare(ground, name, policy, second) and killed_at(
                    services, lambda _: work_once(services), point
                )
                recover(ground)
                wanted = expected(points, n, policy)
                left = what_is_left(ground, name, wanted)
                ground.windows += left[0] - 1 if policy == "retry" else 0
                said = f"{policy}, attempt {1 + second}, killed {point}: {left[0]} copies, {left[1]}"
                ground.say(said)
                if not came or left != wanted:
                    ground.problems.append(said if came else f"never came to {point}")


def what_is_left(ground: Ground, name: str, wanted: tuple[int, State]) -> tuple[int, State]:
    """How many copies there are, and the state; the sink is given a moment to count what it was sent."""
    give_up = time.monotonic() + 2
    while True:
        left = len(ground.sink.copies.get(name, [])), State(ground.rows()[name].state)
        if left == wanted or time.monotonic() > give_up:
            return left
        time.sleep(0.01)


def expected(points: Sequence[str], n: int, policy: str) -> tuple[int, State]:
    """How many copies there are in the end, and the state, for a kill at the n-th of these points."""
    text = points.index("before send text")
    marked = max(i for i in range(text) if points[i].startswith("after commit"))
    recorded = min(i for i in range(text, len(points)) if points[i].startswith("after commit"))
    if not marked <= n < recorded:
        return 1, State.SENT
    copies = 1 if n > text else 0
    return (copies, State.UNCERTAIN) if policy == "hold" else (copies + 1, State.SENT)


def _points_of_attempt(ground: Ground, name: str, policy: str, second: bool) -> list[str]:
    services = ground.app.extensions["mailer"]
    _prepare(ground, name, policy, second)
    points = points_of(services, lambda _: work_once(services))
    recover(ground)
    return points


def _prepare(ground: Ground, name: str, policy: str, second: bool) -> bool:
    """Have a mail accepted. If its second attempt is wanted next, kill the first and let its lease end."""
    services = ground.app.extensions["mailer"]
    _accepted(ground, [name])
    send_email.delay(to=name, subject="Hi", text="Hello", on_uncertain=policy)
    if not second:
        return True
    killed = killed_at(services, lambda _: work_once(services), "before send DATA")
    _live_later(services, 1)
    return killed


def _live_later(services: Services, leases: int) -> None:
    """From now on it is so many leases later than it would be."""
    now: Callable[[], object] = getattr(services.now, "right", services.now)
    ahead = timedelta(seconds=(services.settings.lease_seconds + 1) * leases)

    def later() -> object:
        return now() + ahead  # type: ignore[operator]

    later.right = now  # type: ignore[attr-defined]
    services.now = later if leases else now  # type: ignore[assignment]


def recover(ground: Ground, rounds: int = 20) -> None:
    """What the next worker does, without waiting for the end of leases: it lives that much later."""
    services = ground.app.extensions["mailer"]
    for n in range(rounds):
        _live_later(services, n)
        work_once(services)
        if all(row.state in FINAL or row.state == State.UNCERTAIN for row in ground.rows().values()):
            break
    else:
        ground.problems.append("not all mails came to an end")
    _live_later(services, 0)
