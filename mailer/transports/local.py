"""Transports that need no server: memory for tests, the console and files for looking at mail.

They keep the contract of `mailer.transports`, the ledger included, so that an application tested
with one behaves the same with SMTP.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from mailer.reading import bodies, decode_words, parsed, text_of
from mailer.retry import LEASE_LOST
from mailer.transports import Ledger, Parcel, Receipt, Reply, Result, Stage


class LocalTransport:
    """What local transports share: ask before the text, then keep it. Subclasses say how in ``keep``."""

    name = "local"

    def transmit(self, batch: Sequence[Parcel], ledger: Ledger) -> list[Receipt]:
        """Keep the parcels, one receipt each, in order. Never raises."""
        return [self._carry(parcel, ledger) for parcel in batch]

    def close(self) -> None:
        """Nothing to give back."""

    def keep(self, parcel: Parcel) -> str:
        """Take the parcel; answer in words where it is. May raise OSError: then it was not taken."""
        raise NotImplementedError

    def _carry(self, parcel: Parcel, ledger: Ledger) -> Receipt:
        started = time.monotonic()
        result = self._result(parcel, ledger)
        results = dict.fromkeys(parcel.recipients, result)
        receipt = Receipt(self.name, results, time.monotonic() - started)
        ledger.update([(parcel, receipt)], ())
        return receipt

    def _result(self, parcel: Parcel, ledger: Ledger) -> Result:
        try:
            if parcel.id not in ledger.update((), (parcel,)):
                return Result(Stage.DATA, problem=LEASE_LOST)
        except Exception as exc:
            return Result(Stage.DATA, problem=f"internal error: {type(exc).__name__}")
        try:
            where = self.keep(parcel)
        except Exception as exc:  # a full disk, a closed stream: definite, and worth another try
            why = (exc.strerror if isinstance(exc, OSError) else None) or type(exc).__name__
            return Result(Stage.TEXT, Reply(452, f"4.3.1 not kept: {why}"), text_sent=True)
        return Result(Stage.TEXT, Reply(250, f"2.0.0 {where}"), text_sent=True)


class MemoryTransport(LocalTransport):
    """Keeps parcels in ``parcels``, oldest first. Safe to use from several threads."""

    name = "memory"

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []

    def keep(self, parcel: Parcel) -> str:
        """Remember the parcel."""
        self.parcels.append(parcel)
        return "kept in memory"

    def clear(self) -> None:
        """Forget everything."""
        self.parcels.clear()


class HeldTransport(LocalTransport):
    """Lets nothing out: the store has the mail, and the console shows it."""

    name = "held"

    def keep(self, parcel: Parcel) -> str:
        """Nothing more to keep."""
        return "held back: it was asked for with a test key"


class ConsoleTransport(LocalTransport):
    """Prints envelope, headers and the text part to a stream, standard output if none is given.

    Links and codes are printed as they are: this is for a developer's own terminal.
    """

    name = "console"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._one_at_a_time = threading.Lock()

    def keep(self, parcel: Parcel) -> str:
        """Print the parcel."""
        with self._one_at_a_time:
            stream = self._stream or sys.stdout
            stream.write(_as_read(parcel))
            stream.flush()
        return "printed"


class FileTransport(LocalTransport):
    """Writes each parcel to a file ``<id>-<six hex digits>.eml`` in a folder, readable by its owner only.

    A file appears whole or not at all. The folder is made if it does not exist.
    """

    name = "file"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, parcel: Parcel) -> str:
        """Write the parcel, to the disk before the answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", parcel.id)[:64]
        target = self.folder / f"{stem}-{secrets.token_hex(3)}.eml"
        fresh = target.with_suffix(".part")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(parcel.data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(target)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        return f"written to {target.name}"


def _as_read(parcel: Parcel) -> str:
    mail = parsed(parcel.data)
    items = [] if mail is None else mail.items()
    headers = "".join(f"{name}: {_shown(decode_words(str(value)))}\n" for name, value in items)
    body = None if mail is None else next((part for part in bodies(mail) if part is not None), None)
    text = "" if body is None else _shown(text_of(body))
    envelope = _shown(f"{parcel.sender} -> {', '.join(parcel.recipients)}")
    rule = "-" * 72
    return f"{rule}\n{envelope}\n{headers}\n{text.rstrip()}\n{rule}\n"


def _shown(text: str) -> str:
    """Text without what a terminal would obey."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text.replace("\r\n", "\n"))
