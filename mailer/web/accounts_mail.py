"""`MailerMailUtil`: mails of any Flask-Security application go through Mailer. One line changes::

    mailer.init_app(app, session=db.session)
    Security(app, datastore, mail_util_cls=MailerMailUtil)

Flask-Security mints a link before it sends. That one is thrown away: what is stored is the person's id, and
the link is minted again when the mail is rendered, from ``MAILER_BASE_URL`` and never from a request.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from typing import Any, cast

import flask
from flask_security import MailUtil
from flask_security.confirmable import generate_confirmation_token
from flask_security.recoverable import generate_reset_password_token

from mailer.errors import ConfigError
from mailer.links import Links
from mailer.secret import Secret
from mailer.services import Provider, Services

__all__ = ["TEMPLATES", "MailerMailUtil"]

TEMPLATES = {
    "confirmation_instructions": "verify_email",
    "welcome": "welcome",
    "reset_instructions": "reset_password",
    "reset_notice": "password_changed",
    "change_notice": "password_changed",
}
"""Flask-Security's names and ours. Any other mail goes out as Flask-Security wrote it, sealed."""

SESSION = "mailer.accounts.session"
"""In ``app.extensions``: the session that account mails join, where only they do."""

_WITHIN = {
    "verify_email": "SECURITY_CONFIRM_EMAIL_WITHIN",
    "reset_password": "SECURITY_RESET_PASSWORD_WITHIN",
}


class MailerMailUtil(MailUtil):
    """Hands the mails of Flask-Security to ``send_email``.

    Raises ConfigError if Mailer was not set up before Security. A context provider that the application
    registered for ``verify_email`` or ``reset_password`` stays; otherwise the links are Flask-Security's.
    """

    def __init__(self, app: flask.Flask) -> None:
        super().__init__(app)
        services: Services | None = app.extensions.get("mailer")
        if services is None:
            raise ConfigError("Mailer", "was not set up; call mailer.init_app(app) before Security(app, …)")
        # Registered here and not at the first mail: a worker sends no first mail, it renders.
        providers = cast(MutableMapping[str, Provider], services.providers)
        for template, function in (("verify_email", _verify_link), ("reset_password", _reset_link)):
            providers.setdefault(template, Provider(function, frozenset({"link"})))

    def send_mail(
        self,
        template: str,
        subject: str,
        recipient: str | tuple[str, str],
        sender: Any,
        body: str | None,
        html: str | None,
        **kwargs: Any,
    ) -> None:
        """Accept one mail; it is stored when this returns, or joins the application's transaction.

        A mail about a person goes to the address that is stored for that person, not to the one that was
        typed (AU10). Raises what ``send_email.delay`` raises.
        """
        if flask.has_request_context():
            flask.after_this_request(_commit)
        name = template.rpartition("/")[2]
        ours = TEMPLATES.get(name)
        if name == "welcome" and kwargs.get("confirmation_link"):
            ours = "verify_email"
        user = kwargs.get("user")
        if ours is None or user is None:
            _send_sealed(str(subject), recipient, body, html)
        else:
            _send(ours, user, kwargs.get("within"))


def _commit(response: flask.Response) -> flask.Response:
    # Some of Flask-Security's views change nothing of their own (forgotten password, confirm again), so
    # they commit nothing, and a mail that joined their session would never have been.
    if response.status_code < 500:
        flask.current_app.extensions["security"].datastore.commit()
    return response


def _send(template: str, user: Any, within: Any) -> None:
    app = flask.current_app
    context: dict[str, Any] = _named(user)
    lifetime = app.config.get(_WITHIN.get(template, ""))
    if isinstance(lifetime, timedelta):
        context["expires_in"] = str(within or _in_words(lifetime))
    _delay(template, to=user.email, context=context, expires_in=lifetime or None)


def _send_sealed(subject: str, to: str | tuple[str, str], text: str | None, html: str | None) -> None:
    # Such a body may hold a code or a link that opens the account, so people who look see nothing of it.
    bodies = {"text": Secret(text) if text else None, "html": Secret(html) if html else None}
    _delay(to=to, subject=subject, **bodies)


def _delay(*args: Any, **kwargs: Any) -> None:
    app = flask.current_app
    if SESSION in app.extensions:  # else the application's own, if it gave Mailer one
        kwargs["session"] = app.extensions[SESSION]
    lanes = app.extensions["mailer"].settings.lane_names
    app.extensions["mailer.send_email"].delay(
        *args, lane="critical" if "critical" in lanes else "default", **kwargs
    )


def _named(user: Any) -> dict[str, int | str]:
    # The primary key outlives a change of password; where JSON cannot hold it there is fs_uniquifier.
    id_ = getattr(user, "id", None)
    return {"user_id": id_} if isinstance(id_, int | str) else {"fs_uniquifier": str(user.fs_uniquifier)}


def _in_words(lifetime: timedelta) -> str:
    hours, minutes = divmod(round(lifetime.total_seconds() / 60), 60)
    number, unit = (hours, "hour") if not minutes else (hours * 60 + minutes, "minute")
    return f"{number} {unit}{'' if number == 1 else 's'}"


# Run in the worker: an application context, no request


def _verify_link(context: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"link": _link("confirm_email", generate_confirmation_token(_user_of(context)))}


def _reset_link(context: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"link": _link("reset_password", generate_reset_password_token(_user_of(context)))}


def _user_of(context: Mapping[str, Any]) -> Any:
    datastore = flask.current_app.extensions["security"].datastore
    name, value = next((key, context[key]) for key in ("user_id", "fs_uniquifier") if key in context)
    user = datastore.find_user(**{"id" if name == "user_id" else name: value})
    if user is None or not user.active:
        raise LookupError("the account is gone or disabled")
    return user


def _link(endpoint: str, token: str) -> Secret:
    app = flask.current_app._get_current_object()  # type: ignore[attr-defined]
    links = Links(app.extensions["mailer"].settings.base_url, app)
    return Secret(links.url_for(f"{app.config['SECURITY_BLUEPRINT_NAME']}.{endpoint}", token=token))
