"""Keys of the HTTP API, the pages that they see, and batches under an idempotency key, on both databases."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from mailer import keys
from mailer.errors import InvalidMessage
from mailer.keys import Scope
from mailer.origin import TEST
from mailer.store import batches, listing, queries
from mailer.store import keys as rows
from mailer.store.batches import BatchRow
from mailer.store.keys import KeyRow
from mailer.store.listing import Sight
from mailer.store.models import api_keys
from tests.store.conftest import NOW

MINUTE = timedelta(minutes=1)


@pytest.fixture
def services(store):
    """Just what `mailer.keys` needs, with a clock that stands until a test moves it."""
    clock = SimpleNamespace(now=NOW)
    return SimpleNamespace(store=store, clock=clock, now=lambda: clock.now)


# Keys


def test_a_key_is_long_random_and_checkable():
    """AK1: at least 160 bits beside what is shown of it; a scanner knows it by its checksum."""
    token, test = keys.new_token(), keys.new_token(is_test=True)
    assert keys.PATTERN.fullmatch(token)
    assert keys.is_key(token)
    assert keys.is_key(test)
    assert test.startswith("re_test_")
    assert not keys.is_key(token[:-1] + ("0" if token[-1] != "0" else "1"))
    assert not keys.is_key("re_123456789")
    assert 62 ** (len(token) - len("re_") - 8 - 6) > 2**160
    assert len({keys.new_token() for _ in range(100)}) == 100


def test_a_key_opens_and_nothing_like_it_does(services):
    """AK1, AK3: the whole key, once made; not its prefix, its hash, or another."""
    made, token = keys.create(services, "shop", scopes=["send"], domains=["Acme.test"])
    found = keys.who(services, token)
    assert (found.id, found.project, found.scopes, found.domains) == (
        *(made.id, made.project, ["send"]),
        ["acme.test"],
    )
    for wrong in (made.prefix, keys.digest(token), keys.new_token(), token + "x", token[:-1], "", "\ud800"):
        assert keys.who(services, wrong) is None


def test_only_a_hash_is_stored(services):
    """AK1: a copy of the table opens nothing."""
    _made, token = keys.create(services, "shop")
    with services.store.read() as connection:
        [row] = connection.execute(sa.select(api_keys)).mappings()
    assert token not in str(dict(row))
    assert token[11:] not in str(dict(row))
    assert row["key_hash"] == keys.digest(token)


def test_what_is_over_opens_nothing(services):
    """AK1: expiry and revocation hold at the next look."""
    made, token = keys.create(services, "a", expires_at=NOW + MINUTE)
    other, second = keys.create(services, "b")
    assert keys.who(services, token).id == made.id
    services.clock.now += MINUTE
    assert keys.who(services, token) is None
    assert not keys.revoke(services, other.id, project="another project")
    assert keys.who(services, second).id == other.id
    assert keys.revoke(services, other.id)
    assert not keys.revoke(services, other.id)
    assert keys.who(services, second) is None


def test_the_last_use_is_noted_once_a_minute(services):
    """AK1: not at each request, each of which would wait for SQLite's one write lock."""
    _made, token = keys.create(services, "shop")
    notes = []
    for _ in range(5):
        keys.who(services, token)
        with services.store.read() as connection:
            notes.append(rows.all_keys(connection)[0].used_at)
        services.clock.now += MINUTE / 4
    assert notes == [NOW, NOW, NOW, NOW, NOW + MINUTE]
    with services.store.begin() as connection:
        rows.note_use(connection, rows.all_keys(connection)[0].id, NOW + MINUTE)
        assert rows.all_keys(connection)[0].used_at == NOW + MINUTE


def test_projects_are_made_once(services):
    """Keys that name one project share it; its keys are listed newest first, without those of others."""
    first, _ = keys.create(services, "a", project="shop")
    second, _ = keys.create(services, "b", project="shop")
    other, _ = keys.create(services, "c", project="blog")
    assert first.project == second.project != other.project
    with services.store.begin() as connection:
        assert [key.id for key in rows.all_keys(connection, first.project)] == [second.id, first.id]
        assert len(rows.all_keys(connection)) == 3
        assert rows.ensure_project(connection, "fresh", "shop", NOW) == (first.project, False)
        assert rows.ensure_project(connection, "fresh", "new", NOW) == ("fresh", True)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("name", {"name": " "}),
        ("name", {"name": "x" * 65}),
        ("name", {"name": "two\nlines"}),
        ("project", {"project": ""}),
        ("scopes", {"scopes": ["sned"]}),
        ("scopes", {"scopes": []}),
        ("domains", {"domains": ["no domain"]}),
        ("expires_at", {"expires_at": NOW}),
    ],
)
def test_what_is_no_good_is_refused_by_name(services, field, given):
    """A refusal names the field, and no key is made."""
    with pytest.raises(InvalidMessage, match=f"^{field}: "):
        keys.create(services, **{"name": "shop", **given})
    with services.store.read() as connection:
        assert rows.all_keys(connection) == []


def test_scopes_allow_what_they_say():
    """AK2: admin allows everything, read_bodies allows read, and nothing else allows anything else."""
    allowed = {scope: {wanted for wanted in Scope if scope.allows(wanted)} for scope in Scope}
    assert allowed == {
        Scope.SEND: {Scope.SEND},
        Scope.READ: {Scope.READ},
        Scope.READ_BODIES: {Scope.READ, Scope.READ_BODIES},
        Scope.SUPPRESSIONS: {Scope.SUPPRESSIONS},
        Scope.ADMIN: set(Scope),
    }


def test_a_key_is_looked_up_by_its_hash(services):
    """The row comes with the hash as stored, to be compared in constant time."""
    made, token = keys.create(services, "shop")
    with services.store.begin() as connection:
        assert rows.by_hash(connection, keys.digest(token)) == (made, keys.digest(token))
        assert rows.by_hash(connection, keys.digest("other")) is None
        again = KeyRow(**{name: getattr(made, name) for name in made.__dataclass_fields__} | {"id": "again"})
        with pytest.raises(sa.exc.IntegrityError):
            rows.add_key(connection, again, keys.digest(token))
    assert keys.who(services, token).is_good(NOW)


# Pages


def test_pages_go_both_ways_and_show_one_project(store, accept):
    """AK4: after is older, before is newer, and another project's messages are nowhere."""
    ids = sorted(accept(project="p", id=f"{n:08}-0000-0000-0000-000000000000") for n in range(7))[::-1]
    accept(project="q")
    accept()
    held = accept(project="p", carrier=TEST, id="00000099-0000-0000-0000-000000000000")
    ids = [held, *ids]
    sight = Sight("p")
    with store.read() as connection:

        def page(*args, **cursors):
            found = listing.page(connection, *args, **cursors)
            return [view.id for view in found.found], found.has_more

        assert page(sight, 3) == (ids[:3], True)
        assert page(sight, 3, after=ids[2]) == (ids[3:6], True)
        assert page(sight, 3, after=ids[5]) == (ids[6:], False)
        assert page(sight, 3, before=ids[5]) == (ids[2:5], True)
        assert page(sight, 3, before=ids[2]) == (ids[:2], False)
        assert page(Sight("p", captive=True), 5) == ([held], False)
        assert listing.sees(connection, sight, ids[3])
        assert not listing.sees(connection, Sight("p", captive=True), ids[3])
        assert not listing.sees(connection, Sight("q"), ids[3])
        assert [view.id for view in queries.of_ids(connection, ids[:2])] == ids[:2]


def test_a_page_is_found_by_an_index(store, accept):
    """The list of a project costs the same however many messages others have."""
    accept(project="p")
    query = str(
        sa.select(listing.m.id).where(*Sight("p").conditions()).order_by(listing.m.id.desc()).limit(2)
        .compile(dialect=store.engine.dialect, compile_kwargs={"literal_binds": True})
    )  # fmt: skip
    with store.read() as connection:
        if connection.dialect.name == "sqlite":
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all())
            assert "ix_mailer_messages_project" in plan
            assert "TEMP B-TREE" not in plan
        else:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plan = str(connection.exec_driver_sql(f"EXPLAIN {query}").all())
            assert "ix_mailer_messages_project" in plan


# Batches


def batch(**changes) -> BatchRow:
    return BatchRow(
        **{"scope": "s", "key": "k", "fingerprint": "f", "created_at": NOW, "answer": [1]} | changes
    )


def test_the_first_batch_has_the_key(store):
    """The second learns what the first was told; another scope is another key; after a day it is free."""
    with store.begin() as connection:
        assert batches.claim(connection, batch(), NOW - MINUTE) is None
        assert batches.claim(connection, batch(fingerprint="g"), NOW - MINUTE) == batch()
        assert batches.claim(connection, batch(scope="t"), NOW - MINUTE) is None
        later = batch(created_at=NOW + 2 * MINUTE, answer=[2])
        assert batches.claim(connection, later, NOW + MINUTE) is None
        assert batches.claim(connection, batch(), NOW + MINUTE) == later
        assert batches.drop_old(connection, NOW + MINUTE, 10) == 1
        assert batches.drop_old(connection, NOW + 3 * MINUTE, 10) == 1


def test_of_batches_at_the_same_moment_one_has_the_key(store):
    """RT10: the others wait for its commit, and then learn of it."""
    told, ready = [], threading.Barrier(6)

    def claim(number: int) -> None:
        ready.wait()
        with store.begin() as connection:
            told.append(batches.claim(connection, batch(answer=[number]), NOW - MINUTE))

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert told.count(None) == 1
    assert len({str(row.answer) for row in told if row}) == 1
