"""A host application with a bug: rendering the mail for one person kills the process that does it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

import flask

from mailer.services import Provider
from tests.faults import host

POISON = "Mallory"


def create_app() -> flask.Flask:
    """The usual host, whose context provider brings down the worker, as a fault in a C library would."""
    app = host.create_app()
    app.extensions["mailer"].providers["welcome"] = Provider(_burst, frozenset())
    return app


def _burst(context: Mapping[str, Any]) -> dict[str, Any]:
    if context["name"] == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return {}
