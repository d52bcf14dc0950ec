"""Addresses: one mailbox each, checked by our own grammar so that nothing can be smuggled through one.

Accepted is RFC 5321's ``Mailbox`` with a dot-atom local part (RFC 6531 where it is not ASCII). Refused,
each with its reason, are quoted local parts, address literals, source routes, the percent hack, comments,
groups, and domains of one label other than ``localhost``: no mailbox people have needs them and every
one of them has carried an attack. Domains are kept as lower-case A-labels (IDNA 2008, UTS 46
non-transitional: ``faß.test`` is ``xn--fa-hia.test``), local parts as they were given, in NFC.

Errors name the field and the fault, never the address.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Union

import idna

from mailer.errors import InvalidAddress
from mailer.headers import FORBIDDEN

MAX_LOCAL, MAX_DOMAIN, MAX_ADDRESS = 64, 253, 254  # octets; RFC 5321 sections 4.5.3.1.1, .2, .3
MAX_NAME = 200  # characters of a display name

_ATOM = r"[A-Za-z0-9!#$&'*+/=?^_`{|}~-]+"
_ASCII_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_ASCII_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+")
_PLAIN_NAME = re.compile(r'[^"<>()\[\]:;@\\,]*')
_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')

AddressLike = Union[str, "tuple[str, str]", "Address"]


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox: ``local@domain``, and the name shown beside it. Build one with `Address.parse`."""

    addr_spec: str
    name: str = ""

    @classmethod
    def parse(cls, value: AddressLike, field: str = "to") -> Address:
        """An address from ``a@x``, ``Name <a@x>``, or ``(name, a@x)``. Raises InvalidAddress."""
        if isinstance(value, Address):
            return value
        if isinstance(value, tuple):
            if len(value) != 2 or not all(isinstance(part, str) for part in value):
                raise InvalidAddress(field, "a tuple must be (name, address), both text")
            name, spec = value
        elif isinstance(value, str):
            name, spec = _split(value, field)
        else:
            raise InvalidAddress(field, f"is a {type(value).__name__}; give text or (name, address)")
        return cls(_checked_spec(spec, field), _checked_name(name, field))

    @property
    def local_part(self) -> str:
        return self.addr_spec.rpartition("@")[0]

    @property
    def domain(self) -> str:
        """The domain as lower-case A-labels."""
        return self.addr_spec.rpartition("@")[2]

    @property
    def needs_smtputf8(self) -> bool:
        """The local part is not ASCII, so the transaction needs SMTPUTF8 (RFC 6531)."""
        return not self.addr_spec.isascii()

    def __str__(self) -> str:
        """The human form, readable by `parse` again: ``"Acme, Inc" <a@x>``."""
        if not self.name:
            return self.addr_spec
        if _PLAIN_NAME.fullmatch(self.name) and self.name == self.name.strip():
            return f"{self.name} <{self.addr_spec}>"
        return f"{quoted(self.name)} <{self.addr_spec}>"


def quoted(text: str) -> str:
    """``text`` as a quoted-string (RFC 5322 section 3.2.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse_list(value: AddressLike | Iterable[AddressLike] | None, field: str) -> tuple[Address, ...]:
    """Addresses from one or several; one text is one address. A set is sorted, so that bytes do not vary."""
    if value is None:
        return ()
    if isinstance(value, str | Address):
        return (Address.parse(value, field),)
    if isinstance(value, tuple) and len(value) == 2 and _is_pair(value):
        return (Address.parse(value, field),)  # type: ignore[arg-type]
    if not isinstance(value, Iterable):
        raise InvalidAddress(field, f"is a {type(value).__name__}; give text, (name, address), or a list")
    items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
    return tuple(Address.parse(item, field) for item in items)


def _is_pair(value: tuple[Any, ...]) -> bool:
    # ("Ada", "ada@x.test") is a named address; ("a@x.test", "b@x.test") is two.
    name, spec = value
    return isinstance(name, str) and isinstance(spec, str) and "@" in spec and "@" not in name


def masked(addr_spec: str) -> str:
    """For logs: ``j***@example.com`` (PD4)."""
    local, _, domain = addr_spec.rpartition("@")
    return f"{local[:1]}***@{domain}"


def _split(value: str, field: str) -> tuple[str, str]:
    if len(value) > MAX_NAME + 2 * MAX_ADDRESS:
        raise InvalidAddress(field, "is longer than any address")
    if not value.endswith(">"):
        return "", value
    if value.startswith('"'):
        found = _QUOTED_NAME.match(value)
        rest = value[found.end() :].lstrip(" ") if found else ""
        if found and rest.startswith("<"):
            return re.sub(r"\\(.)", r"\1", found[1]), rest[1:-1]
        raise InvalidAddress(field, 'has a name with an open quote; write "Name" <address>')
    name, _, spec = value[:-1].partition("<")
    if not _PLAIN_NAME.fullmatch(name):
        raise InvalidAddress(
            field, "holds a character that needs quotes, or several addresses; pass (name, address) or a list"
        )
    return name.strip(" "), spec


def _checked_name(name: str, field: str) -> str:
    if len(name) > MAX_NAME:
        raise InvalidAddress(field, f"has a name longer than {MAX_NAME} characters")
    if FORBIDDEN.search(name):
        raise InvalidAddress(field, "has a control character or line break in the name")
    return unicodedata.normalize("NFC", name)


def _checked_spec(spec: str, field: str) -> str:
    def refuse(problem: str) -> InvalidAddress:
        return InvalidAddress(field, problem)

    if not spec:
        raise refuse("is empty")
    if len(spec) > MAX_ADDRESS:
        raise refuse(f"is longer than {MAX_ADDRESS} octets")
    if FORBIDDEN.search(spec):
        raise refuse("holds a control character or line break")
    if any(c.isspace() for c in spec):
        raise refuse("holds a blank; one field takes one address")
    if spec.count("@") != 1:
        raise refuse("has no @" if "@" not in spec else "has more than one @; one field takes one address")
    local, _, domain = spec.partition("@")
    spec = f"{_checked_local(local, refuse)}@{_checked_domain(domain, refuse)}"
    if len(spec.encode()) > MAX_ADDRESS:
        raise refuse(f"is longer than {MAX_ADDRESS} octets")
    return spec


def _checked_local(local: str, refuse: Any) -> str:
    if not local:
        raise refuse("has nothing before the @")
    local = unicodedata.normalize("NFC", local)
    if len(local.encode(errors="surrogatepass")) > MAX_LOCAL:
        raise refuse(f"has more than {MAX_LOCAL} octets before the @")
    # Letters, marks and digits beyond ASCII stand for themselves (RFC 6531); a full-width @ does not.
    stand_in = "".join("x" if ord(c) > 127 and unicodedata.category(c)[0] in "LMN" else c for c in local)
    if "%" in local:
        raise refuse("holds a % before the @, which some servers take for a second address")
    if not _ASCII_LOCAL.fullmatch(stand_in):
        raise refuse("holds a character that is not allowed before the @, or a misplaced dot")
    return local


def _checked_domain(domain: str, refuse: Any) -> str:
    if not domain:
        raise refuse("has nothing after the @")
    if domain.startswith("["):
        raise refuse("names a host by number; use its domain")
    lowered = domain.lower()
    if lowered == "localhost":
        return lowered
    if not lowered.isascii() or "xn--" in lowered:
        try:
            lowered = idna.encode(domain, uts46=True, std3_rules=True, transitional=False).decode()
        except (idna.IDNAError, UnicodeError):
            raise refuse("has a domain that is not a valid internationalised name") from None
    if len(lowered) > MAX_DOMAIN or not _ASCII_DOMAIN.fullmatch(lowered):
        raise refuse("has a domain that is not of the form name.tld")
    if lowered.rpartition(".")[2].isdigit():
        raise refuse("has a domain that ends in a number")
    return lowered
