"""When a message may leave and when it must not any more: from what a caller writes to aware UTC instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mailer.errors import InvalidMessage
from mailer.headers import kind_of

MAX_AHEAD = timedelta(days=3_660)
"""Ten years: what lies further ahead is a slip, such as milliseconds given as seconds."""

SLACK = timedelta(seconds=5)
"""What is due at once is due since so long: the clocks of two machines may differ by that much."""

Span = float | timedelta
"""Seconds, or a timedelta."""


def start(
    send_at: datetime | None, countdown: Span | None, eta: datetime | None, now: datetime
) -> datetime | None:
    """Not before when; None for at once. ``eta`` and ``countdown`` are Celery's words for the same."""
    given = {"send_at": send_at, "countdown": countdown, "eta": eta}
    _at_most_one([name for name, value in given.items() if value is not None])
    if countdown is not None:
        return now + _span(countdown, "countdown")
    field = "eta" if send_at is None else "send_at"
    instant = eta if send_at is None else send_at
    if instant is None:
        return None
    instant = aware_utc(instant, field)
    if instant - now > MAX_AHEAD:
        raise InvalidMessage(field, "lies more than ten years ahead; check the unit")
    return instant


def deadline(
    expires_at: datetime | None, expires_in: Span | None, starts: datetime | None, now: datetime
) -> datetime | None:
    """After when not any more; None for no deadline. ``expires_in`` counts from the start of sending."""
    _at_most_one([n for n, v in (("expires_at", expires_at), ("expires_in", expires_in)) if v is not None])
    begins = now if starts is None else max(now, starts)
    if expires_in is not None:
        span = _span(expires_in, "expires_in")
        if not span:
            raise InvalidMessage("expires_in", "is 0, so the message could never leave; give more")
        return begins + span
    if expires_at is None:
        return None
    instant = aware_utc(expires_at, "expires_at")
    if instant <= begins:
        raise InvalidMessage("expires_at", "is not after the moment the message may leave; give a later one")
    return instant


def seconds(span: Span | None) -> str:
    """A checked span as text, the same for 900, 900.0 and timedelta(minutes=15); empty for None."""
    if span is None:
        return ""
    return f"+{span.total_seconds() if isinstance(span, timedelta) else float(span)}"


def _at_most_one(names: list[str]) -> None:
    if len(names) > 1:
        raise InvalidMessage(names[1], f"is given together with {names[0]}; give one of them")


def _span(given: object, field: str) -> timedelta:
    if isinstance(given, bool) or not isinstance(given, int | float | timedelta):
        raise InvalidMessage(field, f"is {kind_of(given)}; give seconds or a timedelta")
    try:
        span = given if isinstance(given, timedelta) else timedelta(seconds=given)
    except (ValueError, OverflowError):  # not a number, infinite, or more than a timedelta holds
        raise InvalidMessage(field, "is no usable number of seconds; give seconds or a timedelta") from None
    if span < timedelta(0):
        raise InvalidMessage(field, "is negative; give 0 or more")
    if span > MAX_AHEAD:
        raise InvalidMessage(field, "is more than ten years; it counts seconds, not milliseconds")
    return span


def aware_utc(instant: object, field: str) -> datetime:
    """``instant`` in UTC. Raises InvalidMessage that names ``field`` if it has no time zone."""
    if not isinstance(instant, datetime):
        raise InvalidMessage(field, f"is {kind_of(instant)}; give a datetime with a time zone")
    if instant.utcoffset() is None:
        raise InvalidMessage(field, "has no time zone; use datetime.now(timezone.utc) or .astimezone()")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise InvalidMessage(field, "lies outside the years 1 to 9999") from None
