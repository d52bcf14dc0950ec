"""The product in a Flask application that takes every setting from the environment."""

from __future__ import annotations

import sys
from pathlib import Path

import flask

from bench.order import order
from mailer import Mailer, send_email
from mailer.store.migrations import upgrade


def create_app() -> flask.Flask:
    """The application."""
    app = flask.Flask(__name__, root_path=str(Path(__file__).parent))
    Mailer(app)
    return app


def send(number: int, to: str, **options: object) -> None:
    """Accept one mail; call it in a context of the application."""
    send_email.delay("order", to=to, context=order(number), **options)


if __name__ == "__main__" and sys.argv[1] == "migrate":
    upgrade(create_app().extensions["mailer"].store.engine)
