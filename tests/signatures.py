"""DKIM as others verify it: RSA with dkimpy, ed25519 with what dkimpy says has to be signed."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

import dkim as dkimpy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dkim.canonicalization import Relaxed

from mailer.dkim import DkimKey, Signer

_FIELD = re.compile(rb"(?<![^\n])([^:\r\n]+):((?:[^\r\n]|\r\n[ \t])*)\r\n")
"""A header field: its name, and its value with the folds in it."""


def dns(signer: Signer) -> Callable[..., bytes | None]:
    """What resolvers say of the domains' keys."""
    records = {f"{key.host}.".encode(): key.record().encode() for key in signer.keys}
    return lambda name, timeout=5: records.get(name)


def check_rsa(signed: bytes, signer: Signer, number: int = 0) -> None:
    """The signature that stands in so many-th place is right."""
    verifier = dkimpy.DKIM(signed)
    assert verifier.verify(idx=number, dnsfunc=dns(signer))
    assert verifier.signature_fields[b"a"] == b"rsa-sha256"


def check_ed25519(signed: bytes, key: DkimKey) -> None:
    """RFC 8463: the signature of the hash of what dkimpy makes of the same headers, and of the same body."""
    head, _, body = signed.partition(b"\r\n\r\n")
    fields = _FIELD.findall(head + b"\r\n")
    (own,) = (value for name, value in fields if name == b"DKIM-Signature" and b"a=ed25519-sha256" in value)
    tags = {name: re.sub(rb"\s", b"", value) for name, value in re.findall(rb"(\w+)=([^;]*)", own)}
    assert base64.b64decode(tags[b"bh"]) == hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
    headers = _as_listed(fields, tags[b"h"].split(b":"))
    unsigned = re.sub(rb"b=[^=;]*=*\s*$", b"b=", own)
    canonical = Relaxed.canonicalize_headers([*headers, (b"DKIM-Signature", unsigned)])
    octets = b"".join(name + b":" + value for name, value in canonical).removesuffix(b"\r\n")
    public = base64.b64decode(re.search("p=(.*)", key.record())[1])
    signature = base64.b64decode(tags[b"b"])
    Ed25519PublicKey.from_public_bytes(public).verify(signature, hashlib.sha256(octets).digest())


def _as_listed(fields: list[tuple[bytes, bytes]], names: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Of several with one name the last is taken first (RFC 6376 section 5.4.2)."""
    left, found = list(fields), []
    for name in names:
        matching = [field for field in left if field[0].lower() == name]
        if matching:
            left.remove(matching[-1])
            found.append((name, matching[-1][1] + b"\r\n"))
    return found
