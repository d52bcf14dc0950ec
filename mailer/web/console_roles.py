"""Who looks at the console, and what they may do there (UI7)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import flask

from mailer.operators import Operator, Role

P = ParamSpec("P")
Answer = flask.typing.ResponseReturnValue


def person_or_none() -> Operator | None:
    """Who is logged in, if anybody."""
    found: Operator | None = flask.g.get("console_person")
    return found


def person() -> Operator:
    """Who is logged in; there is somebody wherever a page is not open to all."""
    found: Operator = flask.g.console_person
    return found


def may(role: Role) -> bool:
    """Whether the person has this role, or a greater one."""
    found = person_or_none()
    return found is not None and found.role.includes(role)


def needs(role: Role) -> Callable[[Callable[P, Answer]], Callable[P, Answer]]:
    """For a view: 403 to whoever has a lesser role (UI7)."""

    def wrap(view: Callable[P, Answer]) -> Callable[P, Answer]:
        @wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> Answer:
            if not may(role):
                flask.abort(403, f"This needs the role {role.value}; yours is {person().role.value}.")
            return view(*args, **kwargs)

        return checked

    return wrap
