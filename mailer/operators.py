"""People of the console: how they are made, and the two ways they get in.

By password (argon2id), and the code of an authenticator app where that is on (`mailer.second_factor`); or
by a one-time link that the ``mailer`` command prints. Nobody exists by default. This module makes the tokens
and hashes; rows are the matter of `mailer.store.operators`.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error

from mailer.errors import ConfigError
from mailer.services import Services
from mailer.store import operators as rows
from mailer.store import second_factors as factors
from mailer.store.operators import Operator, Role
from mailer.telemetry import log

__all__ = ["CodeNeeded", "Operator", "Role", "create_operator", "end_session", "enter", "log_in",
           "make_login_link", "person_of", "set_password"]  # fmt: skip

MIN_PASSWORD = 10
MAX_PASSWORD = 512
LINK_LIFETIME = timedelta(minutes=15)
CODE_WAIT = timedelta(minutes=5)
"""The time between the password and the code."""
_hasher = PasswordHasher()


@dataclass(frozen=True, slots=True)
class CodeNeeded:
    """The password was right, and that is not enough. ``token`` is for `mailer.second_factor.log_in` only."""

    token: str


def create_operator(
    services: Services, name: str, role: Role | str = Role.ADMIN, password: str | None = None
) -> Operator:
    """Add a person; without a password they enter by one-time links only.

    Raises ConfigError naming ``name``, ``role`` or ``password`` if it is no good or the name is taken.
    """
    name = _checked_name(name)
    hashed = None if password is None else _hasher.hash(_checked_password(password))
    with services.store.begin() as connection:
        if not rows.create_operator(connection, name, _checked_role(role), hashed, services.now()):
            raise ConfigError("name", f"{name!r} is taken; choose another, or make a link for that person")
        made = rows.operator(connection, name)
    if made is None:
        raise ConfigError("name", f"{name!r} was removed at the same moment")
    return made


def set_password(services: Services, name: str, password: str) -> None:
    """Give a person another password and end their sessions. Raises ConfigError as `create_operator`."""
    hashed = _hasher.hash(_checked_password(password))
    with services.store.begin() as connection:
        person = known(rows.operator(connection, tidy(name)), name)
        rows.set_password(connection, person.id, hashed)
        rows.end_sessions(connection, person.id)


def make_login_link(services: Services, name: str, lifetime: timedelta = LINK_LIFETIME) -> str:
    """A URL that lets this person in once, within ``lifetime``. Whoever has it gets in: show it to them only.

    Raises ConfigError naming ``name`` if there is no such person or they are disabled.
    """
    token = secrets.token_urlsafe(32)
    with services.store.begin() as connection:
        person = known(rows.operator(connection, tidy(name)), name)
        if person.disabled_at is not None:
            raise ConfigError("name", f"{person.name!r} is disabled; enable that person first")
        rows.add_link(connection, person.id, digest(token), services.now(), lifetime)
    return f"{services.settings.base_url}/console/enter/{token}"


def log_in(services: Services, name: str, password: str) -> str | CodeNeeded | None:
    """A new session's token, or None: wrong, unknown and disabled look and cost the same.

    CodeNeeded, and no session yet, for a person whose second factor is on.
    """
    name = tidy(name)
    with services.store.read() as connection:
        found = rows.password_hash(connection, name)
    id_, hashed = found or (0, _nobody())
    right = _matches(hashed, password) and found is not None
    token = secrets.token_urlsafe(32)
    with services.store.begin() as connection:
        if not right:
            rows.note_failure(connection, name)
            log.warning("console.login_refused")
            return None
        if _hasher.check_needs_rehash(hashed):
            rows.set_password(connection, id_, _hasher.hash(password))
        if factors.is_confirmed(connection, id_):
            factors.start_half(connection, id_, digest(token), services.now(), CODE_WAIT)
            return CodeNeeded(token)
        rows.start_session(connection, id_, digest(token), services.now())
    log.info("console.logged_in", operator=id_, by="password")
    return token


def enter(services: Services, link_token: str) -> str | None:
    """Use a one-time link up: a new session's token, or None if it was used, is over or never was.

    No code is asked for. A link is made on the server's command line only, by somebody who could as well
    turn the second factor off there; and it is the way in for a person who lost the app.
    """
    token = secrets.token_urlsafe(32)
    with services.store.begin() as connection:
        id_ = rows.redeem_link(connection, digest(link_token), services.now())
        if id_ is None:
            log.warning("console.link_refused")
            return None
        rows.start_session(connection, id_, digest(token), services.now())
    log.info("console.logged_in", operator=id_, by="link")
    return token


def person_of(services: Services, token: str, *, active: bool = True) -> Operator | None:
    """Who holds this session, or None. ``active`` False: a page refreshed itself; the idle clock runs on."""
    hashed, now = digest(token), services.now()
    with services.store.read() as connection:
        person = rows.person_of_session(connection, hashed, now)
        stale = person is not None and active and rows.session_is_stale(connection, hashed, now)
    if stale:
        with services.store.begin() as connection:
            rows.touch(connection, hashed, now)
    return person


def end_session(services: Services, token: str) -> None:
    """Log out: the token opens nothing any more."""
    with services.store.begin() as connection:
        rows.end_session(connection, digest(token))


def tidy(name: str) -> str:
    """A name as it is stored: two that look the same are the same."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def digest(token: str) -> str:
    # A plain hash will do: nobody guesses 256 random bits, however fast SHA-256 is.
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


@cache
def _nobody() -> str:
    """A hash that no password matches, so that an unknown name costs as much as a known one."""
    return _hasher.hash(secrets.token_urlsafe(32))


def _matches(hashed: str, password: str) -> bool:
    try:
        return len(password) <= MAX_PASSWORD and _hasher.verify(hashed, password)
    except Argon2Error:
        return False


def known(person: Operator | None, name: str) -> Operator:
    if person is None:
        raise ConfigError("name", f"nobody is called {name!r}; mailer user list shows who is")
    return person


def _checked_name(name: str) -> str:
    name = tidy(name)
    if not name or len(name) > 320 or not name.isprintable() or " " in name:
        raise ConfigError("name", "must be 1 to 320 visible characters without spaces, such as an address")
    return name


def _checked_password(password: str) -> str:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ConfigError("password", f"must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return password


def _checked_role(role: Role | str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise ConfigError("role", f"{role!r} is none of {', '.join(Role)}") from None
