"""The product's HTTP API in an application of its own, for a WSGI server: ``bench.served:create_app()``.

``python -m bench.served`` prints a key for it.
"""

from __future__ import annotations

import flask

from bench import product


def create_app() -> flask.Flask:
    """The application, with the API under /api."""
    from mailer.web.api import init_api

    app = product.create_app()
    init_api(app)
    return app


if __name__ == "__main__":
    from mailer import keys

    _, token = keys.create(create_app().extensions["mailer"], "bench")
    print(token)
