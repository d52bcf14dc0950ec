"""The transports: whether mail goes out by each of them, as the workers found."""

from __future__ import annotations

from collections.abc import Iterator

from mailer.carriers import PAUSED, WORKING, Carrier, carriers
from mailer.doctor.findings import Finding, Patient, error, ok, warning
from mailer.doctor.storage import is_there
from mailer.errors import StoreError


def transports(patient: Patient) -> Iterator[Finding]:
    """What a worker was told when it last tried, in its words."""
    if not is_there(patient):
        return
    try:
        found = carriers(patient.services)
    except StoreError:
        return  # `store` has said so
    for carrier in found:
        yield _finding(carrier)


def _finding(carrier: Carrier) -> Finding:
    name, resume = carrier.name, f"run: mailer transports resume {carrier.name}"
    if carrier.state == WORKING:
        return ok("transport", f"{name}: nothing is wrong with it")
    if carrier.state == PAUSED:
        why = f": {carrier.why}" if carrier.why else ""
        return warning("transport", f"{name} is paused by {carrier.by}{why}", f"to use it again, {resume}")
    step = f"it is tried again by itself; to have it tried at once, {resume}"
    return error("transport", f"{name} rests: {carrier.why}", step)
