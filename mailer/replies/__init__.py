"""What servers' answers mean: two tables, and what is read from them.

The first table (`mailer.replies.rules`) says what is done: sent, tried again, failed, or the transport's
fault. It goes by the stage, the first digit of the code, and where a standard says so the code itself
(RFC 5321 section 4.2.1). The second (`mailer.replies.providers`, then `mailer.replies.standard`) says why and
whose matter it is; there the enhanced code (RFC 3463) is more exact than the basic one, and a provider's
phrase more exact than both. In each the first row that fits holds.

docs/reference/replies.md shows both, row by row. Pure: what an answer meant can be asked long after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mailer.replies.providers import PROVIDERS
from mailer.replies.rows import GARBLED, LOST, Blame, Fate, Meaning, Rule
from mailer.replies.rules import RULES
from mailer.replies.standard import STANDARD
from mailer.transports import Reply, Result, Stage

__all__ = [
    "MEANINGS",
    "PROTOCOL_ERROR",
    "RULES",
    "Blame",
    "Explanation",
    "Fate",
    "Meaning",
    "Rule",
    "explain",
    "explained",
    "rule_for",
]

PROTOCOL_ERROR = "protocol error"
"""Begins the ``problem`` of a `Result` where the server's answer was not SMTP."""

MEANINGS = (*PROVIDERS, *STANDARD)
_NOBODYS = Meaning(
    reason="accepted", blame=Blame.TRANSPORT, means="accepted", step="", source="RFC 5321, 6.1"
)


class Explanation(NamedTuple):
    """What is made of an answer: what is done, and why.

    ``suppress``: refused for good because of the recipient, who might be put on a suppression list.
    """

    rule: Rule
    meaning: Meaning
    suppress: bool

    @property
    def reason(self) -> str:
        """The stable word."""
        return self.rule.reason or self.meaning.reason

    @property
    def blame(self) -> Blame:
        """Whose matter it is."""
        return Blame.TRANSPORT if self.rule.reason else self.meaning.blame

    @property
    def means(self) -> str:
        """What it means, for a person."""
        return self.meaning.means

    def step(self, setting: str) -> str:
        """What to do, for a person. ``setting`` is where the transport is written down."""
        return self.meaning.step.format(setting=setting)

    def sentence(self, setting: str = "the transport's URL") -> str:
        """Both."""
        return f"{self.means}; {self.step(setting)}"


def rule_for(result: Result) -> Rule:
    """What is done about a result."""
    stage, heard, enhanced, _ = _heard(result)
    return next(rule for rule in RULES if rule.fits(stage, heard, enhanced))


def explain(result: Result) -> Explanation:
    """What is done about a result, why, and whose matter it is."""
    stage, heard, enhanced, text = _heard(result)
    rule = next(rule for rule in RULES if rule.fits(stage, heard, enhanced))
    meaning = next((m for m in MEANINGS if m.fits(stage, heard, enhanced, text)), _NOBODYS)
    # After the text an answer is about all recipients at once; and who contradicts himself is not believed.
    certain = rule.fate is Fate.FAILED and stage is Stage.RCPT and not enhanced.startswith("4")
    return Explanation(rule, meaning, meaning.suppress and certain)


def explained(event: Mapping[str, Any]) -> Explanation | None:
    """The same for an event of the timeline, from its ``stage``, ``code``, ``reply`` and ``reason``.

    None for what tells of no answer, or of a good one.
    """
    stage, code, reason = event.get("stage"), event.get("code"), event.get("reason")
    said = str(event.get("reply") or "")
    if stage not in set(Stage) or reason in ("accepted", "waiting_for_limit"):
        return None
    if reason == "transport_down" and code is None:
        return None  # it was not tried; the words say what it waited for
    reply = Reply(code, said) if isinstance(code, int) and 100 <= code <= 999 else None
    return explain(Result(Stage(stage), reply, stage == Stage.TEXT, "" if reply else said))


def _heard(result: Result) -> tuple[Stage, str, str, str]:
    """The stage, the code or the word for none, the enhanced code, and the text in lower case."""
    reply = result.reply
    if reply is None:
        heard = GARBLED if result.problem.startswith(PROTOCOL_ERROR) else LOST
        return (Stage.TEXT if result.text_sent else result.stage), heard, "", ""
    says_nothing = reply.code // 100 not in (2, 4, 5)  # to a text (RFC 5321 section 4.3.2)
    stage = Stage.TEXT if result.text_sent and says_nothing else result.stage
    return stage, f"{reply.code:03d}", reply.enhanced or "", reply.text.lower()
