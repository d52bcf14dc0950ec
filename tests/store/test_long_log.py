"""A long log answers as a short one does, leaves nothing out, and says where it did not look."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from mailer import retention
from mailer.address import Address
from mailer.states import State
from mailer.store import forgetting, queries, searching
from mailer.store import retention as rows
from mailer.store.models import deliveries, messages
from mailer.store.queries import MessageView, Search
from tests.store import long_log
from tests.store.backlog import analyze, plans_of
from tests.store.conftest import NOW

DAY = timedelta(days=1)
LONG, SHORT = 20_000, 400
MIDDLE = {"since": NOW - 60 * DAY, "until": NOW - 20 * DAY}
SEARCHES = {
    "everything": {},
    **{f"state {state}": {"state": state} for state in State},
    "template": {"template": "order"},
    "template of long ago": {"template": long_log.SEASONAL},
    "template that is none": {"template": "nobody"},
    "lane": {"lane": "bulk"},
    "lane of long ago": {"lane": long_log.SEASONAL_LANE},
    "tag": {"tag": "signup"},
    "tag of one": {"tag": "order-71"},
    "address": {"text": long_log.ARCHIVE.upper()},
    "part of an address": {"text": "READER1"},
    "part of a subject": {"text": "of monday"},
    "part of nothing": {"text": "zzz"},
    "dates": MIDDLE,
    "dates and state": {"state": State.FAILED, **MIDDLE},
    "dates and part": {"text": "mail1", **MIDDLE},
    "state and template": {"state": State.SENT, "template": "receipt"},
    "state and lane of long ago": {"state": State.FAILED, "lane": long_log.SEASONAL_LANE},
    "lane and template": {"lane": "bulk", "template": "receipt"},
    "address and state": {"text": long_log.ARCHIVE, "state": State.SENT},
    "everything at once": {
        "text": long_log.ARCHIVE, "state": State.SENT, "template": "order", "lane": "default", "tag": "shop",
        **MIDDLE,
    },
    "part and all": {"text": "reader", "state": State.SENT, "tag": "signup", "lane": "default", **MIDDLE},
}  # fmt: skip


@pytest.fixture
def short(store, monkeypatch):
    """A log of many windows, and no patience: each answer comes after one of them."""
    long_log.write(store, SHORT, NOW)
    monkeypatch.setattr(searching, "WINDOW", 20)
    monkeypatch.setattr(searching, "PATIENCE_SECONDS", 0)
    return store


@pytest.fixture
def log(store):
    """A longer one, with statistics as a database has them after a while."""
    long_log.write(store, LONG, NOW)
    analyze(store)
    return store


def pages(store, **wanted) -> Iterator[queries.Found]:
    """One page after the other, each where the one before says."""
    before: str | None = None
    while True:
        with store.read() as connection:
            page = queries.search(connection, Search(before=before, limit=7, **wanted))
        yield page
        assert len(page) == 7 or page.looked_back_to or page.next is None, "a page that is not full"
        if page.next is None:
            return
        assert before is None or page.next < before, "it goes on and on"
        before = page.next


def matches(
    m: MessageView, text=None, state=None, template=None, lane=None, tag=None, since=None, until=None
):
    """What a search means, written down a second time."""
    people = [d.recipient.lower() for d in m.deliveries]
    return all((
        text is None or (text.lower() in people if "@" in text else
            any(text.lower() in (word or "").lower() for word in [*people, m.subject, m.template])),
        state is None or state in [d.state for d in m.deliveries],
        template in (None, m.template), lane in (None, m.lane), tag is None or tag in m.tags,
        since is None or m.created_at >= since, until is None or m.created_at < until,
    ))  # fmt: skip


@pytest.mark.parametrize("patience", [0, 60])
def test_pages_bring_each_message_once(short, monkeypatch, patience):
    """Every search, walked to its end by key, brings exactly what it should, the newest first."""
    monkeypatch.setattr(searching, "PATIENCE_SECONDS", patience)
    with short.read() as connection:
        everything = list(queries.search(connection, Search(limit=SHORT)))
        assert len(everything) == SHORT
    tag_rows(short)
    for name, wanted in SEARCHES.items():
        walked = [m.id for page in pages(short, **wanted) for m in page]
        assert walked == [m.id for m in everything if matches(m, **wanted)], name


def tag_rows(store) -> None:
    """Tags as accepting a message writes them."""
    with store.begin() as connection:
        tagged = connection.execute(sa.select(messages.c.id, messages.c.tags)).all()
        pairs = [{"message": row.id, "tag": tag} for row in tagged for tag in row.tags]
        connection.execute(sa.insert(searching.tags), pairs)


def test_new_messages_do_not_disturb_who_pages(short, accept):
    """What comes while somebody pages is newer than the page: nothing is left out or shown twice."""
    seen: list[str] = []
    for number, page in enumerate(pages(short)):
        seen += [m.id for m in page]
        accept(id=f"ffffffff-ffff-7fff-8fff-{number:012x}")
    assert len(seen) == len(set(seen)) == SHORT


def test_a_search_says_how_far_it_looked(short):
    """A part of a word is looked for as long as it may take; then it says back to when, and how to go on."""
    with short.read() as connection:
        found = queries.search(connection, Search(text="zzz"))
        oldest_seen = queries.search(connection, Search(limit=20))[-1]
        assert (list(found), found.next) == ([], oldest_seen.id)
        assert found.looked_back_to == oldest_seen.created_at
    *partial, last = pages(short, text="zzz")
    assert len(partial) == SHORT / 20
    assert all(page.looked_back_to for page in partial)
    assert last.looked_back_to is None


def test_exact_values_are_found_wherever_they_are(short):
    """However little patience: the oldest message, by id, Message-ID, address, template and lane."""
    with short.read() as connection:
        oldest = connection.execute(sa.select(messages).order_by(messages.c.id)).mappings().first()
        person = connection.scalar(
            sa.select(deliveries.c.recipient).where(deliveries.c.message == oldest["id"])
        )
        texts = [oldest["id"], oldest["id"].upper(), oldest["message_id"], oldest["message_id"][1:-1]]
        for text in [*texts, person.upper()]:
            found = queries.search(connection, Search(text=text))
            assert found[-1].id == oldest["id"]
            assert (found.next, found.looked_back_to) == (None, None)
        for wanted in (Search(template=long_log.SEASONAL), Search(lane=long_log.SEASONAL_LANE)):
            assert queries.search(connection, wanted).looked_back_to is None
        assert queries.templates_in_use(connection) == sorted({*long_log.TEMPLATES, long_log.SEASONAL})


def test_a_whole_address_nobody_has_is_looked_for_as_a_part(short):
    """shop.example is the beginning of nobody's domain here, and shop.examp of one."""
    found = [m for page in pages(short, text="archive@shop.examp") for m in page]
    assert found
    assert len(found) == sum(len(page) for page in pages(short, text=long_log.ARCHIVE))


def test_numbers_stop_at_a_most(log):
    """10,000 and more are not counted; fewer are, exactly."""
    with log.read() as connection:
        states = sa.select(deliveries.c.state, sa.func.count(deliveries.c.message.distinct()))
        truth = dict(connection.execute(states.group_by(deliveries.c.state)).all())
        counted = queries.counts(connection)
        assert queries.total(connection) == queries.MOST_COUNTED == 10_000
        assert counted == {State(k): min(v, 10_000) for k, v in truth.items()}
        assert counted[State.SENT] == 10_000 > counted[State.FAILED] > 0


def test_nothing_reads_a_table_from_end_to_end(log, monkeypatch):
    """A console and a command line that stay quick: every statement finds its rows by an index."""
    monkeypatch.setattr(searching, "WINDOW", 200)
    tag_rows(log)
    analyze(log)
    with log.read() as connection:
        oldest = connection.scalar(sa.select(messages.c.id).order_by(messages.c.id).limit(1))
    who = forgetting.Person(Address.parse(long_log.ARCHIVE, "address"), log.sealer)
    asked = {name: (lambda c, w=w: queries.search(c, Search(**w))) for name, w in SEARCHES.items()}
    asked |= {
        "id": lambda c: queries.search(c, Search(text=oldest)),
        "a page far back": lambda c: queries.search(c, Search(before=oldest)),
        "counts": queries.counts,
        "total": queries.total,
        "templates": queries.templates_in_use,
        "show": lambda c: queries.show(c, oldest),
        "erase bodies": lambda c: rows.erase_bodies(c, NOW - 7 * DAY, NOW, 20),
        "purge": lambda c: rows.purge(c, NOW - 90 * DAY, 20),
        "forget: whom it was sent to": lambda c: forgetting.received(c, who),
        "forget: a step": lambda c: forgetting.traces(c, who, oldest, 20),
    }
    for name, act in asked.items():
        for plan in plans_of(log, "mailer_", act):
            # Along an index that has all it asks for, SQLite scans as far as the limit.
            whole = r"SCAN mailer_(?!\w+ USING COVERING INDEX)|Seq Scan on mailer_"
            assert not re.search(whole, plan), f"{name}:\n{plan}"


def test_a_person_is_forgotten_in_steps(short, monkeypatch):
    """PD5: what was sent to them, and then all that names them, however many steps that takes."""
    monkeypatch.setattr(retention, "_LOOK", 30)
    sent = {m.id for page in pages(short, text=long_log.ARCHIVE) for m in page}
    with short.begin() as connection:
        others = [id_ for id_ in connection.scalars(sa.select(messages.c.id)) if id_ not in sent]
        about = sorted(others)[::60]
        change = sa.update(messages).where(messages.c.id.in_(about))
        connection.execute(change.values(subject=f"About {long_log.ARCHIVE}"))
    done = retention.forget(Services(short), long_log.ARCHIVE, by="eve")
    assert (done.messages, done.leaving) == (len(sent) + len(about), 0)
    assert not [m for page in pages(short, text=long_log.ARCHIVE) for m in page]


class Services:
    """What forgetting takes of an application's."""

    def __init__(self, store) -> None:
        self.store = store

    def now(self):
        return NOW
