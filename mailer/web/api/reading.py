"""What a request brings, within bounds: its body, its query, its idempotency key."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

import flask
import pydantic_core
from pydantic import BaseModel, ValidationError

from mailer.message import MAX_KEY
from mailer.web.api import models, webhook_models
from mailer.web.api.errors import ApiError, of_model
from mailer.web.console_login import services

MAX_DEPTH = 24
"""Levels of JSON: a template's variables may have 20."""
_SHOWN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_WARNINGS = 20

Model = TypeVar("Model", bound=BaseModel)


def body() -> Any:
    """The JSON of the body; {} if there is none. Raises ApiError, or what becomes 413 if it is too large."""
    data = flask.request.get_data(cache=False)
    if not data.strip():
        return {}
    try:
        value = pydantic_core.from_json(data, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        raise ApiError(422, "validation_error", "the body is not JSON in UTF-8") from None
    if _is_deeper(value, MAX_DEPTH):
        raise ApiError(422, "validation_error", f"the body is nested deeper than {MAX_DEPTH} levels")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [
            item
            for outer in level
            for item in (outer.values() if type(outer) is dict else outer if type(outer) is list else ())
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return False
    return True


def checked(model: type[Model], value: Any) -> Model:
    """The value as the model has it. Raises ApiError."""
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        raise of_model(exc, _names(model)) from None


def query(model: type[Model]) -> Model:
    """The parameters behind the question mark. Raises ApiError."""
    try:
        return model.model_validate(flask.request.args.to_dict())
    except ValidationError as exc:
        raise of_model(exc, _names(model), parameters=True) from None


@cache
def _names(_model: type[BaseModel]) -> frozenset[str]:
    """Every field's name in these models, as requests write it."""
    found = set[str]()
    for each in [*vars(models).values(), *vars(webhook_models).values()]:
        if isinstance(each, type) and issubclass(each, BaseModel):
            found |= {field.alias or name for name, field in each.model_fields.items()}
    return frozenset(found)


def idempotency_key() -> str | None:
    """The key of this request, if it has one. Raises ApiError 400."""
    given = flask.request.headers.get("Idempotency-Key")
    if given is None:
        return None
    if not 1 <= len(given) <= MAX_KEY or not given.isprintable():
        raise ApiError(
            400, "invalid_idempotency_key", f"the key must have 1 to {MAX_KEY} printable characters"
        )
    return given


def fingerprint(value: Any, *rest: str) -> str:
    """64 hex digits, the same for the same request. Keyed: see `mailer.outbox`."""
    canonical = json.dumps([value, *rest], sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(services().store.sealer.fingerprint_key, canonical, hashlib.sha256).hexdigest()


def warn(notes: Iterable[str]) -> None:
    """Say in the answer's headers what was not understood (AK5)."""
    flask.g.setdefault("api_warnings", []).extend(notes)


def warn_unknown(names: Iterable[str]) -> None:
    """Name fields that were left out of account; names that may be anything are counted only."""
    found = list(names)
    if not found:
        return
    shown = sorted({name for name in found if _SHOWN.fullmatch(name)})[:_MOST_WARNINGS]
    others = len(set(found)) - len(shown)
    warn([f"not understood: {', '.join([*shown, *([f'{others} more'] if others else [])])}"])
