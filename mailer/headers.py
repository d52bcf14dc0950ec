"""What may stand in a header: the rules for text and for names.

A header ends where its line ends, so a text that smuggles in a line break adds headers, recipients or a
whole body. CPython's own checks differ from patch level to patch level and know only CR and LF; the rules
here are the product's own. Nothing is repaired: a text is fine as it is, or it is refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mailer.errors import InvalidMessage

MAX_TEXT = 998
"""Characters of one header text unless a field says otherwise (the line limit of RFC 5322 section 2.1.1)."""

MAX_HEADER_NAME = 76
"""Characters: with its colon the name still fits a line of 78."""

MAX_HEADER_VALUE = 4_000
MAX_HEADERS = 50
MAX_UNBROKEN = 900
"""Octets without a blank: nothing can fold them, and a line ends at 998 (RFC 5322 section 2.1.1)."""

# C0, DEL, C1, the two Unicode line ends, and halves of surrogate pairs, which no encoding can carry.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

# RFC 5322 section 3.6.8, ftext: printable US-ASCII but the colon.
_HEADER_NAME = re.compile(r"[!-9;-~]+")

_OWN_HEADERS = frozenset(
    {
        "apparently-to",
        "authentication-results",
        "auto-submitted",
        "bcc",
        "cc",
        "date",
        "dkim-signature",
        "domainkey-signature",
        "from",
        "message-id",
        "mime-version",
        "reply-to",
        "return-path",
        "sender",
        "subject",
        "to",
        "x-auto-response-suppress",
    }
)
_OWN_PREFIXES = ("arc-", "content-", "received", "resent-")
_ARGUMENTS = {"to": "to=", "cc": "cc=", "bcc": "bcc=", "reply-to": "reply_to=", "subject": "subject="}

# RFC 5322 section 3.6 and RFC 8058 section 3.1: more than one of these makes a message malformed.
_AT_MOST_ONCE = frozenset(
    {"feedback-id", "importance", "in-reply-to", "list-id", "list-unsubscribe", "list-unsubscribe-post"}
    | {"organization", "precedence", "priority", "references", "x-mailer", "x-priority"}
)


def control_in(text: str) -> str | None:
    """Words for the first character of ``text`` that no header may hold; None if there is none.

    The words name the code point and its place (counted from 1), never the text.
    """
    if text.isascii() and text.isprintable():  # three times as quick, and the usual case
        return None
    found = _CONTROL.search(text)
    if found is None:
        return None
    return f"has the control character U+{ord(found[0]):04X} at position {found.start() + 1}; remove it"


def check_header_text(value: object, field: str, limit: int = MAX_TEXT) -> str:
    """Return ``value`` if a header can hold it as it is.

    Refused with `InvalidMessage`: what is not a str, more than ``limit`` characters, and every C0 control
    (TAB too), DEL, C1 control, U+2028, U+2029 and lone surrogate (RFC 5322 section 2.2, RFC 6532).
    """
    if not isinstance(value, str):
        raise InvalidMessage(field, f"is {kind_of(value)}; give text (str)")
    if len(value) > limit:
        raise InvalidMessage(field, f"has {len(value):,} characters; at most {limit:,} are allowed")
    problem = control_in(value)
    if problem is not None:
        raise InvalidMessage(field, problem)
    return value


def check_header_name(name: object) -> str:
    """Return ``name`` if a caller may add a header of this name.

    Refused with `InvalidMessage`: what is not ``ftext`` (RFC 5322 section 3.6.8), more than 76 characters,
    and the names Mailer or a server on the way sets: a second one would make the message malformed or lie
    about its origin.
    """
    if not isinstance(name, str):
        raise InvalidMessage("headers", f"a header name is {kind_of(name)}; give text (str)")
    if len(name) > MAX_HEADER_NAME:
        raise InvalidMessage(
            "headers", f"a header name is longer than {MAX_HEADER_NAME} characters; shorten it"
        )
    if _HEADER_NAME.fullmatch(name) is None:
        raise InvalidMessage(
            "headers", "a header name may only hold printable ASCII without blanks and colons"
        )
    lowered = name.lower()
    if lowered in _OWN_HEADERS or lowered.startswith(_OWN_PREFIXES):
        argument = _ARGUMENTS.get(lowered)
        step = f"use the argument {argument}" if argument else "leave it out"
        raise InvalidMessage("headers", f"{name} is set by Mailer or by a mail server; {step}")
    return name


def check_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
) -> tuple[tuple[str, str], ...]:
    """Return the caller's own headers as pairs, in their order, each name and value checked.

    A mapping, or pairs (name, value) where a name may come again; None is none. At most 50 of them.
    """
    checked: list[tuple[str, str]] = []
    once: set[str] = set()
    for given, value in _pairs(headers):
        if len(checked) == MAX_HEADERS:
            raise InvalidMessage("headers", f"has more than {MAX_HEADERS} entries; give fewer")
        name = check_header_name(given)
        lowered = name.lower()
        if lowered in once:
            raise InvalidMessage("headers", f"has {name} twice; give it once")
        if lowered in _AT_MOST_ONCE:
            once.add(lowered)
        checked.append((name, _check_value(name, value)))
    return tuple(checked)


def _pairs(headers: Any) -> Iterable[tuple[object, object]]:
    if headers is None:
        return ()
    if isinstance(headers, Mapping):
        return headers.items()
    if isinstance(headers, str | bytes) or not isinstance(headers, Iterable):
        raise InvalidMessage("headers", f"is {kind_of(headers)}; give a mapping or pairs (name, value)")
    return (_pair(entry) for entry in headers)


def _pair(entry: Any) -> tuple[object, object]:
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        raise InvalidMessage("headers", "has an entry which is no pair (name, value); give such pairs")
    return entry[0], entry[1]


def _check_value(name: str, value: object) -> str:
    text = check_header_text(value, f"headers[{name!r}]", MAX_HEADER_VALUE)
    if len(text) > MAX_UNBROKEN and any(len(word) > MAX_UNBROKEN for word in text.split(" ")):
        raise InvalidMessage(
            f"headers[{name!r}]",
            f"has more than {MAX_UNBROKEN} characters without a blank, too long for a mail line; shorten it",
        )
    return text


def kind_of(value: object) -> str:
    """What ``value`` is, in words that do not show it: ``a User object``, ``None``."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name} object"


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The words that are allowed, the likeliest first if ``word`` looks like a misspelling of one."""
    allowed = sorted(words)
    close = difflib.get_close_matches(word[:64], allowed, n=1, cutoff=0.6)
    listed = ", ".join(allowed)
    return f"did you mean {close[0]!r}? Known: {listed}" if close else f"known: {listed}"
