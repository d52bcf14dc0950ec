"""Keeping leases while an attempt runs: short leases for quick recovery, however long SMTP may take.

A legal SMTP conversation can take half an hour (RFC 5321 section 4.5.3.2), a message whose worker died
should wait a minute at most. So the lease is short, and a thread renews it for as long as the process
lives. A process that is frozen renews nothing, loses its lease, and finds the fence closed when it thaws.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mailer.errors import StoreError
from mailer.job import Lease
from mailer.services import Services
from mailer.store import deliveries as rows
from mailer.telemetry import log


@contextmanager
def keep(services: Services, lease: Lease) -> Iterator[None]:
    """Renew the lease every third of its duration until the block ends."""
    done = threading.Event()
    thread = threading.Thread(
        target=_renew_until, args=(services, lease, done), name=f"lease-{lease.token[:6]}", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        done.set()


def _renew_until(services: Services, lease: Lease, done: threading.Event) -> None:
    while not done.wait(lease.duration.total_seconds() / 3):
        try:
            with services.store.begin() as connection:
                rows.renew(connection, [lease.token], services.now() + lease.duration)
        except StoreError as exc:
            log.warning("lease.not_renewed", error=str(exc))
