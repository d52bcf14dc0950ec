"""Several named transports, and what each of them takes: how it is written down, and who comes first.

``name=url name=url``: the URL is that of `mailer.transports.factory`, with options of routing among its
own. Choosing is pure: no clock, no chance; whether a transport works at the moment is asked elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from urllib.parse import unquote

from mailer.errors import ConfigError
from mailer.transports import Parcel, Transport


@dataclass(frozen=True, slots=True)
class Routing:
    """What the options of a URL say about routing. None: not limited, or not said.

    ``weight`` shares the load. ``senders`` (domains) and ``lanes`` are all that is taken; empty: anything.
    ``rate`` is in mails a second, ``concurrency`` in mails at a time, of all workers together; those of
    ``domain_`` are for each domain of recipients.
    """

    weight: float | None = None
    senders: frozenset[str] = frozenset()
    lanes: frozenset[str] = frozenset()
    rate: float | None = None
    concurrency: int | None = None
    domain_rate: float | None = None
    domain_concurrency: int | None = None

    def takes(self, sender_domain: str, lane: str) -> bool:
        """Whether mail of this sender and lane may go this way."""
        return (not self.senders or sender_domain in self.senders) and (not self.lanes or lane in self.lanes)

    @property
    def restricted(self) -> bool:
        """Whether there is mail that it does not take."""
        return bool(self.senders or self.lanes)


@dataclass(frozen=True, slots=True)
class Way:
    """A transport with the name it is known by, and the setting that a person has to change."""

    name: str
    transport: Transport = field(repr=False)
    routing: Routing = Routing()
    setting: str = "MAILER_SMTP_URL"


OPTIONS = ("weight", "senders", "lanes", "rate", "concurrency", "domain_rate", "domain_concurrency")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*")


def parse_named(text: str, setting: str = "MAILER_TRANSPORTS") -> list[tuple[str, str]]:
    """The names and URLs of ``name=url name=url``. Raises ConfigError, which repeats no URL."""
    found: list[tuple[str, str]] = []
    for number, part in enumerate(text.split(), 1):
        name, equals, url = part.partition("=")
        # Not repeated if it may be a piece of a URL, and so of a password.
        if not equals or "://" in name or not _NAME.fullmatch(name):
            raise ConfigError(
                setting, f"entry {number} is not of the form name=url; a name has a-z, 0-9, - and _"
            )
        if name in dict(found):
            raise ConfigError(setting, f"names {name} twice")
        found.append((name, url))
    if not found:
        raise ConfigError(setting, "names no transport; write name=smtp://user:password@host")
    return found


def take_routing(url: str, setting: str, lanes: Iterable[str] = ()) -> tuple[str, Routing]:
    """Split a URL into one without the options of routing, and these. Raises ConfigError.

    ``lanes`` are those that exist.
    """
    base, _, query = url.partition("?")
    rest, options = [], dict[str, str]()
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in OPTIONS:
            rest.append(pair)
        elif name in options:
            raise ConfigError(setting, f"has the option {name} twice")
        else:
            options[name] = unquote(value)
    routing = Routing(
        weight=_number(options, "weight", setting),
        senders=_domains(options, setting),
        lanes=_lanes(options, setting, set(lanes)),
        rate=_number(options, "rate", setting),
        concurrency=_count(options, "concurrency", setting),
        domain_rate=_number(options, "domain_rate", setting),
        domain_concurrency=_count(options, "domain_concurrency", setting),
    )
    return base + ("?" + "&".join(rest) if rest else ""), routing


def check_together(ways: Sequence[Way], setting: str) -> None:
    """Raises ConfigError if there is mail that none of the transports takes."""
    if all(way.routing.restricted for way in ways):
        names = ", ".join(way.name for way in ways)
        raise ConfigError(
            setting, f"has senders or lanes for each of {names}; leave one without, which takes the rest"
        )


def order(ways: Sequence[Way], parcel: Parcel) -> list[Way]:
    """Those that take the parcel, the first to be tried first.

    A transport made for this sender or lane comes before one that takes anything. Among equals those with
    a weight share the load by it, the same message always in the same order; then the others, as named.
    """
    domain = domain_of(parcel.sender)
    taking = [way for way in ways if way.routing.takes(domain, parcel.lane)]
    return taking if len(taking) < 2 else sorted(taking, key=lambda way: _rank(way, parcel.id))


def domain_of(address: str) -> str:
    """The domain of an addr-spec, in lower case; "" for the empty sender."""
    return address.rpartition("@")[2].lower()


def _rank(way: Way, message: str) -> tuple[int, bool, float]:
    routing = way.routing
    made_for_it = -(bool(routing.senders) + bool(routing.lanes))
    if routing.weight is None:
        return made_for_it, True, 0.0  # sorting keeps the order of naming
    # Rendezvous hashing: each gets its share, and a message keeps its order when others come or go.
    digest = blake2b(f"{way.name} {message}".encode(), digest_size=8).digest()
    chance = (int.from_bytes(digest) + 0.5) / 2**64
    return made_for_it, False, -math.log(chance) / routing.weight


def _number(options: dict[str, str], name: str, setting: str) -> float | None:
    if name not in options:
        return None
    try:
        number = float(options[name])
    except ValueError:
        number = 0
    if not 0.001 <= number <= 100_000:  # also false for NaN
        raise ConfigError(setting, f"has a {name} that is not a number from 0.001 to 100000")
    return number


def _count(options: dict[str, str], name: str, setting: str) -> int | None:
    if name not in options:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,4}", options[name]):
        raise ConfigError(setting, f"has a {name} that is not a whole number from 1 to 99999")
    return int(options[name])


def _domains(options: dict[str, str], setting: str) -> frozenset[str]:
    domains = frozenset(domain.lower() for domain in _words(options, "senders"))
    if any(not _DOMAIN.fullmatch(domain) for domain in domains):
        raise ConfigError(setting, "has senders that are not domains such as acme.example,acme.test")
    return domains


def _lanes(options: dict[str, str], setting: str, known: set[str]) -> frozenset[str]:
    lanes = _words(options, "lanes")
    if lanes - known:
        raise ConfigError(setting, f"has lanes that do not exist; there are {', '.join(sorted(known))}")
    return lanes


def _words(options: dict[str, str], name: str) -> frozenset[str]:
    return frozenset(word.strip() for word in options.get(name, "").split(",") if word.strip())
