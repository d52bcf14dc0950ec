"""A host application in a module of its own, so that worker processes can be started on it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import flask

from mailer import Mailer
from mailer.store import clock
from mailer.store.migrations import upgrade
from tests.faults import disk

CLOCK_FILE = "HOST_CLOCK_FILE"
"""The environment variable that names a file which says how many seconds this machine's clock is ahead."""


def create_app() -> flask.Flask:
    """An application that takes everything from the environment."""
    if CLOCK_FILE in os.environ:
        go_by(Path(os.environ[CLOCK_FILE]))
    app = flask.Flask(__name__)
    Mailer(app)
    if disk.FULL_FILE in os.environ:
        disk.obey_limit(app.extensions["mailer"].store.engine, Path(os.environ[disk.FULL_FILE]))
    upgrade(app.extensions["mailer"].store.engine)
    return app


def go_by(path: Path) -> None:
    """Let this process go by a clock that can be set, while it runs; `time.monotonic` cannot."""
    right = time.time
    time.time = clock.wall = lambda: right() + ahead(path)


def ahead(path: Path) -> float:
    """How many seconds the clock of this file is ahead."""
    with contextlib.suppress(FileNotFoundError):
        return float(path.read_text())
    return 0.0


def set_ahead(path: Path, seconds: float) -> None:
    """Set the clock of this file, for all who go by it at once."""
    new = path.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(path)
