"""How the console says things: times, events and reasons in plain English, and text that cannot deceive.

Pure functions. What they answer is text, never markup: the templates escape it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mailer.events import Event
from mailer.replies import Blame, explained
from mailer.store.queries import DeliveryView, EventView

# Controls, and characters that turn the reading direction or take no room: with them one address can be
# made to look like another.
_DECEIVING = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(value: object, lines: bool = False) -> str:
    """Text that came with a mail, with every control character visible; ``lines`` keeps line breaks, tabs."""
    kept = "\n\t" if lines else ""
    text = str(value).replace("\r\n", "\n") if lines else str(value)
    return _DECEIVING.sub(lambda found: found[0] if found[0] in kept else _picture(found[0]), text)


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # ␊ and its kin
    return "\u2421" if code == 0x7F else f"⟦U+{code:04X}⟧"


def ago(at: datetime, now: datetime) -> str:
    """When it was, as one says it: 5 min ago, yesterday 14:02, 12 Nov 14:02. In UTC."""
    seconds = (now - at).total_seconds()
    if seconds < -30:
        return f"in {_span(-seconds)}" if seconds > -86_400 else clock(at, now)
    if seconds < 30:
        return "just now"
    if seconds < 6 * 3600:
        return f"{_span(seconds)} ago"
    if at.date() == now.date():
        return f"today {at:%H:%M}"
    if at.date() == (now - timedelta(days=1)).date():
        return f"yesterday {at:%H:%M}"
    return clock(at, now)


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3570 else f"{seconds / 3600:.0f} h"


def clock(at: datetime, now: datetime) -> str:
    """The date and time in UTC, the year only where it is another one."""
    return f"{at.day} {at:%b %H:%M}" if at.year == now.year else f"{at.day} {at:%b %Y %H:%M}"


def size(octets: int) -> str:
    """A file's size as people read it."""
    if octets < 1000:
        return f"{octets} bytes"
    return f"{octets / 1000:.0f} kB" if octets < 999_500 else f"{octets / 1_000_000:.1f} MB"


def reason(word: str | None) -> str:
    """A stable word such as ``mailbox_full`` as a person says it."""
    return (word or "").replace("_", " ")


def explain(delivery: DeliveryView) -> str:
    """The server's words about a recipient, behind its code; "" if it said nothing yet."""
    said = delivery.reply or ""
    code = str(delivery.code) if delivery.code else ""
    return said if said.startswith(code) and code else f"{code} {said}".strip()


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the timeline. ``link`` is the id of another message, or None; ``tone`` colours the dot.

    ``transcript`` is what was said on the connection, or nothing.
    """

    at: datetime
    sentence: str
    detail: str
    tone: str
    link: str | None = None
    transcript: str = ""


Data = Mapping[str, Any]
Say = Callable[[Data], str]


def _accepted(d: Data) -> str:
    number = d.get("recipients", 1)
    people = "1 recipient" if number == 1 else f"{number} recipients"
    return f"Accepted for {people}" + (f", lane {d['lane']}" if d.get("lane", "default") != "default" else "")


def _by(d: Data) -> str:
    return f" by {d['by']}" if d.get("by") else ""


def _attempt(d: Data) -> str:
    return f" (attempt {d['attempt']})" if d.get("attempt", 1) != 1 else ""


def _why(d: Data) -> str:
    return f": {reason(d['reason'])}" if d.get("reason") else ""


def _to(d: Data) -> str:
    return str(d.get("recipient", "a recipient"))


# The one table of what an event reads like, and its tone. What is not here gets the fallback of `entry`.
SENTENCES: dict[str, tuple[Say, str]] = {
    Event.ACCEPTED: (_accepted, ""),
    Event.SCHEDULED: (lambda d: f"Waits until {_moment(d.get('send_at'))}", ""),
    Event.RESENT: (lambda d: f"Sent again{_by(d)}, as a new message", ""),
    Event.RESENT_FROM: (lambda d: f"Is a copy{_by(d)} of an earlier message", ""),
    Event.SENT: (lambda d: f"The server took it for {_to(d)}{_attempt(d)}", "ok"),
    Event.DEFERRED: (
        lambda d: (
            f"Not taken yet for {_to(d)}{_attempt(d)}{_why(d)}; next try {_moment(d.get('not_before'))}"
        ),
        "warn",
    ),
    Event.FAILED: (lambda d: f"Failed for {_to(d)}{_attempt(d)}{_why(d)}", "bad"),
    Event.UNCERTAIN: (
        lambda d: f"May have reached {_to(d)}: the text went out and no answer came; a person decides",
        "doubt",
    ),
    Event.EXPIRED: (
        lambda d: f"Too late for {_to(d)}: the deadline {_moment(d.get('expires_at'))} passed",
        "warn",
    ),
    Event.CANCELLED: (lambda d: f"Withdrawn{_by(d)} before it left for {_to(d)}", ""),
    Event.SUPPRESSED: (
        lambda d: (
            f"Not sent to {_to(d)}, who has been on the suppression list since {_moment(d.get('since'))}"
        ),
        "warn",
    ),
    Event.DELIVERED: (lambda d: f"Arrived at {_to(d)}", "ok"),
    Event.COMPLAINED: (lambda d: f"Complaint by {_to(d)}: the mail was unwanted", "bad"),
    Event.RESCHEDULED: (lambda d: f"Moved{_by(d)} to {_moment(d.get('send_at'))} for {_to(d)}", ""),
    Event.WORKER_LOST: (lambda d: f"The worker was lost on the way to {_to(d)}{_attempt(d)}", "warn"),
    Event.RETRIED: (lambda d: f"Tried again{_by(d)} for {_to(d)}", ""),
    Event.FORGOTTEN: (lambda d: f"A person was forgotten{_by(d)}: address and content were taken out", ""),
    Event.SETTLED: (lambda d: f"Settled{_by(d)} as {d.get('as', 'ended')} for {_to(d)}", ""),
}
_TOLD = {"recipient", "attempt", "reason", "recipients", "lane", "by", "as", "original", "send_at",
         "not_before", "expires_at", "since"}  # fmt: skip
_LINKS: dict[str, str] = {Event.RESENT: "as", Event.RESENT_FROM: "original"}


def entry(event: EventView) -> Entry:
    """An event as a sentence. One that nobody has worded yet is shown by its name with its data."""
    say, tone = SENTENCES.get(event.name, (_fallback(event.name), ""))
    known = event.name in SENTENCES
    link = event.data.get(_LINKS.get(event.name, ""))
    details = _details(event.data, _TOLD if known else set())
    transcript = "\n".join(map(str, event.data.get("transcript", ())))
    return Entry(event.at, say(event.data), details, tone, link, transcript)


def _fallback(name: str) -> Say:
    return lambda _data: reason(name).capitalize() or "Something happened"


def _details(data: Data, told: set[str]) -> str:
    """The server's words first, then what they mean, then what the sentence did not say."""
    words = f"{data.get('code') or ''} {data.get('reply') or ''}".strip()
    # How it went is for those who look for it; the reason says the stage in other words.
    hidden = {"code", "reply", "stage", "blame", "transcript", *told}
    rest = ", ".join(
        f"{_LABELS.get(k, reason(k))} {_plain(k, v)}" for k, v in data.items() if k not in hidden
    )
    found = explained(data)
    meaning = f"{_WHOSE[found.blame]}: {found.sentence()}" if found else ""
    return "\n".join(part for part in (words, meaning, rest) if part)


_WHOSE = {
    Blame.RECIPIENT: "The recipient's matter",
    Blame.MESSAGE: "The mail's matter",
    Blame.SENDER: "The sender's matter",
    Blame.TRANSPORT: "The provider's matter",
}


_LABELS = {"seconds": "took"}


def _plain(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) + (" s" if key == "seconds" else "")


def _moment(iso: object) -> str:
    try:
        at = datetime.fromisoformat(str(iso))
    except ValueError:
        return "later"
    return f"{at.day} {at:%b %H:%M} UTC"
