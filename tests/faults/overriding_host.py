"""A host application whose own Celery is set up as its owner likes; Mailer has to live with it.

What that is stands in the environment, so that the application of a test and its workers agree.
"""

from __future__ import annotations

import json
import os
from typing import Any

import celery
import flask

from mailer import Mailer
from mailer.store.migrations import upgrade

SETTINGS = "HOST_CELERY"
"""The environment variable with the settings of the host's Celery, as JSON."""


def create_app() -> flask.Flask:
    """An application with a Celery of its own, on the broker that Mailer's settings name."""
    app = flask.Flask(__name__)
    theirs = celery.Celery("host", broker=os.environ["MAILER_BROKER_URL"], set_as_current=False)
    theirs.conf.update(json.loads(os.environ[SETTINGS]))
    Mailer().init_app(app, celery=theirs)
    upgrade(app.extensions["mailer"].store.engine)
    return app


def __getattr__(name: str) -> Any:
    # For `celery -A tests.faults.overriding_host:celery_app worker`.
    if name == "celery_app":
        return create_app().extensions["celery"]
    raise AttributeError(name)
