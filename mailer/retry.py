"""What an answer means, and when to try again. Pure: no clock, no socket, no database.

``judge`` turns one recipient's `Result` into one word. The three-digit code decides, by its first
digit (RFC 5321 section 4.2.1); the enhanced code only names the reason and who is to blame, and the
text never decides anything. The exceptions depend on how far the conversation had come:

=====================  ==============================================================  ===============
stage                  what came                                                       fate
=====================  ==============================================================  ===============
any                    530 534 535 538, also 432 454 before RCPT: authentication, TLS  TRANSPORT_FAULT
                       (RFC 4954 section 6, RFC 3207 section 4)
any before the text    a reply that is not SMTP, or a code that has no place there     TRANSPORT_FAULT
connect greeting       anything at all: refused, lost, 421, 554                        TRANSPORT_FAULT
tls auth
mail                   552, or any 5xx with 5.3.4: too large (RFC 1870 section 6)      FAILED
mail                   5xx with 5.6.x: the server lacks an extension it needs          FAILED
mail                   any other 5xx: our sender or our standing is refused            TRANSPORT_FAULT
rcpt                   552: too many recipients (RFC 5321 section 4.5.3.1.10)          DEFERRED
rcpt data text         4xx, also 421; any other 5xx (RFC 7504, RFC 7505: 521, 556)     DEFERRED, FAILED
mail rcpt data         connection lost or timed out: as 421 (RFC 5321 section 3.8)     DEFERRED
text                   2xx (RFC 5321 section 6.1)                                      SENT
text                   no answer that can be read: the outcome is unknown (RFC 1047)   DEFERRED, or
                                                                                       UNCERTAIN
=====================  ==============================================================  ===============

DEFERRED counts as a try and becomes FAILED when the tries are used up. TRANSPORT_FAULT costs no try:
no message fails because a password is wrong or a certificate has expired.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from mailer.transports import Reply, Result, Stage

LEASE_LOST = "lease lost"
"""The ``problem`` of a `Result` whose parcel the ledger kept back: nothing was sent, drop the result."""

OUTCOME_UNKNOWN = "outcome_unknown"
"""The ``reason`` of a `Verdict` on a text that went out and was not answered: there may be a copy."""

RESTING, LIMITED = "waiting for a transport", "waiting for a limit"
"""Begin the ``problem`` of a `Result` with ``wait_seconds``: it was not tried, and costs no try."""

PROTOCOL_ERROR = "protocol error"
"""Begins the ``problem`` of a `Result` where the server's answer was not SMTP."""


class Fate(StrEnum):
    """The one word for an attempt. `mailer.delivery` maps it to a state."""

    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    UNCERTAIN = "uncertain"  # a person decides
    TRANSPORT_FAULT = "transport_fault"  # try again later, at no cost to the message


class Blame(StrEnum):
    """Whose matter it is. Only ``RECIPIENT`` may ever lead to a suppression."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SENDER = "sender"
    TRANSPORT = "transport"


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


_AUTHENTICATION = frozenset({530, 534, 535, 538})
_AUTHENTICATION_EARLY = _AUTHENTICATION | {432, 454}
_BEFORE_MAIL = frozenset({Stage.CONNECT, Stage.GREETING, Stage.TLS, Stage.AUTH})

_EARLY_REASON = {
    Stage.CONNECT: "connect_failed",
    Stage.GREETING: "greeting_refused",
    Stage.TLS: "tls_failed",
    Stage.AUTH: "auth_failed",
}

# The part of an enhanced code behind the first dot (RFC 3463 and the IANA registry) -> reason, blame.
_BY_DETAIL: dict[str, tuple[str, Blame]] = {
    "1.1": ("mailbox_unknown", Blame.RECIPIENT),
    "1.2": ("domain_unknown", Blame.RECIPIENT),
    "1.3": ("address_invalid", Blame.RECIPIENT),
    "1.6": ("mailbox_moved", Blame.RECIPIENT),
    "1.7": ("sender_refused", Blame.SENDER),
    "1.8": ("sender_refused", Blame.SENDER),
    "1.10": ("domain_takes_no_mail", Blame.RECIPIENT),
    "2.1": ("mailbox_disabled", Blame.RECIPIENT),
    "2.2": ("mailbox_full", Blame.RECIPIENT),
    "2.3": ("message_too_large", Blame.MESSAGE),
    "3.4": ("message_too_large", Blame.MESSAGE),
    "5.3": ("too_many_recipients", Blame.TRANSPORT),
    "6.7": ("smtputf8_missing", Blame.TRANSPORT),
    "7.8": ("auth_failed", Blame.TRANSPORT),
    "7.9": ("auth_failed", Blame.TRANSPORT),
    "7.23": ("sender_refused", Blame.SENDER),
    "7.25": ("sender_refused", Blame.SENDER),
    "7.26": ("sender_refused", Blame.SENDER),
    "7.28": ("rate_limited", Blame.SENDER),
    "7.29": ("sender_refused", Blame.SENDER),
}
_BY_CODE: dict[int, tuple[str, Blame]] = {
    421: ("server_busy", Blame.TRANSPORT),
    422: ("mailbox_full", Blame.RECIPIENT),
    450: ("mailbox_busy", Blame.RECIPIENT),
    451: ("server_busy", Blame.TRANSPORT),
    452: ("server_full", Blame.TRANSPORT),
    521: ("domain_takes_no_mail", Blame.RECIPIENT),
    551: ("mailbox_moved", Blame.RECIPIENT),
    556: ("domain_takes_no_mail", Blame.RECIPIENT),
}


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
    if result.text_sent and _says_nothing(result.reply):
        return _unknown(attempt, policy, on_uncertain, earlier_uncertain, wait)
    fate, reason, blame = _classify(result)
    if fate is Fate.DEFERRED and policy.used_up(attempt):
        return Verdict(Fate.FAILED, None, "tries_used_up", blame)
    return Verdict(fate, None if fate is Fate.FAILED else wait, reason, blame)


def _says_nothing(reply: Reply | None) -> bool:
    """After the text only 2xx, 4xx and 5xx are an answer to it (RFC 5321 section 4.3.2)."""
    return reply is None or reply.code // 100 not in (2, 4, 5)


def _unknown(attempt: int, policy: RetryPolicy, on_uncertain: str, earlier: int, wait: float) -> Verdict:
    # Never FAILED: the mail may well have arrived, so only a person may say that it did not.
    enough = earlier + 1 >= policy.max_uncertain_tries or policy.used_up(attempt)
    if on_uncertain == "hold" or enough:
        return Verdict(Fate.UNCERTAIN, None, OUTCOME_UNKNOWN, Blame.TRANSPORT)
    later = max(wait, policy.uncertain_delay_seconds)
    return Verdict(Fate.DEFERRED, later, OUTCOME_UNKNOWN, Blame.TRANSPORT)


def _classify(result: Result) -> tuple[Fate, str, Blame]:
    reply, stage = result.reply, result.stage
    if reply is None:
        return _classify_silence(result)
    if stage in _BEFORE_MAIL:
        return Fate.TRANSPORT_FAULT, _EARLY_REASON[stage], Blame.TRANSPORT
    if reply.code in (_AUTHENTICATION_EARLY if stage is Stage.MAIL else _AUTHENTICATION):
        return Fate.TRANSPORT_FAULT, "auth_failed", Blame.TRANSPORT
    if reply.code // 100 not in (4, 5):
        return Fate.TRANSPORT_FAULT, "protocol_error", Blame.TRANSPORT
    reason, blame = _explain(reply, stage)
    if reply.code < 500:
        return Fate.DEFERRED, reason, blame
    if stage is Stage.MAIL:
        return _classify_sender(reply, reason)
    if stage is Stage.RCPT and reply.code == 552:
        return Fate.DEFERRED, reason, blame
    return Fate.FAILED, reason, blame


def _classify_silence(result: Result) -> tuple[Fate, str, Blame]:
    if result.problem.startswith(PROTOCOL_ERROR):
        return Fate.TRANSPORT_FAULT, "protocol_error", Blame.TRANSPORT
    if result.stage in _BEFORE_MAIL:
        return Fate.TRANSPORT_FAULT, _EARLY_REASON[result.stage], Blame.TRANSPORT
    return Fate.DEFERRED, "connection_lost", Blame.TRANSPORT


def _classify_sender(reply: Reply, reason: str) -> tuple[Fate, str, Blame]:
    if reply.code == 552 or reason == "message_too_large":
        return Fate.FAILED, "message_too_large", Blame.MESSAGE
    if (reply.enhanced or "").startswith("5.6."):
        return Fate.FAILED, reason, Blame.SENDER
    return Fate.TRANSPORT_FAULT, "sender_refused", Blame.SENDER


def _explain(reply: Reply, stage: Stage) -> tuple[str, Blame]:
    """Name the reason and the one to blame; an enhanced code is more exact than the basic one."""
    _, _, detail = (reply.enhanced or "").partition(".")
    if detail in _BY_DETAIL:
        return _BY_DETAIL[detail]
    if detail.startswith("7."):
        return "refused_by_policy", Blame.SENDER
    if reply.code == 552:
        return ("too_many_recipients", Blame.TRANSPORT) if stage is Stage.RCPT else _BY_DETAIL["3.4"]
    if reply.code in _BY_CODE:
        return _BY_CODE[reply.code]
    if stage is Stage.RCPT:
        return ("mailbox_refused" if reply.code >= 500 else "mailbox_busy"), Blame.RECIPIENT
    return ("refused" if reply.code >= 500 else "server_busy"), Blame.MESSAGE
