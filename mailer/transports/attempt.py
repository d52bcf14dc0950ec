"""What passes between the threads that send and the event loop: errands, and the attempts they are made of.

An `Errand` is one call of ``transmit``. The loop puts news into it, the calling thread waits for them, and
gathers all that are there. An `Attempt` is one parcel of it: how far it came, and the answers so far. The
loop alone changes one until it is settled.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mailer.address import masked
from mailer.retry import LEASE_LOST
from mailer.transports import Parcel, Receipt, Reply, Result, Stage
from mailer.transports.transcript import Transcript
from mailer.transports.wire import Answer


class Command(NamedTuple):
    """A line that is sent, and the stage of which a result is if it is not answered well."""

    stage: Stage
    line: bytes
    recipient: str = ""


@dataclass(slots=True, eq=False)
class Attempt:
    """One parcel in the hands of a connection: how far it came, and the answers so far."""

    parcel: Parcel
    text: bytes = field(repr=False)
    errand: Errand = field(repr=False)
    stage: Stage = Stage.CONNECT
    text_sent: bool = False
    settled: bool = False
    may_leave: bool | None = None
    why_not: str = ""
    commands: list[Command] = field(default_factory=list, repr=False)
    commands_sent: int = 0
    answers: list[Answer] = field(default_factory=list, repr=False)
    opening: tuple[str, ...] = field(default=(), repr=False)
    predecessors: int = 0
    results: dict[str, Result] = field(default_factory=dict)
    began: float = 0.0
    seconds: float = 0.0
    _receipt: Receipt | None = field(default=None, repr=False)
    _wake: Callable[[], None] | None = field(default=None, repr=False)

    def give(self, reply: Reply | None = None, problem: str = "") -> None:
        """Give this result to everyone who has none yet."""
        for recipient in self.parcel.recipients:
            self.answer(recipient, reply, problem)

    def answer(self, recipient: str, reply: Reply | None, problem: str = "") -> None:
        """Give this result to one recipient, unless there is one."""
        if recipient not in self.results:
            self.results[recipient] = Result(self.stage, reply, self.text_sent, problem)

    def settle(self) -> None:
        """Say that there is nothing more to come. Everyone has a result then."""
        if not self.settled:
            self.give(problem="internal error: no answer")
            self.settled = True
            self.seconds = time.monotonic() - self.began if self.began else 0.0
            self.errand.tell_settled(self)

    def ask_to_leave(self, wake: Callable[[], None]) -> None:
        """Ask whether the text may go out. `permit` gives the answer some time later."""
        self._wake = wake
        self.errand.tell_asking(self)

    def permit(self, may_leave: bool, why_not: str) -> None:
        """Answer whether the text may go out."""
        self.may_leave, self.why_not = may_leave, why_not
        if self._wake is not None:
            self._wake()

    @property
    def is_answered(self) -> bool:
        """Whether everyone has a result."""
        return len(self.results) == len(set(self.parcel.recipients))

    def start_again(self) -> None:
        """Forget a connection that turned out closed before it answered anything."""
        self.stage, self.commands, self.answers, self.opening = Stage.CONNECT, [], [], ()
        self.commands_sent, self.results = 0, {}

    def receipt(self, transport: str) -> Receipt:
        """The answer to the parcel. The conversation is told where not everybody was accepted."""
        if self._receipt is None:
            self._receipt = self._new_receipt(transport)
        return self._receipt

    def _new_receipt(self, transport: str) -> Receipt:
        results = {recipient: self.results[recipient] for recipient in self.parcel.recipients}
        accepted = all(result.accepted for result in results.values())
        return Receipt(transport, results, self.seconds, () if accepted else self._transcript())

    def _transcript(self) -> tuple[str, ...]:
        told = Transcript()
        told.extend(self.opening)
        if self.predecessors:
            told.remark(f"{self.predecessors} messages before this one")
        said = [_shown(command, self.parcel) for command in self.commands[: self.commands_sent]]
        if self.text_sent:
            said.append(f"({len(self.text)} octets of text)")
        for words, answer in itertools.zip_longest(said, self.answers):
            told.said(words)
            if answer is not None:
                told.heard(answer)
        for problem in {result.problem: None for result in self.results.values() if result.problem}:
            told.remark(problem)
        return told.lines()


def _shown(command: Command, parcel: Parcel) -> str:
    """A command as it may be kept. What cannot be taken for an address by its looks is known to be one."""
    line = command.line.decode(errors="replace").strip()
    for address in (command.recipient, parcel.sender):
        if address:
            line = line.replace(f"<{address}>", f"<{masked(address)}>")
    return line


class Errand:
    """One call of ``transmit``. ``waiting`` is what no connection has taken yet."""

    def __init__(self, parcels: Sequence[tuple[Parcel, bytes]]) -> None:
        self.attempts = [Attempt(parcel, text, self) for parcel, text in parcels]
        self.waiting = deque(self.attempts)
        self.given_up = False  # nobody waits for it any more
        self._news: queue.SimpleQueue[tuple[Attempt, bool]] = queue.SimpleQueue()

    def tell_settled(self, attempt: Attempt) -> None:
        """News from the loop: an attempt has ended."""
        self._news.put((attempt, True))

    def tell_asking(self, attempt: Attempt) -> None:
        """News from the loop: a server waits for a text."""
        if self.given_up:
            attempt.permit(False, LEASE_LOST)
        else:
            self._news.put((attempt, False))

    def fail(self, problem: str) -> None:
        """Settle what is left. For the calling thread, when there is no loop any more."""
        for attempt in self.attempts:
            if not attempt.settled:
                attempt.give(problem=problem)
                attempt.settle()

    def hear(self, seconds: float, gather_seconds: float) -> tuple[list[Attempt], list[Attempt]]:
        """Wait for news, and take all that are there: who is settled, and who is asking.

        After so many seconds without any, there are none. Once there are, more is waited for as long as
        ``gather_seconds``, so that many share what it costs to tell and ask the ledger.
        """
        settled: list[Attempt] = []
        asking: list[Attempt] = []
        with contextlib.suppress(queue.Empty):
            attempt, ended = self._news.get(timeout=seconds)
            if gather_seconds:
                time.sleep(gather_seconds)
            while True:
                (settled if ended else asking).append(attempt)
                attempt, ended = self._news.get_nowait()
        # Whoever is settled by now does not ask any more: its connection was lost meanwhile.
        return settled, [attempt for attempt in asking if not attempt.settled]
