"""The one place that decides what carries the mail, and builds it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from mailer.errors import ConfigError
from mailer.transports import Transport
from mailer.transports.local import ConsoleTransport, FileTransport, MemoryTransport
from mailer.transports.url import Security, SmtpConfig, from_flask_mail, parse_smtp_url
from mailer.transports.ways import Way, check_together, parse_named, take_routing

if TYPE_CHECKING:
    from mailer.config import Settings

SETTING, SEVERAL = "MAILER_SMTP_URL", "MAILER_TRANSPORTS"


def ways_for(settings: Settings, flask_config: Mapping[str, Any]) -> list[Way]:
    """Build what an application sends by. Raises ConfigError naming the setting that is wrong.

    In this order: ``MAILER_TRANSPORTS``; ``MAILER_SMTP_URL``; Flask-Mail's keys if ``MAIL_SERVER`` is among
    them; the embedded inbox on this machine.
    """
    if settings.transports is not None:
        if settings.smtp_url is not None:
            raise ConfigError(SEVERAL, f"and {SETTING} exclude each other; keep one")
        return _several(settings.transports, settings.lane_names)
    if settings.smtp_url is not None:
        return [_way(None, settings.smtp_url.get_secret_value(), SETTING, settings.lane_names)]
    if flask_config.get("MAIL_SERVER"):
        only = build_transport(from_flask_mail(flask_config), "MAIL_SERVER")
        return [Way(only.name, only, setting="MAIL_SERVER")]
    only = build_transport(SmtpConfig("127.0.0.1", settings.inbox_smtp_port, security=Security.NONE))
    return [Way(only.name, only)]


def _several(setting: SecretStr, lanes: list[str]) -> list[Way]:
    named = parse_named(setting.get_secret_value(), SEVERAL)
    ways = [_way(name, url, f"{SEVERAL} ({name})", lanes) for name, url in named]
    check_together(ways, SEVERAL)
    return ways


def _way(name: str | None, url: str, setting: str, lanes: list[str]) -> Way:
    """One transport with what its URL says about routing; without a name it has that of its server."""
    plain, routing = take_routing(url, setting, lanes)
    transport = build_transport(plain, setting)
    way = Way(name or transport.name, transport, routing, setting)
    if name is None:
        check_together([way], setting)
    return way


def build_transport(where: str | SmtpConfig, setting: str = SETTING) -> Transport:
    """Build a transport from a URL or a checked configuration. Raises ConfigError naming ``setting``.

    ``smtp://…`` and ``smtps://…`` (see `parse_smtp_url`), ``memory://``, ``console://`` (standard
    output), and ``file:///folder``, which writes one ``.eml`` a parcel.
    """
    if isinstance(where, SmtpConfig):
        # Imported here: no Flask-Mail in a process that does not speak SMTP.
        from mailer.transports.smtp import SmtpTransport

        return SmtpTransport(where, setting)
    scheme = where.split(":", 1)[0].strip().lower()
    if scheme in ("smtp", "smtps"):
        return build_transport(parse_smtp_url(where, setting), setting)
    if scheme == "memory":
        return MemoryTransport()
    if scheme == "console":
        return ConsoleTransport()
    if scheme == "file":
        return FileTransport(_folder(where, setting))
    raise ConfigError(setting, "must begin with smtp://, smtps://, memory://, console:// or file:///")


def _folder(url: str, setting: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ConfigError(setting, "must name a folder by its absolute path: file:///var/mail-out")
    folder = Path(unquote(parts.path))
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ConfigError(setting, f"names {folder}, which is not a folder that can be written to")
    return folder
