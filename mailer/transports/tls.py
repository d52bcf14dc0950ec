"""TLS for one connection, in memory: octets in, octets out. The context and the session are shared.

Done by hand rather than by asyncio, since that cannot resume a session, throw away what came before the
handshake, or be as quick.
"""

from __future__ import annotations

import functools
import ssl

from mailer.errors import ConfigError
from mailer.transports.url import Security, SmtpConfig

_PIECE_BYTES = 65_536


class Untrusted(Exception):
    """The handshake failed. Its text is fit for a person."""


class Tls:
    """The client's side of one TLS connection. ``session`` is one of an earlier connection, to be resumed."""

    def __init__(self, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None) -> None:
        self._host = host
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            self._object = context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=host, session=session
            )
        except ValueError as exc:  # a host name that no certificate can have
            raise Untrusted(f"the TLS handshake failed: {type(exc).__name__}") from None
        self.established = False

    def shake_hands(self) -> bool:
        """Go on with the handshake; answer whether it is complete. Raises Untrusted."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLCertVerificationError as exc:
            raise Untrusted(f"the certificate is not valid for {self._host}: {exc.verify_message}") from None
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "reason", None) or type(exc).__name__
            raise Untrusted(f"the TLS handshake failed: {reason}") from None
        self.established = True
        return True

    def receive(self, data: bytes) -> None:
        """Take octets from the network."""
        self._incoming.write(data)

    def decrypted(self) -> bytes:
        """What can be read of what was received. Raises OSError if it is not TLS."""
        pieces = []
        try:
            while piece := self._object.read(_PIECE_BYTES):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        return b"".join(pieces)

    def encrypted(self, data: bytes) -> bytes:
        """What has to be sent for ``data``. Raises OSError."""
        self._object.write(data)
        return self._outgoing.read()

    def unsent(self) -> bytes:
        """What TLS itself has to say: its part of the handshake, an alert."""
        return self._outgoing.read() if self._outgoing.pending else b""

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection can resume; with TLS 1.3 only once the server has sent a ticket."""
        session = self._object.session
        return session if session is not None and session.has_ticket else None

    @property
    def resumed(self) -> bool:
        """Whether the server took up an earlier session."""
        return bool(self._object.session_reused)


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
