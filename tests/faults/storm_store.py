"""Storms in which the database goes away, or its disk is full."""

from __future__ import annotations

import time

from tests.faults.conftest import until
from tests.faults.ground import SLOW, Ground


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
        ground.finish()


FULL = "the store's disk is full; nothing was accepted"


def disk_full(ground: Ground) -> None:
    """The disk of SQLite's file is full for ten seconds in mid-run, then it has room again.

    It is a small disk of its own, filled by another file. Callers are told, and give up: their mails must
    not be sent. Workers must survive; what was accepted before must arrive when there is room. A worker that
    sent a mail and cannot note it for longer than the lease makes an uncertain one, and no worse.
    """
    assert ground.disk is not None
    ground.persistent = False
    with ground.sink.listening(SLOW):
        ground.start_workers(2)
        with ground.calling(ground.messages, 20):
            until(lambda: len(ground.accepted) >= ground.messages // 4, 30, "mails before the disk is full")
            ground.disk.fill()
            ground.windows += 4
            ground.say("full")
            before = len(ground.accepted)
            time.sleep(10)
            ground.say(f"{len(ground.refused)} refused, {len(ground.accepted) - before} accepted; room again")
            ground.disk.make_room()
        ground.finish()
    if ground.refusals != {FULL}:
        ground.problems.append(f"callers were told {ground.refusals or 'nothing'}")
    if told := ground.refused & (set(ground.rows()) | set(ground.sink.copies)):
        ground.problems.append(f"{len(told)} mails are there although their callers were refused")
