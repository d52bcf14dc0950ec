"""Choosing who carries a parcel, and who next: several named transports behind the contract of one.

A batch is shared out among the transports that take its parcels and work at the moment; each gets its share
at the same time as the others. What one of them could not even begin with, since no conversation came about,
goes to the next at once, within the same attempt: no text has left. What may have left never does.

Whether a transport works and how much it may take is asked of others, who share it with all workers: see
`mailer.transports.gates`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from mailer.replies import rule_for
from mailer.retry import LEASE_LOST, RESTING
from mailer.telemetry import log
from mailer.transports import Ledger, Parcel, Receipt, Result, Stage
from mailer.transports.desk import Desk
from mailer.transports.gates import (
    PROBE_SECONDS,
    AlwaysOpen,
    Gates,
    Limits,
    NoLimits,
    NoTally,
    Standing,
    Tally,
)
from mailer.transports.ways import Way, order

SPREAD_SECONDS = 900
"""What waits for a resting transport is due again over so long after its rest; the first of it at once.

When the transport is back, all of it is made due. Until then it should not be looked at again and again.
"""

_EARLY = frozenset({Stage.CONNECT, Stage.GREETING, Stage.TLS, Stage.AUTH})


class Route:
    """A `Transport` made of several, or of one that may have to rest. Safe to use from several threads."""

    name = "route"

    def __init__(
        self,
        ways: Sequence[Way],
        gates: Gates | None = None,
        limits: Limits | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.ways = tuple(ways)
        self.tally: Tally = tally or NoTally()
        self.gates: Gates = gates or AlwaysOpen()
        self.limits: Limits = limits or NoLimits()

    def transmit(self, batch: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        """Carry the parcels; see `mailer.transports`. Each receipt names the transport that carried it."""
        return _Trip(self, batch, ledger).run()

    def close(self) -> None:
        """Close every transport."""
        for way in self.ways:
            way.transport.close()


@dataclass(slots=True)
class _Plan:
    """Who carries what in one turn. ``held``: it depends on what comes of a probe."""

    shares: dict[str, list[Parcel]] = field(default_factory=lambda: defaultdict(list))
    held: list[Parcel] = field(default_factory=list)
    probing: set[str] = field(default_factory=set)
    standing: dict[str, Standing] = field(default_factory=dict)


class _Trip:
    """One batch on its way."""

    def __init__(self, route: Route, batch: Sequence[Parcel], ledger: Ledger) -> None:
        self._route, self._batch, self._ledger = route, batch, ledger
        self._gates, self._limits = route.gates, route.limits
        self._ways = {way.name: way for way in route.ways}
        self._receipts: dict[str, Receipt] = {}
        self._tried: dict[str, set[str]] = defaultdict(set)
        self._moving: dict[str, Receipt] = {}  # failed at one transport, for the next

    def run(self) -> list[Receipt]:
        left = list(self._batch)
        while left:
            plan = self._planned(left)
            left = [*plan.held, *self._follow(plan)]
        return [self._receipts[parcel.id] for parcel in self._batch]

    # Who carries what

    def _planned(self, left: Sequence[Parcel]) -> _Plan:
        plan = _Plan()
        nobody: list[Parcel] = []
        for parcel in left:
            if (way := self._choose(parcel, plan)) is not None:
                plan.shares[way.name].append(parcel)
            elif any(name in plan.probing for name in self._untried(parcel)):
                plan.held.append(parcel)
            else:
                nobody.append(parcel)
        if nobody:
            self._settle([(parcel, self._turned_away(parcel, plan, n)) for n, parcel in enumerate(nobody)])
        return plan

    def _untried(self, parcel: Parcel) -> dict[str, Way]:
        tried = self._tried.get(parcel.id, ())
        return {way.name: way for way in order(self._route.ways, parcel) if way.name not in tried}

    def _choose(self, parcel: Parcel, plan: _Plan) -> Way | None:
        for name, way in self._untried(parcel).items():
            if name not in plan.standing:
                plan.standing[name] = self._gates.standing(way)
            standing = plan.standing[name]
            if standing.open:
                return way
            if standing.due and name not in plan.probing:
                if self._gates.probe(way):
                    plan.probing.add(name)
                    return way
                # Somebody else is at it.
                plan.standing[name] = replace(standing, due=False, seconds=PROBE_SECONDS)
        return None

    def _turned_away(self, parcel: Parcel, plan: _Plan, place: int) -> Receipt:
        """What it met where it was tried; or else how long to wait, the first of a batch no longer than is
        needed.
        """
        if parcel.id in self._moving:
            return self._moving.pop(parcel.id)
        way, standing = min(
            ((way, plan.standing[name]) for name, way in self._untried(parcel).items()),
            key=lambda found: found[1].seconds,
        )
        wait = standing.seconds + (random.uniform(0, SPREAD_SECONDS) if place else 0.0)
        result = Result(Stage.CONNECT, problem=f"{RESTING}: {standing.why}", wait_seconds=wait)
        return Receipt(way.name, dict.fromkeys(parcel.recipients, result))

    # On the way

    def _follow(self, plan: _Plan) -> list[Parcel]:
        """Carry all shares at once; answer what is to be tried elsewhere."""
        back: list[Parcel] = []
        shares = [
            partial(self._carry, self._ways[name], parcels, name in plan.probing, back)
            for name, parcels in plan.shares.items()
        ]
        if shares:
            Desk(self._ledger).run(shares)
        return back

    def _carry(
        self, way: Way, parcels: Sequence[Parcel], is_probe: bool, back: list[Parcel], ledger: Ledger
    ) -> None:
        """Carry one transport's share, as much at once as its limits allow."""
        queue: Sequence[Parcel] = parcels
        while queue:
            with self._limits.hold(way, queue) as hold:
                receipts = self._transmit(way, hold.going, ledger) if hold.going else []
            if hold.put_off:
                waiting = [(p, Receipt(way.name, dict.fromkeys(p.recipients, r))) for p, r in hold.put_off]
                self._settle(waiting, ledger)
            works = self._judge(way, receipts, is_probe)
            moving = [parcel for parcel in hold.going if parcel.id not in self._receipts]
            if moving:
                log.warning("transport.failed_over", transport=way.name, messages=len(moving))
            back += moving
            queue = hold.later
            if not works:
                back += queue
                return

    def _transmit(self, way: Way, parcels: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        passing = _Passing(self, way, ledger)
        try:
            receipts = way.transport.transmit(parcels, passing)
        except Exception as exc:  # against its contract
            log.error("transport.broke_contract", transport=way.name, error=type(exc).__name__)
            receipts = [passing.after_a_bug(parcel, type(exc).__name__) for parcel in parcels]
        for parcel, receipt in zip(parcels, receipts, strict=True):
            self.settle_or_move(way, parcel, receipt)
        return receipts

    def settle_or_move(self, way: Way, parcel: Parcel, receipt: Receipt) -> Receipt | None:
        """Keep the receipt and answer it, or None if the parcel goes to the next transport."""
        if parcel.id in self._receipts:
            return self._receipts[parcel.id]
        named = replace(receipt, transport=way.name)
        self._tried[parcel.id].add(way.name)
        if all(map(is_fault, receipt.results.values())) and self._has_another(parcel):
            self._moving[parcel.id] = named
            return None
        self._receipts[parcel.id] = named
        return named

    def _has_another(self, parcel: Parcel) -> bool:
        standings = map(self._gates.standing, self._untried(parcel).values())
        return any(standing.open or standing.due for standing in standings)

    def _settle(self, settled: Sequence[tuple[Parcel, Receipt]], ledger: Ledger | None = None) -> None:
        for parcel, receipt in settled:
            self._receipts[parcel.id] = receipt
        (ledger or self._ledger).update(settled, ())

    def _judge(self, way: Way, receipts: Sequence[Receipt], is_probe: bool) -> bool:
        """Say how the transport did; answer whether to go on with it."""
        if not receipts:
            if is_probe:
                self._gates.untold(way)
            return True
        results = [result for receipt in receipts for result in receipt.results.values()]
        self._route.tally.count(way.name, results)
        for receipt in receipts:
            self._limits.learn(way, receipt.results)
        faults = [result for result in results if is_fault(result)]
        if any(map(has_passed, results)):
            self._gates.passed(way)
        elif faults:
            self._gates.failed(way, faults[0])
            return False
        elif is_probe:
            self._gates.untold(way)
        return True


class _Passing:
    """The ledger as one transport of several sees it: it keeps back what the next one will try."""

    def __init__(self, trip: _Trip, way: Way, ledger: Ledger) -> None:
        self._trip, self._way, self._ledger = trip, way, ledger
        self._leaving: set[str] = set()

    def update(self, settled: Sequence[tuple[Parcel, Receipt]], asking: Sequence[Parcel]) -> Collection[str]:
        """Hand on what is settled for good, under the transport's name, and who asks."""
        told = []
        for parcel, receipt in settled:
            named = self._trip.settle_or_move(self._way, parcel, receipt)
            if named is not None:
                told.append((parcel, named))
        if not told and not asking:
            return frozenset()
        leaving = self._ledger.update(told, asking)
        self._leaving.update(leaving)
        return leaving

    def after_a_bug(self, parcel: Parcel, error: str) -> Receipt:
        """What is known of a parcel whose transport raised: whether its text may have left."""
        sent = parcel.id in self._leaving
        stage = Stage.TEXT if sent else Stage.DATA
        result = Result(stage, text_sent=sent, problem=f"the transport raised {error}")
        return Receipt(self._way.name, dict.fromkeys(parcel.recipients, result))


def is_fault(result: Result) -> bool:
    """No conversation came about, so nobody is to blame but the transport (SC7, RFC 4954 section 6)."""
    if result.text_sent or result.wait_seconds is not None or result.problem == LEASE_LOST:
        return False
    if result.stage in _EARLY:
        return True
    return result.reply is not None and result.reply.code >= 400 and rule_for(result).rests


def has_passed(result: Result) -> bool:
    """The server let us in: it answered to a mail."""
    return result.reply is not None and result.stage not in _EARLY and not is_fault(result)
