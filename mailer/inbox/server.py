"""The inbox as a whole: an SMTP port and a web port over one mailbox, started and stopped together."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from waitress.server import create_server  # type: ignore[import-untyped]
from waitress.wasyncore import close_all  # type: ignore[import-untyped]

from mailer.errors import ConfigError
from mailer.inbox.app import create_inbox_app
from mailer.inbox.mailbox import Mailbox
from mailer.inbox.smtp import MAX_MESSAGE_BYTES, SmtpServer
from mailer.listening import listen

SMTP_PORT_SETTING = "MAILER_INBOX_SMTP_PORT"
WEB_PORT_SETTING = "MAILER_INBOX_PORT"
STOP_SECONDS = 1.0


class Inbox:
    """An SMTP server that keeps what it gets, with pages and an API to look at it.

    ``path`` is the mailbox's file; it is opened at once, so `mailbox` may be used before `start`. A port of 0
    picks a free one. ``host`` is loopback unless told otherwise: whoever reaches the ports reads every mail.
    ``allowed_hosts`` are further names the web pages may be asked for by (see `mailer.inbox.guard`).
    An inbox that was stopped is not started again; make another one.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        host: str = "127.0.0.1",
        smtp_port: int = 1025,
        web_port: int = 8025,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        allowed_hosts: Iterable[str] = (),
    ) -> None:
        self.host = host
        self.mailbox = Mailbox(path)
        self._ports = smtp_port, web_port
        self._max_message_bytes = max_message_bytes
        self._allowed_hosts = tuple(allowed_hosts)
        self._smtp: SmtpServer | None = None
        self._web: _WebServer | None = None

    def start(self) -> None:
        """Bind both ports and serve in the background.

        Raises `ConfigError`, naming the setting, when a port is taken or may not be used; then nothing runs.
        """
        smtp_listener = listen(self.host, self._ports[0], SMTP_PORT_SETTING)
        try:
            web_listener = listen(self.host, self._ports[1], WEB_PORT_SETTING)
        except ConfigError:
            smtp_listener.close()
            raise
        self._ports = smtp_listener.getsockname()[1], web_listener.getsockname()[1]
        self._smtp = SmtpServer(self.mailbox, smtp_listener, max_message_bytes=self._max_message_bytes)
        self._web = _WebServer(self.mailbox, web_listener, self._allowed_hosts)
        self._smtp.start()
        self._web.start()

    def stop(self) -> None:
        """End both servers within a second and close the mailbox. Stopping twice, or unstarted, is fine."""
        deadline = time.monotonic() + STOP_SECONDS
        if self._smtp is not None:
            self._smtp.stop(STOP_SECONDS / 2)
        if self._web is not None:
            self._web.stop(max(0.1, deadline - time.monotonic()))
        self._smtp = self._web = None
        self.mailbox.close()

    @property
    def smtp_port(self) -> int:
        """The port mail is sent to; after `start` never 0."""
        return self._ports[0]

    @property
    def web_port(self) -> int:
        """The port of the pages and the API; after `start` never 0."""
        return self._ports[1]

    @property
    def url(self) -> str:
        """The address of the pages, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.web_port}"

    def __enter__(self) -> Inbox:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _WebServer:
    """Waitress in a thread, on a listening socket it owns."""

    def __init__(self, mailbox: Mailbox, listener: socket.socket, allowed_hosts: Iterable[str]) -> None:
        app = create_inbox_app(mailbox, allowed_hosts=allowed_hosts)
        self._server = create_server(
            app,
            sockets=[listener],
            threads=4,
            ident="",
            clear_untrusted_proxy_headers=True,
            asyncore_use_poll=True,  # select() ends the server at the process's 1,024th open file
        )
        self._thread = threading.Thread(target=self._server.run, name="mailer-inbox-web", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Close the sockets from inside the server's own loop, which then ends by itself."""
        self._server.trigger.pull_trigger(lambda: close_all(self._server._map, ignore_all=True))
        self._thread.join(timeout)
        self._server.task_dispatcher.shutdown(timeout=timeout / 2)
