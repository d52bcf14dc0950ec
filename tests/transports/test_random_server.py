"""A server that does anything at any time: every mail gets a receipt, and no receipt lies."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter

import pytest

from mailer.transports import Parcel, Receipt, Stage
from mailer.transports.url import Timeouts
from tests.peer import Action, Actions, Close, Drip, Raw, Say, Script, Silence, SmtpPeer, Take
from tests.transports.talking import Leave, parcel, transport

pytestmark = pytest.mark.usefixtures("both_ways")

IMPATIENT = Timeouts(*[0.2] * 6, end_of_data=0.2, quit=0.1, parcel=2)
NONSENSE: list[Action] = [
    Raw(b"\r\n"),
    Raw(b"what?\r\n"),
    Raw(b"250"),
    Raw(b"\xff\x00\x1b[2J\r\n"),
    Raw(b"250-one\r\n451 two\r\n"),
    Raw(b"451 one\r\n451 and another\r\n"),
    Raw(b"x" * 5000),
    Raw(b"451-more\r\n" * 150),
    Drip(b"451 slowly\r\n", 0.001),
    Say(421, "4.3.2 bye"),
    Say(451, "4.3.0 later"),
    Say(550, "5.7.1 no"),
    Say(199),
    Say(334),
]
ENDINGS: list[Action] = [Close(), Close(reset=True)]


def turn(chance: random.Random, good: Actions) -> Actions:
    """What the server does once: the right thing most of the time."""
    luck = chance.random()
    if luck < 0.92:
        return good
    if luck < 0.96:
        return chance.choice(NONSENSE)
    if luck < 0.995:
        return chance.choice(ENDINGS)
    return Silence()


def script(chance: random.Random) -> Script:
    """A thousand turns of each stage. At the text it may take a copy and not say so, but never lies."""
    promises: dict[str, Actions] = {
        "greeting": Say(220),
        "mail": Say(250),
        "rcpt": Say(250),
        "data": Say(354),
        "rset": Say(250),
        "in_text": Raw(b""),
        "text": Say(250, "2.0.0 taken"),
        "quit": (Say(221), Close()),
    }
    stages = {stage: [turn(chance, good) for _ in range(1000)] for stage, good in promises.items()}
    for n, planned in enumerate(stages["text"]):
        if isinstance(planned, (Close, Silence)) and chance.random() < 0.5:
            stages["text"][n] = (Take(), planned)
    return Script(**stages)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(6))
def test_every_message_gets_a_receipt_that_is_true(seed: int) -> None:
    """SC2, SC4, SC20: accepted means a copy, a copy means that the text was sent, and nobody is forgotten."""
    chance = random.Random(seed)
    people = [f"u{n}@example.org" for n in range(120)]
    parcels = [parcel(a, b, id=f"m{n}") for n, (a, b) in enumerate(zip(people[::2], people[1::2]))]
    forbidden = [p.id for p in parcels if chance.random() < 0.05]
    shares = [parcels[n::3] for n in range(3)]
    ledgers = [Leave(*forbidden) for _ in shares]
    receipts: dict[str, Receipt] = {}

    def send(share: list[Parcel], ledger: Leave) -> None:
        for n in range(0, len(share), 5):
            batch = share[n : n + 5]
            given = carrier.transmit(batch, ledger)
            receipts.update((p.id, receipt) for p, receipt in zip(batch, given, strict=True))

    with (
        SmtpPeer(script(chance)) as peer,
        contextlib.closing(transport(peer, connections=4, timeouts=IMPATIENT)) as carrier,
    ):
        threads = [threading.Thread(target=send, args=pair) for pair in zip(shares, ledgers, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "somebody waits for ever"

    told = Counter(p.id for ledger in ledgers for p, _ in ledger.settled)
    assert told == Counter(p.id for p in parcels), "each is settled once"
    copies = Counter(recipient for copy in peer.accepted for recipient in copy.recipients)
    assert set(copies.values()) == {1}, "some arrive, and none of them twice"
    for p in parcels:
        for recipient in p.recipients:
            result = receipts[p.id].results[recipient]
            assert result.reply is not None or result.problem
            assert not result.accepted or copies[recipient] == 1
            assert result.text_sent or not copies[recipient]
            assert result.text_sent == (result.stage is Stage.TEXT)
            assert p.id not in forbidden or not result.text_sent
