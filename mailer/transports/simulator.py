"""A transport that sends nothing: recipients that drive states, for whoever tries an application out.

``delivered@`` is taken, ``bounced@`` is refused for good; a label may follow: ``bounced+signup@``. They are
shaped like Resend's test addresses, and are understood where an API key asks: by HTTP, and at the SMTP door.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mailer.errors import InvalidMessage
from mailer.retry import LEASE_LOST
from mailer.transports import Ledger, Parcel, Receipt, Reply, Result, Stage

DOMAIN = "resend.dev"
_ANSWERS = {
    "delivered": Result(Stage.TEXT, Reply(250, "2.0.0 simulated"), text_sent=True),
    "bounced": Result(Stage.RCPT, Reply(550, "5.1.1 simulated: no such user")),
}
_NOT_YET = frozenset({"complained", "suppressed"})


class SimulatorTransport:
    """Answers for recipients that drive states. It keeps the contract of `mailer.transports`."""

    name = "simulator"

    def transmit(self, batch: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        """Answer each recipient as its name says. Never raises."""
        return [self._carry(parcel, ledger) for parcel in batch]

    def close(self) -> None:
        """Nothing to give back."""

    def _carry(self, parcel: Parcel, ledger: Ledger) -> Receipt:
        results = {recipient: _ANSWERS[_word(recipient)] for recipient in parcel.recipients}
        if any(result.text_sent for result in results.values()) and parcel.id not in ledger.update(
            (), (parcel,)
        ):
            results = dict.fromkeys(results, Result(Stage.DATA, problem=LEASE_LOST))
        receipt = Receipt(self.name, results)
        ledger.update([(parcel, receipt)], ())
        return receipt


def simulates(recipients: Collection[str], own_domain: str | None = None) -> bool:
    """Whether these addr-specs are for the simulator. Raises InvalidMessage, field ``to``, for a mixture with
    people's addresses, and for what it cannot do.
    """
    domains = {DOMAIN, own_domain or DOMAIN}
    words = [_word(address) for address in recipients if address.rpartition("@")[2] in domains]
    if _NOT_YET.intersection(words):
        raise InvalidMessage("to", "has complained@ or suppressed@, which are not simulated yet")
    simulated = sum(word in _ANSWERS for word in words)
    if simulated and simulated != len(recipients):
        raise InvalidMessage("to", "mixes simulated recipients with others; send two messages")
    return simulated > 0


def _word(address: str) -> str:
    return address.rpartition("@")[0].partition("+")[0].lower()
