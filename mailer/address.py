r"""One address: what a caller gives, and the only form in which the rest of the package sees it.

What is an address here (RFC 5321 section 4.1.2, RFC 5322 section 3.4.1, RFC 6531 section 3.3)::

    addr-spec  = local-part "@" domain           at most 254 octets
    local-part = atom *("." atom)                at most 64 octets of UTF-8, kept as given, in NFC
    domain     = label 1*("." label)             IDNA2008 by UTS 46, non-transitional; or "localhost"

Valid to the RFC and refused all the same, because what one server reads as a name another reads as a
route or as a second recipient: quoted local parts (``"a b"@x.test``), the percent hack (``a%b@x.test``),
bang paths (``b!a@x.test``), source routes, comments, address literals (``a@[127.0.0.1]``), groups.
Nothing is trimmed, cut or repaired: a blank too many is refused like any other character.

Special-use domains (``.test``, ``.example``, ``.invalid``) are as good as any: whether a domain takes
mail is for the server to say.

Every check runs on bounded input and in linear time. The text of an error never holds the address.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TypeAlias, Union

import idna

from mailer.errors import InvalidAddress
from mailer.headers import control_in, kind_of

MAX_LOCAL = 64  # octets: RFC 5321 section 4.5.3.1.1
MAX_ADDR_SPEC = 254  # octets: the path of 256 in section 4.5.3.1.3 without its angle brackets
MAX_NAME = 500  # characters
MAX_INPUT = 2_000  # characters of "Name <local@domain>", looked at before anything else
MAX_LIST = 1_000  # entries of one list of addresses

_ATEXT = r"[A-Za-z0-9#$&'*+\-/=?^_`{|}~]"  # RFC 5322 section 3.2.3, but for "!" and "%": see above
_DOT_ATOM = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}")  # a last label of digits would be an IP address
_QUOTED_NAME = re.compile(r'"((?:[^"\\]|\\.)*)" *')
_PLAIN_NAME = re.compile(r'[^()<>\[\]:;@\\,"]*[^()<>\[\]:;@\\," ] +')
_ATOMS = re.compile(r"[^\x00-\x1f()<>\[\]:;@\\,.\"\x7f]*")

_ONE_EACH = "give one address per entry, as local@domain, Name <local@domain> or a pair (name, address)"
AddressLike: TypeAlias = Union[str, tuple[str, str], "Address"]
"""What a caller may write for one address; a pair is (name, addr-spec), as in Flask-Mail."""

_UPPER_TO_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """One checked address: no instance exists that does not follow the grammar of this module.

    ``addr_spec`` is ``local@domain``: the domain lower-case and as A-labels, the local part as given (in
    NFC). ``name`` is the display name, unquoted. The constructor and `parse` raise `InvalidAddress`.

    ``repr`` masks the address, so that tracebacks and trackers do not collect addresses; ``str`` is whole.
    """

    addr_spec: str
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "addr_spec", _checked_spec(self.addr_spec))
        object.__setattr__(self, "name", _checked_name(self.name))

    @classmethod
    def parse(cls, value: AddressLike, field: str = "to") -> Address:
        """Read ``local@domain``, ``Name <local@domain>``, ``"Q, Inc" <local@domain>`` or (name, addr-spec).

        ``field`` is the argument an `InvalidAddress` names. Anything that could be read as two addresses,
        or as one address by one reader and as another by the next, is refused.
        """
        if isinstance(value, Address):
            return value
        try:
            if isinstance(value, str):
                name, addr_spec = _split(value)
            else:
                name, addr_spec = _pair(value)
            return cls(addr_spec, name)
        except InvalidAddress as error:
            raise InvalidAddress(field, error.problem) from None

    @property
    def local_part(self) -> str:
        """What stands before the ``@``."""
        return self.addr_spec.rpartition("@")[0]

    @property
    def domain(self) -> str:
        """What stands after the ``@``: lower-case A-labels."""
        return self.addr_spec.rpartition("@")[2]

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a server that offers SMTPUTF8 can take it: the local part is not ASCII (RFC 6531)."""
        return not self.addr_spec.isascii()

    @property
    def key(self) -> str:
        """The form in which two addresses are compared: duplicates, the suppression list.

        A to Z of the local part become lower-case and nothing else is folded: ``ß`` is not ``ss``, and an
        ``i`` without its dot is not ``i``, since their mailboxes may belong to different people.
        """
        return key_of(self.addr_spec)

    def header(self) -> str:
        """The form for people, neither folded nor encoded: ``"Acme, Inc" <info@acme.test>``."""
        if not self.name:
            return self.addr_spec
        return f"{quoted_name(self.name)} <{self.addr_spec}>"

    def __str__(self) -> str:
        return self.header()

    def __repr__(self) -> str:
        return f"Address({masked(self.addr_spec)!r})"


def parse_list(value: object, field: str) -> tuple[Address, ...]:
    """The addresses of one argument: None, one text, one pair (name, addr-spec), one `Address`, or several.

    Order is kept; a set, which has none, is sorted. One text is one address: lists in a text
    (``"a@x, b@x"``) are refused. So is a pair of two addresses, which would lose its first one.
    """
    if value is None:
        return ()
    if isinstance(value, str | Address):
        return (Address.parse(value, field),)
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return (_lone_pair(value, field),)
    if isinstance(value, Mapping | bytes | bytearray) or not isinstance(value, Iterable):
        raise InvalidAddress(field, f"is {kind_of(value)}; {_ONE_EACH}")
    addresses = [_entry(item, field, place) for place, item in enumerate(islice(value, MAX_LIST + 1), 1)]
    if len(addresses) > MAX_LIST:
        raise InvalidAddress(field, f"has more than {MAX_LIST:,} entries; send several messages")
    if isinstance(value, set | frozenset):
        addresses.sort(key=lambda address: (address.addr_spec, address.name))
    return tuple(addresses)


def _lone_pair(pair: tuple[str, str], field: str) -> Address:
    try:
        Address.parse(pair[0], field)
    except InvalidAddress:
        return Address.parse(pair, field)
    raise InvalidAddress(
        field,
        "is a pair of two addresses, and a pair means (name, address); "
        "give a list [a, b] for two recipients, or a list with one pair [(name, address)]",
    )


def _entry(item: object, field: str, place: int) -> Address:
    try:
        return Address.parse(item, field)  # type: ignore[arg-type]  # parse refuses what it cannot read
    except InvalidAddress as error:
        raise InvalidAddress(field, f"entry {place} {error.problem}") from None


def key_of(addr_spec: str) -> str:
    """The `Address.key` of an addr-spec that was checked before."""
    return addr_spec.lower() if addr_spec.isascii() else addr_spec.translate(_UPPER_TO_LOWER)


def masked(addr: str) -> str:
    """The form for logs: ``j***@example.com``; ``***`` for what is not one printable address."""
    local, at, domain = addr[: MAX_INPUT + 1].rpartition("@")
    whole = bool(at and local and domain) and len(addr) <= MAX_INPUT
    if not whole or not addr.isprintable() or any(mark in addr for mark in " <>\"'"):
        return "***"
    return f"{local[0]}***@{domain}"


def quoted_name(name: str) -> str:
    """A display name as a phrase: as it is if it is made of atoms, else quoted (RFC 5322 section 3.2.4)."""
    return name if _ATOMS.fullmatch(name) is not None else quoted(name)


def quoted(text: str) -> str:
    """``text`` as a quoted-string (RFC 5322 section 3.2.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _pair(value: object) -> tuple[str, str]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise InvalidAddress("to", f"is {kind_of(value)}; {_ONE_EACH}")
    name, addr_spec = value
    return ("" if name is None else name), addr_spec


def _split(text: str) -> tuple[str, str]:
    """Part ``Name <addr-spec>``. A text without closing bracket is an addr-spec, good or bad."""
    if len(text) > MAX_INPUT:
        raise InvalidAddress("to", f"has more than {MAX_INPUT:,} characters; {_ONE_EACH}")
    if not text.endswith(">"):
        return "", text
    before, bracket, addr_spec = text[:-1].rpartition("<")
    if not bracket or not before:
        raise InvalidAddress("to", "has angle brackets without a name; give the address without them")
    if "=?" in before:
        # A reader of headers would decode it, a reader of text would not: the pair says which is meant.
        raise InvalidAddress("to", "has a name with an encoded word (=?); give a pair (name, address)")
    quoted = _QUOTED_NAME.fullmatch(before)
    if quoted is not None:
        return re.sub(r"\\(.)", r"\1", quoted[1]), addr_spec
    if _PLAIN_NAME.fullmatch(before) is None:
        raise InvalidAddress(
            "to",
            "has a name with one of ( ) < > [ ] : ; @ \\ , \" outside quotes, or no blank before '<'; "
            "give one address per entry, and such a name as a pair (name, address)",
        )
    return before, addr_spec


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise InvalidAddress("name", f"has a name which is {kind_of(name)}; give text (str)")
    if len(name) > MAX_NAME:
        raise InvalidAddress("name", f"has a name longer than {MAX_NAME} characters; shorten it")
    problem = control_in(name)
    if problem is not None:
        raise InvalidAddress("name", f"has a name which {problem}")
    return name.strip()


def _checked_spec(addr_spec: object) -> str:
    if not isinstance(addr_spec, str):
        raise InvalidAddress("address", f"is {kind_of(addr_spec)}; {_ONE_EACH}")
    if not addr_spec:
        raise InvalidAddress("address", f"is empty; {_ONE_EACH}")
    if len(addr_spec) > MAX_ADDR_SPEC:
        raise InvalidAddress("address", f"is longer than {MAX_ADDR_SPEC} octets; {_ONE_EACH}")
    problem = control_in(addr_spec)
    if problem is not None:
        raise InvalidAddress("address", problem)
    if addr_spec.count("@") != 1:
        raise InvalidAddress(
            "address", f"has {addr_spec.count('@') or 'no'} '@' where one is needed; {_ONE_EACH}"
        )
    local, _, domain = addr_spec.partition("@")
    checked = f"{_checked_local(local)}@{_checked_domain(domain)}"
    if len(checked.encode()) > MAX_ADDR_SPEC:
        raise InvalidAddress("address", f"is longer than {MAX_ADDR_SPEC} octets; {_ONE_EACH}")
    return checked


def _checked_local(local: str) -> str:
    if not local:
        raise InvalidAddress("address", f"has nothing before the '@'; {_ONE_EACH}")
    ascii_form = local if local.isascii() else _checked_foreign(local)
    if _DOT_ATOM.fullmatch(ascii_form) is None:
        raise InvalidAddress("address", f"{_why_no_dot_atom(ascii_form)}; {_ONE_EACH}")
    if "=?" in local and "?=" in local:
        raise InvalidAddress("address", f"has an encoded word (=?…?=) before the '@'; {_ONE_EACH}")
    composed = unicodedata.normalize("NFC", local)
    if len(composed.encode()) > MAX_LOCAL:
        raise InvalidAddress("address", f"has more than {MAX_LOCAL} octets before the '@'; {_ONE_EACH}")
    return composed


def _why_no_dot_atom(local: str) -> str:
    if local[0] == '"':
        return "has a quoted part before the '@', which Mailer does not accept"
    for place, character in enumerate(local, 1):
        if character != "." and _DOT_ATOM.fullmatch(character) is None:
            return _misplaced(character, place)
    return "has a '.' at the start, at the end or next to another '.' before the '@'"


def _misplaced(character: str, place: int) -> str:
    return f"has U+{ord(character):04X} at position {place}, which may not stand before the '@'"


def _checked_foreign(local: str) -> str:
    """Check the characters outside ASCII (RFC 6531 section 3.3) and return ``local`` with ``x`` for each."""
    for place, character in enumerate(local, 1):
        if not character.isascii() and not _may_stand_in_local(character):
            raise InvalidAddress("address", f"{_misplaced(character, place)}; {_ONE_EACH}")
    return re.sub(r"[^\x00-\x7f]", "x", local)


def _may_stand_in_local(character: str) -> bool:
    """Letters, marks, numbers and symbols; nothing that a later reader could turn into ASCII grammar.

    NFC makes three characters ASCII (the Kelvin sign becomes ``K``, somebody else's mailbox); NFKC makes a
    fullwidth ``@`` or comma a plain one.
    """
    if unicodedata.category(character)[0] not in "LMNPS":
        return False
    if unicodedata.normalize("NFC", character).isascii():
        return False
    folded = unicodedata.normalize("NFKC", character)
    return not any(part.isascii() and not part.isalnum() for part in folded)


def _checked_domain(domain: str) -> str:
    lowered = domain.lower()
    ascii_form = lowered if domain.isascii() and "xn--" not in lowered else _a_labels(domain)
    if len(ascii_form) > MAX_ADDR_SPEC or (_HOST.fullmatch(ascii_form) is None and ascii_form != "localhost"):
        raise InvalidAddress("address", f"{_why_no_host(ascii_form)}; {_ONE_EACH}")
    return ascii_form


def _why_no_host(domain: str) -> str:
    if not domain:
        return "has nothing after the '@'"
    if domain[0] == "[":
        return "has an address literal ([…]) after the '@', which Mailer does not accept"
    if "." not in domain:
        return "has no domain with a dot after the '@'"
    return (
        "has a domain which is no host name: letters, digits and inner hyphens, at most 63 between two dots"
    )


@lru_cache(maxsize=1024)
def _a_labels(domain: str) -> str:
    """The domain by IDNA2008 (RFC 5891) after the mapping of UTS 46, non-transitional."""
    try:
        if any(not idna.uts46_remap(c, std3_rules=True) for c in domain if not c.isascii()):
            # Soft hyphens and the like vanish in the mapping: the domain written and the one used differ.
            raise InvalidAddress("address", f"has an invisible character after the '@'; {_ONE_EACH}")
        return idna.encode(domain, uts46=True, std3_rules=True).decode("ascii").lower()
    except (UnicodeError, ValueError) as error:
        if isinstance(error, InvalidAddress):
            raise
        raise InvalidAddress(
            "address", f"has a domain that international domain names (IDNA2008) do not allow; {_ONE_EACH}"
        ) from None
