"""What the account pages work with: one per application, made by `init_accounts`, found here."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import flask
from werkzeug.exceptions import TooManyRequests

from mailer.services import Services
from mailer.store.accounts import AccountDatabase, Person
from mailer.web.accounts_forms import Form
from mailer.web.accounts_limits import AccountLimits
from mailer.web.accounts_links import IN_WORDS, AccountTokens, Purpose

Answer = flask.typing.ResponseReturnValue
KEY = "mailer.accounts"
SIGN_UP_PROOF = "signup"
"""In the session: what shows that this browser signed up last for the address (AU14)."""
DEVICE_DAYS = 365

_chance = secrets.SystemRandom()
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Accounts:
    """``answer_seconds`` is the grid that answers wait for: see `evenly`."""

    services: Services
    db: AccountDatabase
    tokens: AccountTokens
    limits: AccountLimits
    answer_seconds: float


def accounts() -> Accounts:
    """Those of the current application."""
    found: Accounts = flask.current_app.extensions[KEY]
    return found


def evenly(view: Callable[P, T]) -> Callable[P, T]:
    """Answer posts at multiples of a fixed time only, whatever was done meanwhile (AU2).

    Storing a mail takes some milliseconds that an unknown address does not. The mail itself does not wait:
    it is on its way before the answer is. What Flask does after the view differs by a tenth of a millisecond
    (measured), which the random part hides.
    """

    @wraps(view)
    def evened(*args: P.args, **kwargs: P.kwargs) -> T:
        started, grid = time.monotonic(), accounts().answer_seconds
        try:
            return view(*args, **kwargs)
        finally:
            if grid and flask.request.method == "POST":
                time.sleep(grid - (time.monotonic() - started) % grid + _chance.uniform(0, grid / 5))

    return evened


def mail(template: str, person: Person, purpose: Purpose | None = None) -> None:
    """Send one of Flask-Security's mails, through the adapter that other applications use."""
    util = flask.current_app.extensions["security"].mail_util
    within = IN_WORDS[purpose] if purpose else None
    util.send_mail(template, "", person.email, "", None, None, user=person, within=within)


def is_https() -> bool:
    """Whether people reach the application over TLS; the base URL says so."""
    return accounts().services.settings.base_url.startswith("https:")


def device_cookie_name() -> str:
    """``__Host-`` makes browsers refuse the cookie from other hosts and from plain http."""
    return "__Host-mailer_device" if is_https() else "mailer_device"


def remember_device(response: flask.Response, id_: str) -> None:
    """Note in this browser that the person has been in with it, so that strangers cannot lock them out."""
    response.set_cookie(
        device_cookie_name(),
        accounts().tokens.sign_device(id_),
        max_age=DEVICE_DAYS * 86_400,
        secure=is_https(),
        httponly=True,
        samesite="Lax",
    )


def device_of() -> str | None:
    """Who has been in with this browser, or None."""
    return accounts().tokens.read_device(flask.request.cookies.get(device_cookie_name(), ""))


def check_places(deed: str) -> None:
    """Count a deed; raises TooManyRequests if there were too many from here, or in all (AU11)."""
    if not accounts().limits.may(deed, flask.request.remote_addr):
        raise TooManyRequests


def page(template: str, form: Form, **values: object) -> Answer:
    """A form; with status 400 and what is wrong in it if it was posted."""
    status = 400 if flask.request.method == "POST" else 200
    return flask.render_template(f"accounts/{template}", form=form, **values), status
