"""A time as a request writes it, ISO 8601 or a few plain English forms, to an instant.

Libraries that read any text were tried (dateparser 1.5, parsedatetime 2.6) and left: both answer a time for
what they understood half of ("tomorrow at 25:00", "1"), and neither has "ET" right in summer. A mail at a
wrong time is worse than a request that is refused, so what is not in the grammar is refused::

    in 5 minutes                   in 1 hour and 30 min       2 days from now
    tomorrow at 9am                today at 17:30 UTC         Friday at 3pm ET
    at noon Europe/Berlin          2027-01-31T08:30:00Z       now

Without a zone, English times are in UTC. A weekday is the next one; today, too, if the time is still ahead.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mailer.errors import InvalidMessage
from mailer.timing import aware_utc

MAX_TEXT = 80
FIELD = "scheduled_at"
_HELP = 'write 2027-01-31T08:30:00Z, "in 5 minutes", "tomorrow at 9am" or "Friday at 3pm ET"'

_SECONDS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86_400,
            "week": 604_800}  # fmt: skip
_NUMBER, _UNIT = r"\d{1,6}|an?|one", "|".join(_SECONDS)
_ONE_SPAN = re.compile(rf"(?P<number>{_NUMBER}) ?(?P<unit>{_UNIT})s?")
_SPANS = re.compile(rf"(?:{_NUMBER}) ?(?:{_UNIT})s?(?:(?:,| and|, and)? (?:{_NUMBER}) ?(?:{_UNIT})s?)*")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORT = {day[:3]: day for day in _WEEKDAYS} | {"tues": "tuesday", "thur": "thursday", "thurs": "thursday"}
_TIME = r"(?:(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))? ?(?P<half>am|pm)?|(?P<noon>noon))"
_DAY = rf"(?P<day>today|tomorrow|{'|'.join(_WEEKDAYS)}|{'|'.join(_SHORT)})"
_WHEN = (
    re.compile(rf"(?:at )?{_TIME}(?: (?P<zone>\S+))? (?:on )?{_DAY}"),
    re.compile(rf"(?:(?:on )?{_DAY},? )?(?:at )?{_TIME}(?: (?P<zone>\S+))?"),
)

# By law the offset changes in the year (ET); by its letters it does not (EST).
_ZONES: dict[str, str | int] = {
    "utc": 0, "gmt": 0, "z": 0,
    "et": "America/New_York", "ct": "America/Chicago", "mt": "America/Denver", "pt": "America/Los_Angeles",
    "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7,
    "cet": 1, "cest": 2,
}  # fmt: skip
_AREA = re.compile(r"[A-Za-z]+(?:[/_-][A-Za-z]+)+")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")


def instant(given: str, now: datetime, field: str = FIELD) -> datetime:
    """The instant, in UTC. Raises InvalidMessage that names the field for what cannot be read for sure."""
    text = " ".join(given.split())
    if not text or len(given) > MAX_TEXT or not text.isascii():
        raise InvalidMessage(field, f"is no time; {_HELP}")
    if text[0].isdigit() and re.match(r"\d{4}-", text):
        return _iso(text, field)
    found = _relative(text.lower(), now) or _at(text, now)
    if found is None:
        raise InvalidMessage(field, f"is not a time that can be read for sure; {_HELP}")
    return found


def _iso(text: str, field: str) -> datetime:
    try:
        return aware_utc(datetime.fromisoformat(text), field)
    except InvalidMessage:
        raise InvalidMessage(field, "has no time zone; end it with Z or an offset such as +01:00") from None
    except ValueError:
        raise InvalidMessage(field, f"is no ISO 8601 time; {_HELP}") from None


def _relative(text: str, now: datetime) -> datetime | None:
    if text == "now":
        return now
    spans = text[3:] if text.startswith("in ") else text.removesuffix(" from now")
    if spans == text or _SPANS.fullmatch(spans) is None:
        return None
    seconds = sum(
        (int(each["number"]) if each["number"].isdigit() else 1) * _SECONDS[each["unit"]]
        for each in _ONE_SPAN.finditer(spans)
    )
    try:
        return now + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _at(text: str, now: datetime) -> datetime | None:
    found = next((match for form in _WHEN if (match := form.fullmatch(text.lower()))), None)
    if found is None or (clock := _clock(found)) is None:
        return None
    zone = _zone(text[slice(*found.span("zone"))]) if found["zone"] else UTC
    if zone is None:
        return None
    local = now.astimezone(zone)
    wanted = local.replace(hour=clock[0], minute=clock[1], second=0, microsecond=0, fold=0)
    day = _SHORT.get(found["day"] or "", found["day"])
    if day == "tomorrow":
        wanted += timedelta(days=1)
    elif day in _WEEKDAYS:
        wanted += timedelta(days=(_WEEKDAYS.index(day) - local.weekday()) % 7)
        wanted += timedelta(days=7 if wanted <= local else 0)
    elif day is None and wanted <= local:
        wanted += timedelta(days=1)
    elif wanted <= local:  # today, and over
        return None
    return wanted.astimezone(UTC)


def _clock(found: re.Match[str]) -> tuple[int, int] | None:
    if found["noon"]:
        return 12, 0
    hour, minute, half = int(found["hour"]), int(found["minute"] or 0), found["half"]
    if minute > 59 or not (1 <= hour <= 12 if half else hour <= 23):
        return None
    if half is None and found["minute"] is None:  # "at 9" in the morning or in the evening?
        return None
    return (hour % 12 + (12 if half == "pm" else 0) if half else hour), minute


def _zone(name: str) -> tzinfo | None:
    known = _ZONES.get(name.lower())
    if isinstance(known, int):
        return timezone(timedelta(hours=known))
    if offset := _OFFSET.fullmatch(name):
        minutes = int(offset[2]) * 60 + int(offset[3])
        return (
            timezone(timedelta(minutes=minutes if offset[1] == "+" else -minutes)) if minutes < 900 else None
        )
    if known is None and (len(name) > 40 or _AREA.fullmatch(name) is None):
        return None
    try:
        return ZoneInfo(known or name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
