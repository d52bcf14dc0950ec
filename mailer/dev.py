"""Everything in one process: web, worker, sweeper and an inbox that keeps what is sent. For trying out.

Nothing leaves the machine and no server has to be installed. What is accepted survives: the rows are
in SQLite, and what was not sent when the process ended goes out at the next start.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import flask
import waitress  # type: ignore[import-untyped]

from mailer.app import create_app
from mailer.config import Settings
from mailer.errors import ConfigError
from mailer.inbox import Inbox
from mailer.operators import create_operator, make_login_link
from mailer.services import Services
from mailer.store import operators as operator_rows
from mailer.worker import EmbeddedWorker

STOP_SECONDS = 4.0
OPERATOR = "dev"


def run(echo: Callable[[str], None]) -> None:
    """Start everything, say where to look, and serve until SIGINT or SIGTERM.

    Raises ConfigError naming the setting if a port is taken.
    """
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    settings = Settings.load()
    inbox = Inbox(
        host="127.0.0.1",
        smtp_port=settings.inbox_smtp_port,
        web_port=settings.inbox_port,
        path=settings.data_dir / "inbox.db",
    )
    inbox.start()
    try:
        app = create_app(_pointing_at(inbox, settings))
        with WebServer(app, settings.web_host, settings.web_port) as web:
            worker = EmbeddedWorker(app)
            worker.start()
            _say_where(echo, app, web, inbox)
            # An Event would hang if the signal comes while this thread is just about to wait for it.
            while not signals:
                time.sleep(0.1)
            echo("\nStopping …")
            finished = worker.stop(STOP_SECONDS - 1)
    finally:
        inbox.stop()
    echo("Stopped. What was accepted and not sent goes out at the next start.")
    if not finished:
        # A server that does not answer would keep Python waiting for the thread that talks to it, for
        # minutes. What is cut here is a lease: the next start takes the mail up again.
        sys.stdout.flush()
        os._exit(0)


def _pointing_at(inbox: Inbox, settings: Settings) -> dict[str, Any]:
    """Mail goes to the inbox, that of test keys too, unless somebody said where to."""
    inbox_url = f"smtp://127.0.0.1:{inbox.smtp_port}"
    test = {} if settings.test_smtp_url else {"MAILER_TEST_SMTP_URL": inbox_url}
    if settings.smtp_url is not None or settings.transports is not None:
        return test
    return {"MAILER_SMTP_URL": inbox_url, **test}


class WebServer:
    """Waitress in a thread."""

    def __init__(self, app: flask.Flask, host: str, port: int, threads: int = 8) -> None:
        try:
            # select() ends the server at the process's 1,024th open file; poll() does not.
            self._server = waitress.create_server(
                app, host=host, port=port, threads=threads, ident=None, asyncore_use_poll=True
            )
        except OSError as exc:
            raise _not_bound(exc, host, port) from None
        self._thread = threading.Thread(target=self._server.run, name="mailer-web", daemon=True)
        self.url = f"http://{host}:{self._server.effective_port}"

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()
        self._thread.join(1)

    def wait(self) -> None:
        """Serve until the process is told to end."""
        while self._thread.is_alive():
            time.sleep(0.5)


def _not_bound(exc: OSError, host: str, port: int) -> ConfigError:
    if exc.errno == errno.EADDRINUSE:
        return ConfigError("MAILER_WEB_PORT", f"port {port} is already in use; set it to a free port")
    if exc.errno == errno.EACCES:
        return ConfigError("MAILER_WEB_PORT", f"port {port} is not ours to use; set it to one above 1023")
    return ConfigError("MAILER_WEB_HOST", f"{host!r} is no address of this machine; 127.0.0.1 is")


def _say_where(echo: Callable[[str], None], app: flask.Flask, web: WebServer, inbox: Inbox) -> None:
    settings = app.extensions["mailer"].settings
    inbox_url = f"http://127.0.0.1:{inbox.web_port}"
    echo(
        f"""
  Mailer is running. Press Ctrl-C to stop.

  Sign up        {settings.base_url}/signup
  Inbox          {inbox_url}   (SMTP on 127.0.0.1:{inbox.smtp_port}; nothing leaves this machine)
  Console        {_console_link(app.extensions["mailer"])}
                 (signs you in once; more: mailer user link {OPERATOR})
  Data           {settings.data_dir.resolve()}
"""
    )


def _console_link(services: Services) -> str:
    with services.store.read() as connection:
        known = operator_rows.operator(connection, OPERATOR)
    if known is None:
        create_operator(services, OPERATOR)
    return make_login_link(services, OPERATOR)
