"""The store: whether it is there, whether its clock is ours, and who can read its files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from mailer.doctor.findings import Finding, Patient, error, ok, warning
from mailer.errors import StoreError
from mailer.services import utc_now
from mailer.store import migrations, queries

CLOCK_SECONDS = 5
"""Clocks that are further apart than this are worth a word."""


def store(patient: Patient) -> Iterator[Finding]:
    """Reachable, and with the tables this version wants."""
    if not is_there(patient):
        yield error("store", "there is no database file yet", "run: mailer db upgrade")
        return
    try:
        with patient.services.store.read() as connection:
            current = migrations.current(connection)
    except StoreError as exc:
        yield error("store", str(exc), "start the database, or correct MAILER_DATABASE_URL")
        return
    wanted = migrations.head()
    if current != wanted:
        found = f"the tables are at {current or 'nothing'}, this version wants {wanted}"
        yield error("store", found, "run: mailer db upgrade (if they are newer, install that version)")
    else:
        yield ok("store", f"{patient.services.store.engine.dialect.name}, tables at {current}")


def clock(patient: Patient) -> Iterator[Finding]:
    """Mails go by the database's clock; log-ins, links and log lines by that of the machine they are on."""
    if not is_there(patient):
        return
    try:
        with patient.services.store.read() as connection:
            before = utc_now()  # this machine's; `Services.now` may be the database's already
            theirs = queries.clock(connection)
            after = utc_now()
    except StoreError:
        return  # `store` has said so
    if theirs is not None:
        yield compare_clocks(theirs, before + (after - before) / 2)


def is_there(patient: Patient) -> bool:
    """Whether to connect: SQLite would make the file that is asked for."""
    engine = patient.services.store.engine
    path = engine.url.database
    return engine.dialect.name != "sqlite" or path in (None, "", ":memory:") or Path(str(path)).exists()


def compare_clocks(theirs: datetime, ours: datetime) -> Finding:
    """What to say of a database's clock and this machine's."""
    apart = abs((theirs - ours).total_seconds())
    if apart > CLOCK_SECONDS:
        found = f"this machine's and the database's are {apart:.0f} s apart"
        return warning("clock", found, "keep the time on both machines by NTP")
    return ok("clock", "agrees with the database's")


def files(patient: Patient) -> Iterator[Finding]:
    """What lies on the disk is readable by its owner only."""
    settings, engine = patient.services.settings, patient.services.store.engine
    kept = [] if settings.secret_keys else [settings.data_dir / "secret-key"]
    if engine.dialect.name == "sqlite" and engine.url.database:
        kept += [Path(engine.url.database + end) for end in ("", "-wal", "-shm")]
    kept = [path for path in kept if path.exists()]
    wide = [path for path in kept if path.stat().st_mode & 0o077]
    for path in wide:
        yield error("files", f"{path} is open to other users of this machine", f"run: chmod 600 {path}")
    if kept and not wide:
        yield ok("files", "open to their owner only")
