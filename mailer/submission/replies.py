"""Answers in the words of SMTP: a code, an enhanced code (RFC 3463), and what to do.

Every answer has both (RFC 2034). The words come from `mailer.errors`, so they carry no address, key or text.
"""

from __future__ import annotations

import re

from mailer.admission import NotAdmitted, TooManyWrongKeys
from mailer.errors import IdempotencyConflict, InvalidMessage, MailerError, MessageTooLarge, StoreError
from mailer.submission.entity import Unsupported

MAX_LINE = 500
"""Octets: a reply line has 512 with its end (RFC 5321 section 4.5.3.1.5)."""

STORE_AWAY = "451 4.3.0 The store does not answer; nothing was accepted, try again"
STOPPING = "421 4.3.2 The service is stopping; try again"
TOO_MANY = "421 4.7.0 Too many connections; try again"
FAULT = "451 4.3.0 A fault of ours; nothing was accepted, try again"
WRONG_KEY = "535 5.7.8 The password is no good API key; make one with: mailer keys create"
TOO_MANY_WRONG = "454 4.7.0 Too many wrong keys; wait a minute"
NO_SCOPE = "535 5.7.8 This API key lacks the scope send; make one that has it"
NO_LONGER = "530 5.7.0 This API key was revoked or has ended; log in with another"
NO_KEY = "530 5.7.0 Log in with an API key as the password"
NO_TLS = "530 5.7.0 Begin with STARTTLS"
OTHER_DOMAIN = "550 5.7.1 From has a domain that this API key may not send for"

# The first that fits.
_KINDS: tuple[tuple[type[MailerError], str], ...] = (
    (StoreError, "451 4.3.0"),
    (IdempotencyConflict, "554 5.5.4"),
    (MessageTooLarge, "552 5.3.4"),
    (Unsupported, "554 5.6.1"),
    (InvalidMessage, "554 5.6.0"),
)
# For answers of the library that have none.
_ENHANCED = {"221": "2.0.0", "250": "2.0.0", "252": "2.5.0", "500": "5.5.2", "501": "5.5.4", "502": "5.5.1",
             "503": "5.5.1", "504": "5.5.4", "552": "5.3.4", "554": "5.5.0", "555": "5.5.4"}  # fmt: skip
_HAS_ONE = re.compile(r"\d{3} [245]\.\d{1,3}\.\d{1,3} ")
_LINE_TOO_LONG = "500 Line too long"


def refusal(error: MailerError) -> str:
    """What a client is told that got nothing accepted."""
    if isinstance(error, StoreError):
        return STORE_AWAY
    code = next((code for kind, code in _KINDS if isinstance(error, kind)), None)
    return line(f"{code} {error}") if code else FAULT


def not_admitted(error: NotAdmitted) -> str:
    """What a client is told whose password is no key."""
    return TOO_MANY_WRONG if isinstance(error, TooManyWrongKeys) else WRONG_KEY


def line(reply: str) -> str:
    """One line of printable ASCII, short enough."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in reply)
    return plain[:MAX_LINE]


def enhanced(reply: str) -> str:
    """A reply with an enhanced code, put there if the library gave none."""
    if reply.startswith(_LINE_TOO_LONG):
        return "554 5.6.0 message: has a line of more than 998 octets; encode it"
    code = _ENHANCED.get(reply[:3])
    if code is None or _HAS_ONE.match(reply) or reply[3:4] != " ":
        return line(reply)
    return line(f"{reply[:3]} {code}{reply[3:]}")
