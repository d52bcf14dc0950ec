"""The catalogue of events: what a message's timeline can say, with the fields of each.

Events are appended in the transaction of the change they tell of, and never rewritten, except to take out
the address of somebody who is to be forgotten. ``data`` holds only what is listed here; none of it is a
secret, a body or a token. Replies are the server's words, bounded and escaped where they are shown.
"""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    """The name of a timeline entry. The comment lists the keys of its ``data``."""

    ACCEPTED = "accepted"  # recipients (count), lane
    SCHEDULED = "scheduled"  # send_at (ISO 8601)
    RESENT = "resent"  # by, as (id of the new message); on the old message
    RESENT_FROM = "resent_from"  # by, original (id of the old message); on the new message
    # Of one attempt: recipient, attempt, transport, seconds, stage, code, reply, reason, blame, not_before;
    # what does not apply is left out. Where there was none to speak of: recipient, attempt, reason, problem.
    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    EXPIRED = "expired"  # recipient, expires_at
    CANCELLED = "cancelled"  # recipient, by
    SUPPRESSED = "suppressed"  # recipient, reason, cause, since (ISO 8601), entry (id on the list)
    DELIVERED = "delivered"  # recipient; it arrived, after it was sent
    COMPLAINED = "complained"  # recipient; they said that it was unwanted, after it was sent
    WORKER_LOST = "worker_lost"  # recipient, attempt, crashes, text_may_have_gone_out
    RESCHEDULED = "rescheduled"  # recipient, by, send_at
    RETRIED = "retried"  # recipient, by
    SETTLED = "settled"  # recipient, by, as
    FORGOTTEN = "forgotten"  # by; an address was taken out of the message, and what it said was erased
