"""A disk for SQLite's file that can be full: a small one of its own, or a limit within SQLite.

Only who may mount can have the first. The second is as real to whoever writes: SQLite itself answers that the
disk is full.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

FULL_FILE = "HOST_DISK_FULL_FILE"
"""The environment variable that names a file: while it exists, SQLite's file must not grow."""
BYTES = 8 * 2**20
PAGES = 2**30
"""No limit that would ever be reached."""


@dataclass
class Disk:
    """Where the store is. ``mounted`` says whether it is a disk of its own."""

    folder: Path
    mounted: bool

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    @property
    def settings(self) -> dict[str, str]:
        """What the processes that use it must find in their environment."""
        return {} if self.mounted else {FULL_FILE: str(self._ballast)}

    def fill(self) -> None:
        """Leave no room for another page."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (2**16, 2**10, 1) if self.mounted else ():
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size):
                        pass

    def make_room(self) -> None:
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk of 8 MB in memory, if we may mount one; else a folder whose database can be kept small."""
    place = folder / "disk"
    place.mkdir()
    if not _mounted(place):
        yield Disk(place, mounted=False)
        return
    try:
        yield Disk(place, mounted=True)
    finally:
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)


def _mounted(place: Path) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    mount = ["mount", "-t", "tmpfs", "-o", f"size={BYTES},mode=0700", "none", place]
    with contextlib.suppress(OSError):
        return subprocess.run(mount, check=False, capture_output=True).returncode == 0
    return False


def obey_limit(engine: sa.Engine, full: Path) -> None:
    """Keep SQLite's file from growing while the file ``full`` exists. For the processes of the host."""

    @sa.event.listens_for(engine, "checkout")
    def _checked_out(connection: object, *_: object) -> None:
        # At most as many pages as there are: SQLite never makes it less than that.
        pages = 1 if full.exists() else PAGES
        connection.execute(f"PRAGMA max_page_count={pages}").fetchone()  # type: ignore[attr-defined]
