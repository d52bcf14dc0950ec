"""How often who may ask: per account, per IP address and in all, counted for unknown accounts too (AU11).

Two kinds of answer. Too many requests from one place get 429, which depends on that place only. Too many
mails to one address get the usual answer and no mail, so nobody learns whether the address is known.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from limits import RateLimitItem, parse

from mailer.address import Address
from mailer.counts import Counts, place

DEFAULTS = {
    "login.account": "10/15 minutes",
    "login.device": "20/15 minutes",
    "login.ip": "40/minute",
    "login.all": "1200/minute",
    "ask.ip": "40/minute",
    "ask.all": "600/minute",
    "redeem.ip": "60/minute",
    "redeem.all": "1200/minute",
    "mail.verify": "5/hour",
    "mail.reset": "3/hour",
    "mail.exists": "1/hour",
}
"""``ACCOUNTS_LIMITS`` in the Flask configuration changes some of them, ``RATELIMIT_ENABLED = False`` all."""


class AccountLimits:
    """Counts in Redis where that is the broker, so that all web processes count together; else in here."""

    def __init__(self, broker_url: str, changed: Mapping[str, str], enabled: bool = True) -> None:
        rates = DEFAULTS | dict(changed)
        self._items: dict[str, RateLimitItem] = {name: parse(rate) for name, rate in rates.items()}
        self._counts = Counts(broker_url, "accounts.limits_in_memory")
        self._enabled = enabled

    def may(self, deed: str, ip: str | None) -> bool:
        """Count a ``login``, ``ask`` or ``redeem`` from this place; False if there were too many."""
        # Both are counted, also when the first says no.
        return all([self._hit(f"{deed}.ip", place(ip)), self._hit(f"{deed}.all", "")])

    def may_try(self, email_key: str, known_device: bool) -> bool:
        """Count a password for this account. A browser that was in before counts by itself, so a stranger
        who uses up the others' tries does not lock its owner out."""
        return self._hit("login.device" if known_device else "login.account", email_key)

    def forget_tries(self, email_key: str, known_device: bool) -> None:
        """The right password: the count starts afresh."""
        name = "login.device" if known_device else "login.account"
        self._counts.clear(self._items[name], name, email_key)

    def may_mail(self, kind: str, address: Address) -> bool:
        """Count a ``verify``, ``reset`` or ``exists`` mail to this address; False: send none."""
        return self._hit(f"mail.{kind}", mailbox(address))

    def _hit(self, name: str, key: str) -> bool:
        return self._counts.hit(self._items[name], name, key) if self._enabled else True


def mailbox(address: Address) -> str:
    """The mailbox that an address most likely ends in: spellings with a tag or other dots are the same."""
    local = unicodedata.normalize("NFKC", address.local_part).casefold()
    return local.partition("+")[0].replace(".", "") + "@" + address.domain
