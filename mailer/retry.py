"""What becomes of a recipient after an attempt, and when to try again. Pure: no clock, no socket, no store.

``judge`` turns one recipient's `Result` into one word, by the tables of `mailer.replies`. DEFERRED counts as
a try and becomes FAILED when the tries are used up. TRANSPORT_FAULT costs no try: no message fails because
a password is wrong or a certificate has expired.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from dataclasses import dataclass

from mailer.replies import Blame, Fate, explain
from mailer.transports import Result

LEASE_LOST = "lease lost"
"""The ``problem`` of a `Result` whose parcel the ledger kept back: nothing was sent, drop the result."""

OUTCOME_UNKNOWN = "outcome_unknown"
"""The ``reason`` of a `Verdict` on a text that went out and was not answered: there may be a copy."""

RESTING, LIMITED = "waiting for a transport", "waiting for a limit"
"""Begin the ``problem`` of a `Result` with ``wait_seconds``: it was not tried, and costs no try."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do. ``reason`` is a short stable word; ``delay_seconds`` is None if nothing follows."""

    fate: Fate
    delay_seconds: float | None
    reason: str
    blame: Blame | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and when to give up.

    The wait after try *n* (counted from 1) is ``backoff_seconds * 2 ** (n - 1)``, at most
    ``backoff_max_seconds``; with ``jitter`` a random part of up to a half is taken off. The defaults
    wait 1, 2, 4, 8, 16, 32, 64 and 128 minutes, then 4 hours each time, and give up after 26 tries:
    72 hours without jitter, 54 on average with it. RFC 5321 section 4.5.4.1 wants the parameters
    configurable and 4 to 5 days from a relay; a submitting client may give up earlier.

    ``uncertain_delay_seconds`` is the least wait after an attempt whose outcome is unknown, and
    ``max_uncertain_tries`` how many of those one delivery may have: each may be a copy (RFC 1047).
    """

    max_retries: int = 25
    backoff_seconds: float = 60
    backoff_max_seconds: float = 14_400
    jitter: bool = True
    uncertain_delay_seconds: float = 60
    max_uncertain_tries: int = 3

    def delay(self, attempt: int, random: Callable[[], float] = _random.random) -> float:
        """Seconds to wait after try number ``attempt``, which counts from 1.

        ``random`` answers a number in [0, 1). Counts below 1 are taken as 1, absurdly large ones wait
        the longest time: neither can raise or overflow.
        """
        doublings = min(max(attempt, 1) - 1, 64)
        full = min(self.backoff_seconds * 2.0**doublings, self.backoff_max_seconds)
        return full * (1 - random() / 2) if self.jitter else full

    def used_up(self, attempt: int) -> bool:
        """Whether try number ``attempt``, counted from 1, was the last."""
        return attempt > self.max_retries


def judge(
    result: Result,
    *,
    attempt: int,
    policy: RetryPolicy,
    on_uncertain: str,
    earlier_uncertain: int = 0,
    random: Callable[[], float] = _random.random,
) -> Verdict:
    """Decide what becomes of one recipient after try number ``attempt``, which counts from 1.

    ``on_uncertain`` is ``retry`` or ``hold``: what the message wants if the text went out and no answer
    was read. ``earlier_uncertain`` is how many tries of this delivery ended like that before. A result
    with the problem `LEASE_LOST` must not come here: another worker has the message.
    """
    if result.wait_seconds is not None:
        reason = "waiting_for_limit" if result.problem.startswith(LIMITED) else "transport_down"
        return Verdict(Fate.TRANSPORT_FAULT, result.wait_seconds, reason, Blame.TRANSPORT)
    wait = policy.delay(attempt, random)
    if result.accepted:
        return Verdict(Fate.SENT, None, "accepted")
    found = explain(result)
    fate = found.rule.fate
    if fate is Fate.UNCERTAIN:
        return _unknown(attempt, policy, on_uncertain, earlier_uncertain, wait)
    if fate is Fate.DEFERRED and policy.used_up(attempt):
        return Verdict(Fate.FAILED, None, "tries_used_up", found.blame)
    return Verdict(fate, None if fate is Fate.FAILED else wait, found.reason, found.blame)


def _unknown(attempt: int, policy: RetryPolicy, on_uncertain: str, earlier: int, wait: float) -> Verdict:
    # Never FAILED: the mail may well have arrived, so only a person may say that it did not.
    enough = earlier + 1 >= policy.max_uncertain_tries or policy.used_up(attempt)
    if on_uncertain == "hold" or enough:
        return Verdict(Fate.UNCERTAIN, None, OUTCOME_UNKNOWN, Blame.TRANSPORT)
    later = max(wait, policy.uncertain_delay_seconds)
    return Verdict(Fate.DEFERRED, later, OUTCOME_UNKNOWN, Blame.TRANSPORT)
