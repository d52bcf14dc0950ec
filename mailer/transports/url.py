"""Where and how to reach an SMTP server: the value, and the two ways to write it down.

``smtp://user:password@host:587?starttls=required`` or Flask-Mail's ``MAIL_*`` keys become a frozen
`SmtpConfig`. Everything is checked here, so that a mistake stops the start and not a mail. No error
repeats the URL: it may hold a password.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mailer.errors import ConfigError


class Security(StrEnum):
    """How the connection is protected. Verification of the certificate is a matter of its own."""

    IMPLICIT = "implicit"  # TLS from the first octet: smtps, port 465 (RFC 8314)
    REQUIRED = "starttls"  # STARTTLS or nothing is sent
    OPTIONAL = "starttls-optional"  # STARTTLS if offered; never with credentials
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds, for each whole reply however slowly its octets come.

    The defaults are those of RFC 5321 section 4.5.3.2. ``block`` is for each piece of the text that is
    handed to the network, ``quit`` for the good-bye, which no result depends on, and ``parcel`` for
    everything up to the end of the text of one parcel together. Only the answer to the text is outside
    of it: giving up early there makes doubles (RFC 1047).
    """

    connect: float = 30
    greeting: float = 300  # also EHLO, STARTTLS, the TLS handshake and AUTH
    mail: float = 300
    rcpt: float = 300
    data: float = 120
    block: float = 180
    end_of_data: float = 600
    quit: float = 2
    parcel: float = 1800

    def at_most(self, seconds: float) -> Timeouts:
        """The same with no wait over ``seconds``, but for ``end_of_data`` and the sum, ``parcel``."""
        fields = {f.name: min(getattr(self, f.name), seconds) for f in dataclasses.fields(self)}
        return Timeouts(**{**fields, "end_of_data": self.end_of_data, "parcel": self.parcel})


@dataclass(frozen=True, slots=True)
class SmtpConfig:
    """One SMTP server, checked. The password is in no ``repr``.

    ``ca_file`` replaces the system's certificate authorities. ``local_hostname`` is the name given to
    EHLO; None takes the machine's, which inside a container is seldom one that resolves.
    ``plain_auth_loopback`` allows credentials without TLS, to a loopback address only.
    ``connections`` is how many a process opens at most. One is replaced after ``max_messages`` or ``max_age``
    seconds, and given back when it had nothing to carry for ``idle`` seconds.
    """

    host: str
    port: int = 587
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    security: Security = Security.REQUIRED
    verify: bool = True
    ca_file: str | None = None
    local_hostname: str | None = None
    plain_auth_loopback: bool = False
    connections: int = 20
    max_messages: int = 100
    max_age: float = 300
    idle: float = 30
    timeouts: Timeouts = Timeouts()

    @property
    def name(self) -> str:
        """What timelines and logs call this server: host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def warnings(self) -> tuple[str, ...]:
        """What is less safe than it could be, in words for the console, the CLI and the health check."""
        told = []
        if not self.verify and self.security is not Security.NONE:
            told.append(f"{self.name}: the certificate is not verified (verify=off)")
        if self.plain_auth_loopback and self.username and self.security is not Security.IMPLICIT:
            told.append(f"{self.name}: the password may travel without TLS (allow_plain_auth_loopback=1)")
        if self.security in (Security.NONE, Security.OPTIONAL) and not is_loopback(self.host):
            told.append(f"{self.name}: mail may travel without TLS (starttls is not required)")
        return tuple(told)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine: ``localhost``, ``127.0.0.0/8``, ``::1``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def parse_smtp_url(url: str, setting: str = "MAILER_SMTP_URL") -> SmtpConfig:
    """Read ``smtp://…`` or ``smtps://…``. Raises ConfigError naming ``setting``, never the password.

    User and password are percent-encoded; an IPv6 address stands in brackets. The port is 587, for
    ``smtps`` 465. Options, each at most once:

    * ``starttls=required|optional|off``. Default: required with credentials, off to a loopback address
      without them, else optional: TLS is used if offered, and then verified.
    * ``verify=off`` takes any certificate; ``ca_file=/path`` trusts only the authorities in that file.
    * ``name=mail.example.com`` is said in EHLO.
    * ``timeout=30`` limits each wait, in seconds, but the one for the answer to the text;
      ``connect_timeout=``, ``end_of_data_timeout=`` and so on set one field of `Timeouts`.
    * ``connections=20`` at most in each process; ``max_messages=100`` and ``max_age=300`` seconds for each of
      them, and ``idle=30`` seconds with nothing to carry.
    * ``allow_plain_auth_loopback=1`` allows credentials without TLS to a loopback address.
    """
    parts = _split(url, setting)
    options = _options(parts.query, setting)
    username, password = _credentials(parts, setting)
    implicit = parts.scheme == "smtps"
    config = SmtpConfig(
        host=_host(parts, setting),
        port=parts.port or (465 if implicit else 587),
        username=username,
        password=password,
        verify=_switch(options, "verify", True, setting),
        ca_file=options.pop("ca_file", None),
        local_hostname=_ehlo_name(options.pop("name", None), setting),
        plain_auth_loopback=_switch(options, "allow_plain_auth_loopback", False, setting),
        connections=_count(options.pop("connections", 20), "connections", setting),
        max_messages=_count(options.pop("max_messages", 100), "max_messages", setting),
        max_age=_number(options.pop("max_age", 300), "max_age", setting),
        idle=_number(options.pop("idle", 30), "idle", setting),
        timeouts=_timeouts(options, setting),
    )
    config = dataclasses.replace(config, security=_security(options, config, implicit, setting))
    if options:
        # Not repeated: with a ? in the password it could be a piece of it.
        raise ConfigError(setting, f"has an option that is none of: {_OPTION_NAMES}")
    return checked(config, setting)


_OPTION_NAMES = ", ".join(
    ["starttls", "verify", "ca_file", "name", "connections", "max_messages", "max_age", "idle"]
    + ["allow_plain_auth_loopback", "timeout"]
    + [f"{f.name}_timeout" for f in dataclasses.fields(Timeouts)]
)


def from_flask_mail(config: Mapping[str, Any]) -> SmtpConfig:
    """Read Flask-Mail's ``MAIL_*`` keys. Raises ConfigError naming the key that is wrong.

    Booleans may be text (``"False"``, ``"0"``, ``"no"``), as the environment gives them. With
    ``MAIL_USE_TLS`` TLS is required, as it is without it when there are credentials. Other than in
    Flask-Mail the certificate is verified, and the port with ``MAIL_USE_SSL`` is 465 if not given.
    """
    use_tls = as_bool(config.get("MAIL_USE_TLS", False), "MAIL_USE_TLS")
    use_ssl = as_bool(config.get("MAIL_USE_SSL", False), "MAIL_USE_SSL")
    if use_tls and use_ssl:
        raise ConfigError("MAIL_USE_SSL", "and MAIL_USE_TLS exclude each other; keep one")
    host = str(config.get("MAIL_SERVER") or "127.0.0.1").strip("[]")
    username, password = config.get("MAIL_USERNAME") or None, config.get("MAIL_PASSWORD") or None
    security = Security.NONE if is_loopback(host) else Security.OPTIONAL
    if use_ssl:
        security = Security.IMPLICIT
    elif use_tls or username:
        security = Security.REQUIRED
    return checked(
        SmtpConfig(
            host=host,
            port=_port(config.get("MAIL_PORT") or (465 if use_ssl else 25)),
            username=username,
            password=password,
            security=security,
            max_messages=_count(config.get("MAIL_MAX_EMAILS") or 100, "number", "MAIL_MAX_EMAILS"),
        ),
        "MAIL_USERNAME",
    )


def checked(config: SmtpConfig, setting: str) -> SmtpConfig:
    """Answer ``config`` unchanged. Raises ConfigError if its parts contradict each other (SC11)."""
    if (config.username is None) != (config.password is None):
        raise ConfigError(setting, "needs both a user and a password, or neither")
    if any(re.search(r"[\x00-\x1f\x7f]", value or "") for value in (config.username, config.password)):
        raise ConfigError(setting, "has a control character in the user or the password")
    if config.plain_auth_loopback and not is_loopback(config.host):
        raise ConfigError(setting, "has allow_plain_auth_loopback, but the host is not a loopback address")
    clear = config.security in (Security.NONE, Security.OPTIONAL)
    if config.username and clear and not config.plain_auth_loopback:
        raise ConfigError(setting, "would send the password without TLS; use starttls=required or smtps://")
    return config


def as_bool(value: Any, setting: str) -> bool:
    """Read a switch. Raises ConfigError naming ``setting`` for text that is neither yes nor no."""
    text = str(value).strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", "", "none"):
        return False
    raise ConfigError(setting, "must be on or off")


def _split(url: str, setting: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text repeats a piece of the URL
        raise ConfigError(
            setting, "has a host or port that cannot be read; percent-encode the user and the password"
        ) from None
    if parts.scheme not in ("smtp", "smtps"):
        raise ConfigError(setting, "must begin with smtp:// or smtps://")
    if parts.fragment or parts.path not in ("", "/"):
        raise ConfigError(
            setting, "has a / or # where none belongs; write %2F or %23 in the user and the password"
        )
    if parts.port == 0:
        raise ConfigError(setting, "must have a port from 1 to 65535")
    return parts


def _host(parts: SplitResult, setting: str) -> str:
    host = parts.hostname or ""
    if not host or not re.fullmatch(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}", host):
        raise ConfigError(setting, "has no host, or one with characters that no host name has")
    return host


def _credentials(parts: SplitResult, setting: str) -> tuple[str | None, str | None]:
    try:
        username, password = (
            None if part is None else unquote(part, errors="strict")
            for part in (parts.username, parts.password)
        )
    except UnicodeDecodeError:
        raise ConfigError(setting, "has a user or password that is not percent-encoded UTF-8") from None
    return username or None, password or None


def _options(query: str, setting: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=50)
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ConfigError(setting, "has an option twice")
    return options


def _switch(options: dict[str, str], name: str, default: bool, setting: str) -> bool:
    try:
        return as_bool(options.pop(name, default), setting)
    except ConfigError:
        raise ConfigError(setting, f"has an option {name} that is neither on nor off") from None


def _number(value: Any, name: str, setting: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1
    if not 0 < number <= 86_400:  # also false for NaN
        raise ConfigError(setting, f"has a {name} that is not a positive number up to 86400")
    return number


def _count(value: Any, name: str, setting: str) -> int:
    return max(1, int(_number(value, name, setting)))


def _timeouts(options: dict[str, str], setting: str) -> Timeouts:
    timeouts = Timeouts()
    if "timeout" in options:
        timeouts = timeouts.at_most(_number(options.pop("timeout"), "timeout", setting))
    named = {f.name: f"{f.name}_timeout" for f in dataclasses.fields(Timeouts)}
    given = {f: _number(options.pop(o), o, setting) for f, o in named.items() if o in options}
    return dataclasses.replace(timeouts, **given)


def _security(options: dict[str, str], config: SmtpConfig, implicit: bool, setting: str) -> Security:
    asked = options.pop("starttls", None)
    if implicit:
        if asked is not None:
            raise ConfigError(setting, "has starttls=, which smtps:// does not need")
        return Security.IMPLICIT
    words = {"required": Security.REQUIRED, "optional": Security.OPTIONAL, "off": Security.NONE}
    if asked is not None:
        if asked not in words:
            raise ConfigError(setting, "has a starttls that is not required, optional or off")
        return words[asked]
    if config.username and not config.plain_auth_loopback:
        return Security.REQUIRED
    return Security.NONE if is_loopback(config.host) else Security.OPTIONAL


def _ehlo_name(name: str | None, setting: str) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Za-z.:]{2,60}\]", name):
        raise ConfigError(setting, "has a name that is neither a host name nor an address in brackets")
    return name


def _port(value: Any) -> int:
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ConfigError("MAIL_PORT", "must be a number from 1 to 65535")
    return int(text)
