"""Accounts on both databases: who may use a link, once, and what makes links and sessions void."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from mailer.store import accounts
from mailer.store.accounts import SignUp
from tests.store.conftest import NOW

ADA = "ada@example.test"


@pytest.fixture
def ada(store):
    with store.begin() as connection:
        return accounts.sign_up(connection, "Ada@example.test", ADA, "hash", "browser", NOW)[1]


def stored(store, ada) -> sa.Row:
    with store.read() as connection:
        return connection.execute(sa.select(accounts.users).where(accounts.users.c.id == ada.id)).one()


def test_a_sign_up_is_new_renewed_or_left_as_it_is(store, ada):
    """Until somebody proves the mailbox, whoever signs up last starts afresh; then nobody does."""
    before = stored(store, ada)
    with store.begin() as connection:
        came, who = accounts.sign_up(connection, ADA, ADA, "other", "browser2", NOW)
    assert (came, who) == (SignUp.RENEWED, ada)
    assert stored(store, ada).password == "other"
    assert stored(store, ada).verify_nonce != before.verify_nonce
    assert stored(store, ada).fs_uniquifier != before.fs_uniquifier
    with store.begin() as connection:
        assert accounts.verify(connection, ada.id, stored_nonce(connection, ada, "verify_nonce"), NOW)
        assert accounts.sign_up(connection, ADA, ADA, "third", "b", NOW) == (SignUp.EXISTS, ada)
        assert accounts.sign_up(connection, "b@x.test", "b@x.test", "h", "b", NOW)[0] is SignUp.CREATED
    assert stored(store, ada).password == "other"


def stored_nonce(connection, ada, name: str) -> str:
    return getattr(accounts.redeemable(connection, ada.id), name)


def test_of_many_who_sign_up_at_once_one_is_new(store):
    """Two clicks make one account."""
    came, start = [], threading.Barrier(6)

    def sign_up() -> None:
        start.wait()
        with store.begin() as connection:
            came.append(accounts.sign_up(connection, ADA, ADA, "hash", "browser", NOW)[0])

    threads = [threading.Thread(target=sign_up) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert came.count(SignUp.CREATED) == 1
    assert came.count(SignUp.RENEWED) == 5


def test_a_link_works_once_and_a_new_one_voids_it(store, ada):
    """Asking again makes the links before void; using one makes all void."""
    with store.begin() as connection:
        first = stored_nonce(connection, ada, "verify_nonce")
        assert accounts.ask_to_verify(connection, ADA) == ada
        second = stored_nonce(connection, ada, "verify_nonce")
        assert not accounts.verify(connection, ada.id, first, NOW)
        assert accounts.verify(connection, ada.id, second, NOW, "chosen by link")
        assert not accounts.verify(connection, ada.id, second, NOW)
        assert accounts.ask_to_verify(connection, ADA) is None, "verified already"
        assert accounts.redeemable(connection, ada.id).confirmed
    assert stored(store, ada).password == "chosen by link"


def test_a_reset_ends_sessions_and_proves_the_mailbox(store, ada):
    """The first proof of the mailbox counts; a later one does not move it."""
    before = stored(store, ada)
    with store.begin() as connection:
        assert accounts.ask_to_reset(connection, "nobody@x.test") is None
        assert accounts.ask_to_reset(connection, ADA) == ada
        nonce = stored_nonce(connection, ada, "reset_nonce")
        assert not accounts.reset(connection, ada.id, before.reset_nonce, NOW, "new")
        assert accounts.reset(connection, ada.id, nonce, NOW, "new")
        assert not accounts.reset(connection, ada.id, nonce, NOW, "newer")
        again = stored_nonce(connection, ada, "reset_nonce")
        assert accounts.reset(connection, ada.id, again, NOW + timedelta(days=1), "newest")
    after = stored(store, ada)
    assert (after.password, after.confirmed_at) == ("newest", NOW)
    assert after.fs_uniquifier != before.fs_uniquifier


def test_a_password_is_replaced_by_who_knows_it(store, ada):
    """Of two that replace the same one, the first wins; new hashing parameters end no session."""
    with store.begin() as connection:
        accounts.rehash(connection, ada.id, "hash", "same, hashed anew")
        before = accounts.redeemable(connection, ada.id)
        accounts.rehash(connection, ada.id, "hash", "too late")
        assert accounts.change_password(connection, ada.id, "same, hashed anew", "changed")
        assert not accounts.change_password(connection, ada.id, "same, hashed anew", "too late")
        assert accounts.redeemable(connection, ada.id).reset_nonce != before.reset_nonce
    assert stored(store, ada).password == "changed"


def test_who_is_disabled_or_forgotten_has_no_link(store, ada):
    """Neither unknown nor disabled people can be told from each other."""
    with store.begin() as connection:
        connection.execute(sa.update(accounts.users).values(active=False))
        assert accounts.ask_to_reset(connection, ADA) is None
        assert accounts.ask_to_verify(connection, ADA) is None
        assert accounts.redeemable(connection, ada.id) is None
        assert accounts.forget(connection, ADA) == 1
        assert accounts.forget(connection, ADA) == 0
