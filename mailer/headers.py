"""What may stand in a header: no control character anywhere, and no name that is not the caller's to set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mailer.errors import InvalidMessage

FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""MF13: C0 (TAB too), DEL, C1, the Unicode line ends; and lone surrogates, which no charset can carry."""

MAX_UNBROKEN = 900
"""Octets without a blank to fold at; a line ends at 998 (RFC 5322 section 2.1.1)."""

_NAME = re.compile(r"[!-9;-~]{1,76}")  # ftext, RFC 5322 section 3.6.8
_OURS = frozenset(
    ["from", "to", "cc", "bcc", "sender", "reply-to", "subject", "date", "message-id", "return-path", "received", "mime-version", "auto-submitted", "x-auto-response-suppress", "dkim-signature", "authentication-results"]
)
_OUR_PREFIXES = ("arc-", "content-", "resent-")


def check_header_text(text: str, field: str) -> str:
    """``text`` unchanged. Raises InvalidMessage if it holds a character that could start a new header."""
    if not isinstance(text, str):
        raise InvalidMessage(field, f"is a {type(text).__name__}; give text")
    found = FORBIDDEN.search(text)
    if found:
        raise InvalidMessage(field, f"holds the control character U+{ord(found[0]):04X}; remove it")
    return text


def check_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
) -> tuple[tuple[str, str], ...]:
    """Custom headers, checked by MF13 and MF14; each name once. Raises InvalidMessage."""
    if headers is None:
        return ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    checked: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidMessage("headers", "must be a mapping, or a list of (name, value)")
        name, value = pair
        lowered = _check_name(name)
        if lowered in checked:
            raise InvalidMessage("headers", f"names {name} twice")
        checked[lowered] = (name, _check_value(name, value))
    return tuple(checked.values())


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidMessage(
            "headers", "has a name that is not 1 to 76 printable ASCII characters without ':'"
        )
    lowered = name.lower()
    if lowered in _OURS or lowered.startswith(_OUR_PREFIXES):
        raise InvalidMessage(
            "headers", f"{name} is set by Mailer or by servers; use the argument made for it"
        )
    return lowered


def _check_value(name: str, value: str) -> str:
    check_header_text(value, f"headers[{name}]")
    if len(value) > 8_000 or any(len(word.encode()) > MAX_UNBROKEN for word in value.split(" ")):
        raise InvalidMessage(
            f"headers[{name}]", f"is too long: {MAX_UNBROKEN} octets without a blank at most"
        )
    return value
