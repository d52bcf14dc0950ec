"""How quickly the console and the command line answer on a log of 5,000,000 messages.

Writes such a log, brings its tables from revision 0006 to the newest, and asks what people ask: on SQLite,
then on Postgres. Prints medians and the slowest hundredth in milliseconds. Takes about half an hour and 15 GB
of the temporary folder at its full size, so it runs only when it is asked for::

    python3 make.py bench --only log --scale 0.02
    python3 make.py bench log --store sqlite
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bench.place import Place
from mailer.address import Address
from mailer.sealing import Sealer
from mailer.states import State
from mailer.store import Store, create_engine, forgetting, queries, sweeps
from mailer.store import deliveries as rows
from mailer.store import messages as message_rows
from mailer.store import retention as kept
from mailer.store.migrations import to, upgrade
from mailer.store.queries import Search
from tests.store import long_log
from tests.store.conftest import new_message

MESSAGES = 5_000_000
BEFORE = "0006"
AS_BEFORE = (
    "DROP INDEX ix_mailer_messages_lane",
    "DROP INDEX ix_mailer_messages_template",
    "DROP INDEX ix_mailer_messages_copies",
    "DROP INDEX ix_mailer_deliveries_person",
    "CREATE INDEX before_copies ON mailer_messages (resent_from)",
    "CREATE INDEX before_recipient ON mailer_deliveries (recipient, id)",
)
"""The indexes of then on the tables of now, which today's code writes."""
"""The revision before the indexes for a long log."""
ROUNDS, MAILS = 30, 1_000
OCTETS_EACH = 3_000
"""Of disk for a message, with what the database needs beside its tables for a while."""
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY, LEASE = timedelta(days=1), timedelta(seconds=60)
Act = Callable[[Connection], object]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="X", help=f"times {MESSAGES:,} messages; 0.02 is quick"
    )
    parser.add_argument("--store", choices=["sqlite", "postgres", "both"], default="both")
    options = parser.parse_args()
    count = max(2_000, int(MESSAGES * options.scale))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < count * OCTETS_EACH:
        needed = count * OCTETS_EACH / 1e9
        raise SystemExit(f"{tempfile.gettempdir()} has not got the {needed:.0f} GB it takes; try --scale")
    with Place() as place:
        for kind in ["sqlite", "postgres"] if options.store == "both" else [options.store]:
            report(place, kind, count)
    return 0


def report(place: Place, kind: str, count: int) -> None:
    with store_of(place, kind, "log") as store:
        seconds = build(store, count)
        print(f"\n{kind}, {count:,} messages; the upgrade to the newest tables took {seconds:.0f} s\n")
        print("| ms | p50 | p99 |\n| --- | --: | --: |")
        for name, makes in asked(store, count).items():
            show(name, [measured(store, makes(number)) for number in range(ROUNDS)])
        began = time.perf_counter()
        steps = walk(store)
        seconds = time.perf_counter() - began
        print(f"\nForgetting a person reads all of it in {steps:,} steps: {seconds:.0f} s")
    cost(place, kind)


def build(store: Store, count: int) -> float:
    """Write the log; answers how many seconds the upgrade took."""
    to(store.engine, BEFORE)
    began = time.monotonic()

    def told(done: int) -> None:
        print(f"\r{done:,} of {count:,} messages, {time.monotonic() - began:.0f} s ", end="", file=sys.stderr)

    long_log.write(store, count, NOW, told=told)
    print("upgrade ... ", end="", file=sys.stderr, flush=True)
    began = time.monotonic()
    upgrade(store.engine)
    took = time.monotonic() - began
    if (
        store.engine.dialect.name == "postgresql"
    ):  # as autovacuum does after a while; SQLite has no such thing
        with store.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("VACUUM ANALYZE"))
    print("done", file=sys.stderr)
    return took


def asked(store: Store, count: int) -> Mapping[str, Callable[[int], Act]]:
    """What is measured: for each, the number of a round to a question, another one each time."""
    chance = random.Random(1)
    some = [_some(store, chance.randrange(2, count - 100)) for _ in range(ROUNDS)]
    names = (*long_log.TEMPLATES, long_log.SEASONAL)
    days = [NOW - chance.randrange(1, 90) * DAY for _ in range(ROUNDS)]
    deep = [_id(store, min(50_000, count // 2) + 7 * n) for n in range(ROUNDS)]
    who = forgetting.Person(Address.parse(long_log.ARCHIVE, "address"), store.sealer)

    def search(**makes: Callable[[int], object]) -> Callable[[int], Act]:
        def made(number: int) -> Act:
            wanted = Search(**{name: make(number) for name, make in makes.items()})  # type: ignore[arg-type]
            return lambda c: queries.search(c, wanted)

        return made

    def always(act: Act) -> Callable[[int], Act]:
        return lambda _: act

    return {
        "first page": search(),
        "page 1,000": search(before=lambda n: deep[n]),
        **{f"state {state}": search(state=lambda _, s=state: s) for state in State},  # type: ignore[misc]
        "a template": search(template=lambda n: names[n % len(names)]),
        "a lane": search(lane=lambda n: ("critical", "default", "bulk", long_log.SEASONAL_LANE)[n % 4]),
        "a tag of many": search(tag=lambda _: "signup"),
        "a tag of one": search(tag=lambda n: f"order-{count - 10 * n - 6}"),
        "an id": search(text=lambda n: some[n].id),
        "a Message-ID": search(text=lambda n: some[n].message_id),
        "a whole address": search(text=lambda n: some[n].deliveries[0].recipient.upper()),
        "an address in every 20th mail": search(text=lambda _: long_log.ARCHIVE),
        "a day": search(since=lambda n: days[n], until=lambda n: days[n] + DAY),
        "failed on a day": search(
            since=lambda n: days[n], until=lambda n: days[n] + DAY, state=lambda _: State.FAILED
        ),
        "failed of a template": search(
            template=lambda n: names[n % len(names)], state=lambda _: State.FAILED
        ),
        "sent of a lane of long ago": search(
            state=lambda _: State.SENT, lane=lambda _: long_log.SEASONAL_LANE
        ),
        "a part of an address": search(text=lambda n: f"reader{n + 10}"),
        "a word of a subject": search(text=lambda _: "Monday"),
        "a part of nothing": search(text=lambda n: f"no such word {n}"),
        "a part of nothing, on a day": search(
            text=lambda n: f"no such word {n}", since=lambda n: days[n], until=lambda n: days[n] + DAY
        ),
        "the numbers of all states": always(lambda c: (queries.counts(c), queries.total(c))),
        "the names of templates": always(queries.templates_in_use),
        "show": lambda n: lambda c: queries.show(c, some[n].id),
        "sweep: whom to wake": always(lambda c: sweeps.due(c, "default", NOW + 2 * LEASE, LEASE, 8)),
        "sweep: lost leases": always(lambda c: sweeps.reap(c, NOW, crash_limit=3, unknown_limit=3)),
        "sweep: too late": always(lambda c: sweeps.expire(c, NOW)),
        "retention: release keys": always(lambda c: message_rows.release_keys(c, NOW, kept.LIMIT)),
        "retention: erase 200 bodies": always(lambda c: kept.erase_bodies(c, NOW, NOW)),
        "retention: remove 200 messages": always(lambda c: kept.purge(c, NOW - 90 * DAY)),
        "forget: whom it was sent to": always(lambda c: forgetting.received(c, who)),
    }


def _some(store: Store, offset: int) -> queries.MessageView:
    with store.read() as connection:
        found = queries.show(connection, _id(store, offset))
    assert found is not None
    return found


def _id(store: Store, offset: int) -> str:
    """Of the message so far behind the newest."""
    with store.read() as connection:
        ids = sa.text("SELECT id FROM mailer_messages ORDER BY id DESC LIMIT 1 OFFSET :offset")
        return str(connection.scalar(ids, {"offset": offset}))


def measured(store: Store, act: Act) -> float:
    """Milliseconds; what it changed is taken back."""
    with store.engine.connect() as connection, connection.begin() as transaction:
        began = time.perf_counter()
        act(connection)
        took = (time.perf_counter() - began) * 1000
        transaction.rollback()
    return took


def show(name: str, figures: list[float]) -> None:
    cuts = statistics.quantiles(figures, n=100, method="inclusive")
    print(f"| {name} | {cuts[49]:.1f} | {cuts[98]:.1f} |", flush=True)


def walk(store: Store) -> int:
    """Look for somebody in every message, as forgetting does; answers in how many steps."""
    who = forgetting.Person(Address.parse("nobody@nowhere.example", "address"), store.sealer)
    steps, last = 0, ""
    while last is not None:
        with store.read() as connection:
            last = forgetting.traces(connection, who, last, 5_000).last  # type: ignore[assignment]
        steps += 1
    return steps


# What the indexes cost those who send


def cost(place: Place, kind: str) -> None:
    """Accept, claim and finish small mails, with the indexes of before and with those of now, in turns."""
    without, those = list[float](), list[float]()
    with store_of(place, kind, "before") as before, store_of(place, kind, "after") as after:
        for store in (before, after):
            upgrade(store.engine)
        with before.begin() as connection:
            for statement in AS_BEFORE:
                connection.exec_driver_sql(statement)
        for _ in range(10):
            without.append(sent(before))
            those.append(sent(after))
    was, now = statistics.median(without), statistics.median(those)
    print(f"Accepting, claiming and finishing a mail in the store: {was:.3f} ms before, {now:.3f} ms with")
    print(f"the new indexes, {now / was:.2f} times that", flush=True)


def sent(store: Store) -> float:
    """Milliseconds for each mail."""
    began = time.perf_counter()
    for _ in range(MAILS // 200):
        with store.begin() as connection:
            for _ in range(200):
                message_rows.accept(connection, new_message(id=_uuid7(), tags=()), store.sealer)
        with store.begin() as connection:
            claimed = rows.claim_due(connection, "default", 200, "t", NOW, LEASE)
        done = [rows.Finish(c.id, c.message, State.SENT, None, 250, "ok", data={}) for c in claimed]
        with store.begin() as connection:
            rows.finish(connection, done, [c.id for c in claimed], NOW)
    return (time.perf_counter() - began) * 1000 / MAILS


def _uuid7() -> str:
    import uuid_utils

    return str(uuid_utils.uuid7())


@contextmanager
def store_of(place: Place, kind: str, name: str) -> Iterator[Store]:
    """An empty store on the disk, gone afterwards."""
    folder = Path(tempfile.mkdtemp(dir=place.folder))
    url = f"sqlite:///{folder / 'store.db'}" if kind == "sqlite" else place.new_database(name)
    store = Store(create_engine(url), Sealer([b"k" * 32]))
    yield store
    store.engine.dispose()
    shutil.rmtree(folder)
    if kind == "postgres":
        place.drop_database(name)


if __name__ == "__main__":
    raise SystemExit(main())
