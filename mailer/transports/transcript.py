"""What was said on a connection, fit to be kept and shown: no secret, no text of a mail, addresses masked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailer.address import masked
from mailer.transports.wire import Answer, reply_of

MOST_LINES = 60
MOST_CHARS = 300
_FIRST_LINES = 20  # of those that are too many, so many of the beginning are kept, and the end

MOST_HEARD = 2_000
"""Characters that are looked at; `mailer.transports.wire` cuts a reply to half of it."""

# Linear: what is unquoted is tried where it begins, and what is quoted has an end in sight.
_ATOM = r'[^\s<>()\[\],;:"]'
_ADDRESS = re.compile(rf'(?:"(?:[^"\\]|\\.){{0,320}}"|(?<!{_ATOM}){_ATOM}+)@{_ATOM}+')


class Transcript:
    """The lines of one side and the other: ``C: …`` is ours, ``S: …`` the server's, ``* …`` a remark."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._secrets: list[str] = []

    def hide(self, *secrets: str) -> None:
        """Never show these, whoever says them."""
        self._secrets += [secret for secret in secrets if secret]

    def said(self, command: str) -> None:
        """Add a command of ours that holds no address."""
        self._add("C:", command)

    def heard(self, answer: Answer) -> None:
        """Add a reply of the server's."""
        reply = reply_of(answer)
        self._add("S:", f"{reply.code} {reply.text}".rstrip())

    def remark(self, text: str) -> None:
        """Add what nobody said."""
        self._add("*", text)

    def extend(self, lines: Sequence[str]) -> None:
        """Add lines of another transcript."""
        self._lines += lines

    def lines(self) -> tuple[str, ...]:
        """All of it, or its beginning and its end."""
        lines = self._lines
        if len(lines) > MOST_LINES:
            left_out = len(lines) - MOST_LINES + 1
            middle = f"* {left_out} lines left out"
            lines = [*lines[:_FIRST_LINES], middle, *lines[_FIRST_LINES + left_out :]]
        return tuple(lines)

    def _add(self, who: str, text: str) -> None:
        for secret in self._secrets:
            text = text.replace(secret, "••••••")
        text = _ADDRESS.sub(lambda found: masked(found[0]), text[:MOST_HEARD])
        self._lines.append(f"{who} {text[:MOST_CHARS]}")
