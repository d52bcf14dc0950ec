"""What a check answers, and what it looks at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import flask

from mailer.services import Services
from mailer.transports.url import is_loopback


class Level(StrEnum):
    """How bad a finding is. Only errors make the command fail."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: no password, no key, and no URL that may hold one.

    ``name`` is stable. ``next`` is what to do about it, empty where nothing is to be done.
    """

    level: Level
    name: str
    found: str
    next: str = ""

    def as_dict(self) -> dict[str, str]:
        """JSON-able."""
        return {key: str(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Patient:
    """The application that is looked at."""

    app: flask.Flask
    services: Services

    @property
    def in_production(self) -> bool:
        """Whether other people reach it: its base URL is not this machine."""
        return not is_loopback(urlsplit(self.services.settings.base_url).hostname or "")


def ok(name: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(Level.OK, name, found)


def warning(name: str, found: str, next_: str) -> Finding:
    """It may be meant, or it costs a delay."""
    return Finding(Level.WARNING, name, found, next_)


def error(name: str, found: str, next_: str) -> Finding:
    """It costs mails, or lets in who should stay out."""
    return Finding(Level.ERROR, name, found, next_)
