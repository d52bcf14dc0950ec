"""Sealing: what keeps message content unreadable in the database, and bound to its message.

AES-256-GCM (NIST SP 800-38D) over zlib-compressed bytes, with the message id as associated data, so a
sealed value copied to another row does not open. A sealed value is::

    version (1 octet) | key id (4) | nonce (12) | ciphertext and tag

Keys come from ``MAILER_SECRET_KEYS`` through HKDF-SHA256 (RFC 5869): the first seals, every one opens,
so a key is rotated by putting a new one in front.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import zlib
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mailer.errors import ConfigError

HEAD = 17
"""So many octets begin a sealed value and are in no other: the nonce is among them."""
_VERSION = b"\x01"
_ID, _NONCE = slice(1, 5), slice(5, 17)


class Sealer:
    """Seals and opens bytes under the configured keys."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        derived = [_derive(key, b"mailer content") for key in keys]
        self._ciphers = {hashlib.sha256(key).digest()[:4]: AESGCM(key) for key in derived}
        self._current = next(iter(self._ciphers))
        # From the oldest key, which stays while newer ones are put in front of it.
        self.fingerprint_key = _derive(keys[-1], b"mailer fingerprint")
        self._pseudonym_key = _derive(keys[-1], b"mailer pseudonym")

    def seal(self, plain: bytes, bound_to: str) -> bytes:
        """Encrypt; the result opens only together with the same ``bound_to``."""
        nonce = os.urandom(12)
        cipher = self._ciphers[self._current].encrypt(nonce, zlib.compress(plain, 1), bound_to.encode())
        return _VERSION + self._current + nonce + cipher

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Decrypt. Raises ConfigError if no configured key opens it: a key was removed too early."""
        sealed = bytes(sealed)
        cipher = self._ciphers.get(sealed[_ID]) if sealed[:1] == _VERSION else None
        if cipher is None:
            raise ConfigError("MAILER_SECRET_KEYS", "lacks the key this message was sealed with; put it back")
        try:
            return zlib.decompress(cipher.decrypt(sealed[_NONCE], sealed[17:], bound_to.encode()))
        except InvalidTag:
            raise ConfigError(
                "MAILER_SECRET_KEYS", "a sealed value was altered or moved in the store"
            ) from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether it was sealed with the first key, and stays readable without the others."""
        return bytes(sealed[:5]) == _VERSION + self._current

    def pseudonym(self, text: str) -> str:
        """16 hex digits that stand for ``text``, always the same; without the key nobody can check one."""
        return hmac.new(self._pseudonym_key, text.encode(), hashlib.sha256).hexdigest()[:16]


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(key)


def signing_key(keys: Sequence[bytes], purpose: str) -> str:
    """A key for signing cookies and links, derived so that it can never open sealed content."""
    return _derive(keys[0], f"mailer {purpose}".encode()).hex()
