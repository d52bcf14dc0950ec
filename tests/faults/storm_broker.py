"""Storms in which the broker dies, forgets, freezes, or is away for long."""

from __future__ import annotations

import time

from tests.faults.ground import SLOW, Ground


def broker_wipe(ground: Ground) -> None:
    """Redis is killed and comes back empty five times; then it is frozen while callers go on."""
    wipes, pause, apart = (5, 20, 4) if ground.messages >= 100 else (2, 2, 2)
    with ground.sink.listening(SLOW):
        ground.start_workers(3)
        with ground.calling(ground.messages, wipes * apart + pause):
            for wipe in range(wipes):
                time.sleep(apart - 1)
                ground.say(f"wipe {wipe + 1} of {wipes}")
                ground.broker.kill()
                time.sleep(1)
                ground.broker.start()
            ground.say(f"frozen for {pause} s")
            with ground.broker.frozen():
                time.sleep(pause)
        ground.callers_were_quick()
        ground.finish()


def sweepers(ground: Ground) -> None:
    """Ten workers, each with its sweeper; no broker for a minute, then a burst of calls on an empty one.

    Two mails of three are accepted while there is no broker: the workers must send them by themselves.
    """
    workers, away = (10, 60) if ground.messages >= 100 else (4, 5)
    early = ground.messages * 2 // 3
    with ground.sink.listening():
        ground.start_workers(workers)
        ground.broker.kill()
        with ground.calling(early, away * 0.8):
            ground.say(f"no broker for {away} s")
            time.sleep(away)
        missing = early - len(ground.sink.copies)
        longest = max((at - ground.accepted[r] for r, at in ground.sink.first_at.items()), default=0)
        ground.say(f"{early - missing} of {early} arrived without a broker, within {longest:.1f} s")
        if missing:
            ground.problems.append(f"{missing} mails waited for the broker")
        ground.broker.start()
        with ground.calling(ground.messages - early, 0.1):
            pass
        ground.callers_were_quick()
        ground.finish()
    if any(row.attempts != 1 for row in ground.rows().values()):
        ground.problems.append("a mail was tried more than once although nothing but the broker failed")
