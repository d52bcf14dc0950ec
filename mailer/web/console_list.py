"""The console's list: messages newest first, narrowed by a search and filters, a page at a time.

However long the log is: numbers stop at a most, and a search for a part of a word says how far it looked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import flask

from mailer.states import State
from mailer.store import queries
from mailer.store.queries import MOST_COUNTED, Found, Search
from mailer.web.console_login import is_refresh, services
from mailer.web.console_roles import Answer

PAGE = 50
"""Messages on one page of the list."""
_MOST_STEPS_BACK = 20
_NARROWING = ("q", "state", "template", "lane", "tag", "since", "until")
"""What the address of a list may say, beside where its page begins."""

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class Page(NamedTuple):
    """Where the neighbours of a page are; None where there is none."""

    newer: str | None
    older: str | None


def add_to(blueprint: flask.Blueprint) -> None:
    """Put the list into the console."""
    for path in ("/messages", "/"):  # the first is the one that links lead to
        blueprint.add_url_rule(path, view_func=messages)


def messages() -> Answer:
    """Messages, newest first, narrowed by a search and filters."""
    wanted = _wanted(flask.request.args)
    with services().store.read() as connection:
        found = queries.search(connection, wanted)
        counts, total = queries.counts(connection), queries.total(connection)
        templates = [] if is_refresh() else queries.templates_in_use(connection)
    return flask.render_template(
        "console/_messages.html" if is_refresh() else "console/messages.html",
        found=found,
        counts={state: counts[state] for state in State if state in counts},
        total=total,
        wanted=wanted,
        narrowed=any(flask.request.args.get(name) for name in _NARROWING),
        templates=templates,
        lanes=services().settings.lane_names,
        page=_neighbours(wanted, found),
        narrow=_narrow,
        number=_number,
    )


def _wanted(args: Mapping[str, str]) -> Search:
    def word(name: str) -> str | None:
        return _UNPRINTABLE.sub("", args.get(name, ""))[:320].strip() or None

    state, before, last_day = word("state"), word("before"), _day(word("until"))
    return Search(
        text=word("q"),
        state=State(state) if state in list(State) else None,
        template=word("template"),
        lane=word("lane"),
        tag=word("tag"),
        since=_day(word("since")),
        until=last_day and last_day + timedelta(days=1),
        before=before if before and _ID.fullmatch(before) else None,
        limit=PAGE,
    )


def _day(written: str | None) -> datetime | None:
    """The beginning of a day in UTC, as browsers write it; None for what is none, or is in no calendar."""
    try:
        day = datetime.strptime(written or "", "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return day if 1970 <= day.year < 9999 else None


def _narrow(**changes: str | None) -> str:
    """The address of this list with something changed, from its first page."""
    kept = {k: v for k, v in flask.request.args.items() if k in _NARROWING and v}
    values: dict[str, Any] = {k: v for k, v in (kept | changes).items() if v}
    return flask.url_for("console.messages", **values)


def _neighbours(wanted: Search, found: Found) -> Page:
    """Keys page forward only, so the address carries the way that was come, to go back on it."""
    trail = [step for step in flask.request.args.get("trail", "").split(".") if _ID.fullmatch(step)]
    newer = older = None
    if found.next:
        way = [*trail, wanted.before] if wanted.before else []
        older = _narrow(before=found.next, trail=".".join(way[-_MOST_STEPS_BACK:]))
    if wanted.before:
        newer = _narrow(before=trail[-1] if trail else None, trail=".".join(trail[:-1]))
    return Page(newer, older)


def _number(counted: int) -> str:
    """A count as people read it: 1,234, or 10,000+ for that many and more."""
    return f"{counted:,}" + ("+" if counted >= MOST_COUNTED else "")
