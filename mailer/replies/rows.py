"""What a row of the two tables looks like, and when it fits.

Patterns are written as people read them. Stages: ``rcpt data``. Codes: ``5..`` or ``530 535``; ``lost`` where
no reply came, ``garbled`` where it was not SMTP, ``other`` for what is neither 4xx nor 5xx. Enhanced codes:
``5.1.1``, ``x.7.x``, ``x.7.606-649``. An empty pattern fits anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from mailer.transports import Stage

LOST, GARBLED = "lost", "garbled"
"""What was heard where there is no code."""


class Fate(StrEnum):
    """The one word for an attempt. `mailer.outcomes` maps it to a state."""

    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    UNCERTAIN = "uncertain"  # nobody can know; the message says whether it is tried again
    TRANSPORT_FAULT = "transport_fault"  # try again later, at no cost to the message


class Blame(StrEnum):
    """Whose matter it is. Only ``RECIPIENT`` may ever lead to a suppression."""

    RECIPIENT = "recipient"
    MESSAGE = "message"
    SENDER = "sender"
    TRANSPORT = "transport"


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done about an answer. There is no column for its text: that decides nothing (SC1).

    ``rests``: no conversation comes about, so the transport rests and another may be tried. ``slows``: the
    recipient's server asks for less. ``reason`` is given where it does not depend on what the server meant;
    it is a matter of the transport then.
    """

    stages: str
    codes: str
    enhanced: str
    fate: Fate
    does: str
    source: str
    reason: str = ""
    rests: bool = False
    slows: bool = False

    def fits(self, stage: Stage, heard: str, enhanced: str) -> bool:
        """Whether it is about this answer."""
        return stages(self.stages, stage) and codes(self.codes, heard) and is_one_of(self.enhanced, enhanced)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What an answer means: a short stable word, whose matter it is, and a person's next step.

    ``says`` holds phrases in lower case, one of which the text has. ``suppress``: for good, so that the
    recipient might be put on a suppression list. ``step`` may name the ``{setting}`` of the transport.
    """

    reason: str
    stages: str = "mail rcpt data text"
    codes: str = ""
    enhanced: str = ""
    says: tuple[str, ...] = ()
    blame: Blame
    suppress: bool = False
    means: str
    step: str
    source: str

    def fits(self, stage: Stage, heard: str, enhanced: str, text: str) -> bool:
        """Whether it is about this answer. ``text`` is in lower case."""
        return (
            stages(self.stages, stage)
            and codes(self.codes, heard)
            and is_one_of(self.enhanced, enhanced)
            and (not self.says or any(phrase in text for phrase in self.says))
        )


def stages(pattern: str, stage: Stage) -> bool:
    """Whether a stage is among those of the pattern."""
    return not pattern or stage.value in _words(pattern)


def codes(pattern: str, heard: str) -> bool:
    """Whether what was heard, three digits or a word, is among those of the pattern."""
    return not pattern or _codes(pattern).fullmatch(heard) is not None


def is_one_of(pattern: str, enhanced: str) -> bool:
    """Whether an enhanced code is among those of the pattern. "" is none, and fits an empty pattern only."""
    return not pattern or _enhanced(pattern).fullmatch(enhanced) is not None


@cache
def _words(pattern: str) -> frozenset[str]:
    return frozenset(pattern.split())


@cache
def _codes(pattern: str) -> re.Pattern[str]:
    return re.compile("|".join(r"[^45]\d\d" if word == "other" else word for word in pattern.split()))


@cache
def _enhanced(pattern: str) -> re.Pattern[str]:
    return re.compile("|".join(r"\.".join(map(_part, word.split("."))) for word in pattern.split()))


def _part(part: str) -> str:
    if part == "x":
        return r"\d+"
    first, _, last = part.partition("-")
    return "(?:" + "|".join(str(number) for number in range(int(first), int(last or first) + 1)) + ")"
