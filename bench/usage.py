"""What processes use: CPU seconds and memory, of a whole tree, those that ended in it included."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """``cpu`` in seconds since the start; ``pss`` in MiB: memory, shared pages divided among their users."""

    cpu: float
    pss: float


def usage(roots: Iterable[int]) -> Usage:
    """Of these processes and all below them."""
    cpu = pss = 0.0
    for process in _trees(roots):
        with suppress(psutil.Error):
            times = process.cpu_times()
            cpu += times.user + times.system + times.children_user + times.children_system
            pss += process.memory_full_info().pss / 2**20
    return Usage(cpu, pss)


def _trees(roots: Iterable[int]) -> Iterable[psutil.Process]:
    for root in roots:
        with suppress(psutil.Error):
            process = psutil.Process(root)
            yield process
            yield from process.children(recursive=True)
