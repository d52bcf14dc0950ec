"""The suppression list: who gets no mail, whatever is sent to them.

A list belongs to a project, or to the application itself (``project`` None), and stops the mail of that one
only. Addresses are compared by `mailer.address.Address.key`: the domain in lower case and as A-labels, A to Z
of the local part in lower case, nothing else folded.

It is looked at twice. When a message is accepted, so that it can be seen at once that nobody will get it;
this look is left out for recipients who were on no list a second ago. And again by the worker that has
claimed it, which is the look that counts: whoever is on the list before the claim gets nothing. No caller of
``send_email`` ever learns of it from an error: the mail is accepted, and its delivery has ended.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

import uuid_utils

from mailer.address import Address, masked
from mailer.errors import ConfigError, InvalidMessage
from mailer.headers import control_in, did_you_mean
from mailer.job import Job
from mailer.origin import SIMULATOR
from mailer.services import Services
from mailer.store import keys as key_rows
from mailer.store import suppressions as rows
from mailer.store.messages import NewMessage
from mailer.store.suppressions import Asked, Bar, Entry, Wanted
from mailer.telemetry import log
from mailer.transports.simulator import is_suppressed

__all__ = ["Cause", "Entry", "Wanted", "add", "find", "page", "remove"]

MOST_AT_ONCE = 100
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MAX_DETAIL, _MAX_BY = 500, 320


class Cause(StrEnum):
    """Why an address is on the list."""

    MANUAL = "manual"  # a person or a program said so
    BOUNCE = "bounce"  # a server said that there is no such mailbox
    COMPLAINT = "complaint"  # the person said that mail was unwanted


SIMULATED = "simulated"
"""The cause for ``suppressed@`` of the simulator, which is on no list."""


# Changing the list


def add(
    services: Services,
    addresses: str | Collection[str],
    *,
    by: str,
    project: str | None = None,
    cause: str = Cause.MANUAL,
    detail: str | None = None,
    message: str | None = None,
) -> list[Entry]:
    """Put one address or up to 100 on the list of a project, by its id; answer them as listed, in order.

    An address that is there already stays as it is: who put it there first, and why, is kept. ``by`` is who
    did it, ``message`` the id of what it came from. Mail that is waiting for the address ends when it is due.
    Raises InvalidMessage naming what is wrong; then nothing was added.
    """
    given = [addresses] if isinstance(addresses, str) else list(addresses)
    if not 1 <= len(given) <= MOST_AT_ONCE:
        raise InvalidMessage("address", f"is not 1 to {MOST_AT_ONCE} addresses; send several requests")
    known = [each.value for each in Cause]
    if cause not in known:
        raise InvalidMessage("cause", f"is not known; {did_you_mean(cause, known)}")
    if detail is not None and (len(detail) > MAX_DETAIL or control_in(detail)):
        raise InvalidMessage("detail", f"is not one line of at most {MAX_DETAIL} characters; shorten it")
    now = services.now()
    new = [
        Entry(str(uuid_utils.uuid7()), project, _addr_spec(each), cause, detail, now, by[:_MAX_BY], message)
        for each in given
    ]
    with services.store.begin() as connection:
        services.store.suppressed.ensure_key(connection)
    with services.store.begin() as connection:
        listed = services.store.suppressed.add(connection, new)
    for id_ in sorted({entry.id for entry in new} & {entry.id for entry in listed}):
        log.info("suppression.added", entry=id_, cause=cause, by=_in_logs(by))
    return listed


def remove(services: Services, which: str, *, by: str, project: str | None = None) -> Entry | None:
    """Take an address, or the entry of an id, off the list of a project; None if it is not on it.

    Mail to it that ended as suppressed stays ended: send it again. Raises InvalidAddress.
    """
    with services.store.begin() as connection:
        entry = services.store.suppressed.find(connection, project, _as_asked(which))
        if entry is None or not rows.remove(connection, entry.id):
            return None
    log.info("suppression.removed", entry=entry.id, by=_in_logs(by))
    return entry


def _in_logs(by: str) -> str:
    return masked(by) if "@" in by else by


def remove_anywhere(services: Services, id_: str, *, by: str) -> Entry | None:
    """Take the entry of this id off whatever list it is on; None if it is gone."""
    with services.store.read() as connection:
        entry = rows.by_id(connection, id_)
    return None if entry is None else remove(services, id_, by=by, project=entry.project)


# Looking at it


def find(services: Services, which: str, *, project: str | None = None) -> Entry | None:
    """The entry of an address, or of an id, on the list of a project. Raises InvalidAddress."""
    with services.store.read() as connection:
        return services.store.suppressed.find(connection, project, _as_asked(which))


def page(services: Services, wanted: Wanted) -> tuple[list[Entry], bool]:
    """Entries, newest first, and whether there are more in the direction that was asked for."""
    with services.store.read() as connection:
        return rows.page(connection, wanted)


def project_names(services: Services, entries: Collection[Entry]) -> Mapping[str, str]:
    """What people call the projects of these entries, by id."""
    with services.store.read() as connection:
        return rows.project_names(connection, {entry.project for entry in entries if entry.project})


def project_of(services: Services, name: str) -> str:
    """The id of the project of that name. Raises InvalidMessage if there is none."""
    with services.store.read() as connection:
        found = key_rows.project(connection, name)
    if found is None:
        raise InvalidMessage("project", "is not known; mailer keys list shows those that have keys")
    return found


def _as_asked(which: str) -> str:
    return which if _ID.fullmatch(which) else _addr_spec(which)


def _addr_spec(address: str) -> str:
    return Address.parse(address, "address").addr_spec


# What it stops


def at_acceptance(services: Services, connection: Any, new: Sequence[NewMessage]) -> list[NewMessage]:
    """The same messages, with those of their recipients barred that are on the list."""
    bars = dict[Asked, Bar]()
    asked = [(each.project, recipient) for each in new for recipient, _kind in each.recipients]
    try:
        if some := services.store.suppressed.suspects(connection, asked):
            bars = services.store.suppressed.bars(connection, some)
    except ConfigError as exc:  # its worker will not send it without a look
        log.error("suppression.unreadable", why=str(exc))
    return [_barring(each, bars) for each in new]


def _barring(new: NewMessage, bars: Mapping[Asked, Bar]) -> NewMessage:
    barred = dict[str, Bar]()
    for recipient, _kind in new.recipients:
        if bar := bars.get((new.project, recipient)):
            barred[recipient] = bar
        elif new.carrier == SIMULATOR and is_suppressed(recipient):
            barred[recipient] = Bar(SIMULATED, new.created_at)
    return replace(new, barred=barred) if barred else new


def at_attempt(
    services: Services, connection: Any, jobs: Sequence[Job], found: Mapping[str, Mapping[str, Any]]
) -> dict[Asked, Bar]:
    """Those recipients of claimed deliveries that are on the list now; ``found`` are the messages' rows.

    Raises ConfigError if the list cannot be read.
    """
    asked = [(found[job.message]["project"], c.recipient) for job in jobs for c in job.claimed]
    return services.store.suppressed.bars(connection, asked)
