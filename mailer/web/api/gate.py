"""Who asks, whether the key may, and how often: looked at before a request is read (AK1 to AK5)."""

from __future__ import annotations

import math

import flask

from mailer import keys
from mailer.admission import Admission, TooManyWrongKeys, WrongKey
from mailer.keys import Scope
from mailer.store.keys import KeyRow
from mailer.store.listing import Sight
from mailer.web.api.errors import ApiError

GATE = "mailer.api.gate"


def gate() -> Admission:
    """That of the current application."""
    found: Admission = flask.current_app.extensions[GATE]
    return found


def let_in(scope: Scope) -> None:
    """Raises ApiError unless the request has a key with this scope that may still ask. Else `key` has it."""
    token = _token()
    try:
        found = gate().identify(token, flask.request.remote_addr)
    except TooManyWrongKeys:
        said = "too many wrong keys; wait a minute"
        raise ApiError(429, "rate_limit_exceeded", said, Retry_After="60") from None
    except WrongKey:
        raise ApiError(403, "invalid_api_key", "API key is invalid") from None
    flask.g.api_key = found
    _count(found)
    if not keys.may(found, scope):
        said = f"this API key lacks the scope {scope}; make one that has it"
        raise ApiError(401, "restricted_api_key", said)


def _token() -> str:
    scheme, _, token = flask.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        said = "Missing API key: the header Authorization: Bearer re_… is not there"
        raise ApiError(401, "missing_api_key", said, WWW_Authenticate="Bearer")
    return token.strip()


def _count(found: KeyRow) -> None:
    allowance = gate().count(found)
    reset = str(max(1, math.ceil(allowance.seconds)))
    flask.g.api_limits = {
        "ratelimit-limit": str(allowance.amount),
        "ratelimit-remaining": str(allowance.left),
        "ratelimit-reset": reset,
    }
    if not allowance.granted:
        raise ApiError(429, "rate_limit_exceeded", "too many requests with this key", Retry_After=reset)


def key() -> KeyRow:
    """Whose request this is."""
    found: KeyRow = flask.g.api_key
    return found


def sight() -> Sight:
    """Which messages the request may see: a test key's own are those that went to no provider."""
    return Sight(key().project, captive=key().is_test)
