"""What an attempt means for each delivery: a state, the time of the next try, and what is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from mailer.address import masked as masked_address
from mailer.errors import ConfigError, MailerError
from mailer.job import Job
from mailer.origin import SIMULATOR
from mailer.replies import Fate
from mailer.retry import LEASE_LOST, OUTCOME_UNKNOWN, Verdict, judge
from mailer.services import Services
from mailer.states import State
from mailer.store.deliveries import Claimed, Finish
from mailer.store.suppressions import REASON, Bar
from mailer.telemetry import log
from mailer.transports import Receipt, Result
from mailer.transports.simulator import says

_STATE_OF = {
    Fate.SENT: State.SENT,
    Fate.FAILED: State.FAILED,
    Fate.DEFERRED: State.DEFERRED,
    Fate.UNCERTAIN: State.UNCERTAIN,
    Fate.TRANSPORT_FAULT: State.DEFERRED,
}


def judged(services: Services, job: Job, receipt: Receipt) -> Iterator[Finish]:
    """Turn what happened to each recipient into one state, and the time of the next try.

    Nothing for whoever lost the lease: another worker has it.
    """
    for claimed in job.claimed:
        result = receipt.results[claimed.recipient]
        if job.expired and result.problem == LEASE_LOST:
            yield _expired(job, claimed)
        elif result.problem != LEASE_LOST:
            yield _outcome(services, job, claimed, receipt, result)


def _expired(job: Job, claimed: Claimed) -> Finish:
    data = {"recipient": claimed.recipient, "expires_at": str(claimed.expires_at)}
    return Finish(claimed.id, job.message, State.EXPIRED, "deadline_passed", data=data, counts=False)


def _outcome(services: Services, job: Job, claimed: Claimed, receipt: Receipt, result: Result) -> Finish:
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
    simulated = verdict.fate is Fate.SENT and job.carrier == SIMULATOR
    then = says(claimed.recipient) if simulated else None
    return Finish(
        id=claimed.id,
        message=job.message,
        state=_STATE_OF[verdict.fate],
        reason=then.value if then else verdict.reason,
        code=result.reply.code if result.reply else None,
        reply=result.reply.text if result.reply else result.problem or None,
        not_before=not_before,
        counts=verdict.fate is not Fate.TRANSPORT_FAULT,
        unknown=verdict.reason == OUTCOME_UNKNOWN,
        told=result.wait_seconds is None or verdict.fate is Fate.FAILED,
        data=_told(receipt, claimed, result, verdict, not_before),
        then=then,
    )


def _waited_too_long(services: Services, job: Job) -> bool:
    """A fault of the transport costs no try, so only time ends what no transport takes (promise 2)."""
    limit = timedelta(seconds=services.settings.give_up_after)
    return job.accepted_at is not None and services.now() - job.accepted_at > limit


def _told(
    receipt: Receipt, claimed: Claimed, result: Result, verdict: Verdict, not_before: datetime | None
) -> dict[str, Any]:
    told = {
        "recipient": claimed.recipient,
        "attempt": claimed.attempt,
        "transport": receipt.transport,
        "seconds": round(receipt.seconds, 3),
        "stage": result.stage.value,
        "code": result.reply.code if result.reply else None,
        "reply": result.reply.text if result.reply else result.problem or None,
        "reason": verdict.reason,
        "blame": verdict.blame,
        "not_before": not_before.isoformat() if not_before else None,
        "transcript": list(receipt.transcript) if receipt.transcript and not result.accepted else None,
    }
    return {key: value for key, value in told.items() if value is not None}


def suppressed(claimed: Claimed, bar: Bar) -> Finish:
    """The recipient came onto the suppression list after the mail was accepted: no try."""
    told = bar.told(claimed.recipient)
    return Finish(claimed.id, claimed.message, State.SUPPRESSED, REASON, counts=False, data=told)


def put_off(services: Services, job: Job, exc: MailerError) -> list[Finish]:
    """This worker lacks something, such as a key or its database: no fault of the message, no try."""
    reason = "setting_wrong" if isinstance(exc, ConfigError) else "store_away"
    log.error("mail.put_off", message=job.message, reason=reason, why=str(exc))
    later = services.now() + timedelta(seconds=services.policy.backoff_seconds)
    put_off = Finish(0, job.message, State.DEFERRED, reason, reply=str(exc), not_before=later, counts=False)
    return [replace(put_off, id=c.id, data=_problem(c, reason, str(exc))) for c in job.claimed]


def not_rendered(job: Job, exc: Exception) -> list[Finish]:
    """It never will be: one bad message must not take its neighbours along."""
    # Only our own errors are free of personal data; of any other, name the kind.
    why = str(exc) if isinstance(exc, MailerError) else type(exc).__name__
    log.error("mail.not_rendered", message=job.message, error=type(exc).__name__, why=why)
    failed = Finish(0, job.message, State.FAILED, "not_rendered", reply=why)
    return [replace(failed, id=c.id, data=_problem(c, "not_rendered", why[:500])) for c in job.claimed]


def _problem(claimed: Claimed, reason: str, problem: str) -> dict[str, Any]:
    told = {"recipient": claimed.recipient, "attempt": claimed.attempt}
    return {**told, "reason": reason, "problem": problem}


def announce(recorded: Sequence[Finish]) -> None:
    """Say it in the log, once it is true."""
    for outcome in (each for each in recorded if each.told):
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
