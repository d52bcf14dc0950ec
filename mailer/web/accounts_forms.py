"""The forms of the account pages. Each carries a CSRF token and says what is wrong beside the field."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import flask
from flask_wtf import FlaskForm  # type: ignore[import-untyped]
from wtforms import EmailField, Field, PasswordField  # type: ignore[import-untyped]
from wtforms.validators import InputRequired, Length, ValidationError  # type: ignore[import-untyped]

from mailer.address import Address
from mailer.errors import InvalidAddress

MIN_PASSWORD = 8
MAX_PASSWORD = 128
_COMMON = Path(__file__).parent.parent / "templates" / "accounts" / "common_passwords.txt"


def _is_address(_form: FlaskForm, field: Field) -> None:
    try:
        field.address = Address.parse(str(field.data or "").strip(" "))
    except InvalidAddress:
        raise ValidationError("This is not an email address; write it as name@example.com.") from None


def _is_good_password(_form: FlaskForm, field: Field) -> None:
    util = flask.current_app.extensions["security"].password_util
    problems, field.data = util.validate(str(field.data or ""), False)
    if problems:
        raise ValidationError(f"Use {MIN_PASSWORD} to {MAX_PASSWORD} characters.")
    if field.data.casefold() in common_passwords():
        raise ValidationError("This is one of the passwords that are tried first; choose another.")


@cache
def common_passwords() -> frozenset[str]:
    """The passwords that are tried first (AU13)."""
    lines = _COMMON.read_text("utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def _address_field() -> EmailField:
    needed = InputRequired("Write your email address.")
    return EmailField("Email address", [needed, _is_address], render_kw={"autocomplete": "username"})


def _new_password_field(label: str = "Password") -> PasswordField:
    hint = f"{MIN_PASSWORD} characters or more; a few words make a good one."
    attributes = {"autocomplete": "new-password", "minlength": MIN_PASSWORD, "maxlength": MAX_PASSWORD}
    needed = InputRequired("Choose a password.")
    return PasswordField(label, [needed, _is_good_password], description=hint, render_kw=attributes)


def _known_password_field(label: str = "Password") -> PasswordField:
    needed = [InputRequired("Write your password."), Length(max=1000, message="This is too long.")]
    return PasswordField(label, needed, render_kw={"autocomplete": "current-password"})


class Form(FlaskForm):  # type: ignore[misc]
    """A form of one page."""

    @property
    def stale(self) -> bool:
        """Whether it came without the token of this browser's session."""
        return "csrf_token" in self.errors

    @property
    def address(self) -> Address:
        """The address of a form that is valid."""
        found: Address = self.email.address
        return found


class ButtonForm(Form):
    """Nothing but a button."""


class SignUpForm(Form):
    """A new account."""

    email = _address_field()
    password = _new_password_field()


class LoginForm(Form):
    """A known account. What is no address gets the answer of a wrong password."""

    email = EmailField(
        "Email address", [InputRequired("Write your email address.")], render_kw={"autocomplete": "username"}
    )
    password = _known_password_field()


class AddressForm(Form):
    """Where a link shall go."""

    email = _address_field()


class NewPasswordForm(Form):
    """A password in place of another."""

    password = _new_password_field("New password")


class ChangePasswordForm(Form):
    """The same, by somebody who knows the old one."""

    current = _known_password_field("Current password")
    password = _new_password_field("New password")
