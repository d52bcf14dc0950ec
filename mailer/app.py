"""The service: account flows, console, HTTP API and health on top of the extension, as any application would.

``create_app()`` builds it; ``celery -A mailer.app worker`` finds its Celery here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import flask

from mailer.address import Address
from mailer.config import Settings
from mailer.extension import Mailer
from mailer.sealing import signing_key
from mailer.store import create_engine
from mailer.store.migrations import upgrade
from mailer.web.accounts import init_accounts
from mailer.web.api import init_api
from mailer.web.console import init_console
from mailer.web.health import init_health

__all__ = ["create_app"]


def create_app(config: Mapping[str, Any] | None = None) -> flask.Flask:
    """The service, ready to serve; its tables are brought up to date first.

    ``config`` goes into the Flask configuration and wins over the environment. Raises ConfigError
    naming the setting that is wrong, or StoreError if the database does not answer.
    """
    app = flask.Flask("mailer", template_folder=None, static_folder=None)
    app.config.from_mapping(config or {})
    settings = Settings.load(app.config)
    _migrate(settings)
    if settings.default_sender is None:
        app.config["MAILER_DEFAULT_SENDER"] = default_sender(settings)
    app.secret_key = signing_key(settings.sealing_keys(), "cookies")
    for key, value in {"TRUSTED_HOSTS": trusted_hosts(settings), "MAX_CONTENT_LENGTH": 1_000_000}.items():
        if app.config[key] is None:  # Flask has both keys from the start, so setdefault does nothing
            app.config[key] = value
    mailer = Mailer()
    init_accounts(app, mailer)
    init_console(app)
    init_api(app)
    init_health(app)
    return app


def trusted_hosts(settings: Settings) -> list[str]:
    """The hosts the service answers to; any other gets 400, so that no link can be built from it (AU9)."""
    own = urlsplit(settings.base_url).hostname or "localhost"
    local = ["127.0.0.1", "localhost", "[::1]"] if own in ("127.0.0.1", "localhost", "::1") else []
    return list(dict.fromkeys([own, *local, *settings.trusted_hosts]))


def default_sender(settings: Settings) -> str:
    """A sender for a service that names none: ``no-reply`` at the base URL's host."""
    host = urlsplit(settings.base_url).hostname or ""
    named = "." in host and not host.rpartition(".")[2].isdigit()
    return str(Address("no-reply@" + (host if named else "localhost"), settings.site_name))


def _migrate(settings: Settings) -> None:
    engine = create_engine(settings.store_url)
    upgrade(engine)
    engine.dispose()


def __getattr__(name: str) -> Any:
    # Built on demand: importing this module must not open a database.
    if name == "celery":
        app = create_app()
        return app.extensions["mailer.send_email"].app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
