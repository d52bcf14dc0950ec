"""One suite for everything that carries mail. A new transport adds itself to ``CARRIERS``."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mailer.errors import ConfigError
from mailer.retry import LEASE_LOST
from mailer.transports import Transport
from mailer.transports.factory import build_transport
from mailer.transports.local import ConsoleTransport, FileTransport, MemoryTransport
from mailer.transports.smtp import SmtpTransport
from tests.peer import SmtpPeer
from tests.transports.talking import ADA, BOB, DATA, Leave, parcel
from tests.transports.talking import transport as smtp_to

Carrier = tuple[Transport, Callable[[], list[bytes]]]
"""A transport, and what has arrived at the other end of it."""


@contextlib.contextmanager
def memory(_: Path) -> Iterator[Carrier]:
    transport = MemoryTransport()
    yield transport, lambda: [kept.data for kept in transport.parcels]


@contextlib.contextmanager
def files(folder: Path) -> Iterator[Carrier]:
    transport = FileTransport(folder / "out")
    yield transport, lambda: [f.read_bytes() for f in sorted((folder / "out").glob("*.eml"))]


@contextlib.contextmanager
def console(_: Path) -> Iterator[Carrier]:
    stream = io.StringIO()
    yield ConsoleTransport(stream), lambda: [DATA] * stream.getvalue().count("Dear Ada,")


@contextlib.contextmanager
def smtp(_: Path) -> Iterator[Carrier]:
    with SmtpPeer() as peer:
        yield smtp_to(peer), lambda: [copy.data for copy in peer.accepted]


CARRIERS: list[Callable[[Path], AbstractContextManager[Carrier]]] = [memory, files, console, smtp]


@pytest.fixture(params=CARRIERS, ids=lambda carrier: carrier.__name__)
def carrier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Carrier]:
    with request.param(tmp_path) as given:
        yield given


def test_what_is_carried_is_accepted(carrier: Carrier) -> None:
    """Every recipient is answered with an acceptance, and the bytes arrive as they were."""
    transport, arrived = carrier
    (receipt,) = transport.transmit([parcel(ADA, BOB)], Leave())
    assert set(receipt.results) == {ADA, BOB}
    assert all(result.accepted for result in receipt.results.values())
    assert receipt.transport == transport.name != ""
    assert receipt.seconds >= 0
    assert arrived() == [DATA]


def test_receipts_come_in_the_order_of_the_batch(carrier: Carrier) -> None:
    """One receipt a parcel."""
    transport, arrived = carrier
    people = [f"u{n}@example.org" for n in range(7)]
    receipts = transport.transmit([parcel(person, id=f"m{n}") for n, person in enumerate(people)], Leave())
    assert [list(receipt.results) for receipt in receipts] == [[person] for person in people]
    assert len(arrived()) == 7


def test_nothing_is_an_empty_batch(carrier: Carrier) -> None:
    """No parcels, no receipts."""
    transport, arrived = carrier
    assert transport.transmit([], Leave()) == []
    assert arrived() == []


def test_the_lease_is_asked_for_once_before_anything_is_kept(carrier: Carrier) -> None:
    """RT4: the ledger is asked when nothing has left yet."""
    transport, arrived = carrier
    seen: list[int] = []

    def ask() -> bool:
        seen.append(len(arrived()))
        return True

    transport.transmit([parcel()], Leave(ask=ask))
    assert seen == [0]


def test_a_lost_lease_keeps_the_text_here(carrier: Carrier) -> None:
    """RT4: nothing is sent and nobody is accepted; the other parcels are not affected."""
    transport, arrived = carrier
    lost, kept = transport.transmit([parcel(ADA), parcel(BOB, id="m2")], Leave("m1"))
    result = lost.results[ADA]
    assert (result.problem, result.text_sent, result.accepted) == (LEASE_LOST, False, False)
    assert kept.results[BOB].accepted
    assert len(arrived()) == 1


def test_no_exception_leaves(carrier: Carrier) -> None:
    """A mistake in the ledger is a result, and nothing is sent."""
    transport, arrived = carrier

    def broken() -> bool:
        raise LookupError("a secret")

    (receipt,) = transport.transmit([parcel()], Leave(ask=broken))
    assert not receipt.results[ADA].text_sent
    assert "secret" not in receipt.results[ADA].problem
    assert arrived() == []


def test_closing_twice_is_safe(carrier: Carrier) -> None:
    """And a closed transport may be used again: what it needs, it opens."""
    transport, _ = carrier
    transport.close()
    transport.close()
    assert transport.transmit([parcel()], Leave())[0].results[ADA].accepted


# Local transports


def test_a_folder_that_cannot_be_written_to_refuses_for_now(tmp_path: Path) -> None:
    """A full or missing disk is a definite refusal, worth another try: 452 4.3.1."""
    (tmp_path / "out").write_text("a file where the folder should be")
    result = FileTransport(tmp_path / "out").transmit([parcel()], Leave())[0].results[ADA]
    assert result.reply is not None
    assert (result.reply.code, result.reply.enhanced, result.accepted) == (452, "4.3.1", False)


def test_a_files_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    """The id is made harmless, only whole files remain, and only their owner may read them."""
    FileTransport(tmp_path / "out").transmit([parcel(id="../../etc/passwd")], Leave())
    (file,) = (tmp_path / "out").iterdir()
    assert file.name.startswith("______etc_passwd-")
    assert file.stat().st_mode & 0o077 == 0


def test_a_closed_console_refuses_for_now() -> None:
    """A stream that fails is a result, not an exception."""
    stream = io.StringIO()
    stream.close()
    assert not ConsoleTransport(stream).transmit([parcel()], Leave())[0].results[ADA].accepted


def test_the_console_is_not_remote_controlled() -> None:
    """SC19: what a mail holds cannot steer the terminal."""
    stream = io.StringIO()
    ConsoleTransport(stream).transmit([parcel(data=b"Subject: a\x1b[2Jb\r\n\r\n\x1b]0;x\x07\r\n")], Leave())
    assert "\x1b" not in stream.getvalue()


# The factory


def test_the_url_chooses_the_transport(tmp_path: Path) -> None:
    """One place builds; nothing else asks which transport it is."""
    assert isinstance(build_transport("memory://"), MemoryTransport)
    assert isinstance(build_transport("console://"), ConsoleTransport)
    assert isinstance(build_transport("smtp://mail.example?starttls=required"), SmtpTransport)
    made = build_transport(f"file://{tmp_path}/with%20space")
    assert isinstance(made, FileTransport)
    assert made.folder == tmp_path / "with space"


@pytest.mark.parametrize("url", ["", "http://mail.example", "smtp", "file://relative/x", "file:///dev/null"])
def test_another_url_is_refused_by_the_settings_name(url: str) -> None:
    """The error names the setting and what it may be."""
    with pytest.raises(ConfigError, match="^MAILER_SMTP_URL: "):
        build_transport(url)
