"""The connections of one process to one server: opened as they are needed, kept for a while, never shared.

Everything here runs on the event loop's thread, but for what `Pool` says is for other threads. What waits
is served in turn, one parcel of each errand after the other, so that a single mail need not wait for the
whole batch of somebody else. There are never more connections than parcels wanted at one time, and until
the first one has opened, there is only that one: it finds out for all whether the server can be used.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future

from mailer.retry import LEASE_LOST
from mailer.transports import Stage
from mailer.transports.attempt import Attempt, Errand
from mailer.transports.conversation import Conversation
from mailer.transports.loop import LoopThread
from mailer.transports.opening import Fault, Opening
from mailer.transports.url import SmtpConfig
from mailer.transports.wire import FOREVER, Broken, Wire

_log = logging.getLogger(__name__)

SLOW_SECONDS = 2
"""Until a server has greeted one connection no second is opened, unless the first takes so long."""
FEWER_SECONDS = 60
"""How long no more connections are opened than a server let us have, when it refused one more."""


class Pool:
    """What waits for one server, and the connections to it."""

    def __init__(self, config: SmtpConfig, context: ssl.SSLContext | None, thread: LoopThread) -> None:
        self.config, self.context, self.thread = config, context, thread
        self.session: ssl.SSLSession | None = None  # of the last TLS connection, to be resumed by the next
        self.heard_at = 0.0  # when the server last answered for a parcel
        self._errands: deque[Errand] = deque()  # those of which something waits
        self._waiting = 0
        self._lost: deque[Attempt] = deque()  # those that a kept connection lost: for new ones only
        self._channels: set[Channel] = set()
        self._idle: list[Channel] = []
        self._most = config.connections
        self._fewer_until = 0.0
        self._proven = False  # the server can be used, for all we know

    # For other threads

    def hand_in(self, errand: Errand) -> None:
        """Carry an errand. Its news come from now on."""
        self.thread.call(self._add, errand)

    def permit(self, asking: Sequence[Attempt], leaving: Collection[str], why_not: str = LEASE_LOST) -> None:
        """Answer those who asked whether their text may go out."""
        if asking:
            self.thread.call(self._permit, asking, leaving, why_not)

    def give_up(self, errand: Errand) -> None:
        """Nobody waits for the errand any more: send nothing of it."""
        self.thread.call(self._give_up, errand)

    def close(self) -> None:
        """Leave every connection; those at work leave when they have nothing more to do."""
        left: Future[None] = asyncio.run_coroutine_threadsafe(self._leave(), self.thread.loop)
        left.result(self.config.timeouts.quit + 5)

    # What waits

    def _add(self, errand: Errand) -> None:
        self._errands.append(errand)
        self._waiting += len(errand.waiting)
        while self._idle and self._waiting:
            self._idle.pop().give(self._next())
        self.grow()

    def _permit(self, asking: Sequence[Attempt], leaving: Collection[str], why_not: str) -> None:
        for attempt in asking:
            attempt.permit(attempt.parcel.id in leaving, why_not)

    def _give_up(self, errand: Errand) -> None:
        errand.given_up = True
        self._waiting -= len(errand.waiting)
        errand.waiting.clear()
        self._errands = deque(e for e in self._errands if e is not errand)
        self._lost = deque(attempt for attempt in self._lost if attempt.errand is not errand)
        self._permit([attempt for attempt in errand.attempts if not attempt.settled], (), LEASE_LOST)

    def take(self) -> Attempt | None:
        """The next parcel, if there is one."""
        return self._next() if self._waiting else None

    def _next(self) -> Attempt:
        errand = self._errands.popleft()
        attempt = errand.waiting.popleft()
        self._waiting -= 1
        if errand.waiting:
            self._errands.append(errand)
        return attempt

    def put_back(self, attempt: Attempt) -> None:
        """A kept connection turned out closed: that costs no attempt (SC21), once, on a new connection."""
        attempt.start_again()
        if not attempt.errand.given_up:
            self._lost.append(attempt)

    def refuse_all(self, fault: Fault) -> None:
        """Hand back all that waits: it would only wait for the same again."""
        waiting = [*self._lost, *(attempt for errand in self._errands for attempt in errand.waiting)]
        for errand in self._errands:
            errand.waiting.clear()
        self._errands.clear()
        self._lost.clear()
        self._waiting = 0
        for attempt in waiting:
            attempt.stage, attempt.opening = fault.stage, fault.transcript
            attempt.give(fault.reply, fault.problem)
            attempt.settle()

    # The connections

    def grow(self) -> None:
        """Open as many connections as there are parcels that none is free for, within bounds."""
        if self._most < self.config.connections and self.thread.loop.time() >= self._fewer_until:
            self._most = self.config.connections
        if not self._channels:
            self._proven = False
        most = self._most if self._proven else 1 + self._overdue()
        wanted = len(self._lost) + max(0, self._waiting - len(self._idle))
        opening = sum(channel.opening for channel in self._channels)
        for _ in range(min(wanted - opening, most - len(self._channels))):
            self._channels.add(Channel(self))
            self.thread.loop.call_later(SLOW_SECONDS, self.grow)
        leaving = sum(channel.leaving for channel in self._channels)
        if self._idle and len(self._lost) > leaving + sum(channel.opening for channel in self._channels):
            self._idle.pop(0).dismiss()  # makes room for a new one, which may be used for these

    def _overdue(self) -> int:
        """How many connections take so long to open that another one may have more luck."""
        before = self.thread.loop.time() - SLOW_SECONDS
        return sum(channel.opening and channel.began <= before for channel in self._channels)

    def first(self) -> Attempt | None:
        """What a connection carries first, if there is anything. It can be used, so more may be opened."""
        attempt = self._lost.popleft() if self._lost else self.take()
        self._proven = True
        self.grow()
        return attempt

    def refused(self, fault: Fault) -> None:
        """A connection could not be opened. If others are, that only limits how many."""
        if in_use := sum(not (channel.opening or channel.leaving) for channel in self._channels):
            self._most = in_use
            self._fewer_until = self.thread.loop.time() + FEWER_SECONDS
            return
        was_proven, self._proven = self._proven, False
        if not was_proven or not any(channel.opening for channel in self._channels):
            self.refuse_all(fault)

    def fell_silent(self, since: float) -> None:
        """A connection waited in vain. If the server answered nobody else, the rest need not try."""
        if self.heard_at <= since:
            self.refuse_all(Fault(Stage.CONNECT, problem="not tried: the server had stopped answering"))

    def rest(self, channel: Channel) -> None:
        """A connection has nothing to carry."""
        self._idle.append(channel)

    def rouse(self, channel: Channel) -> None:
        """A connection does not rest any more."""
        if channel in self._idle:
            self._idle.remove(channel)

    def gone(self, channel: Channel) -> None:
        """A connection is closed."""
        self.rouse(channel)
        self._channels.discard(channel)
        self.grow()

    async def _leave(self) -> None:
        for channel in self._channels:
            channel.dismiss()
        resting = [channel.task for channel in self._idle]
        self._idle.clear()
        if resting:
            await asyncio.wait(resting, timeout=self.config.timeouts.quit + 1)


class Channel:
    """One connection from its opening to QUIT. ``opening`` and ``leaving`` say where it stands."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.opening, self.leaving = True, False
        self.began, self._opened_at = pool.thread.loop.time(), 0.0
        self._said_at_opening: tuple[str, ...] = ()
        self._given: Attempt | None = None
        self._wire: Wire | None = None
        self._conversation: Conversation | None = None
        self.task = pool.thread.loop.create_task(self._run())

    def give(self, attempt: Attempt) -> None:
        """Carry this, now that there is nothing else to do."""
        self._given = attempt
        self._wake()

    def dismiss(self) -> None:
        """Leave as soon as there is nothing to do."""
        self.leaving = True
        self._wake()

    def _wake(self) -> None:
        if self._wire is not None:
            self._wire.wake()

    def following(self) -> Attempt | None:
        """What may be carried behind the text that is about to go out."""
        return None if self._is_worn(1) else self._received(self._pool.take())

    async def _run(self) -> None:
        try:
            await self._serve()
        except Fault as fault:
            self.opening, self.leaving = False, True
            self._pool.refused(fault)
        except Broken as exc:
            self._lose(exc)
        except Exception as exc:  # a bug: what is known is in the attempt, and the rest is said to be unknown
            _log.error("smtp.internal_error %s", type(exc).__name__)
            self._blunder(f"internal error: {type(exc).__name__}")
        finally:
            self.opening = False
            if self._wire is not None:
                self._wire.close()
            self._pool.gone(self)

    async def _serve(self) -> None:
        opening = Opening(self._pool.config, self._pool.context)
        self._wire = wire = await opening.open(self._pool.session)
        if wire.tls is not None:
            self._pool.session = wire.tls.session or self._pool.session
        self._said_at_opening = opening.transcript.lines()
        self._opened_at = self._pool.thread.loop.time()
        self._conversation = conversation = Conversation(
            wire, opening.features, self._pool.config.timeouts, self
        )
        self.opening = False
        while not conversation.over and (attempt := await self._next(wire, conversation)) is not None:
            await conversation.carry(attempt)
        if not conversation.over:
            self.leaving = True
            await conversation.leave()

    async def _next(self, wire: Wire, conversation: Conversation) -> Attempt | None:
        """What to carry next; None when it is time to leave."""
        if self._is_worn(0):
            return None
        if conversation.kept:
            self._pool.heard_at = self._pool.thread.loop.time()
            self._given = self._pool.take()
        else:
            self._given = self._pool.first()
        if self._given is None:
            conversation.kept = True
            wire.limit(FOREVER)
            self._pool.rest(self)
            await wire.wait(lambda: self._given or self.leaving, self._pool.config.idle)
            self._pool.rouse(self)
        given, self._given = self._given, None
        return self._received(given)

    def _received(self, attempt: Attempt | None) -> Attempt | None:
        if attempt is not None:
            attempt.opening = self._said_at_opening
        return attempt

    def _is_worn(self, more: int) -> bool:
        """Whether it has carried enough, when it has carried so many ``more`` than by now."""
        config, conversation = self._pool.config, self._conversation
        carried = 0 if conversation is None else conversation.carried + more
        age = self._pool.thread.loop.time() - self._opened_at
        return carried >= config.max_messages or age > config.max_age

    def _lose(self, exc: Broken) -> None:
        """The connection broke: what was not answered is lost with it, what was not begun is not."""
        since = self._opened_at
        for attempt in self._in_hand():
            since = attempt.began or since
            if self._may_have_another(attempt, exc):
                self._pool.put_back(attempt)
            else:
                attempt.give(exc.reply, exc.problem if exc.reply is None else "")
                attempt.settle()
        if exc.timed_out and not self.leaving:
            self._pool.fell_silent(since)

    def _may_have_another(self, attempt: Attempt, exc: Broken) -> bool:
        """Whether the connection was at fault: an older one may have been closed long ago (SC21)."""
        conversation = self._conversation
        if conversation is None or attempt.is_answered or attempt.stage not in (Stage.CONNECT, Stage.MAIL):
            return False
        return attempt is conversation.following or (conversation.kept and not exc.timed_out)

    def _blunder(self, problem: str) -> None:
        for attempt in self._in_hand():
            attempt.give(problem=problem)
            attempt.settle()
        if self.opening:
            self.opening, self.leaving = False, True
            self._pool.refused(Fault(Stage.CONNECT, problem=problem))

    def _in_hand(self) -> list[Attempt]:
        conversation = self._conversation
        held = [self._given]
        if conversation is not None:
            held += [conversation.current, conversation.following]
        return [attempt for attempt in held if attempt is not None and not attempt.settled]
