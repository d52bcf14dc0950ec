"""DKIM signatures (RFC 6376), by keys of one's own: rsa-sha256, and ed25519-sha256 (RFC 8463) beside it.

Both canonicalizations are relaxed: relays fold headers and strip blanks. The time in a signature is that of
acceptance, so every attempt at a mail sends the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from mailer.errors import ConfigError

SETTING = "MAILER_DKIM_KEYS"
LEAST_BITS, ENOUGH_BITS = 1024, 2048
"""RFC 8301 section 3.2: shorter than the first must not sign, shorter than the second should not."""

# From stands twice, so that none can be added later (RFC 6376 section 8.15); others where they are there.
SIGNED = (
    "from", "from", "to", "cc", "subject", "date", "message-id", "reply-to", "mime-version", "content-type",
    "content-transfer-encoding", "list-unsubscribe", "list-unsubscribe-post", "feedback-id", "auto-submitted",
)  # fmt: skip

_ENTRY = re.compile(r"([A-Za-z0-9.-]{1,253}):([A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?):(.+)")
_BLANKS = re.compile(rb"[ \t]+")
_LINE = 72


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A private key, and where its public half is to be found: ``selector._domainkey.domain``."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey = field(repr=False)

    @property
    def algorithm(self) -> str:
        """As the tag ``a=`` has it."""
        return "rsa-sha256" if isinstance(self.private, RSAPrivateKey) else "ed25519-sha256"

    @property
    def bits(self) -> int:
        """The length of an RSA key; 256 for ed25519."""
        return self.private.key_size if isinstance(self.private, RSAPrivateKey) else 256

    @property
    def host(self) -> str:
        """The name of the DNS record."""
        return f"{self.selector}._domainkey.{self.domain}"

    def record(self) -> str:
        """The text of the DNS record (RFC 6376 section 3.6.1, RFC 8463 section 4)."""
        public = self.private.public_key()
        if isinstance(self.private, RSAPrivateKey):
            kind, form = "rsa", serialization.PublicFormat.SubjectPublicKeyInfo
            octets = public.public_bytes(serialization.Encoding.DER, form)
        else:
            kind, octets = (
                "ed25519",
                public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw),
            )
        return f"v=DKIM1; k={kind}; p={base64.b64encode(octets).decode()}"

    def sign(self, octets: bytes) -> bytes:
        """The signature of these octets; ed25519 signs their hash (RFC 8463 section 3)."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(octets, PKCS1v15(), hashes.SHA256())
        return self.private.sign(hashlib.sha256(octets).digest())


class Signer:
    """The keys of an application, by domain."""

    def __init__(self, keys: Sequence[DkimKey] = ()) -> None:
        self.keys = tuple(keys)
        self._of: dict[str, list[DkimKey]] = {}
        for key in keys:
            self._of.setdefault(key.domain, []).append(key)

    @classmethod
    def load(cls, entries: Sequence[str]) -> Signer:
        """Read ``domain:selector:/path/key.pem``. Raises ConfigError that names the entry and what to do."""
        return cls([_load(entry) for entry in entries])

    def keys_for(self, domain: str) -> list[DkimKey]:
        """Those of the From domain, or else of the nearest domain above it, which DMARC takes as aligned."""
        name = domain.lower()
        while name and name not in self._of:
            name = name.partition(".")[2]
        return self._of.get(name, [])

    def sign(self, data: bytes, domain: str, at: datetime) -> bytes:
        """The mail with a signature of each key for the From domain put in front; as it is if there are none.

        ``data`` has CRLF line ends, as `mailer.mime.build` makes it.
        """
        keys = self.keys_for(domain)
        if not keys:
            return data
        head, _, body = data.partition(b"\r\n\r\n")
        fields = _fields(head)
        names = [name for name in SIGNED if name in fields]
        # A name that is listed more often than it occurs stands for nothing: that is how it is oversigned.
        once = list(dict.fromkeys(names))
        headers = b"".join(_relaxed_field(name, fields[name]) for name in once)
        digest = base64.b64encode(hashlib.sha256(_relaxed_body(body)).digest()).decode()
        signatures = [_signature(key, headers, names, digest, at) for key in keys]
        return b"".join(signatures) + data


def _signature(key: DkimKey, headers: bytes, names: Sequence[str], body_hash: str, at: datetime) -> bytes:
    tags = (
        f"v=1; a={key.algorithm}; c=relaxed/relaxed; d={key.domain};\r\n"
        f" s={key.selector}; t={int(at.timestamp())};\r\n"
        f" h={_folded(names)};\r\n"
        f" bh={body_hash};\r\n b="
    )
    own = _relaxed_field("dkim-signature", tags.encode()).removesuffix(b"\r\n")
    signature = base64.b64encode(key.sign(headers + own)).decode()
    lines = "\r\n ".join(signature[start : start + _LINE] for start in range(0, len(signature), _LINE))
    return f"DKIM-Signature: {tags}{lines}\r\n".encode()


def _folded(names: Sequence[str]) -> str:
    lines = [""]
    for name in names:
        if len(lines[-1]) + len(name) + 1 > _LINE:
            lines.append("")
        lines[-1] += f"{name}:"
    return "\r\n  ".join(lines).removesuffix(":")


def _fields(head: bytes) -> dict[str, bytes]:
    """The value of each field by its name in lower case; of several, the last one, which is signed first."""
    found: dict[str, bytes] = {}
    for line in re.split(rb"\r\n(?![ \t])", head):
        name, _, value = line.partition(b":")
        found[name.decode("ascii", "replace").strip().lower()] = value
    return found


def _relaxed_field(name: str, value: bytes) -> bytes:
    """RFC 6376 section 3.4.2."""
    return name.encode() + b":" + _BLANKS.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ") + b"\r\n"


def _relaxed_body(body: bytes) -> bytes:
    """RFC 6376 section 3.4.4: no blanks at the end of lines, one for several, no empty lines at the end.

    Without a regular expression, which would take as long as the signature.
    """
    body = body.replace(b"\t", b" ")
    while b"  " in body:  # each turn halves the longest run
        body = body.replace(b"  ", b" ")
    body = body.replace(b" \r\n", b"\r\n").rstrip(b"\r\n ")
    return body + b"\r\n" if body else b""


def make_key(path: Path, *, ed25519: bool = False) -> None:
    """Write a new private key, an RSA one of 2,048 bits, to a file that only its owner can read.

    Raises FileExistsError, and OSError if it cannot be written.
    """
    private = Ed25519PrivateKey.generate() if ed25519 else generate_private_key(65_537, ENOUGH_BITS)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)


def _load(entry: str) -> DkimKey:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ConfigError(SETTING, f"has {entry!r}; write domain:selector:/path/key.pem")
    domain, selector, path = match[1].lower().strip("."), match[2], Path(match[3])
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(SETTING, f"names {path}, which others can read; run: chmod 600 {path}")
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as exc:
        raise ConfigError(SETTING, f"names {path}, which cannot be read: {exc.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        problem = f"names {path}, which is no private key in PEM without a pass phrase"
        raise ConfigError(SETTING, problem) from None
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise ConfigError(SETTING, f"names {path}, which is neither an RSA nor an ed25519 key")
    key = DkimKey(domain, selector, private)
    if isinstance(private, RSAPrivateKey) and key.bits < LEAST_BITS:
        raise ConfigError(
            SETTING, f"names {path} with {key.bits} bits, too short to prove anything; make a new key"
        )
    return key
