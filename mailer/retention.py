"""How long things are kept, how a person is forgotten, and how an old key becomes dispensable.

Everything goes in small steps, a transaction each, beside mail that is being sent: a step that fails is
simply taken again. The statements are the matter of `mailer.store`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from mailer.address import Address
from mailer.errors import ConfigError
from mailer.services import Services
from mailer.store import batches, forgetting, resealing
from mailer.store import messages as message_rows
from mailer.store import retention as rows
from mailer.store import second_factors as factors
from mailer.store.resealing import Resealed
from mailer.telemetry import log

EVERY = timedelta(minutes=1)
"""Between two times of tidying, since nobody notices a minute of a week, and each worker asks the store."""
BURST = 20
"""Steps in a row while there is a backlog. Then mail has the store for itself for the rest of the minute."""
_BATCH = 100
_LOOK = 5_000
"""Messages that one transaction reads from end to end."""
_BATCH_OCTETS = 8_000_000
"""Of sealed values that wait for one transaction, whatever their number."""

Told = Callable[[int], None]
"""Is told how many there are so far."""


# What is kept for a while


@dataclass(frozen=True, slots=True)
class Tidied:
    """How many idempotency keys were released, bodies erased, and messages removed with all they had."""

    keys: int = 0
    bodies: int = 0
    messages: int = 0

    def __add__(self, other: Tidied) -> Tidied:
        return Tidied(self.keys + other.keys, self.bodies + other.bodies, self.messages + other.messages)

    @property
    def total(self) -> int:
        return self.keys + self.bodies + self.messages

    def was_full(self, limit: int) -> bool:
        """There may be more of something: as much was done as one step does."""
        return max(self.keys, self.bodies, self.messages) >= limit


def tidy(services: Services, limit: int = rows.LIMIT) -> Tidied:
    """One small step of everything: at most ``limit`` keys, messages and bodies, a transaction each (PD2)."""
    now, (keys, bodies, messages) = services.now(), _edges(services)
    with services.store.begin() as connection:
        released = message_rows.release_keys(connection, keys, limit)
        released += batches.drop_old(connection, keys, limit)
    with services.store.begin() as connection:
        purged = rows.purge(connection, messages, limit)
    with services.store.begin() as connection:
        erased = rows.erase_bodies(connection, bodies, now, limit)
    done = Tidied(released, erased, purged)
    if done.total:
        log.info("retention.tidied", **asdict(done))
    return done


def tidy_all(services: Services, *, told: Told = lambda _: None) -> Tidied:
    """Step after step until nothing is left to do."""
    done = Tidied()
    while True:
        step = tidy(services)
        done += step
        told(done.total)
        if not step.was_full(rows.LIMIT):
            return done


def overdue(services: Services) -> Tidied:
    """What `tidy` would do now if it took all steps at once."""
    with services.store.read() as connection:
        return Tidied(*rows.count(connection, *_edges(services)))


def _edges(services: Services) -> tuple[datetime, datetime, datetime]:
    """The instants before which keys were accepted, and bodies and messages ended, that need not be kept."""
    now, kept = services.now(), services.settings
    keys, bodies, messages = (
        now - timedelta(seconds=seconds)
        for seconds in (kept.keep_idempotency_keys, kept.keep_bodies, kept.keep_messages)
    )
    return keys, bodies, messages


class Tidying:
    """For a loop that runs every second: tidies once a minute, and step after step while there is a lot."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._began: datetime | None = None
        self._steps = 0

    def step(self) -> Tidied | None:
        """Take one step if it is time for one; None if it is not. Raises StoreError."""
        now, began = self._services.now(), self._began
        # A minute that begins in the future is of a clock that was set back since.
        within = began is not None and began <= now < began + EVERY
        if within and self._steps >= BURST:
            return None
        if not within:
            self._began, self._steps = now, 0
        self._steps += 1
        try:
            done = tidy(self._services)
        except BaseException:
            self._steps = BURST  # what failed is tried again in a minute
            raise
        if not done.was_full(rows.LIMIT):
            self._steps = BURST
        return done


# People


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was done to forget an address, and what is left.

    ``messages`` were changed, ``cancelled`` deliveries had not left, ``bodies`` and ``accounts`` are gone.
    Of the rest, ``leaving`` are being sent to the person this very moment and untouched, ``waiting`` are
    under way to others and keep their sealed content until they have ended: run it again for both.
    ``as_sender`` and ``as_operator`` count what stays: the application's own sender, people of the console.
    ``suppressed`` entries of suppression lists lost the address, and go on stopping mail to it.
    """

    pseudonym: str
    messages: int = 0
    cancelled: int = 0
    bodies: int = 0
    accounts: int = 0
    leaving: int = 0
    waiting: int = 0
    as_sender: int = 0
    as_operator: int = 0
    suppressed: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing asks for another run."""
        return not self.leaving and not self.waiting

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "complete": self.complete}


def forget(services: Services, address: str, *, by: str, told: Told = lambda _: None) -> Forgotten:
    """Take an address out of every table, in any case it was written (PD5). Raises InvalidAddress.

    Mail that has not left is cancelled. The same address gives the same pseudonym each time, so it can be
    run again, and has to be if the answer is not ``complete``.
    """
    from mailer.store import accounts  # here, as it brings the log-in of the service with it

    who = forgetting.Person(Address.parse(address, "address"), services.store.sealer)
    with services.store.begin() as connection:
        done = Forgotten(who.pseudonym, accounts=accounts.forget(connection, who.key))
        kept = services.store.suppressed.forget(connection, who)
    senders: list[int] = []
    for number, id_ in enumerate(_known_by(services, who, senders), 1):
        with services.store.begin() as connection:
            step = forgetting.forget(connection, id_, who, by, services.now())
        done = replace(
            done,
            messages=done.messages + step.changed,
            cancelled=done.cancelled + step.cancelled,
            bodies=done.bodies + step.erased,
            leaving=done.leaving + step.leaving,
            waiting=done.waiting + step.waiting,
        )
        told(number)
    with services.store.read() as connection:
        as_operator = forgetting.named(connection, who)
    log.info("retention.forgotten", messages=done.messages, leaving=done.leaving, waiting=done.waiting)
    return replace(done, as_sender=sum(senders), as_operator=as_operator, suppressed=kept)


def _known_by(services: Services, who: forgetting.Person, senders: list[int]) -> Iterator[str]:
    """The messages that know a person, each once: at once what was sent to it, then whatever names it.

    The second reads the whole log, in steps so that no transaction lasts. Notes how many it had sent in each.
    """
    with services.store.read() as connection:
        received = forgetting.received(connection, who)
    yield from received
    seen: set[str] = set(received)
    last: str | None = ""
    while last is not None:
        with services.store.read() as connection:
            step = forgetting.traces(connection, who, last, _LOOK)
        senders.append(step.as_sender)
        yield from (id_ for id_ in step.ids if id_ not in seen)
        last = step.last


# Keys


@dataclass(frozen=True, slots=True)
class Rotated:
    """How many messages and second factors moved to the first key, and how many are left behind.

    What is left was sealed with a key that is not configured any more, or was altered.
    """

    messages: int = 0
    second_factors: int = 0
    left: int = 0


def reseal(services: Services, *, told: Told = lambda _: None) -> Rotated:
    """Seal with the first key what is sealed with another, so that the others can be removed (PD1).

    What is erased meanwhile stays erased: only the very value that was read is replaced.
    """
    store = services.store
    with store.begin() as connection:
        moved, left = factors.reseal(connection, store.sealer)
        left += not store.suppressed.reseal(connection)
    done, after = Rotated(second_factors=moved, left=left), ""
    while True:
        with store.read() as connection:
            ids, last = resealing.stale(connection, store.sealer, after, _BATCH)
        if last is None:
            break
        after = last
        for batch, lost in _batches(services, ids):
            moved = _write(services, batch)
            done = replace(done, messages=done.messages + moved, left=done.left + lost)
            told(done.messages)
    log.info("retention.resealed", **asdict(done))
    return done


def _batches(services: Services, ids: Sequence[str]) -> Iterator[tuple[list[Resealed], int]]:
    """Sealed anew, as much as fits into memory at a time, and how many do not open."""
    batch: list[Resealed] = []
    lost = 0
    for id_ in ids:
        try:
            batch += _sealed_anew(services, id_)
        except ConfigError:
            lost += 1
        if sum(one.octets for one in batch) >= _BATCH_OCTETS:
            yield batch, lost
            batch, lost = [], 0
    if batch or lost:
        yield batch, lost


def _sealed_anew(services: Services, id_: str) -> list[Resealed]:
    with services.store.read() as connection:
        found = resealing.reseal(connection, services.store.sealer, id_)
    return [] if found is None else [found]


def _write(services: Services, batch: Sequence[Resealed]) -> int:
    """Write a batch back; what a worker changed since, or holds right now, one by one. Answers how many."""
    with services.store.begin() as connection:
        done = resealing.write_back(connection, batch)
    return len(done) + sum(_insist(services, one.message) for one in batch if one.message not in done)


def _insist(services: Services, id_: str) -> bool:
    # It ends: a message is frozen, closed and erased once each, and people do not retry it all day.
    while again := _sealed_anew(services, id_):
        with services.store.begin() as connection:
            if resealing.write_back(connection, again, wait=True):
                return True
    return False
