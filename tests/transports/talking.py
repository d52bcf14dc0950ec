"""What the tests of the SMTP transport share: a parcel, quick time limits, and one call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from mailer.transports import Parcel, Receipt, Result
from mailer.transports.smtp import SmtpTransport
from mailer.transports.url import Security, SmtpConfig, Timeouts
from tests.peer import SmtpPeer

QUICK = Timeouts(2, 2, 2, 2, 2, 2, end_of_data=2, quit=0.2, parcel=4)
IMPATIENT = Timeouts(*[0.15] * 9)
DATA = b"Message-ID: <1@acme.example>\r\nSubject: Hello\r\n\r\nDear Ada,\r\n.hidden\r\n..twice\r\nBye\r\n"
ADA, BOB, EVE = "ada@example.org", "bob@example.org", "eve@example.org"


def parcel(*recipients: str, **fields: object) -> Parcel:
    given = {"id": "m1", "sender": "app@acme.example", "recipients": recipients or (ADA,), "data": DATA}
    return Parcel(**{**given, **fields})  # type: ignore[arg-type]


def transport(peer: SmtpPeer, **fields: object) -> SmtpTransport:
    given = {"security": Security.NONE, "timeouts": QUICK, "connections": 1, **fields}
    return SmtpTransport(SmtpConfig("127.0.0.1", peer.port, **given))  # type: ignore[arg-type]


class Leave:
    """A ledger that lets every text go out but those ``kept``, and remembers what it was told."""

    def __init__(self, *kept: str, ask: Callable[[], object] = lambda: None) -> None:
        self.kept, self.ask = kept, ask
        self.settled: list[tuple[Parcel, Receipt]] = []

    def update(self, settled: Sequence[tuple[Parcel, Receipt]], asking: Sequence[Parcel]) -> set[str]:
        self.settled += settled
        if asking:
            self.ask()
        return {parcel.id for parcel in asking} - set(self.kept)


def send_one(peer: SmtpPeer, one: Parcel | None = None, **fields: object) -> Result:
    """The result for the first recipient of one parcel."""
    one = one or parcel()
    return send_all(peer, [one], **fields)[0].results[one.recipients[0]]


def send_all(peer: SmtpPeer, batch: Sequence[Parcel], **fields: object) -> list[Receipt]:
    """The receipts of a batch, over connections that are left then."""
    with contextlib.closing(transport(peer, **fields)) as carrier:
        return carrier.transmit(batch, Leave())
