"""Storms that kill workers, or single processes of them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

from mailer.states import State
from tests.faults.conftest import until
from tests.faults.ground import SLOW, Ground, children_of
from tests.peer import Raw, Say, Script, Silence, Take


def worker_kill(ground: Ground) -> None:
    """Three workers; every two seconds one is killed with -9, its whole process group, while work is left.

    On a slow machine it takes longer until its successor consumes; then the next is killed so much later, so
    that somebody works at any time. Mails of the killed are watched: nobody may wait longer for the next try
    than the lease.
    """
    with ground.sink.listening(SLOW):
        ground.start_workers(3)
        with ground.nobody_waits(), ground.calling(ground.messages, max(6, ground.messages / 30)) as going:
            kills = 0
            while going():
                time.sleep(2)
                until(lambda: ground.consuming() >= 3, 90, "a killed worker's successor to consume")
                kills += 1
                ground.say(f"kill {kills}")
                ground.replace_oldest_worker()
            ground.finish()


def child_kill(ground: Ground) -> None:
    """Two prefork workers; every second a child of a pool is killed, as when memory runs out."""
    with ground.sink.listening(SLOW):
        ground.start_workers(2, pool="prefork")
        with ground.nobody_waits(), ground.calling(ground.messages, max(3, ground.messages / 25)) as going:
            kills = 0
            while going():
                time.sleep(1)
                worker = ground.dispatcher.workers[kills % 2]
                with contextlib.suppress(ProcessLookupError, IndexError):
                    os.kill(random.choice(children_of(worker.pid)), signal.SIGKILL)
                kills, ground.windows = kills + 1, ground.windows + 1
                ground.say(f"kill {kills}")
            ground.finish()


STEPS = {
    "greeting": Script(greeting=[Silence(), Silence(), Say(220, "hello")]),
    "mail": Script(mail=[Silence(), Silence(), Say(250)]),
    "rcpt": Script(rcpt=[Silence(), Silence(), Say(250)]),
    "data": Script(data=[Silence(), Silence(), Say(354)]),
    "in_text": Script(in_text=[Silence(), Silence(), Raw(b"")]),
    "text": Script(text=[(Take(), Silence()), (Take(), Silence()), Say(250)]),
}


def steps(ground: Ground) -> None:
    """At each step of SMTP a worker is killed that holds one mail of either policy there."""
    ground.start_workers(1)
    for step, script in STEPS.items():
        ground.say(f"killed at {step}")
        with ground.sink.listening(script) as peer:
            reached = {
                "greeting": lambda peer=peer: peer.connections,
                "in_text": lambda: sum(
                    r.state == State.SENDING and r.marked_at is not None for r in ground.rows().values()
                ),
                "text": lambda peer=peer: len(peer.accepted),
            }.get(step, lambda peer=peer, step=step: peer.verbs().count(step.upper()))
            for mails in (1, 2):  # one after the other, so that each has a connection of its own
                with ground.calling(1, 0.01):
                    pass
                until(lambda n=mails, reached=reached: reached() >= n, 20, f"{mails} mails at {step}")
            ground.replace_oldest_worker(windows=2 if step == "text" else 0)
            ground.finish()
