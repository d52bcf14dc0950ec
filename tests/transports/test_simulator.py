"""Recipients that drive states: what the simulator answers, and to whom it is asked at all."""

from __future__ import annotations

import pytest

from mailer.errors import InvalidMessage
from mailer.retry import LEASE_LOST
from mailer.transports import Parcel, Stage
from mailer.transports.simulator import SimulatorTransport, simulates


class Book:
    """A ledger that lets some out, and keeps what it is told."""

    def __init__(self, *leaving: str) -> None:
        self.leaving, self.asked, self.told = leaving, [], []

    def update(self, settled, asking):
        self.told += settled
        self.asked += [parcel.id for parcel in asking]
        return frozenset(self.leaving)


def parcel(*recipients: str) -> Parcel:
    return Parcel("m", "a@acme.test", recipients, b"")


def test_it_keeps_the_contract():
    """It asks before a text would go out, answers every recipient, and tells the ledger."""
    book = Book("m")
    [receipt] = SimulatorTransport().transmit([parcel("delivered@resend.dev", "bounced+x@resend.dev")], book)
    assert {to: result.reply.code for to, result in receipt.results.items()} == {
        "delivered@resend.dev": 250,
        "bounced+x@resend.dev": 550,
    }
    assert book.asked == ["m"]
    assert [told for _parcel, told in book.told] == [receipt]


def test_without_the_lease_nothing_is_said():
    """Another worker has it."""
    [receipt] = SimulatorTransport().transmit([parcel("delivered@resend.dev")], Book())
    [result] = receipt.results.values()
    assert (result.problem, result.stage) == (LEASE_LOST, Stage.DATA)


@pytest.mark.parametrize(
    ("recipients", "own", "answer"),
    [
        (["delivered@resend.dev"], None, True),
        (["delivered@resend.dev", "bounced+a@sim.test"], "sim.test", True),
        (["complained@resend.dev", "Suppressed+a@resend.dev"], None, True),
        (["deferred@resend.dev", "uncertain+a@resend.dev"], None, True),
        (["delivered@sim.test"], None, False),
        (["onboarding@resend.dev"], None, False),
        (["delivered@resend.dev.test", "ada@x.test"], None, False),
    ],
)
def test_who_is_simulated(recipients, own, answer):
    """Six words at two domains; everybody else is somebody."""
    assert simulates(recipients, own) is answer


def test_a_mixture_is_refused():
    """Nobody would know what such a mail means."""
    with pytest.raises(InvalidMessage, match="^to: "):
        simulates(["delivered@resend.dev", "ada@x.test"])
