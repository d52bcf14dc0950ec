"""What is done about an answer. The first rule that fits holds, and one fits whatever comes."""

from __future__ import annotations

from mailer.replies.rows import Fate, Rule

_LOG_IN = "530 534 535 538"
_REST = "the transport rests, the next one is tried, the mail waits and pays no try"

RULES: tuple[Rule, ...] = (
    Rule("connect", "", "", Fate.TRANSPORT_FAULT, _REST, "Mailer", "connect_failed", rests=True),
    Rule("greeting", "", "", Fate.TRANSPORT_FAULT, _REST, "Mailer", "greeting_refused", rests=True),
    Rule("tls", "", "", Fate.TRANSPORT_FAULT, _REST, "RFC 3207, 4", "tls_failed", rests=True),
    Rule("auth", "", "", Fate.TRANSPORT_FAULT, _REST, "RFC 4954, 6", "auth_failed", rests=True),
    Rule(
        "mail",
        f"{_LOG_IN} 432 454",
        "",
        Fate.TRANSPORT_FAULT,
        _REST,
        "RFC 4954, 6",
        "auth_failed",
        rests=True,
    ),
    Rule("rcpt data", _LOG_IN, "", Fate.TRANSPORT_FAULT, _REST, "RFC 4954, 6", "auth_failed", rests=True),
    Rule(
        "text",
        _LOG_IN,
        "",
        Fate.TRANSPORT_FAULT,
        "the mail waits and pays no try",
        "RFC 4954, 6",
        "auth_failed",
    ),
    Rule(
        "mail rcpt data",
        "garbled other",
        "",
        Fate.TRANSPORT_FAULT,
        "the mail waits and pays no try",
        "RFC 5321, 4.2",
        "protocol_error",
    ),
    Rule("text", "2..", "", Fate.SENT, "sent, whatever happens next", "RFC 5321, 6.1", "accepted"),
    Rule(
        "text",
        "lost garbled other",
        "",
        Fate.UNCERTAIN,
        "nobody can know: tried again or held for a person, as the message says",
        "RFC 1047",
        "outcome_unknown",
    ),
    Rule("mail rcpt data", "lost", "", Fate.DEFERRED, "tried again", "RFC 5321, 3.8", "connection_lost"),
    Rule("mail", "552", "", Fate.FAILED, "failed: too large", "RFC 1870, 6"),
    Rule("mail", "5..", "x.3.4 x.2.3", Fate.FAILED, "failed: too large", "RFC 1870, 6"),
    Rule(
        "mail", "5..", "5.6.x", Fate.FAILED, "failed: the server lacks an extension it needs", "RFC 6531, 3.5"
    ),
    Rule(
        "mail",
        "5..",
        "",
        Fate.TRANSPORT_FAULT,
        "our sender is refused: the mail waits and pays no try",
        "Mailer",
    ),
    Rule("rcpt", "552", "", Fate.DEFERRED, "tried again: too many at once", "RFC 5321, 4.5.3.1.10"),
    Rule(
        "rcpt data text", "421", "4.3.x", Fate.DEFERRED, "tried again: the server goes down", "RFC 3463, 3.4"
    ),
    Rule(
        "rcpt data text",
        "421",
        "",
        Fate.DEFERRED,
        "tried again, and the recipient's domain gets less",
        "RFC 5321, 3.8",
        slows=True,
    ),
    Rule(
        "rcpt data text",
        "4..",
        "4.7.x",
        Fate.DEFERRED,
        "tried again, and the recipient's domain gets less",
        "RFC 3463, 3.8",
        slows=True,
    ),
    Rule("mail rcpt data text", "4..", "", Fate.DEFERRED, "tried again", "RFC 5321, 4.2.1"),
    Rule("rcpt data text", "5..", "", Fate.FAILED, "failed", "RFC 5321, 4.2.1"),
)
