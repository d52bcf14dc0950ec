"""What is wrong with a set-up, said before it costs a mail or a password: checks that only look.

Each check is a function over a `Patient` that yields findings: one if all is well, else one for each
thing that is not, with the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import flask

from mailer.doctor import application, queues, storage, transports
from mailer.doctor.findings import Finding, Level, Patient, error

__all__ = ["CHECKS", "Finding", "Level", "Patient", "error", "examine"]

Check = Callable[[Patient], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    application.debug,
    application.base_url,
    application.secret_keys,
    application.flask_secret_key,
    application.default_sender,
    application.dkim,
    application.smtp,
    storage.store,
    storage.clock,
    storage.files,
    transports.transports,
    queues.broker,
    queues.celery_settings,
)


def examine(app: flask.Flask) -> list[Finding]:
    """Make every check, in the order of the list. Never raises: a check that breaks is an error itself."""
    patient = Patient(app, app.extensions["mailer"])
    return [finding for check in CHECKS for finding in _made(check, patient)]


def _made(check: Check, patient: Patient) -> list[Finding]:
    try:
        return list(check(patient))
    except Exception as exc:  # the others are still worth hearing
        found = f"could not be looked at: {type(exc).__name__}"
        return [error(check.__name__, found, "report this as a bug of mailer doctor")]
