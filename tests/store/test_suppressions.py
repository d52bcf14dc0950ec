"""The suppression list as it is stored: what is the same address, whose list it is, and what survives."""

from __future__ import annotations

import threading
import uuid

import pytest
import sqlalchemy as sa
import uuid_utils

from mailer.address import Address
from mailer.errors import ConfigError
from mailer.sealing import Sealer
from mailer.store import Store, queries
from mailer.store import keys as key_rows
from mailer.store import messages as message_rows
from mailer.store import suppressions as rows
from mailer.store.forgetting import Person
from mailer.store.keys import ensure_project
from mailer.store.suppressions import Bar, Entry, Wanted, suppressions
from tests.store.backlog import analyze, plan_of
from tests.store.conftest import NOW, new_message


def entry(address: str, project: str | None = None, **changes) -> Entry:
    fields = {"cause": "manual", "detail": None, "created_at": NOW, "by": "eve", "message": None}
    return Entry(id=str(uuid_utils.uuid7()), project=project, address=address, **fields | changes)


def put(store: Store, *new: Entry) -> list[Entry]:
    with store.begin() as connection:
        store.suppressed.ensure_key(connection)
    with store.begin() as connection:
        return store.suppressed.add(connection, list(new))


def barred(store: Store, recipient: str, project: str | None = None) -> bool:
    with store.read() as connection:
        return bool(store.suppressed.bars(connection, [(project, recipient)]))


def project(store: Store, name: str) -> str:
    with store.begin() as connection:
        return ensure_project(connection, str(uuid.uuid4()), name, NOW)[0]


@pytest.mark.parametrize(
    ("listed", "written", "same"),
    [
        ("ada@x.test", "ada@x.test", True),
        ("Ada@X.Test", "aDA@x.tEST", True),
        ("ada@bücher.example", "ada@xn--bcher-kva.example", True),
        ("ada@xn--bcher-kva.example", "ADA@BÜCHER.example", True),
        ("ada@x。test", "ada@x.test", True),  # an ideographic full stop is a dot in a domain
        ("e\u0301va@x.test", "\u00e9va@x.test", True),  # NFC
        ("ada@x.test", "ada+tag@x.test", False),
        ("ada.l@x.test", "adal@x.test", False),
        ("straße@x.test", "strasse@x.test", False),
        ("\u00e4da@x.test", "\u00c4da@x.test", False),  # only A to Z are folded
        ("ada@faß.example", "ada@fass.example", False),
        ("ada@x.test", "ada@sub.x.test", False),
    ],
)
def test_what_is_the_same_address(store, listed, written, same):
    """BN9: the domain in lower case and as A-labels, A to Z of the local part folded, nothing else."""
    put(store, entry(Address.parse(listed).addr_spec))
    assert barred(store, Address.parse(written).addr_spec) is same


def test_a_list_belongs_to_one_project_or_to_the_application(store):
    """BN9: nobody is stopped by, or learns of, what another one put on its list."""
    ours, theirs = project(store, "ours"), project(store, "theirs")
    put(store, entry("a@x.test", ours), entry("b@x.test", theirs), entry("c@x.test"))
    found = {
        (of, who)
        for of in (ours, theirs, None)
        for who in ("a", "b", "c")
        if barred(store, f"{who}@x.test", of)
    }
    assert found == {(ours, "a"), (theirs, "b"), (None, "c")}
    with store.read() as connection:
        assert store.suppressed.find(connection, ours, "b@x.test") is None
        listed, _ = rows.page(connection, Wanted(ours))
        assert [e.address for e in listed] == ["a@x.test"]
        theirs_id = rows.page(connection, Wanted(theirs))[0][0].id
        assert store.suppressed.find(connection, ours, theirs_id) is None


def test_one_look_serves_a_batch_of_several_projects(store):
    """A worker's batch has mails of everybody; each is compared with its own list."""
    ours = project(store, "ours")
    put(store, entry("a@x.test", ours), entry("a@x.test", cause="bounce"), entry("b@x.test"))
    asked = [(None, "a@x.test"), (ours, "A@x.test"), (ours, "b@x.test"), (None, "c@x.test")]
    with store.read() as connection:
        bars = store.suppressed.bars(connection, asked)
    assert {key: bar.cause for key, bar in bars.items()} == {
        (None, "a@x.test"): "bounce",
        (ours, "A@x.test"): "manual",
    }


def test_the_first_entry_stays(store):
    """Adding an address again changes nothing, also twice in one call and in another case."""
    [first] = put(store, entry("ada@x.test", cause="complaint"))
    assert put(store, entry("ADA@x.test"), entry("ada@x.test")) == [first, first]


def test_many_add_the_same_at_once(store):
    """One entry, one key, and everybody is told the same."""
    answers: list[list[Entry]] = []

    def work() -> None:
        own = Store(store.engine, store.sealer)
        answers.append(put(own, *(entry(f"a{n}@x.test") for n in range(20))))

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(answers) == 4
    assert all(answer == answers[0] for answer in answers)
    assert barred(Store(store.engine, store.sealer), "a7@x.test")


def test_a_forgotten_person_still_gets_nothing(store):
    """PD5: the address is gone from the list, and whoever it was is still on it."""
    put(store, entry("ada@x.test", detail="Ada@x.test wrote", by="ada@x.test"), entry("bob@x.test"))
    who = Person(Address.parse("ADA@x.test"), store.sealer)
    with store.begin() as connection:
        assert store.suppressed.forget(connection, who) == 1
        assert store.suppressed.forget(connection, who) == 0
    with store.read() as connection:
        kept = str(connection.execute(sa.select(suppressions)).all())
        assert "ada@x.test" not in kept.lower()
        found = store.suppressed.find(connection, None, "ada@x.test")
    assert (found.address, found.detail) == (None, None)
    assert barred(store, "ada@x.test")
    assert barred(store, "bob@x.test")
    assert put(store, entry("ada@x.test"))[0].id == found.id


def test_the_list_survives_a_change_of_keys(store):
    """PD1: sealed with the new key, also those whose address is gone are recognised without the old one."""
    put(store, entry("ada@x.test"))
    both = Store(store.engine, Sealer([b"n" * 32, b"k" * 32]))
    with both.begin() as connection:
        assert both.suppressed.reseal(connection)
        assert both.suppressed.reseal(connection), "once is enough"
    new = Store(store.engine, Sealer([b"n" * 32]))
    assert barred(new, "ada@x.test")
    lost = Store(store.engine, Sealer([b"x" * 32]))
    with pytest.raises(ConfigError, match="suppression list; put it back"):
        barred(lost, "ada@x.test")
    with lost.begin() as connection:
        assert not lost.suppressed.reseal(connection)


def test_pages_go_both_ways(store):
    """The newest first; a part of an address narrows, and its wildcards are letters."""
    put(store, *(entry(f"a{n}@x.test") for n in range(7)), entry("b_c@y.test"))
    with store.read() as connection:
        whole, more = rows.page(connection, Wanted())
        assert (len(whole), more) == (8, False)
        first, more = rows.page(connection, Wanted(limit=3))
        assert (first, more) == (whole[:3], True)
        second, _ = rows.page(connection, Wanted(limit=3, after=first[-1].id))
        assert second == whole[3:6]
        back, more = rows.page(connection, Wanted(limit=2, before=whole[4].id))
        assert (back, more) == (whole[2:4], True)
        assert [e.address for e in rows.page(connection, Wanted(text="B_C"))[0]] == ["b_c@y.test"]
        assert rows.page(connection, Wanted(text="a_@"))[0] == []


def test_a_look_costs_the_same_on_a_long_list(store):
    """It goes by an index: for the application, and for a project."""
    ours = project(store, "ours")
    put(store, *(entry(f"a{n}@x.test", of) for n in range(3000) for of in (None, ours)))
    analyze(store)
    for of, index in ((None, "own"), (ours, "project")):
        asked = [(of, f"b{n}@x.test") for n in range(50)]
        plan = plan_of(store, "mailer_suppressions", lambda c, asked=asked: store.suppressed.bars(c, asked))
        assert f"uq_mailer_suppressions_{index}" in plan, plan


def test_most_recipients_need_no_look(store, monkeypatch):
    """What accepts mail knows at once of its own entries, and within a second of those of others."""
    now = [100.0]
    monkeypatch.setattr(rows.time, "monotonic", lambda: now[0])
    other, asked = Store(store.engine, store.sealer), [(None, "ada@x.test"), (None, "bob@x.test")]
    put(other, entry("ada@x.test"))
    with store.read() as connection:
        assert store.suppressed.suspects(connection, asked) == asked[:1]
    put(other, entry("BOB@x.test"))
    with store.read() as connection:
        assert store.suppressed.suspects(connection, asked) == asked[:1]
        assert other.suppressed.suspects(connection, asked) == asked
        now[0] += rows.LOOK_EVERY
        assert store.suppressed.suspects(connection, asked) == asked
        assert store.suppressed.suspects(connection, [(None, "eve@x.test")]) == []


def test_an_entry_that_was_committed_late_is_read(store, monkeypatch):
    """Its id is older than what was read before: ids are made first."""
    late = entry("late@x.test")
    put(Store(store.engine, store.sealer), entry("ada@x.test"))
    with store.read() as connection:
        assert store.suppressed.suspects(connection, [(None, "late@x.test")]) == []
    put(Store(store.engine, store.sealer), late)
    store.suppressed._looked = float("-inf")
    with store.read() as connection:
        assert store.suppressed.suspects(connection, [(None, "late@x.test")])


def test_a_list_too_long_to_keep_in_mind_is_looked_up(store, monkeypatch):
    """Then everybody is a suspect, and the look says who is not."""
    monkeypatch.setattr(rows, "MOST_IN_MIND", 3)
    put(Store(store.engine, store.sealer), *(entry(f"a{n}@x.test") for n in range(5)))
    asked = [(None, "bob@x.test"), (None, "a1@x.test")]
    with store.read() as connection:
        assert store.suppressed.suspects(connection, asked) == asked
        assert list(store.suppressed.bars(connection, asked)) == asked[1:]


def test_messages_accepted_together_end_one_by_one(store):
    """Also where the statements go out in one go: the barred delivery ends, and its message if it was all."""
    bar = Bar("bounce", NOW, "e")
    whole = new_message(barred={"ada@example.test": bar})
    both = [("ada@example.test", "to"), ("bob@example.test", "cc")]
    half = new_message(recipients=both, barred={"ada@example.test": bar})
    with store.begin() as connection:
        message_rows.accept_all(connection, [whole, half, new_message()], store.sealer, last=True)
    with store.read() as connection:
        found = {id_: queries.show(connection, id_) for id_ in (whole.id, half.id)}
    assert [d.state.value for d in found[whole.id].deliveries] == ["suppressed"]
    assert [d.state.value for d in found[half.id].deliveries] == ["suppressed", "queued"]
    assert [found[id_].ended_at for id_ in (whole.id, half.id)] == [NOW, None]
    for view in found.values():
        assert [(e.name, e.data) for e in view.events[1:]] == [("suppressed", bar.told("ada@example.test"))]


def test_entries_and_projects_by_id_and_name(store):
    """What the console and the command line look up."""
    ours = project(store, "ours")
    [listed] = put(store, entry("ada@x.test", ours))
    with store.begin() as connection:
        assert rows.by_id(connection, listed.id) == listed
        assert rows.project_names(connection, [ours, "x"]) == {ours: "ours"}
        assert (key_rows.project(connection, "ours"), key_rows.project(connection, "x")) == (ours, None)
        assert rows.remove(connection, listed.id)
        assert not rows.remove(connection, listed.id)
        assert rows.by_id(connection, listed.id) is None
    assert not barred(store, "ada@x.test", ours)
