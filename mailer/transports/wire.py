"""Octets to and from a server that may be slow, broken or hostile. Knows nothing of mail.

`Wire` reads whole replies against a deadline and within bounds, and writes against one. Whatever goes
wrong is one exception, `Broken`, whose ``problem`` is fit for a person.
"""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import ssl
import time

from mailer.errors import ConfigError
from mailer.retry import PROTOCOL_ERROR
from mailer.transports import Reply
from mailer.transports.url import Security, SmtpConfig

MAX_LINES = 100
MAX_LINE_BYTES = 4096
MAX_REPLY_BYTES = 65_536
MAX_TEXT_CHARS = 1000
CHUNK_BYTES = 65_536

# RFC 5321 section 4.2; a second digit over 5 is not in the standard and in use (571, 471).
_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Broken(Exception):
    """The connection cannot be used any more. ``timed_out`` tells silence from a loss."""

    def __init__(self, problem: str, *, timed_out: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.timed_out = timed_out


class Wire:
    """One connected socket, with a buffer of its own and a total deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()
        self._deadline = float("inf")

    def limit(self, seconds: float) -> None:
        """Let nothing from now on take longer than ``seconds`` altogether; infinity lifts the limit."""
        self._deadline = time.monotonic() + seconds

    def send(self, data: bytes, seconds: float) -> None:
        """Write ``data``, each chunk within ``seconds``.

        A reply that nobody asked for is a protocol error: taken for the answer to what is sent now, it
        could pass for a promise that the server never made.
        """
        if self._buffer:
            raise Broken(f"{PROTOCOL_ERROR}: the server answered without being asked")
        for start in range(0, len(data), CHUNK_BYTES):
            self._wait(time.monotonic() + seconds)
            try:
                self.sock.sendall(data[start : start + CHUNK_BYTES])
            except OSError as exc:
                raise _broken(exc) from None

    def read_reply(self, seconds: float) -> tuple[int, list[bytes]]:
        """Read one whole reply within ``seconds``: its code, and its lines without code and line end.

        Anything but ``NNN text`` lines with one code, at most 100 of them, 4 KB each and 64 KB together,
        is a protocol error.
        """
        until = time.monotonic() + seconds
        lines: list[bytes] = []
        first, size = b"", 0
        while True:
            line = self._read_line(until)
            size += len(line)
            match = _LINE.fullmatch(line)
            if match is None or (first and match[1] != first):
                raise Broken(f"{PROTOCOL_ERROR}: the server's answer is not an SMTP reply")
            first = match[1]
            lines.append((match[3] or b"").strip())
            if match[2] != b"-":
                return int(first), lines
            if len(lines) >= MAX_LINES or size > MAX_REPLY_BYTES:
                raise Broken(f"{PROTOCOL_ERROR}: the server's reply does not end")

    def start_tls(self, context: ssl.SSLContext, host: str, seconds: float) -> None:
        """Encrypt. What was received before is thrown away (RFC 3207 section 4.2)."""
        self._buffer.clear()
        self._wait(time.monotonic() + seconds)
        try:
            self.sock = context.wrap_socket(self.sock, server_hostname=host)
        except ssl.SSLCertVerificationError as exc:
            raise Broken(f"the certificate is not valid for {host}: {exc.verify_message}") from None
        except TimeoutError as exc:
            raise _broken(exc) from None
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "reason", None) or type(exc).__name__
            raise Broken(f"the TLS handshake failed: {reason}") from None

    @property
    def encrypted(self) -> bool:
        """Whether TLS is on."""
        return isinstance(self.sock, ssl.SSLSocket)

    def close(self) -> None:
        """Close without a word. Never raises."""
        with contextlib.suppress(OSError):
            self.sock.close()

    def _read_line(self, until: float) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            self._within_bounds(len(self._buffer))
            self._wait(until)
            try:
                received = self.sock.recv(4096)
            except OSError as exc:
                raise _broken(exc) from None
            if not received:
                raise Broken("the server closed the connection")
            self._buffer += received
        self._within_bounds(end)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def _within_bounds(self, line_bytes: int) -> None:
        if line_bytes > MAX_LINE_BYTES:
            raise Broken(f"{PROTOCOL_ERROR}: a line of the server's answer is too long")

    def _wait(self, until: float) -> None:
        remaining = min(until, self._deadline) - time.monotonic()
        if remaining <= 0:
            raise Broken("the server did not answer in time", timed_out=True)
        self.sock.settimeout(None if remaining == float("inf") else remaining)


def connect(config: SmtpConfig) -> Wire:
    """Open a connection, not yet encrypted. Raises Broken."""
    try:
        return Wire(socket.create_connection((config.host, config.port), config.timeouts.connect))
    except TimeoutError:
        raise Broken(f"{config.name} did not answer in time", timed_out=True) from None
    except socket.gaierror:
        raise Broken(f"the name {config.host} cannot be resolved") from None
    except OSError as exc:
        raise Broken(f"no connection to {config.name}: {exc.strerror or type(exc).__name__}") from None
    except UnicodeError:
        raise Broken(f"the name {config.host} is not a host name") from None


def reply_of(code: int, lines: list[bytes]) -> Reply:
    """A reply as it may be stored and shown: one line, bounded, without control characters.

    An enhanced code that is repeated on every line stays on the first only.
    """
    texts = [_CONTROLS.sub("\ufffd", line.decode(errors="replace")) for line in lines]
    enhanced = Reply(code, texts[0]).enhanced
    if enhanced:
        texts[1:] = [text.removeprefix(f"{enhanced} ") for text in texts[1:]]
    return Reply(code, " ".join(texts).strip()[:MAX_TEXT_CHARS])


def tls_context(config: SmtpConfig, setting: str) -> ssl.SSLContext | None:
    """The context for TLS, None if there is to be none. Raises ConfigError if ``ca_file`` cannot be read."""
    if config.security is Security.NONE:
        return None
    try:
        return _tls_context(config.verify, config.ca_file)
    except OSError:
        raise ConfigError(setting, f"has a ca_file that holds no certificate: {config.ca_file}") from None


@functools.cache
def _tls_context(verify: bool, ca_file: str | None) -> ssl.SSLContext:
    # Kept for the life of the process: reading the authorities costs 20 ms, more than a whole mail.
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _broken(exc: OSError) -> Broken:
    if isinstance(exc, TimeoutError):
        return Broken("the server did not answer in time", timed_out=True)
    return Broken(f"the connection was lost: {exc.strerror or type(exc).__name__}")
