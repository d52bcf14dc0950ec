"""``/healthz``: whether this process can accept a mail now, for load balancers and supervisors."""

from __future__ import annotations

import flask

from mailer.errors import StoreError
from mailer.services import Services
from mailer.store import queries


def init_health(app: flask.Flask) -> None:
    """Add ``GET /healthz``."""
    app.add_url_rule("/healthz", view_func=healthz)


def healthz() -> tuple[dict[str, str], int]:
    """200 while the store answers, 503 otherwise; no word on what is in it."""
    services: Services = flask.current_app.extensions["mailer"]
    try:
        with services.store.read() as connection:
            queries.ping(connection)
    except StoreError:
        return {"status": "store unavailable"}, 503
    return {"status": "ok"}, 200
