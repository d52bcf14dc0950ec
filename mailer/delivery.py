"""One attempt, from a wake-up to a recorded outcome: claim, render, transmit, judge, record, announce.

Six steps, six functions, in the order they run. A batch is claimed, rendered and transmitted together;
each message of it is judged, recorded and announced as soon as its answer is there, so that a process
that dies leaves at most one text per connection of which nothing is known. No transaction is open while
SMTP is spoken.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from mailer import mime, rendering
from mailer.address import masked as masked_address
from mailer.errors import ConfigError, MailerError, RenderError, StoreError
from mailer.leases import Lease, keep
from mailer.message import Message, contains_secret, message_from
from mailer.retry import LEASE_LOST, OUTCOME_UNKNOWN, Fate, Verdict, judge
from mailer.services import Services
from mailer.states import State
from mailer.store import deliveries as rows
from mailer.store import messages as message_rows
from mailer.store.deliveries import Claimed, Finish
from mailer.telemetry import log
from mailer.transports import Parcel, Receipt, Result, Stage

_STATE_OF = {
    Fate.SENT: State.SENT,
    Fate.FAILED: State.FAILED,
    Fate.DEFERRED: State.DEFERRED,
    Fate.UNCERTAIN: State.UNCERTAIN,
    Fate.TRANSPORT_FAULT: State.DEFERRED,
}


@dataclass(slots=True)
class Job:
    """One message of a batch on its way through the steps: the deliveries of it that are claimed."""

    message: str
    claimed: list[Claimed]
    accepted_at: datetime | None = None
    sender: str = ""
    data: bytes = b""
    expired: bool = False
    marked: bool = False
    settled: bool = False
    transport: str = ""
    seconds: float = 0.0
    results: Mapping[str, Result] = field(default_factory=dict)
    outcomes: list[Finish] = field(default_factory=list)


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
        jobs = render(services, lease, claimed)
        for job in jobs:
            if job.outcomes:  # it could not be rendered
                _settle(services, lease, job)
        transmit(services, lease, [job for job in jobs if job.data])
    return len(claimed)


def _settle(services: Services, lease: Lease, job: Job, receipt: Receipt | None = None) -> None:
    """The last three steps, for one message."""
    if receipt is not None:
        job.transport, job.seconds, job.results = receipt.transport, receipt.seconds, receipt.results
    judge_results(services, job)
    announce(record(services, lease, job))
    job.settled = True


def render(services: Services, lease: Lease, claimed: Sequence[Claimed]) -> list[Job]:
    """Give every message its bytes: those frozen at the first attempt, or fresh ones, frozen now."""
    jobs: dict[str, Job] = {}
    for delivery in claimed:
        jobs.setdefault(delivery.message, Job(delivery.message, [])).claimed.append(delivery)
    for job in jobs.values():
        try:
            _render_one(services, lease, job)
        except (ConfigError, StoreError) as exc:
            _put_off(services, job, exc)
        except Exception as exc:  # one bad message must not take its neighbours along
            _fail(job, exc)
    return list(jobs.values())


def _render_one(services: Services, lease: Lease, job: Job) -> None:
    with services.store.read() as connection:
        row = message_rows.load(connection, job.message)
        frozen = message_rows.open_rendered(connection, job.message, services.store.sealer)
        content, values = message_rows.open_content(connection, job.message, services.store.sealer)
    if row is None:  # cannot be: the delivery's foreign key holds it
        raise LookupError("the message row is gone")
    message = message_from(content, values)
    job.sender, job.accepted_at = message.sender.addr_spec, row["created_at"]
    if frozen is not None:
        job.data = frozen
        return
    subject, fresh = compose(services, message, dict(row))
    if len(fresh.mime) > services.settings.max_message_bytes:
        raise RenderError("the rendered mail exceeds MAILER_MAX_MESSAGE_BYTES; send a link instead")
    with services.store.begin() as connection:
        sealer = services.store.sealer
        if message_rows.freeze(connection, job.message, fresh, subject, lease.token, sealer):
            job.data = fresh.mime
        else:  # another worker, which has others of its recipients, was first; or the lease is lost
            job.data = message_rows.open_rendered(connection, job.message, sealer) or b""


def compose(
    services: Services, message: Message, row: Mapping[str, Any]
) -> tuple[str, message_rows.Rendered]:
    """Render a message and build its bytes, once as they go out and once as people may see them."""
    context = dict(message.context)
    provider = services.providers.get(message.template or "")
    if provider is not None:
        context |= _run_provider(provider.function, context)
    outgoing = _rendered(services, message, rendering.revealed(context), rendering.revealed)
    original = _build(message, row, outgoing)
    hidden = None
    if contains_secret((context, message.text, message.html)):
        shown = _rendered(services, message, rendering.masked(context), rendering.masked)
        hidden = _build(message, row, shown)
        return shown.subject, message_rows.Rendered(original, hidden)
    return outgoing.subject, message_rows.Rendered(original, hidden)


def _run_provider(provider: Any, context: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(provider(context))
    except MailerError:
        raise
    except Exception as exc:  # a host's code: its values must not reach the log through its message
        raise RenderError(f"the context provider raised {type(exc).__name__}") from exc


def _rendered(services: Services, message: Message, context: Any, plain: Any) -> rendering.Rendered:
    if message.template is not None:
        made = services.templates.render(message.template, context, message.locale)
        return made if message.subject is None else rendering.Rendered(message.subject, made.text, made.html)
    html, text = plain(message.html), plain(message.text)
    if text is None and html is not None:
        text = rendering.derive_text(html)
    return rendering.Rendered(message.subject or "", text, html)


def _build(message: Message, row: Mapping[str, Any], rendered: rendering.Rendered) -> bytes:
    return mime.build(
        message_id=row["message_id"],
        date=row["created_at"],
        sender=message.sender,
        to=message.to,
        cc=message.cc,
        reply_to=message.reply_to,
        subject=rendered.subject,
        text=rendered.text,
        html=rendered.html,
        headers=message.headers,
        attachments=message.attachments,
    )


def _put_off(services: Services, job: Job, exc: MailerError) -> None:
    """This worker lacks something, such as a key or its database: no fault of the message, no try."""
    reason = "setting_wrong" if isinstance(exc, ConfigError) else "store_away"
    log.error("mail.put_off", message=job.message, reason=reason, why=str(exc))
    later = services.now() + timedelta(seconds=services.policy.backoff_seconds)
    for c in job.claimed:
        data = {"recipient": c.recipient, "attempt": c.attempt, "reason": reason, "problem": str(exc)}
        put_off = Finish(
            c.id, job.message, State.DEFERRED, reason, reply=str(exc), not_before=later, data=data
        )
        job.outcomes.append(replace(put_off, counts=False))


def _fail(job: Job, exc: Exception) -> None:
    # Only our own errors are free of personal data; of any other, name the kind.
    why = str(exc) if isinstance(exc, MailerError) else type(exc).__name__
    log.error("mail.not_rendered", message=job.message, error=type(exc).__name__, why=why)
    for c in job.claimed:
        data = {
            "recipient": c.recipient,
            "attempt": c.attempt,
            "reason": "not_rendered",
            "problem": why[:500],
        }
        job.outcomes.append(Finish(c.id, job.message, State.FAILED, "not_rendered", reply=why, data=data))


def transmit(services: Services, lease: Lease, jobs: Sequence[Job]) -> None:
    """Hand the batch to the transport, and settle each message as its answer comes."""
    parcels = [
        Parcel(
            id=job.message,
            sender=job.sender,
            recipients=tuple(c.recipient for c in job.claimed),
            data=job.data,
            before_text=partial(_may_leave, services, lease, job),
            settled=partial(_settle, services, lease, job),
        )
        for job in jobs
    ]
    error = "nothing"
    try:
        if parcels:
            services.transport.transmit(parcels)
    except Exception as exc:  # against its contract; what is not known must not be lost
        error = type(exc).__name__
        log.error("transport.broke_contract", error=error)
    for job in jobs:
        if not job.settled:
            _settle(services, lease, job, _after_a_bug(services, job, error))


def _after_a_bug(services: Services, job: Job, error: str) -> Receipt:
    stage = Stage.TEXT if job.marked else Stage.CONNECT
    result = Result(stage, text_sent=job.marked, problem=f"the transport raised {error}")
    return Receipt(services.transport.name, {c.recipient: result for c in job.claimed})


def _may_leave(services: Services, lease: Lease, job: Job) -> bool:
    """The last moment before the text: still within the deadline, and still ours (the fence)."""
    now = services.now()
    if any(c.expires_at is not None and c.expires_at <= now for c in job.claimed):
        job.expired = True
        return False
    try:
        with services.store.begin() as connection:
            job.marked = rows.mark(connection, [c.id for c in job.claimed], lease.token, now)
    except StoreError:
        return False  # what cannot be marked is not sent; the lease will run out
    return job.marked


def judge_results(services: Services, job: Job) -> None:
    """Turn what happened to each recipient into one state, and the time of the next try."""
    for claimed in job.claimed if job.results else ():
        result = job.results[claimed.recipient]
        if job.expired and result.problem == LEASE_LOST:
            data = {"recipient": claimed.recipient, "expires_at": str(claimed.expires_at)}
            job.outcomes.append(
                Finish(claimed.id, job.message, State.EXPIRED, "deadline_passed", data=data, counts=False)
            )
        elif result.problem != LEASE_LOST:
            job.outcomes.append(_outcome(services, job, claimed, result))


def _outcome(services: Services, job: Job, claimed: Claimed, result: Result) -> Finish:
    verdict = judge(
        result,
        attempt=claimed.attempt,
        policy=services.policy,
        on_uncertain=claimed.on_uncertain,
        earlier_uncertain=claimed.unknowns,
    )
    if verdict.fate is Fate.TRANSPORT_FAULT and _waited_too_long(services, job):
        verdict = Verdict(Fate.FAILED, None, "transport_down", verdict.blame)
    not_before = None
    if verdict.delay_seconds is not None:
        not_before = services.now() + timedelta(seconds=verdict.delay_seconds)
    return Finish(
        id=claimed.id,
        message=job.message,
        state=_STATE_OF[verdict.fate],
        reason=verdict.reason,
        code=result.reply.code if result.reply else None,
        reply=result.reply.text if result.reply else result.problem or None,
        not_before=not_before,
        counts=verdict.fate is not Fate.TRANSPORT_FAULT,
        unknown=verdict.reason == OUTCOME_UNKNOWN,
        data=_told(job, claimed, result, verdict, not_before),
    )


def _waited_too_long(services: Services, job: Job) -> bool:
    """A fault of the transport costs no try, so only time ends what no transport takes (promise 2)."""
    limit = timedelta(seconds=services.settings.give_up_after)
    return job.accepted_at is not None and services.now() - job.accepted_at > limit


def _told(job: Job, claimed: Claimed, result: Result, verdict: Verdict, not_before: Any) -> dict[str, Any]:
    told = {
        "recipient": claimed.recipient,
        "attempt": claimed.attempt,
        "transport": job.transport,
        "seconds": round(job.seconds, 3),
        "stage": result.stage.value,
        "code": result.reply.code if result.reply else None,
        "reply": result.reply.text if result.reply else result.problem or None,
        "reason": verdict.reason,
        "blame": verdict.blame,
        "not_before": not_before.isoformat() if not_before else None,
    }
    return {key: value for key, value in told.items() if value is not None}


def record(services: Services, lease: Lease, job: Job, patience_seconds: float = 20) -> list[Finish]:
    """Commit the outcomes, trying for a while if the database is away: a 250 is worth it."""
    give_up = time.monotonic() + patience_seconds
    while job.outcomes:
        try:
            with services.store.begin() as connection:
                return rows.finish(connection, job.outcomes, lease.token, services.now())
        except StoreError as exc:
            log.error("store.away", outcomes=len(job.outcomes), error=str(exc))
            if time.monotonic() >= give_up:
                return []
            time.sleep(0.5)
    return []


def announce(recorded: Sequence[Finish]) -> None:
    """Say it in the log, once it is true."""
    for outcome in recorded:
        fields = {
            k: outcome.data[k] for k in ("attempt", "transport", "seconds", "stage") if k in outcome.data
        }
        log.info(
            f"mail.{outcome.state.value}",
            message=outcome.message,
            recipient=masked_address(str(outcome.data.get("recipient", ""))),
            reason=outcome.reason,
            code=outcome.code,
            **fields,
        )
