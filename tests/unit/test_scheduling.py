"""Times as requests write them: what is read, in which zone, and that what is not sure is refused."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.errors import InvalidMessage
from mailer.scheduling import instant

MONDAY = datetime(2026, 11, 23, 20, tzinfo=UTC)
SUMMER = datetime(2026, 7, 6, 12, tzinfo=UTC)  # a Monday, too


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-12-01T00:00:00Z", at(2026, 12, 1)),
        ("2026-12-01T00:00:00+02:00", at(2026, 11, 30, 22)),
        ("2026-12-01 08:30:00.123Z", datetime(2026, 12, 1, 8, 30, 0, 123000, UTC)),
        ("now", MONDAY),
        # The forms of Resend's documentation.
        ("in 1 min", at(2026, 11, 23, 20, 1)),
        ("in 1 hour", at(2026, 11, 23, 21)),
        ("in 3 days", at(2026, 11, 26, 20)),
        ("in 30 days", at(2026, 12, 23, 20)),
        ("tomorrow at 9am", at(2026, 11, 24, 9)),
        ("Friday at 3pm ET", at(2026, 11, 27, 20)),
        ("In  5 MINUTES", at(2026, 11, 23, 20, 5)),
        ("in an hour", at(2026, 11, 23, 21)),
        ("in 1 hour and 30 min", at(2026, 11, 23, 21, 30)),
        ("in 1 week, 2 days", at(2026, 12, 2, 20)),
        ("2 hours from now", at(2026, 11, 23, 22)),
        ("today at 11pm", at(2026, 11, 23, 23)),
        ("9am", at(2026, 11, 24, 9)),
        ("at 21:15", at(2026, 11, 23, 21, 15)),
        ("Monday at 9am", at(2026, 11, 30, 9)),
        ("monday 9pm", at(2026, 11, 23, 21)),
        ("on fri, at 12am", at(2026, 11, 27)),
        ("noon tomorrow", at(2026, 11, 24, 12)),
        ("9am PST tomorrow", at(2026, 11, 24, 17)),
        ("tomorrow at 9am Europe/Berlin", at(2026, 11, 24, 8)),
        ("tomorrow at 9:30 +05:30", at(2026, 11, 25, 4)),  # it is Tuesday there already
    ],
)
def test_what_is_read(text, meant):
    """ISO 8601, and plain English counted from now; UTC where no zone is given."""
    assert instant(text, MONDAY) == meant


def test_zones_know_summer():
    """ET is the law of a place, EST a number of hours."""
    assert instant("Friday at 3pm ET", SUMMER) == at(2026, 7, 10, 19)
    assert instant("Friday at 3pm EST", SUMMER) == at(2026, 7, 10, 20)


@pytest.mark.parametrize(
    "text",
    ["", " ", "hello", "1", "12", "may", "tomorrow", "friday", "next friday at 3pm", "yesterday at 9am",
     "today at 1am", "in 5", "in -1 min", "in 1 month", "in 9999999 days", "in 999999 weeks", "at 9",
     "tomorrow at 25:00", "tomorrow at 13pm", "tomorrow at 0am", "tomorrow at 9:75am", "midnight",
     "Friday at 3pm Nowhere/There", "tomorrow at 9am ../etc/passwd", "tomorrow at 9am ET please",
     "2026-12-01", "2026-12-01T00:00:00", "2026-13-40T00:00:00Z", "0001-01-01T00:00:00+23:00", "x" * 81,
     "in 1 min\0", "tomorrow at 9am İ"],
)  # fmt: skip
def test_what_is_not_sure_is_refused(text):
    """Better no mail than one at a time nobody meant."""
    with pytest.raises(InvalidMessage, match="^scheduled_at: "):
        instant(text, MONDAY)


@given(st.text() | st.from_regex(r"(in|at|tomorrow|[0-9:apm +/ETZ]){1,12}"))
def test_nothing_else_comes_out(text):
    """Whatever is written: an instant, or the one error."""
    with contextlib.suppress(InvalidMessage):
        assert instant(text, MONDAY).tzinfo is UTC
