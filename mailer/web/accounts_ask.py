"""Asking for a link: sign up, forgotten password, another verify link.

The answer is the same whoever asks about whom: known, unknown, unverified, or asked for too often (AU1).
Where the mail goes is what is stored, not what was typed (AU10).
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

import flask
from flask_security.utils import hash_password

from mailer.address import Address
from mailer.store import accounts as rows
from mailer.store.accounts import Person, SignUp
from mailer.telemetry import log
from mailer.web import accounts_forms as forms
from mailer.web.accounts_links import Purpose
from mailer.web.accounts_state import SIGN_UP_PROOF, Answer, accounts, check_places, evenly, mail, page


def add_to(blueprint: flask.Blueprint) -> None:
    """Add the three forms, and the two pages that say where to look."""
    for path, view in (("/signup", signup), ("/forgot", forgot), ("/verify/again", verify_again)):
        blueprint.add_url_rule(path, view_func=view, methods=["GET", "POST"])
    blueprint.add_url_rule("/signup/sent", view_func=signup_sent)
    blueprint.add_url_rule("/forgot/sent", view_func=forgot_sent)


@evenly
def signup() -> Answer:
    """Make an account, unverified, and mail a link; or mail the owner of the account that there is one."""
    form = forms.SignUpForm()
    if not form.validate_on_submit():
        return page("signup.html", form)
    check_places("ask")
    proof = secrets.token_urlsafe(24)
    hashed = hash_password(form.password.data)  # before the transaction: it takes long, and a lock is held
    if accounts().limits.may_mail("verify", form.address):
        _sign_up(form.address, hashed, proof)
    flask.session[SIGN_UP_PROOF] = proof
    return flask.redirect(flask.url_for("accounts.signup_sent"), 303)


def _sign_up(address: Address, hashed: str, proof: str) -> None:
    state = accounts()
    proof_hash = hashlib.sha256(proof.encode()).hexdigest()
    with state.db.writing() as connection:
        came_to, person = rows.sign_up(
            connection, address.addr_spec, address.key, hashed, proof_hash, state.services.now()
        )
        if came_to is not SignUp.EXISTS:
            mail("confirmation_instructions", person, Purpose.VERIFY)
        elif state.limits.may_mail("exists", address):
            _say_it_exists(person)
    log.info("accounts.signed_up", outcome=came_to.name.lower())


def _say_it_exists(person: Person) -> None:
    settings = accounts().services.settings
    flask.current_app.extensions["mailer.send_email"].delay(
        session=accounts().db.session,
        to=person.email,
        subject=f"You already have an account at {settings.site_name}",
        text="Hello,\n\nsomebody, perhaps you, tried to sign up with this address. You already have an "
        f"account: log in at\n\n{settings.base_url}/login\n\nIf you forgot your password, set a new one at"
        f"\n\n{settings.base_url}/forgot\n\nIf it was not you, there is nothing to do.\n",
        expires_in=timedelta(hours=24),
    )


@evenly
def forgot() -> Answer:
    """Mail a link with which a new password can be set, if there is such an account."""
    form = forms.AddressForm()
    if not form.validate_on_submit():
        return page("forgot.html", form)
    check_places("ask")
    if accounts().limits.may_mail("reset", form.address):
        with accounts().db.writing() as connection:
            person = rows.ask_to_reset(connection, form.address.key)
            if person is not None:
                mail("reset_instructions", person, Purpose.RESET)
    return flask.redirect(flask.url_for("accounts.forgot_sent"), 303)


@evenly
def verify_again() -> Answer:
    """Mail another verify link, if there is an account that still needs one."""
    form = forms.AddressForm()
    if not form.validate_on_submit():
        return page("verify_again.html", form)
    check_places("ask")
    if accounts().limits.may_mail("verify", form.address):
        with accounts().db.writing() as connection:
            person = rows.ask_to_verify(connection, form.address.key)
            if person is not None:
                mail("confirmation_instructions", person, Purpose.VERIFY)
    return flask.redirect(flask.url_for("accounts.signup_sent"), 303)


def signup_sent() -> Answer:
    """Check your mail. Nothing of it depends on who asked, so that it tells nobody anything."""
    return flask.render_template("accounts/sent.html", kind="verify")


def forgot_sent() -> Answer:
    """Check your mail."""
    return flask.render_template("accounts/sent.html", kind="reset")
