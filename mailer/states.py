"""The states of a delivery and the only table of transitions between them.

One *delivery* is one message to one envelope recipient. Nothing else in the package spells a
state as text: code uses `State`, SQL takes its values from here, and a test compares the diagram in
``docs/`` with `TRANSITIONS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class State(StrEnum):
    """Where one delivery stands. The value is what the database, the API and the console show."""

    SCHEDULED = "scheduled"  # accepted, not before send_at
    QUEUED = "queued"  # due, waiting for a worker
    SENDING = "sending"  # claimed under a lease by one worker
    DEFERRED = "deferred"  # tried, will be tried again at not_before; the reason is kept
    SENT = "sent"  # accepted by the next server: 250 after the text
    FAILED = "failed"  # refused for good, or the tries are used up
    UNCERTAIN = "uncertain"  # the text went out, the answer is lost, policy "hold": a person decides
    EXPIRED = "expired"  # the deadline passed first
    CANCELLED = "cancelled"  # withdrawn before it left
    SUPPRESSED = "suppressed"  # the recipient is on the suppression list


FINAL = frozenset({State.SENT, State.FAILED, State.EXPIRED, State.CANCELLED, State.SUPPRESSED})
"""Nothing leaves these but a person's retry of a failed delivery."""

CLAIMABLE = frozenset({State.SCHEDULED, State.QUEUED, State.DEFERRED})
"""A worker may claim these once ``not_before`` has passed; the three differ only for people."""

TRANSITIONS: dict[str, tuple[frozenset[State], frozenset[State]]] = {
    # transition: (from any of, to one of)
    "accept": (frozenset(), frozenset({State.SCHEDULED, State.QUEUED, State.SUPPRESSED})),
    "claim": (CLAIMABLE, frozenset({State.SENDING})),
    "finish": (
        frozenset({State.SENDING}),
        frozenset(
            {State.SENT, State.FAILED, State.DEFERRED, State.UNCERTAIN, State.EXPIRED, State.SUPPRESSED}
        ),
    ),
    "reap": (frozenset({State.SENDING}), frozenset({State.DEFERRED, State.FAILED, State.UNCERTAIN})),
    "expire": (CLAIMABLE, frozenset({State.EXPIRED})),
    "cancel": (CLAIMABLE, frozenset({State.CANCELLED})),
    "reschedule": (
        frozenset({State.SCHEDULED, State.QUEUED}),
        frozenset({State.SCHEDULED, State.QUEUED}),
    ),
    "retry": (frozenset({State.FAILED, State.DEFERRED, State.UNCERTAIN}), frozenset({State.QUEUED})),
    "settle": (frozenset({State.UNCERTAIN}), frozenset({State.SENT, State.FAILED})),
}

_MOST_TELLING_FIRST = (
    State.UNCERTAIN,
    State.SENDING,
    State.DEFERRED,
    State.QUEUED,
    State.SCHEDULED,
    State.FAILED,
    State.EXPIRED,
    State.SUPPRESSED,
    State.CANCELLED,
    State.SENT,
)


def summarise(states: Iterable[State]) -> State:
    """The one word for a message with several deliveries.

    What is still open comes before what has ended, and what went wrong before what went well, so
    that a message reads ``sent`` only if every recipient's server took it.
    """
    present = set(states)
    return next(state for state in _MOST_TELLING_FIRST if state in present)
