"""Recipients that misbehave on request: the local part says how.

The table is in the docstring of `mailer.inbox`. This module is pure: an address goes in, a
`Behaviour` comes out, and `mailer.inbox.smtp` acts on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_DELAY_SECONDS = 10.0
DEFAULT_DELAY_SECONDS = 2.0

_CODED = re.compile(r"(bounce|defer|text)-([45]\d\d)\Z")
_SLOW = re.compile(r"slow(?:-(\d{1,3}))?\Z")
_ENHANCED = {
    421: "4.3.2",
    450: "4.2.1",
    451: "4.3.0",
    452: "4.2.2",
    550: "5.1.1",
    551: "5.1.6",
    552: "5.2.2",
    553: "5.1.3",
    554: "5.7.1",
}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one recipient does. The default value is a recipient that accepts everything.

    ``rcpt_reply`` and ``text_reply`` are whole reply lines, or ``None`` to accept.
    ``drop`` is where the connection is closed without an answer: ``"rcpt"``, ``"before-text"`` (the mail is
    lost), ``"after-text"`` (the mail is kept), or ``None``. ``once`` limits all of it to every other try, so
    that the first is hit and its retry gets through. ``delay_seconds`` passes before the answer to the text.
    """

    rcpt_reply: str | None = None
    text_reply: str | None = None
    drop: str | None = None
    once: bool = False
    delay_seconds: float = 0.0


ACCEPTS = Behaviour()
_NAMED = {
    "defer-once": Behaviour(rcpt_reply="451 4.3.0 This recipient defers once, as asked", once=True),
    "drop-at-rcpt": Behaviour(drop="rcpt"),
    "drop-before-text": Behaviour(drop="before-text"),
    "drop-after-text": Behaviour(drop="after-text"),
    "drop-once-after-text": Behaviour(drop="after-text", once=True),
    "hostile-reply": Behaviour(rcpt_reply="550 5.1.1 <script>alert(1)</script> \x1b[31mred\x1b[0m \x07&amp;"),
}


def behaviour_of(recipient: str) -> Behaviour:
    """Return what this recipient was told to do; case and a ``+detail`` in the local part do not matter."""
    local_part = recipient.rpartition("@")[0].partition("+")[0].lower()
    return _NAMED.get(local_part) or _coded(local_part) or _slow(local_part) or ACCEPTS


def _coded(local_part: str) -> Behaviour | None:
    match = _CODED.match(local_part)
    if match is None:
        return None
    verb, code = match[1], int(match[2])
    if verb == "text":
        return Behaviour(text_reply=_reply(code, "This recipient refuses the text, as asked"))
    if (verb == "bounce") != (code >= 500):
        return None
    said = "bounces" if verb == "bounce" else "defers"
    return Behaviour(rcpt_reply=_reply(code, f"This recipient {said}, as asked"))


def _slow(local_part: str) -> Behaviour | None:
    match = _SLOW.match(local_part)
    if match is None:
        return None
    seconds = float(match[1]) if match[1] else DEFAULT_DELAY_SECONDS
    return Behaviour(delay_seconds=min(seconds, MAX_DELAY_SECONDS))


def _reply(code: int, text: str) -> str:
    return f"{code} {_ENHANCED.get(code, f'{code // 100}.0.0')} {text}"
