"""Template variables: a copy of what the caller gave, in which everything can be stored as JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from mailer.errors import InvalidMessage
from mailer.headers import kind_of
from mailer.secret import ErasedSecret, Secret

MARKER = "$secret"
"""The only key of the mapping that stands for a `Secret` in stored content."""

PLAIN = frozenset({str, int, float, bool, type(None)})
"""What most values are: asked first, since it takes ten times as long to find that it is no `Mapping`."""

MAX_DEPTH = 20
_MAX_INT_BITS = 1_024
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

_Text = TypeVar("_Text", str, Secret)


def checked_context(context: object) -> dict[str, Any]:
    """A deep copy of ``context`` made of None, bool, int, float, str, list, dict and `Secret`.

    Tuples become lists; date, time and datetime become ISO 8601 text; Decimal and UUID become text. NUL and
    lone surrogates, which neither a mail nor every database can hold, become U+FFFD. Anything else, such as
    a database row or a set, raises InvalidMessage that says where it stands and what to pass instead.
    """
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise InvalidMessage("context", f"is {kind_of(context)}; give a mapping of names to values")
    try:
        return _copied_mapping(context, MAX_DEPTH + 1)
    except _Unfit as unfit:
        raise _told(unfit) from None


def storable(text: _Text) -> _Text:
    """``text`` with U+FFFD for every NUL and lone surrogate."""
    if isinstance(text, Secret):
        if isinstance(text, ErasedSecret) or _UNSTORABLE.search(text.reveal()) is None:
            return text
        return Secret(_UNSTORABLE.sub("\ufffd", text.reveal()))
    if text.isascii() and "\0" not in text:
        return text
    return _UNSTORABLE.sub("\ufffd", text)


def contains_secret(value: Any) -> bool:
    """Whether a `Secret` stands anywhere in it."""
    if type(value) in PLAIN:
        return False
    if isinstance(value, Mapping):
        return any(map(contains_secret, value.values()))
    if isinstance(value, list | tuple):
        return any(map(contains_secret, value))
    return isinstance(value, Secret)


class _Unfit(Exception):
    """A value that cannot be stored. ``path`` leads to it, and grows on the way up to the context itself."""

    def __init__(self, problem: str, *, only_its_branch: bool = False) -> None:
        self.problem, self.only_its_branch = problem, only_its_branch
        self.path: list[str | int] = []


def _copied(value: Any, levels: int) -> Any:
    kind = type(value)
    if kind is str:
        return storable(value)
    if kind is bool or value is None:
        return value
    if levels:  # what most contexts are made of
        if kind is dict:
            return _copied_mapping(value, levels)
        if kind is list:
            return _copied_list(value, levels)
        if (kind is int and value.bit_length() <= _MAX_INT_BITS) or (kind is float and math.isfinite(value)):
            return value
    if isinstance(value, Secret):
        return storable(value)
    if not levels:
        problem = f"is nested deeper than {MAX_DEPTH} or contains itself; pass less of it"
        raise _Unfit(problem, only_its_branch=True)
    if isinstance(value, Mapping):
        return _copied_mapping(value, levels)
    if isinstance(value, list | tuple):
        return _copied_list(value, levels)
    return _copied_scalar(value)


def _copied_mapping(value: Mapping[Any, Any], levels: int) -> dict[str, Any]:
    copied: dict[str, Any] = {}
    for key, item in value.items():
        name = key if type(key) is str and key.isidentifier() else _copied_key(key)
        if type(item) is str and item.isascii() and "\0" not in item:  # as most are
            copied[name] = item
            continue
        try:
            copied[name] = _copied(item, levels - 1)
        except _Unfit as unfit:
            unfit.path.insert(0, key)
            raise
    return copied


def _copied_list(value: Iterable[Any], levels: int) -> list[Any]:
    copied: list[Any] = []
    try:
        for item in value:
            copied.append(_copied(item, levels - 1))
    except _Unfit as unfit:
        unfit.path.insert(0, len(copied))
        raise
    return copied


def _copied_key(key: Any) -> str:
    if not isinstance(key, str):
        raise _Unfit(f"has a key which is {kind_of(key)}; keys must be text (str)")
    name = storable(str.__str__(key))
    if name == MARKER:
        raise _Unfit(f"has the key {MARKER}, which Mailer keeps for itself; rename it")
    return name


def _copied_scalar(value: Any) -> Any:
    if hasattr(value, "__html__"):
        raise _Unfit(f"is {kind_of(value)}; pass plain text and leave the HTML to the template")
    if isinstance(value, str):  # a subclass; str() of an Enum of texts would be its name
        return storable(str.__str__(value))
    if isinstance(value, int):
        if value.bit_length() > _MAX_INT_BITS:
            raise _Unfit(f"is a number of more than {_MAX_INT_BITS} bits; pass it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Unfit("is not a finite number, which JSON cannot hold; pass text or None")
        return float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Decimal | UUID):
        return str(value)
    raise _Unfit(f"is {kind_of(value)}, which cannot be stored; pass its values as text and numbers")


def _told(unfit: _Unfit) -> InvalidMessage:
    # Keys are shown if they are plain names: one made from user input may be an address.
    path = unfit.path[:1] if unfit.only_its_branch else unfit.path
    steps = (
        f"[{p}]" if isinstance(p, int) else f"[{p!r}]" if _PLAIN_KEY.fullmatch(p) else "[…]" for p in path
    )
    where = "context" + "".join(steps)
    return InvalidMessage("context", unfit.problem if not path else f"{where} {unfit.problem}")
