"""Storms: what breaks in production is broken on purpose, and every copy of every mail is counted.

::

    python3 make.py faults                                    every storm, on SQLite and Postgres
    python3 make.py faults --only worker-kill --store sqlite
    python3 make.py faults --only same-second --messages 5000 --json

Real workers, a real Redis, a real store, and an SMTP server that remembers what it took. Half of the
mails have the policy ``hold``, half ``retry``. `docs/explanation/storms.md` says what is promised.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailer.states import State
from tests.faults.conftest import until
from tests.faults.ground import Ground, children_of, datetime_in, prepared
from tests.faults.storm_crashes import caller_points, worker_points
from tests.peer import Close, Drip, Raw, Say, Script, Silence, Take

STORES = ("sqlite", "postgres")
SLOW = Script(text=Drip(b"250 ok\r\n", 0.007))
"""Takes the copy, then needs 50 ms to say so: a kill is likely to hit just that."""


@dataclass(frozen=True)
class Storm:
    """A kind of fault. ``run`` lets mails be accepted and breaks things meanwhile."""

    name: str
    run: Callable[[Ground], None]
    messages: int
    stores: Sequence[str] = STORES


@dataclass(frozen=True)
class Outcome:
    """What a storm left behind.

    ``held`` mails wait for a person and the sink has no copy of them: they are visible, so not lost.
    ``same`` counts the doubled mails whose copies have the same Message-ID and bytes. Seconds to delivery
    count from acceptance, or from the time a mail was scheduled for.
    """

    name: str
    store: str
    accepted: int
    delivered: int
    held: int
    lost: int
    doubled: int
    same: int
    longest: float
    slowest_call: float
    seconds: float
    problems: Sequence[str]

    @property
    def verdict(self) -> str:
        return f"FAILS: {'; '.join(self.problems)}" if self.problems else "holds"


# The storms


def worker_kill(ground: Ground) -> None:
    """Three workers; every two seconds one is killed with -9, its whole process group."""
    kills = max(3, ground.messages // 50)
    with ground.sink.listening(SLOW):
        ground.start_workers(3)
        with ground.calling(ground.messages, kills * 2):
            for kill in range(kills):
                time.sleep(2)
                ground.say(f"kill {kill + 1} of {kills}")
                ground.replace_oldest_worker()
        finish(ground)


def child_kill(ground: Ground) -> None:
    """Two prefork workers; every second a child of a pool is killed, as when memory runs out."""
    kills = max(3, ground.messages // 25)
    with ground.sink.listening(SLOW):
        ground.start_workers(2, pool="prefork")
        with ground.calling(ground.messages, kills):
            for kill in range(kills):
                time.sleep(1)
                worker = ground.dispatcher.workers[kill % 2]
                with contextlib.suppress(ProcessLookupError, IndexError):
                    os.kill(random.choice(children_of(worker.pid)), signal.SIGKILL)
                ground.windows += 1
                ground.say(f"kill {kill + 1} of {kills}")
        finish(ground)


def broker_wipe(ground: Ground) -> None:
    """Redis is killed and comes back empty five times; then it is frozen while callers go on."""
    wipes, pause = (5, 10) if ground.messages >= 100 else (2, 3)
    with ground.sink.listening(SLOW):
        ground.start_workers(3)
        with ground.calling(ground.messages, wipes * 3 + pause):
            for wipe in range(wipes):
                time.sleep(2)
                ground.say(f"wipe {wipe + 1} of {wipes}")
                ground.broker.kill()
                time.sleep(1)
                ground.broker.start()
            ground.say(f"frozen for {pause} s")
            with ground.broker.frozen():
                time.sleep(pause)
        callers_were_quick(ground)
        finish(ground)


STEPS = {
    "greeting": Script(greeting=[Silence(), Silence(), Say(220, "hello")]),
    "mail": Script(mail=[Silence(), Silence(), Say(250)]),
    "rcpt": Script(rcpt=[Silence(), Silence(), Say(250)]),
    "data": Script(data=[Silence(), Silence(), Say(354)]),
    "in_text": Script(in_text=[Silence(), Silence(), Raw(b"")]),
    "text": Script(text=[(Take(), Silence()), (Take(), Silence()), Say(250)]),
}


def steps(ground: Ground) -> None:
    """At each step of an attempt a worker is killed that holds one mail of either policy there."""
    ground.start_workers(1)
    for step, script in STEPS.items():
        ground.say(f"killed at {step}")
        with ground.sink.listening(script) as peer:
            with ground.calling(2, 0.01):
                pass
            reached = {
                "greeting": lambda peer=peer: peer.connections,
                "in_text": lambda: sum(
                    r.state == State.SENDING and r.marked_at is not None for r in ground.rows().values()
                ),
                "text": lambda peer=peer: len(peer.accepted),
            }.get(step, lambda peer=peer, step=step: peer.verbs().count(step.upper()))
            until(lambda reached=reached: reached() >= 2, 20, f"two mails at {step}")
            ground.replace_oldest_worker(windows=2 if step == "text" else 0)
            finish(ground)


def store_restart(ground: Ground) -> None:
    """Postgres' first process is killed three times in mid-run and started on the same data."""
    assert ground.postgres is not None
    with ground.sink.listening(SLOW):
        ground.start_workers(3)
        with ground.calling(ground.messages, 15):
            for kill in range(3):
                time.sleep(3)
                ground.say(f"kill {kill + 1} of 3")
                ground.postgres.kill()
                time.sleep(1)
                ground.postgres.start()
                ground.windows += 6
        finish(ground)


def ok(count: int, code: int = 250) -> list[Say]:
    return [Say(code)] * count


def peer(ground: Ground) -> None:
    """The next server drops connections before, in and after the text, says 421 everywhere, then is good."""
    each = max(2, ground.messages // 40)
    gone, busy = [Close()] * each, [Say(421, "4.3.2 not now")] * each
    unanswered = [[(Take(), Close())] * each, [(Take(), Raw(b"25"), Close())] * each]
    script = Script(
        greeting=[Say(220), *busy, *gone, Say(220)],
        mail=[*ok(5), *busy, *gone, *ok(1)],
        rcpt=[*ok(10), *busy, *gone, *ok(1)],
        data=[*ok(15, 354), *busy, *gone, *ok(1, 354)],
        in_text=[*[Raw(b"")] * 20, *gone, Raw(b"")],
        text=[*ok(10), *busy, *gone, *unanswered[0], *unanswered[1], *ok(1)],
        quit=Close(),
    )
    ground.windows += 2 * each
    with ground.sink.listening(script):
        ground.start_workers(2)
        with ground.calling(ground.messages, 8):
            pass
        finish(ground)


def sweepers(ground: Ground) -> None:
    """Six workers, each with its sweeper; no broker for a while, then all that was accepted at once."""
    away = 15 if ground.messages >= 100 else 3
    with ground.sink.listening():
        ground.start_workers(6)
        ground.broker.kill()
        with ground.calling(ground.messages, away - 1):
            ground.say(f"no broker for {away} s")
            time.sleep(away)
        ground.broker.start()
        callers_were_quick(ground)
        finish(ground)
    if any(row.attempts != 1 for row in ground.rows().values()):
        ground.problems.append("a mail was tried more than once although nothing but the broker failed")


def same_second(ground: Ground) -> None:
    """All mails are scheduled for the same second."""
    services = ground.app.extensions["mailer"]
    due = datetime_in(4 + ground.messages / 100, services)
    due_at = time.monotonic() + (due - services.now()).total_seconds()
    with ground.sink.listening():
        ground.start_workers(3)
        with ground.calling(ground.messages, 1, send_at=due):
            pass
        ground.due = {r: max(due_at, accepted) for r, accepted in ground.accepted.items()}
        time.sleep(max(0, due_at - time.monotonic()))
        finish(ground)
    if min(ground.sink.first_at.values(), default=due_at) < due_at - 0.05:
        ground.problems.append("a mail left before its time")


STORMS = {
    storm.name: storm
    for storm in (
        Storm("worker-kill", worker_kill, 500),
        Storm("child-kill", child_kill, 300),
        Storm("broker-wipe", broker_wipe, 500),
        Storm("caller-points", caller_points, 30),
        Storm("steps", steps, 12),
        Storm("worker-points", worker_points, 60),
        Storm("store-restart", store_restart, 300, ("postgres",)),
        Storm("peer", peer, 200),
        Storm("sweepers", sweepers, 300),
        Storm("same-second", same_second, 1000),
    )
}


def finish(ground: Ground) -> None:
    """Wait for the end of every mail while the sink still listens."""
    if not ground.settle():
        ground.problems.append("not all mails came to an end")
    ground.problems += ground.fallen()


def callers_were_quick(ground: Ground) -> None:
    if ground.slowest_call >= 1:
        ground.problems.append(f"a call took {ground.slowest_call:.1f} s")


# Running and judging


def run(name: str, store: str, messages: int | None = None, say: Callable[[str], None] = print) -> Outcome:
    """Raise a storm and judge what it left."""
    storm, began = STORMS[name], time.monotonic()
    wanted = messages if messages is not None else storm.messages
    with prepared(store, wanted, say, {}) as ground:
        try:
            storm.run(ground)
        except AssertionError as exc:  # waited in vain; what is there is judged all the same
            ground.problems.append(str(exc))
        return judge(ground, name, time.monotonic() - began)


def judge(ground: Ground, name: str, seconds: float) -> Outcome:
    """Compare what was accepted, what the store says, and what the sink has."""
    rows, copies, problems = ground.rows(), ground.sink.copies, list(ground.problems)
    delivered = [r for r in ground.accepted if r in copies]
    held = [r for r in ground.accepted if r not in copies and rows[r].state == State.UNCERTAIN]
    lost = set(ground.accepted) - set(delivered) - set(held)
    doubled = [r for r in delivered if len(copies[r]) > 1]
    same = [r for r in doubled if len({(c.message_id, c.data) for c in copies[r]}) == 1]
    extra = sum(len(copies[r]) - 1 for r in doubled)
    problems += [
        said
        for broken, said in {
            "lost": (lost, f"{len(lost)} lost"),
            "strangers": (set(copies) - set(rows), "the sink has mails that nobody had accepted"),
            "ended": (
                [r for r in rows.values() if r.state not in (State.SENT, State.UNCERTAIN)],
                "not all mails are sent or uncertain",
            ),
            "hold": ([r for r in doubled if rows[r].on_uncertain == "hold"], "doubled under hold"),
            "bytes": (len(same) < len(doubled), "doubled with other bytes"),
            "silent": (
                [r for r in doubled if len(copies[r]) - 1 > rows[r].unknowns],
                "doubled without the store knowing that it may be",
            ),
            "many": (extra > ground.windows, f"{extra} copies too many, {ground.windows} can be excused"),
        }.values()
        if broken
    ]
    waits = [ground.sink.first_at[r] - ground.due.get(r, ground.accepted[r]) for r in delivered]
    return Outcome(
        name=name,
        store=ground.store,
        accepted=len(ground.accepted),
        delivered=len(delivered),
        held=len(held),
        lost=len(lost),
        doubled=len(doubled),
        same=len(same),
        longest=round(max(waits, default=0.0), 1),
        slowest_call=round(ground.slowest_call, 2),
        seconds=round(seconds, 1),
        problems=problems,
    )


# The command


HEAD = (
    "| storm | store | accepted | delivered | held | lost | doubled (same bytes) "
    "| longest s | slowest call s | verdict |"
)


def line(outcome: Outcome) -> str:
    o = outcome
    cells = [o.name, o.store, o.accepted, o.delivered, o.held, o.lost, f"{o.doubled} ({o.same})"]
    return f"| {' | '.join(map(str, [*cells, o.longest, o.slowest_call, o.verdict]))} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the storms asked for; 1 if any verdict fails."""
    parser = argparse.ArgumentParser(prog="make.py faults", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", choices=STORMS, metavar="NAME", help=", ".join(STORMS))
    parser.add_argument("--messages", type=int, metavar="N", help="instead of each storm's own number")
    parser.add_argument("--store", choices=[*STORES, "both"], default="both")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each storm")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that workers end with us
    logging.disable(logging.CRITICAL)  # what the callers log here is not what is measured
    stores = STORES if options.store == "both" else (options.store,)
    if not options.json:
        print(f"{HEAD}\n|{' --- |' * HEAD.count(' | ')} --- |", flush=True)
    failed = False
    for storm in [STORMS[name] for name in options.only or STORMS]:
        for store in [s for s in stores if s in storm.stores]:
            outcome = run(storm.name, store, options.messages, _progress(storm.name, store))
            failed |= bool(outcome.problems)
            told = json.dumps(dataclasses.asdict(outcome) | {"verdict": outcome.verdict})
            print(told if options.json else line(outcome), flush=True)
    return int(failed)


def _progress(name: str, store: str) -> Callable[[str], None]:
    began = time.monotonic()
    return lambda said: print(
        f"{name} on {store}, {time.monotonic() - began:.0f} s: {said}", file=sys.stderr, flush=True
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
