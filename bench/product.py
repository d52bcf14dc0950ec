"""The product in a Flask application that takes every setting from the environment."""

from __future__ import annotations

import sys
from pathlib import Path

import flask
from sqlalchemy.orm import Session

from bench.order import order
from mailer import Mailer, send_email


def create_app() -> flask.Flask:
    """The application."""
    app = flask.Flask(__name__, root_path=str(Path(__file__).parent))
    Mailer(app)
    return app


def send(number: int, to: str, **options: object) -> None:
    """Accept one mail; call it in a context of the application."""
    send_email.delay("order", to=to, context=order(number), **options)


def fill(number: int) -> None:
    """Accept so many mails, 500 to a transaction of the application's."""
    app = create_app()
    engine = app.extensions["mailer"].store.engine
    with app.app_context():
        for start in range(0, number, 500):
            with Session(engine) as session:
                for n in range(start, min(start + 500, number)):
                    send(n, f"bulk{n}@example.org", session=session)
                session.commit()


if __name__ == "__main__":
    if sys.argv[1] == "migrate":
        from mailer.store.migrations import upgrade  # a worker does not need it

        upgrade(create_app().extensions["mailer"].store.engine)
    else:
        fill(int(sys.argv[2]))
