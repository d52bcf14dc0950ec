"""Make the inbox's web application: pages for people, an API for test helpers, over one mailbox."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from flask import Flask
from flask_wtf import CSRFProtect  # type: ignore[import-untyped]

from mailer.inbox import api, guard, pages
from mailer.inbox.mailbox import Mailbox


def create_inbox_app(mailbox: Mailbox, *, allowed_hosts: Iterable[str] = ()) -> Flask:
    """Return a WSGI application that shows this mailbox. It reads no settings and keeps no state of its own.

    ``allowed_hosts`` are names besides ``localhost`` and IP addresses under which it may be asked for.
    """
    app = Flask("mailer.inbox", template_folder="../templates", static_folder="../static")
    app.config.update(
        # Forms opened before a restart ask to be sent again; nothing else depends on the key.
        SECRET_KEY=secrets.token_hex(32),
        # Cookies do not know ports: under the usual name it would replace the console's on the same host.
        SESSION_COOKIE_NAME="mailer_inbox",
        SESSION_COOKIE_SAMESITE="Strict",
        MAX_CONTENT_LENGTH=1024 * 1024,
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.extensions["mailer_mailbox"] = mailbox
    guard.install(app, allowed_hosts)
    csrf = CSRFProtect(app)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(pages.blueprint)
    csrf.exempt(api.blueprint)  # no cookie gives authority there, and the guard has seen the request
    pages.install(app)
    return app
