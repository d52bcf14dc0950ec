"""Certificates for tests, made fresh for each run."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """A certificate authority for one test run; ``ca_file`` is what the client should trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key, self._name = _new_key(), _name("Test authority")
        self._certificate = self._signed(self._name, self._key, authority=True)
        self.ca_file = str(folder / "ca.pem")
        (folder / "ca.pem").write_bytes(_pem(self._certificate))

    def context(self, *hosts: str) -> ssl.SSLContext:
        """A server's TLS context with a certificate for these names and addresses."""
        key = _new_key()
        certificate = self._signed(_name(hosts[0]), key, hosts=hosts)
        private = key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())
        file = self.folder / f"{hosts[0]}.pem"
        file.write_bytes(private + _pem(certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(self, name: Any, key: Any, *, hosts: Sequence[str] = (), authority: bool = False) -> Any:
        now = datetime.datetime.now(datetime.UTC)
        names = [
            x509.IPAddress(ipaddress.ip_address(h)) if h[0].isdigit() else x509.DNSName(h) for h in hosts
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            # Python 3.13 verifies strictly (RFC 5280 section 4.2.1) and wants these.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if authority:
            builder = builder.add_extension(_may_sign(), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _may_sign() -> Any:
    uses = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "crl_sign", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    return x509.KeyUsage(key_cert_sign=True, **uses)


def _new_key() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


def _name(common: str) -> Any:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: Any) -> bytes:
    return bytes(certificate.public_bytes(ser.Encoding.PEM))
