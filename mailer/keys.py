"""API keys: how they are made, what they may do, and how one is told from a forgery.

A key is ``re_`` or ``re_test_``, 40 random characters of 62 (238 bits), and 6 that are the CRC-32 of what
stands before them, so that a scanner of source code knows a leaked key from a look-alike without asking us
(the pattern is `PATTERN`). The whole is shown once. The store has a SHA-256 hash: a slow hash protects what
people think up, and nobody guesses 238 bits however fast the hash is, so a request can afford it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

import uuid_utils

from mailer.address import Address
from mailer.errors import InvalidAddress, InvalidMessage, StoreError
from mailer.headers import control_in, did_you_mean
from mailer.services import Services
from mailer.store import keys as rows
from mailer.store.keys import USED_EVERY, KeyRow
from mailer.telemetry import log

PATTERN = re.compile(r"re_(?:test_)?[0-9A-Za-z]{46}")
DEFAULT_PROJECT = "default"
MAX_NAME = 64
_LETTERS = string.digits + string.ascii_letters
_RANDOM, _CHECK, _SHOWN = 40, 6, 8


class Scope(StrEnum):
    """What a key may do. Nothing is allowed that no scope of the key says."""

    SEND = "send"  # accept, cancel, reschedule and resend messages
    READ = "read"  # see messages and templates: recipients, subjects, states, timelines
    READ_BODIES = "read_bodies"  # see what a message says as well
    SUPPRESSIONS = "suppressions"  # see and change the list of addresses that get no mail
    ADMIN = "admin"  # make, list and revoke keys of its project, and all of the above

    def allows(self, wanted: Scope) -> bool:
        """Whether this scope is enough for what wants ``wanted``."""
        return wanted in _INCLUDED[self]


_INCLUDED = {
    Scope.SEND: {Scope.SEND},
    Scope.READ: {Scope.READ},
    Scope.READ_BODIES: {Scope.READ, Scope.READ_BODIES},
    Scope.SUPPRESSIONS: {Scope.SUPPRESSIONS},
    Scope.ADMIN: set(Scope),
}
DEFAULT_SCOPES = (Scope.SEND, Scope.READ)


def create(
    services: Services,
    name: str,
    *,
    project: str = DEFAULT_PROJECT,
    scopes: Iterable[str] = DEFAULT_SCOPES,
    domains: Iterable[str] = (),
    is_test: bool = False,
    expires_at: datetime | None = None,
) -> tuple[KeyRow, str]:
    """Make a key of the project of that name, which is made if there is none. The second is the key itself.

    Raises InvalidMessage naming what is wrong.
    """
    now = services.now()
    if expires_at is not None and expires_at <= now:
        raise InvalidMessage("expires_at", "is not in the future; the key would never open anything")
    token = new_token(is_test)
    new = KeyRow(
        id=str(uuid_utils.uuid7()),
        project="",
        project_name=_checked_name(project, "project"),
        name=_checked_name(name, "name"),
        prefix=token[: -(_RANDOM + _CHECK - _SHOWN)],
        scopes=_checked_scopes(scopes),
        domains=sorted({_checked_domain(domain) for domain in domains}),
        is_test=is_test,
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
        used_at=None,
    )
    with services.store.begin() as connection:
        id_, _made = rows.ensure_project(connection, str(uuid_utils.uuid7()), new.project_name, now)
        new = replace(new, project=id_)
        rows.add_key(connection, new, digest(token))
    log.info("api.key_created", key=new.id, project=id_, test=is_test)
    return new, token


def who(services: Services, token: str) -> KeyRow | None:
    """Whose key this is; None if it is wrong, unknown, revoked or over, which take the same way and time."""
    hashed = digest(token)
    with services.store.read() as connection:
        found = rows.by_hash(connection, hashed)
    key, stored = found or (None, digest(""))
    # The index found it by its hash, of which nobody knows what it is the hash of; compared all the same.
    is_same = hmac.compare_digest(stored, hashed)
    if key is None or not is_same or not key.is_good(services.now()):
        return None
    _note_use(services, key)
    return key


def revoke(services: Services, id_: str, *, project: str | None = None) -> bool:
    """Close a key, of this project if one is given; False if there is no such key, or it was closed."""
    with services.store.begin() as connection:
        done = rows.revoke(connection, id_, services.now(), project)
    if done:
        log.info("api.key_revoked", key=id_)
    return done


def new_token(is_test: bool = False) -> str:
    """A fresh key."""
    start = "re_test_" if is_test else "re_"
    body = start + "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM))
    return body + checksum(body)


def checksum(body: str) -> str:
    """The last characters of a key, from all those before them."""
    number, letters = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK):
        number, place = divmod(number, len(_LETTERS))
        letters = _LETTERS[place] + letters
    return letters


def is_key(text: str) -> bool:
    """Whether a text is a key of ours, of whatever installation: its checksum says so."""
    return PATTERN.fullmatch(text) is not None and checksum(text[:-_CHECK]) == text[-_CHECK:]


def digest(token: str) -> str:
    """What the store keeps of a key."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _note_use(services: Services, key: KeyRow) -> None:
    now = services.now()
    if key.used_at is not None and now - key.used_at < USED_EVERY:
        return
    try:
        with services.store.begin_soon() as connection:
            rows.note_use(connection, key.id, now)
    except StoreError as exc:  # it can be left out; the next request tries again
        log.debug("api.use_not_noted", error=str(exc))


def _checked_name(name: str, field: str) -> str:
    if not name.strip() or len(name) > MAX_NAME or control_in(name):
        raise InvalidMessage(field, f"is not 1 to {MAX_NAME} characters on one line; give such a name")
    return name.strip()


def _checked_scopes(scopes: Iterable[str]) -> list[str]:
    given, known = list(dict.fromkeys(scopes)), [scope.value for scope in Scope]
    for scope in given:
        if scope not in known:
            raise InvalidMessage("scopes", f"has one that is not known; {did_you_mean(scope, known)}")
    if not given:
        raise InvalidMessage("scopes", f"is empty, so the key could do nothing; known: {', '.join(known)}")
    return [scope for scope in known if scope in given]


def _checked_domain(domain: str) -> str:
    try:
        return Address.parse(f"x@{domain}", "domains").domain
    except InvalidAddress as exc:
        raise InvalidMessage("domains", "has one that is no domain; give one such as acme.example") from exc


def may(key: KeyRow, wanted: Scope) -> bool:
    """Whether the key has a scope that is enough."""
    return any(Scope(scope).allows(wanted) for scope in key.scopes)
