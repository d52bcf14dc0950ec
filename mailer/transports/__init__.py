"""The contract between a delivery and whatever carries it: parcels in, receipts out.

A *transport* takes a batch of `Parcel` and answers each with one `Receipt`, in the order of the batch.
It may keep connections, pipeline, or work on several parcels at once: the contract does not say, so
pooling and failover need no change here.

An implementer must

* answer every recipient of every parcel, whatever happens: an exception that leaves ``transmit`` is
  a bug, and the delivery treats it as "nothing is known";
* ask the ledger once the server asked for the text (354) and before the first octet of it, and send
  nothing unless it answers the parcel's id: the lease was lost, another worker has the message;
* set ``text_sent`` as soon as the first octet of the text may have left. From then on a missing answer
  means that the outcome is unknown (RFC 5321 section 6.1, RFC 1047);
* tell the ledger of a receipt at the first opportunity: what was answered is recorded then, and a process
  that dies later repeats only what was not. What is asked and told at the same time goes into one call,
  which is one transaction; it is made by the thread that called ``transmit``;
* keep what happens after the answer to the text (QUIT, a drop) to itself: it never changes a result.

A caller may rely on exactly these and on nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    """How far the conversation had come. Blame depends on it: see `mailer.retry`."""

    CONNECT = "connect"  # name look-up, TCP
    GREETING = "greeting"  # 220, EHLO
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"  # envelope sender
    RCPT = "rcpt"  # envelope recipient
    DATA = "data"  # the command, up to 354
    TEXT = "text"  # the text and the answer to it


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered. ``code`` is the three-digit code; ``text`` is bounded to 1,000 characters."""

    code: int
    text: str = ""

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code, such as ``5.1.1``, if the text starts with one (RFC 2034, RFC 3463)."""
        first = self.text.split(" ", 1)[0]
        parts = first.split(".")
        well_formed = (
            len(parts) == 3
            and parts[0] in {"2", "4", "5"}
            and all(p.isascii() and p.isdigit() and len(p) <= 3 for p in parts)
        )
        return first if well_formed else None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one recipient.

    ``reply`` is None if no reply was read: connection refused, lost, timed out, or the lease was lost.
    ``problem`` then says what happened in words fit for a person, without address or password.
    ``wait_seconds`` is set if it was not tried, because of a limit or a pause: it is due again after so long.
    """

    stage: Stage
    reply: Reply | None = None
    text_sent: bool = False
    problem: str = ""
    wait_seconds: float | None = None

    @property
    def accepted(self) -> bool:
        """The server took responsibility: a 2xx answer to the text (RFC 5321 section 6.1)."""
        return self.stage is Stage.TEXT and self.reply is not None and 200 <= self.reply.code < 300


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message on its way: the envelope and the bytes.

    ``data`` is the finished message with CRLF line ends, not yet dot-stuffed. ``recipients`` are
    addr-specs, each of which gets its own `Result`. ``lane`` may decide who carries it.
    """

    id: str
    sender: str
    recipients: tuple[str, ...]
    data: bytes
    lane: str = "default"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to one parcel: a `Result` for every recipient of it, and who carried it.

    ``transcript`` is the conversation, without secrets or text; kept where not everybody was accepted.
    """

    transport: str
    results: dict[str, Result]
    seconds: float = 0.0
    transcript: tuple[str, ...] = ()


class Ledger(Protocol):
    """What a transport asks before a text goes out, and tells once an answer is there."""

    def update(self, settled: Sequence[tuple[Parcel, Receipt]], asking: Sequence[Parcel]) -> Collection[str]:
        """Note what was answered, and answer the ids of those asking whose text may go out now."""
        ...


class Transport(Protocol):
    """Anything that carries mail. ``name`` appears in timelines, logs and health."""

    name: str

    def transmit(self, batch: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        """Carry the parcels; one receipt each, in order. Never raises."""
        ...

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""
        ...
