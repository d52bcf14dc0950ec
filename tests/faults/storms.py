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
import dataclasses
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailer.states import State
from tests.faults.ground import Ground, prepared
from tests.faults.storm_broker import broker_wipe, sweepers
from tests.faults.storm_crashes import caller_points, worker_points
from tests.faults.storm_peer import SHORT, peer, slow_peer
from tests.faults.storm_store import disk_full, store_restart
from tests.faults.storm_time import clock_steps, same_second
from tests.faults.storm_workers import child_kill, steps, worker_kill

STORES = ("sqlite", "postgres")


@dataclass(frozen=True)
class Storm:
    """A kind of fault. ``run`` lets mails be accepted and breaks things meanwhile.

    ``smtp`` are options of the transport's URL. With ``small_disk`` the store has a disk that can be filled.
    """

    name: str
    run: Callable[[Ground], None]
    messages: int
    stores: Sequence[str] = STORES
    smtp: str = ""
    small_disk: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a storm left behind.

    ``held`` mails wait for a person and the sink has no copy of them: they are visible, so not lost.
    ``same`` counts the doubled mails whose copies have the same Message-ID and bytes. Seconds to delivery
    count from acceptance, or from the time a mail was scheduled for. ``overdue`` is how long a mail of a
    killed worker waited beyond its lease, where that is watched.
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
    overdue: float
    slowest_call: float
    seconds: float
    problems: Sequence[str]

    @property
    def verdict(self) -> str:
        return f"FAILS: {'; '.join(self.problems)}" if self.problems else "holds"


STORMS = {
    storm.name: storm
    for storm in (
        Storm("worker-kill", worker_kill, 2000),
        Storm("child-kill", child_kill, 300),
        Storm("broker-wipe", broker_wipe, 2000),
        Storm("caller-points", caller_points, 1),
        Storm("steps", steps, 12),
        Storm("worker-points", worker_points, 2),
        Storm("store-restart", store_restart, 300, ("postgres",)),
        Storm("disk-full", disk_full, 400, ("sqlite",), small_disk=True),
        Storm("peer", peer, 200),
        Storm("slow-peer", slow_peer, 60, smtp=SHORT),
        Storm("clock", clock_steps, 300),
        Storm("sweepers", sweepers, 300),
        Storm("same-second", same_second, 10_000),
    )
}


# Running and judging


def run(name: str, store: str, messages: int | None = None, say: Callable[[str], None] = print) -> Outcome:
    """Raise a storm and judge what it left."""
    storm, began = STORMS[name], time.monotonic()
    wanted = messages if messages is not None else storm.messages
    with prepared(store, wanted, say, smtp=storm.smtp, with_disk=storm.small_disk) as ground:
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
        overdue=round(ground.overdue, 1),
        slowest_call=round(ground.slowest_call, 2),
        seconds=round(seconds, 1),
        problems=problems,
    )


# The command


HEAD = (
    "| storm | store | accepted | delivered | held | lost | doubled (same bytes) "
    "| longest s | over lease s | slowest call s | verdict |"
)


def line(outcome: Outcome) -> str:
    o = outcome
    cells = [o.name, o.store, o.accepted, o.delivered, o.held, o.lost, f"{o.doubled} ({o.same})"]
    return f"| {' | '.join(map(str, [*cells, o.longest, o.overdue, o.slowest_call, o.verdict]))} |"


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
