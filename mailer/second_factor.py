"""The second factor of the console's people: six digits from an authenticator app (TOTP, RFC 6238).

Offered to everybody, asked for after the password. A secret is offered, shown, and counts once a code has
come back. Each code works once, and one time step (30 seconds) early or late. Trying is throttled where
requests come in; rows are the matter of `mailer.store.second_factors`.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import pyotp

from mailer.operators import digest, known, tidy
from mailer.services import Services
from mailer.store import operators as rows
from mailer.store import second_factors as factors
from mailer.store.operators import Operator
from mailer.telemetry import log

_CODE = re.compile(r"[0-9]{6}")
_DRIFT = 1  # time steps; section 5.2 of the RFC advises no more


@dataclass(frozen=True, slots=True)
class Offer:
    """What to put into an authenticator app, to type or as the address that the QR picture holds."""

    secret: str
    address: str


# Turning it on and off


def is_on(services: Services, person: Operator) -> bool:
    """Whether this person's log-in by password asks for a code."""
    with services.store.read() as connection:
        return factors.is_confirmed(connection, person.id)


def offer(services: Services, person: Operator) -> None:
    """Make a new secret to be confirmed by `turn_on`. One that is in use stays as it is."""
    with services.store.begin() as connection:
        factors.offer(connection, person.id, pyotp.random_base32(), services.store.sealer)


def offered(services: Services, person: Operator) -> Offer | None:
    """What was offered and is not confirmed; None before, and after: a secret in use is shown to nobody."""
    with services.store.read() as connection:
        found = factors.factor(connection, person.id, services.store.sealer)
    if found is None or found.confirmed:
        return None
    totp = pyotp.TOTP(found.secret, name=person.name, issuer=services.settings.site_name)
    return Offer(found.secret, totp.provisioning_uri())


def turn_on(services: Services, person: Operator, code: str, session: str) -> bool:
    """Ask for codes from now on, if this one proves that the app has the secret.

    The person's other sessions end, as they began without a code; ``session`` is the token of this one.
    """
    now, sealer = services.now(), services.store.sealer
    with services.store.begin() as connection:
        done = factors.confirm(connection, person.id, partial(_step_of, code, now), now, sealer)
        if done:
            rows.end_sessions(connection, person.id, keep=digest(session))
    if done:
        log.info("console.second_factor_on", operator=person.id)
    return done


def turn_off(services: Services, person: Operator, code: str) -> bool:
    """Ask for no code any more; a code is needed for that, as an unwatched browser is not the person."""
    step_of, sealer = partial(_step_of, code, services.now()), services.store.sealer
    with services.store.begin() as connection:
        done = factors.use(connection, person.id, step_of, sealer) and factors.remove(connection, person.id)
    if done:
        log.info("console.second_factor_off", operator=person.id, by="code")
    else:
        log.warning("console.code_refused", operator=person.id)
    return done


def reset(services: Services, name: str) -> bool:
    """For somebody who lost the app: ask for no code, and end their sessions. False if none was asked for.

    Raises ConfigError naming ``name`` if there is no such person.
    """
    with services.store.begin() as connection:
        person = known(rows.operator(connection, tidy(name)), name)
        was_on = factors.is_confirmed(connection, person.id)
        factors.remove(connection, person.id)
        rows.end_sessions(connection, person.id)
    log.info("console.second_factor_off", operator=person.id, by="command")
    return was_on


# Logging in


def half_in(services: Services, token: str) -> str | None:
    """The name of who gave the right password and now owes a code, or None if that took too long."""
    with services.store.read() as connection:
        found = factors.half(connection, digest(token), services.now())
    return None if found is None else found[1]


def log_in(services: Services, token: str, code: str) -> str | None:
    """A new session's token for the token of a `CodeNeeded` and a code; None if either is no good."""
    session, now = secrets.token_urlsafe(32), services.now()
    step_of, sealer = partial(_step_of, code, now), services.store.sealer
    with services.store.begin() as connection:
        found = factors.half(connection, digest(token), now)
        if found is None:
            return None
        id_ = found[0]
        right = factors.use(connection, id_, step_of, sealer)
        if not right or not factors.end_half(connection, digest(token)):
            log.warning("console.code_refused", operator=id_)
            return None
        rows.start_session(connection, id_, digest(session), now)
    log.info("console.logged_in", operator=id_, by="password and code")
    return session


def _step_of(code: str, now: datetime, secret: str) -> int | None:
    """The time step whose code this is, the latest of those near ``now``; or None."""
    code = "".join(code[:20].split())  # apps show two groups of three
    if not _CODE.fullmatch(code):
        return None
    totp = pyotp.TOTP(secret)
    here = totp.timecode(now)
    near = range(here - _DRIFT, here + _DRIFT + 1)
    return max((step for step in near if hmac.compare_digest(totp.generate_otp(step), code)), default=None)
