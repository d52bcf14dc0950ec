"""A batch's ledger: what its transport asks and reports, in one transaction each time.

The store is asked once for everybody whose text is about to go out, and told at the same time what became of
those before. So a batch over many connections costs few transactions, and a process that dies leaves at most
one text per connection of which nothing is known.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence

from mailer import outcomes
from mailer.errors import StoreError
from mailer.job import Job, Lease
from mailer.services import Services
from mailer.store import deliveries as rows
from mailer.store.deliveries import Finish
from mailer.store.pipeline import rest_together
from mailer.telemetry import log
from mailer.transports import Parcel, Receipt

PATIENCE_SECONDS = 20
"""How long to try to record what was answered, with the database away: a 250 is worth it."""


class StoreLedger:
    """The `mailer.transports.Ledger` of the jobs under one lease."""

    def __init__(self, services: Services, lease: Lease, jobs: Sequence[Job]) -> None:
        self._services, self._lease = services, lease
        self._jobs = {job.message: job for job in jobs}
        self._unrecorded: list[Finish] = []

    def update(self, settled: Sequence[tuple[Parcel, Receipt]], asking: Sequence[Parcel]) -> Collection[str]:
        """Record what was answered, and mark whose text may go out: in time, and still ours (the fence)."""
        for parcel, receipt in settled:
            self.settle(self._jobs[parcel.id], receipt)
        leaving = [job for job in map(self._job_of, asking) if self._in_time(job)]
        try:
            return self._commit(leaving)
        except StoreError as exc:
            # What cannot be marked is not sent, and its lease will run out; what was answered waits.
            log.error("store.away", outcomes=len(self._unrecorded), error=str(exc))
            return frozenset()

    def settle(self, job: Job, receipt: Receipt) -> None:
        """Judge what became of a job; it is recorded with the next update."""
        if not job.settled:
            job.settled = True
            self.note(outcomes.judged(self._services, job, receipt))

    def note(self, ended: Iterable[Finish]) -> None:
        """Keep outcomes to be recorded with the next update."""
        self._unrecorded += ended

    def close(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Record what is left, trying for a while if the database is away."""
        give_up = time.monotonic() + patience_seconds
        while self._unrecorded:
            self.update((), ())
            if not self._unrecorded or time.monotonic() >= give_up:
                return
            time.sleep(0.5)

    def _job_of(self, parcel: Parcel) -> Job:
        return self._jobs[parcel.id]

    def _in_time(self, job: Job) -> bool:
        now = self._services.now()
        job.expired = any(c.expires_at is not None and c.expires_at <= now for c in job.claimed)
        return not job.expired

    def _commit(self, leaving: Sequence[Job]) -> Collection[str]:
        marking = {job.message: [c.id for c in job.claimed] for job in leaving}
        ended = self._unrecorded
        if not ended and not marking:
            return frozenset()
        ids = [outcome.id for outcome in ended] + [id_ for job in marking.values() for id_ in job]
        with self._services.store.begin() as connection:
            held = rows.hold(connection, ids, self._lease.token)
            now = self._services.now()
            rest_together(connection)
            recorded = rows.finish(connection, ended, held, now)
            marked = rows.mark(connection, marking, held, now)
        self._unrecorded = []
        for job in leaving:
            job.marked = job.message in marked
        outcomes.announce(recorded)
        return marked
