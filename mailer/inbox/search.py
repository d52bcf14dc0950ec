"""Read a search such as ``to:ada@example.com subject:"reset your" -cc:bob`` in Mailpit's grammar.

Every term must hold. A term is a plain word, a ``"quoted phrase"`` or ``field:value`` (the value may be
quoted); a leading ``-`` or ``!`` turns it round. Fields: to, cc, bcc, from, reply-to, addressed (any of
those), subject, message-id, is:read, is:unread, has:attachment. Case does not matter, parts of words match,
and a word without a letter or digit is ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_QUERY_CHARS = 1_000
MAX_TERMS = 50

_TOKEN = re.compile(r'[-!]?(?:[a-z-]{2,12}:)?(?:"[^"]*"?|[^\s"]+)', re.IGNORECASE)
_COLUMNS = {
    "to": ("search_to",),
    "cc": ("search_cc",),
    "bcc": ("search_bcc",),
    "from": ("search_from",),
    "reply-to": ("search_reply_to",),
    "addressed": ("search_to", "search_cc", "search_bcc", "search_from", "search_reply_to"),
    "subject": ("search_subject",),
    "message-id": ("search_message_id",),
}
_FLAGS = {
    ("is", "read"): "is_read = 1",
    ("is", "unread"): "is_read = 0",
    ("has", "attachment"): "attachments > 0",
    ("has", "attachments"): "attachments > 0",
}
EVERYWHERE = ("search_text", *_COLUMNS["addressed"], "search_subject", "search_message_id")


@dataclass(frozen=True, slots=True)
class Term:
    """One condition. ``field`` is ``""`` for a plain word; ``value`` is case-folded."""

    field: str
    value: str
    negated: bool


def parse_query(query: str) -> tuple[Term, ...]:
    """Return the terms of a query, at most fifty of its first thousand characters."""
    tokens = _TOKEN.findall(query[:MAX_QUERY_CHARS])[:MAX_TERMS]
    terms = (_term(token) for token in tokens)
    return tuple(term for term in terms if re.search(r"\w", term.value))


def _term(token: str) -> Term:
    negated = token[0] in "-!" and len(token) > 1
    token = token[1:] if negated else token
    field, colon, value = token.partition(":")
    known = field.lower() in _COLUMNS or (field.lower(), value.strip('"').lower()) in _FLAGS
    if not (colon and known and not token.startswith('"')):
        field, value = "", token
    return Term(field.lower(), value.strip('"').strip().casefold(), negated)


def to_sql(terms: tuple[Term, ...]) -> tuple[str, list[str]]:
    """Return a WHERE condition over the mailbox's columns, and its parameters."""
    conditions: list[str] = []
    parameters: list[str] = []
    for term in terms:
        flag = _FLAGS.get((term.field, term.value))
        columns = _COLUMNS.get(term.field, EVERYWHERE)
        condition = flag or " OR ".join(f"instr({column}, ?) > 0" for column in columns)
        conditions.append(f"{'NOT ' if term.negated else ''}({condition})")
        parameters += [] if flag else [term.value] * len(columns)
    return " AND ".join(conditions) or "1", parameters
