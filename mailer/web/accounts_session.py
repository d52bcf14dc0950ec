"""Being logged in: the door, the way out, and another password."""

from __future__ import annotations

from typing import Any

import flask
from flask_login import current_user  # type: ignore[import-untyped]
from flask_security.utils import hash_password, login_user, logout_user
from werkzeug.exceptions import TooManyRequests

from mailer.address import Address
from mailer.errors import InvalidAddress
from mailer.store import accounts as rows
from mailer.store.accounts import Person, User
from mailer.web import accounts_forms as forms
from mailer.web.accounts_state import (
    Answer,
    accounts,
    check_places,
    device_of,
    evenly,
    mail,
    page,
    remember_device,
)


def add_to(blueprint: flask.Blueprint) -> None:
    """Add the pages around a session."""
    blueprint.add_url_rule("/login", view_func=login, methods=["GET", "POST"])
    blueprint.add_url_rule("/logout", view_func=logout, methods=["POST"])
    blueprint.add_url_rule("/account", view_func=account)
    blueprint.add_url_rule("/account/password", view_func=change_password, methods=["GET", "POST"])


def login() -> Answer:
    """Let in who has the right password and a proven address; anything else gets the same answer."""
    if flask.request.method == "GET" and current_user.is_authenticated:
        return flask.redirect(flask.url_for("accounts.account"), 303)
    form = forms.LoginForm()
    if not form.validate_on_submit():
        return page("login.html", form)
    check_places("login")
    user = _authenticated(str(form.email.data), str(form.password.data))
    if user is None:
        form.form_errors.append("wrong")
        return page("login.html", form)
    flask.session.clear()  # what an attacker may have planted in this browser before
    login_user(user, authn_via=["password"])
    response = flask.redirect(flask.url_for("accounts.account"), 303)
    remember_device(response, user.id)  # type: ignore[arg-type]
    return response


@evenly
def _authenticated(typed: str, password: str) -> User | None:
    """Who that is. Unknown, unverified and wrong take the same time and count the same."""
    state = accounts()
    user, key = _find(typed)
    known_device = user is not None and device_of() == user.id
    if not state.limits.may_try(key, known_device):
        raise TooManyRequests
    if user is None:
        hash_password(password)  # as long as checking one
        return None
    before = user.password
    if not user.verify_and_update_password(password) or user.confirmed_at is None or not user.active:
        return None
    state.limits.forget_tries(key, known_device)
    if user.password != before:
        state.db.session.rollback()
        with state.db.writing() as connection:
            rows.rehash(connection, user.id, str(before), str(user.password))
    return user


def _find(typed: str) -> tuple[User | None, str]:
    try:
        key = Address.parse(typed.strip(" ")).key
    except InvalidAddress:
        return None, typed[:320]
    return accounts().db.find(key), key


def account() -> Answer:
    """For people who are logged in: who they are."""
    if not current_user.is_authenticated:
        return flask.redirect(flask.url_for("accounts.login"), 303)
    return flask.render_template("accounts/account.html", form=forms.ButtonForm())


def logout() -> Answer:
    """End the session of this browser."""
    if not forms.ButtonForm().validate():
        flask.flash("This page was open for too long. Please try again.")
        return flask.redirect(flask.url_for("accounts.account"), 303)
    logout_user()
    flask.session.clear()
    flask.flash("You are logged out.")
    return flask.redirect(flask.url_for("accounts.login"), 303)


def change_password() -> Answer:
    """Another password for somebody who knows the old one. Every other session ends (AU7)."""
    person: Any = current_user
    if not person.is_authenticated:
        return flask.redirect(flask.url_for("accounts.login"), 303)
    form = forms.ChangePasswordForm()
    if not form.validate_on_submit():
        return page("change_password.html", form)
    check_places("login")
    key, known = person.email_key, device_of() == person.id
    if not accounts().limits.may_try(key, known):
        raise TooManyRequests
    found = accounts().db.find(key)
    if found is None or not found.verify_and_update_password(form.current.data):
        form.current.errors = ["This is not your password."]
        return page("change_password.html", form)
    hashed, told = hash_password(form.password.data), Person(found.id, found.email)
    with accounts().db.writing() as connection:
        done = rows.change_password(connection, found.id, person.password, hashed)
        if done:
            mail("change_notice", told)
    flask.session.clear()
    fresh = accounts().db.find(key) if done else None
    if fresh is None:
        return flask.redirect(flask.url_for("accounts.login"), 303)
    login_user(fresh, authn_via=["password"])
    flask.flash("Your password is changed. Other browsers are logged out.")
    return flask.redirect(flask.url_for("accounts.account"), 303)
