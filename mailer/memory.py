"""Keeping a worker's memory flat: one heap for all of its threads, and garbage that is looked for in time.

glibc gives every thread that allocates an arena of its own, and memory freed in one is of no use to another:
a worker's threads each grow to what the largest batch needed. Under Python's global lock they hardly
allocate at the same time, so nothing is gained by it (mallopt(3), M_ARENA_MAX).

Python looks for old garbage in cycles once it is a quarter of everything that lives (gc, "generations"); what
a program loads at its start is most of that and stays, so it is left out of the count.
``python3 make.py bench --only long`` measures a worker's memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

_M_ARENA_MAX = -8


def share_one_heap() -> None:
    """Ask glibc for it, before there are threads; any other C library goes on as it is."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def count_what_comes() -> None:
    """From now on: for a process that has loaded what it needs."""
    gc.collect()
    gc.freeze()
