"""Through which door a message came, and what that means for it."""

from __future__ import annotations

from dataclasses import dataclass

TEST, SIMULATOR = "test", "simulator"
"""Carriers beside the configured transports."""


@dataclass(frozen=True, slots=True)
class Origin:
    """``project`` is that of an API key; None: the application itself.

    ``carrier`` is `TEST` or `SIMULATOR` for what no configured transport may carry. ``fingerprint`` stands
    for what was asked for where that says more than the message: 64 hex digits.
    """

    project: str | None = None
    carrier: str | None = None
    fingerprint: str | None = None


APPLICATION = Origin()
