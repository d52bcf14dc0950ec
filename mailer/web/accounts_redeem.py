"""Where the links lead: opening one changes nothing, the button on the page does (AU8).

Mail scanners open every link before people do. So a GET takes the token out of the address, keeps it in the
browser's session and shows a page; only a POST from that page uses it, and of many at once one wins (AU4).
"""

from __future__ import annotations

import hashlib
import hmac

import flask
from flask_security.utils import hash_password, login_user

from mailer.store import accounts as rows
from mailer.store.accounts import Person, Redeemable
from mailer.telemetry import log
from mailer.web import accounts_forms as forms
from mailer.web.accounts_links import MAX_TOKEN, Purpose, id_in
from mailer.web.accounts_state import (
    SIGN_UP_PROOF,
    Answer,
    accounts,
    check_places,
    mail,
    page,
    remember_device,
)


def add_to(blueprint: flask.Blueprint) -> None:
    """Add ``/verify`` and ``/reset``."""
    for path, view in (("/verify", verify), ("/reset", reset)):
        blueprint.add_url_rule(path, view_func=view, methods=["GET", "POST"])


def verify() -> Answer:
    """Prove that the mailbox is one's own.

    In another browser than the one that signed up last, a password has to be chosen: the one that is there
    may be that of a stranger who signed up with somebody else's address and waits (AU14).
    """
    if token_given := _taken_from_address(Purpose.VERIFY):
        return token_given
    person = _redeemed(Purpose.VERIFY)
    if person is None:
        return _void(Purpose.VERIFY)
    known = _signed_up_here(person)
    form = forms.ButtonForm() if known else forms.NewPasswordForm()
    if not form.validate_on_submit():
        return page("verify.html", form, email=person.email)
    hashed = None if known else hash_password(form.password.data)
    services = accounts().services
    with accounts().db.writing() as connection:
        won = rows.verify(connection, person.id, person.verify_nonce, services.now(), hashed)
    if not won:
        return _void(Purpose.VERIFY)
    log.info("accounts.verified", password="kept" if known else "chosen")
    return _log_in(person)


def reset() -> Answer:
    """Set a new password. Every session of the account ends and a notice is mailed; nobody is logged in."""
    if token_given := _taken_from_address(Purpose.RESET):
        return token_given
    person = _redeemed(Purpose.RESET)
    if person is None:
        return _void(Purpose.RESET)
    form = forms.NewPasswordForm()
    if not form.validate_on_submit():
        return page("reset.html", form, email=person.email)
    hashed = hash_password(form.password.data)  # before the transaction: it takes long, and a lock is held
    with accounts().db.writing() as connection:
        won = rows.reset(connection, person.id, person.reset_nonce, accounts().services.now(), hashed)
        if won:
            mail("reset_notice", Person(person.id, person.email))
    if not won:
        return _void(Purpose.RESET)
    log.info("accounts.password_reset")
    flask.session.clear()
    flask.flash("Your password is changed. Log in with the new one.")
    response = flask.redirect(flask.url_for("accounts.login"), 303)
    remember_device(response, person.id)  # type: ignore[arg-type]
    return response


def _taken_from_address(purpose: Purpose) -> Answer | None:
    """Move a token from the address to the session, so that it is in no history and no Referer."""
    token = flask.request.args.get("token")
    if token is None:
        return None
    flask.session[f"{purpose}_token"] = token[:MAX_TOKEN]
    return flask.redirect(flask.url_for(f"accounts.{purpose}"), 303)


def _redeemed(purpose: Purpose) -> Redeemable | None:
    """Whose link the session holds, if it is good; nothing is used up yet."""
    state = accounts()
    check_places("redeem")
    token = str(flask.session.get(f"{purpose}_token", ""))
    if not token:
        return None
    with state.services.store.read() as connection:
        person = rows.redeemable(connection, id_in(token))
    if person is None or not state.tokens.holds(purpose, token, person):
        return None
    return None if purpose is Purpose.VERIFY and person.confirmed else person


def _signed_up_here(person: Redeemable) -> bool:
    proof = str(flask.session.get(SIGN_UP_PROOF, ""))
    return hmac.compare_digest(hashlib.sha256(proof.encode()).hexdigest(), person.signup_hash)


def _log_in(person: Redeemable) -> Answer:
    flask.session.clear()
    user = accounts().db.datastore().find_user(id=person.id)
    if user is None or not login_user(user, authn_via=["email"]):
        return flask.redirect(flask.url_for("accounts.login"), 303)
    flask.flash("Your address is confirmed. Welcome!")
    response = flask.redirect(flask.url_for("accounts.account"), 303)
    remember_device(response, person.id)  # type: ignore[arg-type]
    return response


def _void(purpose: Purpose) -> Answer:
    had_one = bool(flask.session.get(f"{purpose}_token"))
    return flask.render_template("accounts/void.html", purpose=str(purpose), had_one=had_one), 400
