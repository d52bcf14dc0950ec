"""A transport that sends nothing: recipients that drive states, for whoever tries an application out.

``delivered@`` is taken and said to have arrived, ``bounced@`` is refused for good, ``complained@`` is taken
and then complained about, ``suppressed@`` counts as on the suppression list. Of our own, ``deferred@`` is put
off at each try, and of ``uncertain@`` nobody knows whether it was taken. A label may follow:
``bounced+signup@``. They are shaped like Resend's test addresses, and are understood where an API key asks:
by HTTP, and at the SMTP door.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mailer.errors import InvalidMessage
from mailer.events import Event
from mailer.retry import LEASE_LOST
from mailer.transports import Ledger, Parcel, Receipt, Reply, Result, Stage

DOMAIN = "resend.dev"
_TAKEN = Result(Stage.TEXT, Reply(250, "2.0.0 simulated"), text_sent=True)
_ANSWERS = {
    "delivered": _TAKEN,
    "complained": _TAKEN,
    "bounced": Result(Stage.RCPT, Reply(550, "5.1.1 simulated: no such user")),
    "suppressed": Result(Stage.RCPT, Reply(550, "5.2.1 simulated: suppressed")),  # it never comes so far
    "deferred": Result(Stage.RCPT, Reply(450, "4.2.1 simulated: not now")),
    "uncertain": Result(Stage.TEXT, text_sent=True, problem="simulated: no answer to the text"),
}
_AFTERWARDS = {"delivered": Event.DELIVERED, "complained": Event.COMPLAINED}


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
    people's addresses.
    """
    domains = {DOMAIN, own_domain or DOMAIN}
    words = [_word(address) for address in recipients if address.rpartition("@")[2] in domains]
    simulated = sum(word in _ANSWERS for word in words)
    if simulated and simulated != len(recipients):
        raise InvalidMessage("to", "mixes simulated recipients with others; send two messages")
    return simulated > 0


def says(recipient: str) -> Event | None:
    """What this recipient of the simulator lets us know once it was sent the mail."""
    return _AFTERWARDS.get(_word(recipient))


def is_suppressed(recipient: str) -> bool:
    """Whether this recipient of the simulator counts as on the suppression list."""
    return _word(recipient) == "suppressed"


def _word(address: str) -> str:
    return address.rpartition("@")[0].partition("+")[0].lower()
