"""Sign up, log in, forgotten password: the service's account pages, on Flask-Security's machinery.

Flask-Security hashes and checks passwords, keeps people logged in and ends their sessions. The pages are
ours because its own act on a GET of the link (AU8), let a link be used by several at once (AU4), and count
nothing (AU11). `docs/reference/accounts.md` says what holds and what does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import flask
from flask_login import current_user  # type: ignore[import-untyped]
from flask_security import Security
from werkzeug import Response
from werkzeug.exceptions import HTTPException, TooManyRequests

from mailer.config import Settings
from mailer.errors import StoreError
from mailer.sealing import signing_key
from mailer.store.accounts import AccountDatabase
from mailer.telemetry import log
from mailer.web import accounts_ask, accounts_redeem, accounts_session
from mailer.web import accounts_forms as forms
from mailer.web.accounts_limits import AccountLimits
from mailer.web.accounts_links import LIFETIME, AccountTokens, Purpose, provide_links
from mailer.web.accounts_mail import SESSION, MailerMailUtil
from mailer.web.accounts_state import (
    KEY,
    Accounts,
    accounts,
    is_https,
)

__all__ = ["MailerMailUtil", "init_accounts"]

Answer = flask.typing.ResponseReturnValue
ANSWER_SECONDS = 0.15
# OWASP Password Storage Cheat Sheet, as of 2026-11: 19 MiB, 2 rounds, 1 lane. The library's own 64 MiB and
# 4 lanes take 160 ms of a small machine, and every sign-up waits for it.
ARGON2 = {"argon2__memory_cost": 19_456, "argon2__rounds": 2, "argon2__parallelism": 1}
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)

blueprint = flask.Blueprint(
    "accounts",
    __name__,
    template_folder="../templates",
    static_folder="../static",
    static_url_path="/accounts/static",
)


def init_accounts(app: flask.Flask, mailer: Any) -> None:
    """Set ``mailer`` up on the accounts' database and add the pages to the application.

    A sign-up and its mail commit together. Raises ConfigError naming the setting that is wrong.
    """
    settings = Settings.load(app.config)
    db = AccountDatabase(settings.store_url)
    db.init_app(app)
    # Account mails join this session, and they say so; a `delay` of anybody else commits by itself.
    mailer.init_app(app)
    app.extensions[SESSION] = db.session
    tokens = AccountTokens(settings.sealing_keys())
    provide_links(mailer, tokens)
    _configure(app, settings)
    Security(app, db.datastore(), register_blueprint=False, mail_util_cls=MailerMailUtil)
    app.extensions[KEY] = Accounts(
        services=app.extensions["mailer"],
        db=db,
        tokens=tokens,
        limits=AccountLimits(
            settings.broker_url,
            app.config.get("ACCOUNTS_LIMITS", {}),
            app.config.get("RATELIMIT_ENABLED", True),
        ),
        answer_seconds=float(app.config.get("ACCOUNTS_ANSWER_SECONDS", ANSWER_SECONDS)),
    )
    app.register_blueprint(blueprint)


def _configure(app: flask.Flask, settings: Settings) -> None:
    https = settings.base_url.startswith("https:")
    app.secret_key = app.secret_key or signing_key(settings.sealing_keys(), "cookies")
    app.config.update(
        SESSION_COOKIE_NAME="__Host-mailer_session" if https else "mailer_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=https,
        SESSION_PROTECTION="strong",
        WTF_CSRF_SSL_STRICT=False,  # it would compare the Referer, which these pages ask browsers not to send
        WTF_CSRF_TIME_LIMIT=None,  # the token lives as long as its session
    )
    for key, value in _security_settings().items():
        app.config.setdefault(f"SECURITY_{key}", value)


def _security_settings() -> Mapping[str, Any]:
    return {
        "PASSWORD_HASH": "argon2",
        "PASSWORD_SCHEMES": ["argon2"],
        # No pepper: one made from MAILER_SECRET_KEYS would end every password when a key is rotated.
        "PASSWORD_SINGLE_HASH": ["argon2"],
        "PASSWORD_HASH_PASSLIB_OPTIONS": ARGON2,
        "PASSWORD_LENGTH_MIN": forms.MIN_PASSWORD,
        "PASSWORD_NORMALIZE_FORM": "NFKD",
        "USE_REGISTER_V2": True,
        "CONFIRMABLE": True,
        "RECOVERABLE": True,
        "REGISTERABLE": True,
        "CHANGEABLE": True,
        "TRACKABLE": False,
        "RETURN_GENERIC_RESPONSES": True,
        "AUTO_LOGIN_AFTER_RESET": False,
        "DEFAULT_REMEMBER_ME": False,
        "CONFIRM_EMAIL_WITHIN": LIFETIME[Purpose.VERIFY],
        "RESET_PASSWORD_WITHIN": LIFETIME[Purpose.RESET],
    }


# Around every request


@blueprint.after_request
def guard(response: Response) -> Response:
    """Headers that keep a page from being framed, cached, sniffed, or its address from being told (AU8)."""
    response.headers.update(
        {
            "Content-Security-Policy": PAGE_POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Opener-Policy": "same-origin",
        }
    )
    if flask.request.endpoint != "accounts.static":
        response.headers["Cache-Control"] = "no-store"
    if is_https():
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    return response


@blueprint.context_processor
def words() -> dict[str, Any]:
    """What every page may use."""
    settings = accounts().services.settings
    return {"site_name": settings.site_name, "inbox_url": _inbox_url(settings), "person": _person()}


@blueprint.errorhandler(HTTPException)
@blueprint.errorhandler(StoreError)
def explain_error(error: Exception) -> Answer:
    """A page in our own words, never a stack."""
    if isinstance(error, TooManyRequests):
        return flask.render_template("accounts/error.html", title="Too many requests", kind="limit"), 429
    if isinstance(error, HTTPException):
        return flask.render_template("accounts/error.html", title=error.name, kind=""), error.code or 500
    log.error("accounts.store_away", why=str(error))
    return flask.render_template("accounts/error.html", title="Not now", kind="store"), 503


def _person() -> Any:
    return current_user if current_user.is_authenticated else None


def _inbox_url(settings: Settings) -> str | None:
    """The embedded inbox's page, if that is where mail goes."""
    if settings.transports is not None:
        return None
    if settings.smtp_url is None:
        local = not flask.current_app.config.get("MAIL_SERVER")
    else:
        url = settings.smtp_url.get_secret_value()
        parts = urlsplit(url)
        local = (parts.hostname, parts.port) == ("127.0.0.1", settings.inbox_smtp_port)
    return f"http://127.0.0.1:{settings.inbox_port}" if local else None


# Home


@blueprint.get("/")
def home() -> Answer:
    """What this is, and where to go."""
    return flask.render_template("accounts/home.html")


for _module in (accounts_ask, accounts_redeem, accounts_session):
    _module.add_to(blueprint)
