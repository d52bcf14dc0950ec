"""One attempt, from a wake-up to a recorded outcome: claim, compose, transmit, judge, record, announce.

A batch is claimed, composed and transmitted together. Each message of it is judged as soon as its answer is
there, and recorded and announced with whatever else was answered by then: see `mailer.ledger`. No
transaction is open while SMTP is spoken.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from mailer import outcomes, suppressions
from mailer.composing import compose
from mailer.errors import ConfigError, MailerError, StoreError
from mailer.job import Job, Lease
from mailer.leases import keep
from mailer.ledger import StoreLedger
from mailer.message import message_from
from mailer.services import Services
from mailer.store import deliveries as rows
from mailer.store import messages as message_rows
from mailer.store.deliveries import Claimed
from mailer.store.messages import Rendered
from mailer.telemetry import log
from mailer.transports import Parcel, Receipt, Result, Stage, Transport

MOST_OCTETS = 32 * 2**20
"""What a batch may hold in memory at once; the rest of it waits its turn."""


def deliver(services: Services, message: str) -> int:
    """Make one attempt at a message; answer how many deliveries that was, 0 if there was nothing to do."""
    lease = _new_lease(services)
    with services.store.begin() as connection:
        claimed = rows.claim(connection, message, lease.token, services.now(), lease.duration)
    return _attempt(services, lease, claimed)


def deliver_due(services: Services, lane: str, limit: int, *, suspects: bool = True) -> int:
    """Attempt what has been due the longest in a lane; answer how many deliveries that was.

    If a delivery is due that lost a worker before, then only that one: it may be what killed it, and
    must not take neighbours along. Without ``suspects`` these are left to others.
    """
    lease = _new_lease(services)
    with services.store.begin() as connection:
        now, claimed = services.now(), list[Claimed]()
        if suspects:
            claimed = rows.claim_suspect(connection, lane, lease.token, now, lease.duration)
        if not claimed:
            claimed = rows.claim_due(connection, lane, limit, lease.token, now, lease.duration)
    return _attempt(services, lease, claimed)


def _new_lease(services: Services) -> Lease:
    return Lease(secrets.token_hex(16), timedelta(seconds=services.settings.lease_seconds))


def _attempt(services: Services, lease: Lease, claimed: Sequence[Claimed]) -> int:
    if not claimed:
        return 0
    with keep(services, lease):
        for jobs in _loads(services, jobs_of(claimed)):
            ledger = StoreLedger(services, lease, jobs)
            prepare(services, lease, jobs, ledger)
            transmit(services, jobs, ledger)
            ledger.close()
    return len(claimed)


def jobs_of(claimed: Sequence[Claimed]) -> list[Job]:
    """The messages of these deliveries."""
    jobs: dict[str, Job] = {}
    for delivery in claimed:
        jobs.setdefault(delivery.message, Job(delivery.message, [])).claimed.append(delivery)
    return list(jobs.values())


def _loads(services: Services, jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """The jobs in turns that each fit into memory."""
    sizes = dict[str, int]()
    with contextlib.suppress(StoreError), services.store.read() as connection:
        sizes = message_rows.sizes(connection, [job.message for job in jobs])
    load, octets = list[Job](), 0
    for job in jobs:
        size = sizes.get(job.message, 0)
        if load and octets + size > MOST_OCTETS:
            yield load
            load, octets = [], 0
        load.append(job)
        octets += size
    yield load


def prepare(services: Services, lease: Lease, jobs: Sequence[Job], ledger: StoreLedger) -> None:
    """Give every message its bytes: those frozen at the first attempt, or fresh ones, frozen now.

    What cannot be composed gets none, and the ledger knows why.
    """
    fresh: dict[str, Rendered] = {}
    try:
        with services.store.read() as connection:
            found = message_rows.load_sealed(connection, [job.message for job in jobs])
            _leave_out_suppressed(services, connection, jobs, found, ledger)
        for job in (job for job in jobs if not job.settled):
            composed = _composed(services, job, found[job.message], ledger)
            if composed is not None:
                fresh[job.message] = composed
        if fresh:
            _freeze(services, lease, jobs, fresh)
    except StoreError as exc:
        for job in jobs:
            _put_off(services, job, exc, ledger)
    ledger.update((), ())


def _leave_out_suppressed(
    services: Services,
    connection: Any,
    jobs: Sequence[Job],
    found: Mapping[str, Mapping[str, Any]],
    ledger: StoreLedger,
) -> None:
    """End the deliveries of those who came onto the suppression list since the mail was accepted.

    Everything that was on it before the claim is seen. What comes later, while the batch is on its way, may
    be too late for that batch.
    """
    try:
        bars = suppressions.at_attempt(services, connection, jobs, found)
    except ConfigError as exc:
        for job in jobs:
            _put_off(services, job, exc, ledger)
        return
    for job in jobs:
        barred = {
            c: bar for c in job.claimed if (bar := bars.get((found[job.message]["project"], c.recipient)))
        }
        if barred:
            ledger.note(outcomes.suppressed(claimed, bar) for claimed, bar in barred.items())
            job.claimed = [claimed for claimed in job.claimed if claimed not in barred]
            job.settled = not job.claimed


def _composed(services: Services, job: Job, row: Mapping[str, Any], ledger: StoreLedger) -> Rendered | None:
    """Fill in the job; answer its mail if it is new, None if it was composed before or cannot be."""
    try:
        message = message_from(*message_rows.content_of(row, services.store.sealer))
        job.sender, job.lane = message.sender.addr_spec, row["lane"]
        job.accepted_at, job.carrier = row["created_at"], row["carrier"]
        job.data = message_rows.rendered_of(row, services.store.sealer) or b""
        return None if job.data else compose(services, message, row)
    except ConfigError as exc:
        _put_off(services, job, exc, ledger)
    except Exception as exc:  # one bad message must not take its neighbours along
        job.settled = True
        ledger.note(outcomes.not_rendered(job, exc))
    return None


def _put_off(services: Services, job: Job, exc: MailerError, ledger: StoreLedger) -> None:
    if not job.settled:
        job.settled, job.data = True, b""
        ledger.note(outcomes.put_off(services, job, exc))


def _freeze(services: Services, lease: Lease, jobs: Sequence[Job], fresh: Mapping[str, Rendered]) -> None:
    sealer = services.store.sealer
    with services.store.begin() as connection:
        frozen = message_rows.freeze(connection, fresh, lease.token, sealer)
        for job in jobs:
            if job.message in frozen:
                job.data = fresh[job.message].mime
            elif job.message in fresh:  # another worker was first, or the lease is lost
                job.data = message_rows.open_rendered(connection, job.message, sealer) or b""


def transmit(services: Services, jobs: Sequence[Job], ledger: StoreLedger) -> None:
    """Hand the batch to the transport, which tells the ledger what becomes of each message.

    What no provider may have goes to the carrier that it names, and to nobody else.
    """
    for carrier in sorted({job.carrier for job in jobs}, key=str):
        transport = services.transport if carrier is None else services.captives[carrier]
        _transmit(services, transport, [job for job in jobs if job.carrier == carrier], ledger)


def _transmit(services: Services, transport: Transport, jobs: Sequence[Job], ledger: StoreLedger) -> None:
    parcels = [
        Parcel(job.message, job.sender, tuple(c.recipient for c in job.claimed), job.data, job.lane)
        for job in jobs
        if job.data
    ]
    error = "nothing"
    try:
        if parcels:
            receipts = transport.transmit(parcels, ledger)
            ledger.update(list(zip(parcels, receipts, strict=True)), ())  # most of it is known already
    except Exception as exc:  # against its contract; what is not known must not be lost
        error = type(exc).__name__
        log.error("transport.broke_contract", error=error)
    for job in jobs:
        if job.data and not job.settled:
            ledger.settle(job, _after_a_bug(transport, job, error))


def _after_a_bug(transport: Transport, job: Job, error: str) -> Receipt:
    stage = Stage.TEXT if job.marked else Stage.CONNECT
    result = Result(stage, text_sent=job.marked, problem=f"the transport raised {error}")
    return Receipt(transport.name, {c.recipient: result for c in job.claimed})
