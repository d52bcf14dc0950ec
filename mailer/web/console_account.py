"""A person's own page: who they are here, and the second factor of their log-in (UI4).

Turning it on is three plain pages: a button, a secret with its picture, a code that proves the app has it.
"""

from __future__ import annotations

import flask
import segno

from mailer import second_factor
from mailer.errors import ConfigError
from mailer.operators import Operator
from mailer.web import console_login
from mailer.web.console_login import PER_CODE, TOO_MANY, WRONG_CODE, services

Answer = flask.typing.ResponseReturnValue

DONE = {
    "on": "Your log-in now asks for a code. Your other sessions have ended.",
    "off": "Your log-in asks for no code any more.",
}


def add_to(blueprint: flask.Blueprint) -> None:
    """Put the pages of this module into the console."""
    blueprint.add_url_rule("/account", view_func=account)
    blueprint.add_url_rule("/account/second-factor", view_func=second_factor_page)
    blueprint.add_url_rule("/account/second-factor", view_func=begin, methods=["POST"])
    blueprint.add_url_rule("/account/second-factor/on", view_func=turn_on, methods=["POST"])
    blueprint.add_url_rule("/account/second-factor/off", view_func=turn_off, methods=["POST"])
    blueprint.register_error_handler(ConfigError, explain_config)


def account() -> Answer:
    """Name, role, and whether the log-in asks for a code."""
    return _account(notice=DONE.get(flask.request.args.get("done", "")))


def begin() -> Answer:
    """Make a secret and go to the page that shows it."""
    second_factor.offer(services(), _person())
    return _to("second_factor_page")


def second_factor_page() -> Answer:
    """The secret as text and picture; where there is none to show, back to the account."""
    return _offer() or _to("account")


def turn_on() -> Answer:
    """Ask for codes from now on, if the app has shown the right one."""
    code, session = flask.request.form.get("code", ""), console_login.session_token()
    if second_factor.turn_on(services(), _person(), code, session):
        return _to("account", done="on")
    return _offer("That code is not right. Is the clock of the device right? Try the next one.") or _to(
        "account"
    )


def turn_off() -> Answer:
    """Ask for no code any more; throttled, as a log-in is, because it takes a code."""
    if not console_login.may_try(_person().name, PER_CODE):
        return _account(problem=TOO_MANY), 429, console_login.retry_later()
    if second_factor.turn_off(services(), _person(), flask.request.form.get("code", "")):
        return _to("account", done="off")
    if not second_factor.is_on(services(), _person()):
        return _to("account")
    return _account(problem=WRONG_CODE), 403


def explain_config(error: ConfigError) -> Answer:
    """A key is gone from the settings: say which setting, not how it was used."""
    return flask.render_template("console/error.html", title="Not set up for this", problem=error), 503


def _account(notice: str | None = None, problem: str | None = None) -> str:
    is_on = second_factor.is_on(services(), _person())
    return flask.render_template("console/account.html", is_on=is_on, notice=notice, problem=problem)


def _offer(problem: str | None = None) -> Answer | None:
    offer = second_factor.offered(services(), _person())
    if offer is None:
        return None
    # Dark on white with a margin, whatever the page's colours: cameras want it so.
    picture = segno.make(offer.address, micro=False).svg_data_uri(scale=5, border=4, light="#fff")
    groups = [offer.secret[at : at + 4] for at in range(0, len(offer.secret), 4)]
    page = flask.render_template(
        "console/second_factor.html", picture=picture, groups=groups, problem=problem
    )
    return page, 403 if problem else 200


def _to(view: str, done: str | None = None) -> Answer:
    return flask.redirect(flask.url_for(f"console.{view}", done=done), 303)


def _person() -> Operator:
    person: Operator = flask.g.console_person
    return person
