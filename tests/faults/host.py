"""A host application in a module of its own, so that worker processes can be started on it."""

from __future__ import annotations

import flask

from mailer import Mailer
from mailer.store.migrations import upgrade


def create_app() -> flask.Flask:
    """An application that takes everything from the environment."""
    app = flask.Flask(__name__)
    Mailer(app)
    upgrade(app.extensions["mailer"].store.engine)
    return app
