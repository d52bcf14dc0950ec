"""The one event loop of a process, in a thread of its own, on which all SMTP connections live.

It starts with the first call. Nothing of it is used across a fork: a child closes its copies of the parent's
sockets without a word on them, and starts a loop of its own when it needs one.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import threading
import weakref
from collections.abc import Callable


class LoopThread:
    """A running event loop. ``sockets`` are those that a forked child must let go of."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.loop = asyncio.SelectorEventLoop(self._selector)
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self.loop.run_forever, name="mailer-smtp", daemon=True)
        self._thread.start()

    @property
    def is_ours(self) -> bool:
        """Whether it runs in this very process, and not in the one that forked it."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Let the loop call a function. For other threads."""
        self.loop.call_soon_threadsafe(function, *arguments)

    def let_go(self) -> None:
        """Close this process's copies of what the parent has open: no QUIT, no TLS alert, no FIN."""
        self._selector.close()  # first: the kernel's interest list is shared with the parent
        for sock in list(self.sockets):
            sock.close()


_starting = threading.Lock()
_running: LoopThread | None = None
_abandoned: list[LoopThread] = []
"""Those of the processes that this one was forked from. Kept, since clearing them away would touch them."""


def loop_thread() -> LoopThread:
    """The loop of this process, started if need be."""
    global _running
    with _starting:
        if _running is None or not _running.is_ours:
            _running = LoopThread()
        return _running


def _let_go_in_child() -> None:
    global _running, _starting
    _starting = threading.Lock()  # another thread of the parent may have held it
    if _running is not None:
        _abandoned.append(_running)
        _running.let_go()
        _running = None


os.register_at_fork(after_in_child=_let_go_in_child)
