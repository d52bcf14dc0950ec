"""The application itself: debug mode, addresses, keys, and the way to the mail server."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailer.address import Address
from mailer.config import NEW_KEY
from mailer.dkim import ENOUGH_BITS
from mailer.doctor.findings import Finding, Patient, error, ok, warning
from mailer.providers import ways_of
from mailer.transports import Transport
from mailer.transports.local import LocalTransport
from mailer.transports.url import Security, SmtpConfig, is_loopback

_LONG_ENOUGH = 32
_PLACEHOLDER = re.compile("change|secret|password|example|default|your|1234|^dev", re.IGNORECASE)


def debug(patient: Patient) -> Iterator[Finding]:
    """Debug pages run code for whoever sees them."""
    if patient.app.debug:
        yield error("debug", "Flask's debug mode is on", "unset FLASK_DEBUG and DEBUG")
    else:
        yield ok("debug", "off")


def base_url(patient: Patient) -> Iterator[Finding]:
    """Links carry tokens, so they go over https."""
    if not patient.in_production:
        step = "set MAILER_BASE_URL to the https address before others get mail"
        yield warning("base_url", "is this machine, where nobody else can follow a link", step)
    elif not patient.services.settings.base_url.startswith("https:"):
        step = "set MAILER_BASE_URL to an https address"
        yield error("base_url", "is http: links and log-ins can be read on the way", step)
    else:
        yield ok("base_url", "https")


def secret_keys(patient: Patient) -> Iterator[Finding]:
    """A key that somebody can guess, or finds beside what it seals, seals nothing."""
    settings, kept = patient.services.settings, patient.services.settings.data_dir / "secret-key"
    if any(is_guessable(key.get_secret_value()) for key in settings.secret_keys):
        yield error("secret_keys", "a key is short or can be guessed", f"make one with: {NEW_KEY}")
    elif settings.secret_keys:
        yield ok("secret_keys", f"{len(settings.secret_keys)} set")
    elif patient.in_production:
        step = "move what the file holds into MAILER_SECRET_KEYS, so that what it sealed can still be opened"
        yield error("secret_keys", f"none is set; the one in use lies beside the mails, in {kept}", step)
    else:
        yield ok("secret_keys", f"made here, and kept in {kept}")


def flask_secret_key(patient: Patient) -> Iterator[Finding]:
    """Whoever guesses it signs a session cookie as anybody."""
    key = patient.app.secret_key
    if not key:
        return
    if is_guessable(key if isinstance(key, str) else key.hex(), 16):
        level = error if patient.in_production else warning
        yield level("flask_secret_key", "SECRET_KEY is short or can be guessed", f"make one with: {NEW_KEY}")
    else:
        yield ok("flask_secret_key", "set")


def is_guessable(key: str, shortest: int = _LONG_ENOUGH) -> bool:
    """Whether somebody may have thought of this key instead of rolling it."""
    return len(key) < shortest or len(set(key)) < 8 or bool(_PLACEHOLDER.search(key))


def default_sender(patient: Patient) -> Iterator[Finding]:
    """Without it each call has to name a sender."""
    if patient.services.settings.default_sender is None:
        found = "is not set: calls must name one; the service's own mails come from no-reply@ its host"
        yield warning("default_sender", found, "set MAILER_DEFAULT_SENDER")
    else:
        yield ok("default_sender", "set")


def dkim(patient: Patient) -> Iterator[Finding]:
    """Who signs must do so with a key that receivers take, for the domain that people see."""
    signer, sender = patient.services.signer, patient.services.settings.default_sender
    if not signer.keys:
        yield ok("dkim", "mails are not signed here; most providers sign what they take")
        return
    for key in signer.keys:
        if key.bits < ENOUGH_BITS and key.algorithm.startswith("rsa"):
            found = f"{key.host} has {key.bits} bits, and some receivers take {ENOUGH_BITS} at least"
            yield warning("dkim", found, "make a new one with: mailer dkim new")
        else:
            yield ok("dkim", f"{key.host}, {key.algorithm}; mailer dkim show says what DNS must hold")
    if sender is not None and not signer.keys_for(Address.parse(sender, "sender").domain):
        found = "no key is for the domain of MAILER_DEFAULT_SENDER, so its mails are not signed"
        yield warning("dkim", found, "add one to MAILER_DKIM_KEYS")


def smtp(patient: Patient) -> Iterator[Finding]:
    """The mail server is the one it says it is, and nobody reads the password on the way."""
    for way in ways_of(patient.services.transport):
        yield from _way(way.transport, patient)


def _way(transport: Transport, patient: Patient) -> Iterator[Finding]:
    config = getattr(transport, "config", None)
    if isinstance(config, SmtpConfig):
        yield from _server(config, patient)
    elif isinstance(transport, LocalTransport):
        found = f"the transport is {transport.name}: nothing is sent"
        yield warning("smtp", found, "set MAILER_SMTP_URL=smtp://…")
    else:
        yield ok("smtp", "a transport of the application's own")


def _server(config: SmtpConfig, patient: Patient) -> Iterator[Finding]:
    far = not is_loopback(config.host)
    clear = config.security in (Security.NONE, Security.OPTIONAL)
    unverified = config.security is not Security.NONE and not config.verify
    if far and unverified:
        found = f"{config.name}: any certificate is taken, so anybody can be that server"
        yield error("smtp_certificate", found, "remove verify=off; name its authority with ca_file=/path")
    if far and clear and config.username:
        found = f"{config.name}: the password may travel without TLS"
        yield error("smtp_password", found, "use starttls=required, or smtps://")
    elif far and clear:
        found = f"{config.name}: mails may travel without TLS"
        yield warning("smtp_tls", found, "use starttls=required, unless it is in your own network")
    elif not far and patient.in_production and not _is_named(patient):
        found = f"{config.name} is used, since no server is named: is it the inbox for trying things out?"
        yield warning("smtp", found, "set MAILER_SMTP_URL")
    elif not (far and unverified):
        yield ok("smtp", f"{config.name}, TLS: {config.security.value}")


def _is_named(patient: Patient) -> bool:
    settings = patient.services.settings
    return settings.smtp_url is not None or settings.transports is not None
