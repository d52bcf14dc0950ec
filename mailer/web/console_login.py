"""Getting into the console and out: pages, cookie, throttle, and the check of every form (UI4, UI5, UI9).

Who is in is known to the store, not to the cookie: the cookie holds 256 random bits, and logging out makes
them worthless. Flask's own session is used for one thing, the token that Flask-WTF puts into forms.
"""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import urlsplit

import flask
from flask_wtf.csrf import generate_csrf, validate_csrf  # type: ignore[import-untyped]
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import MovingWindowRateLimiter
from werkzeug import Response
from wtforms import ValidationError  # type: ignore[import-untyped]

from mailer import operators, second_factor
from mailer.broker import is_redis
from mailer.operators import CODE_WAIT, CodeNeeded, Operator
from mailer.services import Services
from mailer.store.operators import LIFETIME
from mailer.telemetry import log

LIMITER = "mailer.console.limiter"
PER_ACCOUNT = RateLimitItemPerMinute(10, 15, namespace="mailer-login-account")
PER_ADDRESS = RateLimitItemPerMinute(30, 15, namespace="mailer-login-address")
PER_CODE = RateLimitItemPerMinute(10, 15, namespace="mailer-login-code")
"""Of a million codes three are right at a time, so ten tries are as good as none."""
TOO_MANY = "Too many attempts. Wait a quarter of an hour."
WRONG_CODE = "That code is not right, or was used already. Wait for the next one."
_LOCAL = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


def services() -> Services:
    """The services of the current application."""
    found: Services = flask.current_app.extensions["mailer"]
    return found


# The session


def is_https() -> bool:
    """Whether people reach the application over TLS; the base URL says so, however the proxy talks to us."""
    return services().settings.base_url.startswith("https:")


def is_refresh() -> bool:
    """Whether a page asks for its changing part by itself, and not a person."""
    return flask.request.headers.get("HX-Request") == "true"


def cookie_name() -> str:
    """``__Host-`` makes browsers refuse the cookie from other hosts, other paths and plain http."""
    return "__Host-mailer_console" if is_https() else "mailer_console"


def session_token() -> str:
    """What the cookie of the session holds; empty if there is none."""
    return flask.request.cookies.get(cookie_name(), "")


def person_here(*, active: bool) -> Operator | None:
    """Who is logged in, or None. ``active`` False leaves the idle clock running: a page refreshed itself."""
    token = session_token()
    return operators.person_of(services(), token, active=active) if token else None


def _let_in(token: str, answer: Response) -> Response:
    """Give the cookie of a new session, and end the one that was there before."""
    _end_current()
    flask.session.pop(_csrf_field(), None)  # forms of before the log-in are forms of somebody else
    _forget_half(answer)
    return _give(cookie_name(), token, LIFETIME, answer)


def _give(name: str, token: str, lifetime: timedelta, answer: Response) -> Response:
    answer.set_cookie(
        name, token, max_age=lifetime, secure=is_https(), httponly=True, samesite="Lax", path="/"
    )
    return answer


def _half_name() -> str:
    return f"{cookie_name()}_half"


def _forget_half(answer: Response) -> None:
    if _half_name() in flask.request.cookies:
        answer.delete_cookie(_half_name(), path="/", secure=is_https(), httponly=True, samesite="Lax")


def _end_current() -> None:
    if token := session_token():
        operators.end_session(services(), token)


# Forms


def _csrf_field() -> str:
    return str(flask.current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token"))


def form_token() -> dict[str, str]:
    """The name and value of the hidden field that each form carries."""
    return {"name": _csrf_field(), "value": str(generate_csrf())}


def check_form() -> str | None:
    """Why this POST must not be believed, or None. Other sites cannot know the token, nor fake the origin."""
    request = flask.request
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    # A page that sends no referrer, as that of a one-time link, posts with the origin "null".
    if site not in (None, "same-origin", "none") or (
        site is None and origin not in (None, "null", request.host_url.rstrip("/"))
    ):
        return "This came from another site, so nothing was done."
    try:
        validate_csrf(request.form.get(_csrf_field()), time_limit=int(LIFETIME.total_seconds()))
    except ValidationError:
        return "This form is too old, or cookies are switched off. Go back, reload the page and try again."
    return None


def local_path(value: str | None, otherwise: str) -> str:
    """``value`` if it is a path on this host, or else ``otherwise`` (UI9)."""
    if not value or len(value) > 2000 or not _LOCAL.fullmatch(value):
        return otherwise
    parts = urlsplit(value)
    return otherwise if parts.scheme or parts.netloc else value


# The throttle


def make_limiter(made_for: Services) -> MovingWindowRateLimiter:
    """Counts attempts in Redis where the broker is one, so that all web processes count together."""
    url = made_for.settings.broker_url
    storage: Storage = MemoryStorage()
    if is_redis(url):
        url = url.replace("valkey", "redis", 1).replace("redis+socket:", "redis+unix:", 1)
        storage = RedisStorage(url, wrap_exceptions=True, socket_timeout=1, socket_connect_timeout=1)
    return MovingWindowRateLimiter(storage)


def may_try(name: str, per: RateLimitItem = PER_ACCOUNT) -> bool:
    """Count an attempt; False if there were too many for this account or from this address."""
    limiter: MovingWindowRateLimiter = flask.current_app.extensions[LIMITER]
    address = flask.request.remote_addr or "unknown"
    try:
        return _hit(limiter, address, per, name)
    except Exception as exc:  # whatever Redis does, nobody is locked out of the console, nor let in unchecked
        log.warning("console.throttle_in_memory", error=type(exc).__name__)
        flask.current_app.extensions[LIMITER] = MovingWindowRateLimiter(MemoryStorage())
        return _hit(flask.current_app.extensions[LIMITER], address, per, name)


def _hit(limiter: MovingWindowRateLimiter, address: str, per: RateLimitItem, name: str) -> bool:
    # Both are counted, so that one address that tries many names is slowed down as well.
    return all([limiter.hit(PER_ADDRESS, address), limiter.hit(per, operators.tidy(name)[:320])])


# The pages


def login() -> flask.typing.ResponseReturnValue:
    """Ask for name and password; on POST, let the right ones in. Wrong ones never learn what was wrong."""
    home = flask.url_for("console.messages")
    target = local_path(flask.request.values.get("next"), home)
    if flask.request.method == "GET":
        if person_here(active=True):
            return flask.redirect(target, 303)
        return flask.render_template("console/login.html", target=target, name="")
    name, password = flask.request.form.get("name", ""), flask.request.form.get("password", "")
    if not may_try(name):
        return _refused(name, target, TOO_MANY, 429)
    token = operators.log_in(services(), name, password)
    if token is None:
        return _refused(name, target, "That name and password do not match.", 403)
    if isinstance(token, CodeNeeded):
        answer = flask.redirect(flask.url_for("console.code", next=target), 303)
        return _give(_half_name(), token.token, CODE_WAIT, answer)
    return _let_in(token, flask.redirect(target, 303))


def code() -> flask.typing.ResponseReturnValue:
    """Ask who gave the right password for the code as well. Until it comes there is no session."""
    target = local_path(flask.request.values.get("next"), flask.url_for("console.messages"))
    half = flask.request.cookies.get(_half_name(), "")
    name = second_factor.half_in(services(), half) if half else None
    if name is None:
        if flask.request.method == "GET":
            return flask.redirect(flask.url_for("console.login", next=target), 303)
        return _refused("", target, "That took too long. Begin again.", 403)
    if flask.request.method == "GET":
        return flask.render_template("console/code.html", target=target)
    if not may_try(name, PER_CODE):
        return _refused(name, target, TOO_MANY, 429, "code")
    token = second_factor.log_in(services(), half, flask.request.form.get("code", ""))
    if token is None:
        return _refused(name, target, WRONG_CODE, 403, "code")
    return _let_in(token, flask.redirect(target, 303))


def _refused(name: str, target: str, why: str, status: int, page: str = "login") -> flask.Response:
    body = flask.render_template(f"console/{page}.html", target=target, name=name[:320], problem=why)
    return flask.make_response(body, status, retry_later() if status == 429 else {})


def retry_later() -> dict[str, str]:
    """The header of an answer to whoever tried too often."""
    log.warning("console.throttled")
    return {"Retry-After": str(PER_ACCOUNT.get_expiry())}


def enter(token: str) -> flask.typing.ResponseReturnValue:
    """A one-time link. GET only shows a button, so that a scanner which follows links uses nothing up."""
    if flask.request.method == "GET":
        return _private(flask.make_response(flask.render_template("console/enter.html")))
    session = operators.enter(services(), token)
    if session is None:
        page = flask.render_template("console/enter.html", problem=True)
        return _private(flask.make_response(page, 403))
    return _private(_let_in(session, flask.redirect(flask.url_for("console.messages"), 303)))


def _private(answer: Response) -> Response:
    answer.headers["Referrer-Policy"] = "no-referrer"  # the address of this page is a key
    return answer


def logout() -> flask.typing.ResponseReturnValue:
    """End the session on the server; the cookie goes too, but that is only tidiness."""
    _end_current()
    flask.session.pop(_csrf_field(), None)
    answer = flask.redirect(flask.url_for("console.login"), 303)
    answer.delete_cookie(cookie_name(), path="/", secure=is_https(), httponly=True, samesite="Lax")
    return answer
