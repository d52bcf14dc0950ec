"""Mailer beside the plain recipe and django-post-office, in one run on this machine.

``python3 make.py bench`` prints the tables; ``--only drain`` one of them, ``--rounds 1`` is quicker.
Contenders take turns within each round, and medians over the rounds are compared, because machines are noisy:
trust the ratios of one run, not its rates, and neither across runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from bench import contenders as c
from bench import limit
from bench.contenders import Contender, Server, Setting
from bench.distance import Distance
from bench.measures import Figures, drain, light, long, signing, together, urgent
from bench.place import Place
from bench.sink import Sink

ROUND_TRIP = 0.04
# The tables


class Comparison:
    """Everything is measured in one place, with one sink of each kind."""

    def __init__(self, place: Place, rounds: int, scale: float) -> None:
        self._place, self._rounds, self._scale = place, rounds, scale

    def drain(self) -> None:
        """Next door, from a full queue."""
        who = [c.RECIPE_4, c.KEPT, c.PEER, c.PEER_POSTGRES, c.SQLITE, c.POSTGRES]
        with self._next_door() as (sink, server):
            found = self._measure(who, lambda contender: self._drain(contender, server, sink))
            found |= self._limits(sink)
        self._table("Drain: the server next door, the queue full", found, c.RECIPE_4, c.PEER)

    def _limits(self, sink: Sink) -> dict[str, list[Figures]]:
        mails, found = self._mails(20_000), defaultdict(list)
        for _ in range(self._rounds):
            rate, cpu = limit.by_ourselves(sink, mails)
            found["limit: our SMTP alone"].append(Figures(rate, cpu, cpu))
            if program := limit.smtp_source():
                rate, cpu = limit.by_postfix(program, sink, mails)
                found["limit: smtp-source, in C"].append(Figures(rate, cpu, cpu))
        return found

    def together(self) -> None:
        """Next door, one producer and workers at once."""
        who = [c.RECIPE_4, c.PEER, c.PEER_POSTGRES, c.SQLITE, c.POSTGRES]
        with self._next_door() as (sink, server):
            found = self._measure(who, lambda contender: self._run(together, contender, server, sink))
        self._table("Together: one process calls while workers send", found, c.RECIPE_4, c.PEER)

    def far(self) -> None:
        """A round trip of 40 ms, TLS and a log-in."""
        mails = [(c.RECIPE_8, 150), (c.PEER, 800), (c.FAR, 8_000), (c.FAR_POSTGRES, 8_000)]
        number = {contender.name: mails for contender, mails in mails}
        with self._away() as (sink, near, far):
            found = self._measure(
                [contender for contender, _ in mails],
                lambda contender: self._drain(contender, far, sink, number[contender.name]),
            )
            beside = self._measure([c.FAR], lambda contender: self._drain(contender, near, sink))
        self._table("Far away: 40 ms, TLS and a log-in", found, c.RECIPE_8, c.PEER)
        print(
            f"{c.SQLITE.name}, TLS next door: {_median(beside[c.SQLITE.name], 'rate'):,.0f} mails/s;", end=" "
        )
        print(f"far away it keeps {_ratio(found[c.SQLITE.name], beside[c.SQLITE.name]):.2f} of that\n")

    def light(self) -> None:
        """The time of a single mail on an idle system."""
        print("Light load, 20 calls a second: milliseconds from the call to the server's 250\n")
        print(f"{'':34}{'p50':>8}{'p99':>8}")
        with self._next_door() as (sink, server):
            for contender in (c.RECIPE_4, c.SQLITE, c.POSTGRES):
                times = []
                for _ in range(self._rounds):
                    with self._place.setting(contender, server) as setting:
                        times += light(setting, sink, self._mails(200))
                _percentiles(contender.name, times)
        print()

    def urgent(self) -> None:
        """A password reset behind newsletters."""
        bulk, mails = self._mails(50_000), self._mails(100)
        print(f"Urgent mails while {bulk:,} bulk mails go out: milliseconds from the call to the 250\n")
        print(f"{'':34}{'p50':>8}{'p99':>8}")
        with self._next_door() as (sink, server):
            for contender in (c.SQLITE, c.POSTGRES):
                with self._place.setting(contender, server) as setting:
                    _percentiles(contender.name, urgent(setting, sink, bulk, mails))
        print()

    def long(self) -> None:
        """A long queue, from its beginning to its end."""
        mails = self._mails(200_000)
        print(f"A queue of {mails:,}: its beginning and its end\n")
        print(f"{'':34}{'mails/s':>9}{'at end':>9}{'ratio':>7}{'MiB':>7}{'at end':>8}{'ratio':>7}")
        with self._next_door() as (sink, server):
            for contender in (c.SQLITE,):
                with self._place.setting(contender, server) as setting:
                    found = long(setting, sink, mails)
                # The queue is longest at the beginning.
                print(
                    f"{contender.name:34}{found.first:9,.0f}{found.last:9,.0f}{found.first / found.last:7.2f}"
                    f"{found.memory_first:7.0f}{found.memory_last:8.0f}"
                    f"{found.memory_last / found.memory_first:7.2f}"
                )
        print()

    def dkim(self) -> None:
        """What signing with RSA-2048 costs."""
        plain, signed = signing(self._place.folder)
        print(f"DKIM with RSA-2048: {signed:.2f} ms of a CPU for a mail that takes {plain:.2f} ms to make\n")

    def _drain(self, who: Contender, server: Server, sink: Sink, mails: int | None = None) -> Figures:
        with self._place.setting(who, server) as setting:
            return drain(setting, sink, self._mails(mails or who.mails))

    def _run(
        self, way: Callable[[Setting, Sink, int], Figures], who: Contender, server: Server, sink: Sink
    ) -> Figures:
        with self._place.setting(who, server) as setting:
            return way(setting, sink, self._mails(who.mails))

    def _mails(self, number: int) -> int:
        return max(50, int(number * self._scale))

    def _measure(
        self, who: Sequence[Contender], measure: Callable[[Contender], Figures]
    ) -> dict[str, list[Figures]]:
        found: dict[str, list[Figures]] = defaultdict(list)
        for number in range(self._rounds):
            for contender in who:
                print(
                    f"round {number + 1} of {self._rounds}: {contender.name} ...",
                    end=" ",
                    file=sys.stderr,
                    flush=True,
                )
                figures = measure(contender)
                print(
                    f"{figures.rate:,.0f} mails/s, {figures.cpu:.2f} s a 1,000", file=sys.stderr, flush=True
                )
                found[contender.name].append(figures)
        return found

    @contextmanager
    def _next_door(self) -> Iterator[tuple[Sink, Server]]:
        with _ended(Sink()) as sink:
            yield sink, Server(sink.port)

    @contextmanager
    def _away(self) -> Iterator[tuple[Sink, Server, Server]]:
        folder = self._place.folder / "authority"
        folder.mkdir(exist_ok=True)
        with ExitStack() as ends:
            sink = ends.enter_context(_ended(Sink(folder)))
            far = ends.enter_context(_ended(Distance(sink.port, ROUND_TRIP)))
            yield sink, Server(sink.port, sink.ca_file), Server(far.port, sink.ca_file)

    def _table(
        self, title: str, found: Mapping[str, list[Figures]], recipe: Contender, peer: Contender
    ) -> None:
        print(f"{title}\n")
        print(
            f"{'':34}{'mails/s':>9}{'x recipe':>9}{'x peer':>8}{'worker':>8}{'all':>7}{'recipe /':>9}"
            f"{'MiB':>6}{'calls/s':>9}"
        )
        base = found[recipe.name]
        for name, figures in found.items():
            less = _median(base, "cpu") / _median(figures, "cpu")
            print(
                f"{name:34}{_median(figures, 'rate'):9,.0f}{_ratio(figures, base):9.1f}"
                f"{_ratio(figures, found[peer.name]):8.1f}{_median(figures, 'worker_cpu'):8.2f}"
                f"{_median(figures, 'cpu'):7.2f}{less:9.1f}{_median(figures, 'memory'):6.0f}"
                f"{_median(figures, 'calls'):9,.0f}"
            )
        print()


Ending = TypeVar("Ending", Sink, Distance)


@contextmanager
def _ended(server: Ending) -> Iterator[Ending]:
    try:
        yield server
    finally:
        server.end()


def _percentiles(name: str, times: Sequence[float]) -> None:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    print(f"{name:34}{cuts[49]:8.1f}{cuts[98]:8.1f}")


def _median(figures: Sequence[Figures], what: str) -> float:
    return float(statistics.median(getattr(one, what) for one in figures))


def _ratio(figures: Sequence[Figures], base: Sequence[Figures]) -> float:
    return _median(figures, "rate") / _median(base, "rate")


TABLES = ("drain", "together", "far", "light", "urgent", "long", "dkim")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", choices=TABLES, action="append", help="print this table only; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="medians are over so many rounds")
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="X", help="times the usual number of mails"
    )
    args = parser.parse_args()
    with Place() as place:
        comparison = Comparison(place, args.rounds, args.scale)
        for table in args.only or TABLES:
            getattr(comparison, table)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
