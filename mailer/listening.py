"""Sockets that programs of this package listen on, and which setting is wrong when one cannot be had."""

from __future__ import annotations

import errno
import socket

from mailer.errors import ConfigError


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A socket that listens, without blocking; port 0 is any free one.

    Raises ConfigError naming ``setting``, that of the port, if it is taken or may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(setting, f"the host {host!r} has no address: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigError(setting, _why(error, host, port, setting)) from error
    listener.setblocking(False)
    return listener


def _why(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is already in use; set {setting} to a free port"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges; set {setting} to a port above 1023"
    return f"cannot listen on {host} port {port}: {error.strerror}"
