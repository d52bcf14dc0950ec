"""Who asks, whether the key may, and how often: looked at before a request is read (AK1 to AK5)."""

from __future__ import annotations

import math

import flask
from limits import RateLimitItem, parse
from limits.strategies import SlidingWindowCounterRateLimiter

from mailer import keys
from mailer.keys import Scope
from mailer.services import Services
from mailer.store.keys import KeyRow
from mailer.store.listing import Sight
from mailer.web.api.errors import ApiError
from mailer.web.console_login import services
from mailer.web.counts import Counts, place

GATE = "mailer.api.gate"
WRONG_KEYS = parse("30/minute")
"""From one address. Then it is not even looked whether a key is right."""
_MAX_TOKEN = 200


class Gate:
    """The counts of one application."""

    def __init__(self, made_for: Services) -> None:
        url = made_for.settings.broker_url
        self.rate: RateLimitItem = parse(made_for.settings.api_rate)
        self.requests = Counts(url, "api.limits_in_memory", SlidingWindowCounterRateLimiter)
        self.failures = Counts(url, "api.limits_in_memory")


def gate() -> Gate:
    """That of the current application."""
    found: Gate = flask.current_app.extensions[GATE]
    return found


def let_in(scope: Scope) -> None:
    """Raises ApiError unless the request has a key with this scope that may still ask. Else `key` has it."""
    token = _token()
    from_here = place(flask.request.remote_addr)
    if not gate().failures.test(WRONG_KEYS, "api.wrong", from_here):
        raise ApiError(429, "rate_limit_exceeded", "too many wrong keys; wait a minute", Retry_After="60")
    found = keys.who(services(), token)
    if found is None:
        gate().failures.hit(WRONG_KEYS, "api.wrong", from_here)
        raise ApiError(403, "invalid_api_key", "API key is invalid")
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
    return token.strip()[:_MAX_TOKEN]


def _count(found: KeyRow) -> None:
    counts, rate = gate().requests, gate().rate
    went = counts.hit(rate, "api", found.id)
    left, seconds = counts.left(rate, "api", found.id)
    reset = str(max(1, math.ceil(seconds)))
    flask.g.api_limits = {
        "ratelimit-limit": str(rate.amount),
        "ratelimit-remaining": str(left if went else 0),
        "ratelimit-reset": reset,
    }
    if not went:
        raise ApiError(429, "rate_limit_exceeded", "too many requests with this key", Retry_After=reset)


def key() -> KeyRow:
    """Whose request this is."""
    found: KeyRow = flask.g.api_key
    return found


def sight() -> Sight:
    """Which messages the request may see: a test key's own are those that went to no provider."""
    return Sight(key().project, captive=key().is_test)
