"""The people of the console: passwords, sessions and one-time links, on both databases."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from mailer import operators
from mailer.errors import ConfigError
from mailer.operators import Role
from mailer.store import operators as rows
from mailer.store.migrations import upgrade
from mailer.store.models import login_links, metadata, sessions
from mailer.store.models import operators as table
from tests.store.conftest import NOW

PASSWORD = "correct horse battery"


@pytest.fixture
def services(store):
    """Just what `mailer.operators` needs, with a clock that stands until a test moves it."""
    clock = SimpleNamespace(now=NOW)
    settings = SimpleNamespace(base_url="https://mail.example.test")
    return SimpleNamespace(store=store, settings=settings, clock=clock, now=lambda: clock.now)


def stored(services, column: sa.Column) -> list:
    with services.store.read() as connection:
        return list(connection.scalars(sa.select(column)))


def person(services, name="ada@example.test", **given):
    return operators.create_operator(services, name, given.pop("role", Role.SUPPORT), **given)


def token_of(link: str) -> str:
    return link.rpartition("/")[2]


def test_nobody_exists_by_default(services):
    """UI4: there is no default account."""
    assert stored(services, table.c.name) == []
    assert operators.log_in(services, "admin", "admin") is None


def test_a_name_is_one_person_however_it_is_written(services):
    """Names are kept in lower case and are unique."""
    assert person(services, " Ada@Example.TEST ").name == "ada@example.test"
    with pytest.raises(ConfigError, match="name: 'ada@example.test' is taken"):
        person(services, "ADA@example.test")


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "two words"}),
        ("name", {"name": "bell\a"}),
        ("role", {"role": "root"}),
        ("password", {"password": "short"}),
        ("password", {"password": "x" * 513}),
    ],
)
def test_what_is_no_good_is_refused_by_name(services, field, given):
    """A refusal names the field, and nothing is stored."""
    with pytest.raises(ConfigError, match=f"^{field}: "):
        person(services, **given)
    assert stored(services, table.c.name) == []


def test_the_database_refuses_a_role_nobody_defined(store):
    """The constraint holds where the code does not."""
    with pytest.raises(sa.exc.IntegrityError), store.engine.begin() as connection:
        rows.create_operator(connection, "eve", "root", None, NOW)


def test_the_password_opens_and_nothing_else_does(services):
    """UI4: argon2id; wrong, unknown, disabled and password-less are one answer."""
    made = person(services, password=PASSWORD)
    person(services, "linked")
    assert stored(services, table.c.password_hash)[0].startswith("$argon2id$")
    assert operators.log_in(services, "Ada@example.test", PASSWORD)
    assert operators.log_in(services, "ada@example.test", PASSWORD + "!") is None
    assert operators.log_in(services, "nobody", PASSWORD) is None
    assert operators.log_in(services, "linked", "") is None
    assert operators.log_in(services, "ada@example.test", "x" * 100_000) is None
    with services.store.begin() as connection:
        rows.disable(connection, made.id, NOW)
    assert operators.log_in(services, "ada@example.test", PASSWORD) is None


def test_an_unknown_name_costs_a_hash_too(services, monkeypatch):
    """UI4: the time of an answer does not tell who exists."""
    person(services, password=PASSWORD)
    seen = []
    monkeypatch.setattr(operators, "_matches", lambda hashed, password: seen.append(hashed[:30]))
    operators.log_in(services, "ada@example.test", "wrong password")
    operators.log_in(services, "nobody", "wrong password")
    assert len(seen) == 2
    assert seen[0].rsplit("$", 1)[0] == seen[1].rsplit("$", 1)[0]  # the same parameters, the same work


def test_failures_are_counted_until_a_log_in(services):
    """The person is told how often somebody else tried."""
    made = person(services, password=PASSWORD)
    for _ in range(3):
        operators.log_in(services, made.name, "wrong password")
    with services.store.read() as connection:
        assert rows.operator(connection, made.name).failed_logins == 3
    operators.log_in(services, made.name, PASSWORD)
    with services.store.read() as connection:
        now_known = rows.operator(connection, made.name)
    assert (now_known.failed_logins, now_known.last_login_at) == (0, NOW)


def test_only_hashes_are_stored(services):
    """A copy of the tables lets nobody in: no token, link or password is in it."""
    person(services, password=PASSWORD)
    token = operators.log_in(services, "ada@example.test", PASSWORD)
    link = operators.make_login_link(services, "ada@example.test")
    everything = repr([stored(services, c) for t in (table, sessions, login_links) for c in t.columns])
    for secret in (PASSWORD, token, token_of(link)):
        assert secret not in everything


def test_a_session_idles_out(services):
    """UI4: 30 minutes without a deed end a session; a deed keeps it, a page refreshing itself does not."""
    person(services, password=PASSWORD)
    token = operators.log_in(services, "ada@example.test", PASSWORD)
    for minute in (20, 40, 60):
        services.clock.now = NOW + timedelta(minutes=minute)
        assert operators.person_of(services, token)
    services.clock.now += timedelta(minutes=20)
    assert operators.person_of(services, token, active=False)
    services.clock.now += timedelta(minutes=10)
    assert operators.person_of(services, token) is None


def test_a_session_ends_after_twelve_hours(services):
    """UI4: the absolute limit holds for the busiest person."""
    person(services, password=PASSWORD)
    token = operators.log_in(services, "ada@example.test", PASSWORD)
    for _ in range(71):
        services.clock.now += timedelta(minutes=10)
        assert operators.person_of(services, token)
    services.clock.now += timedelta(minutes=10)
    assert operators.person_of(services, token) is None


def test_sessions_end_on_the_server(services):
    """UI4: log-out, a new password and disabling leave no session alive."""
    made = person(services, password=PASSWORD)

    def after(deed) -> object:
        token = operators.log_in(services, made.name, PASSWORD)
        assert operators.person_of(services, token)
        deed(token)
        return operators.person_of(services, token)

    def disable(_token) -> None:
        with services.store.begin() as connection:
            rows.disable(connection, made.id, NOW)

    assert after(lambda token: operators.end_session(services, token)) is None
    assert after(lambda _: operators.set_password(services, made.name, PASSWORD)) is None
    assert after(disable) is None


def test_a_link_lets_in_once(services):
    """A one-time link opens one session, and is used up."""
    person(services)
    link = operators.make_login_link(services, "Ada@example.test")
    assert link.startswith("https://mail.example.test/console/enter/")
    token = operators.enter(services, token_of(link))
    assert operators.person_of(services, token).name == "ada@example.test"
    assert operators.enter(services, token_of(link)) is None
    assert operators.enter(services, "x" * 43) is None
    assert operators.enter(services, "\ud800") is None


def test_a_link_is_used_once_by_many_at_a_time(services):
    """Of several who redeem a link at the same moment, one gets in."""
    person(services)
    token = token_of(operators.make_login_link(services, "ada@example.test"))
    gate, entered = threading.Barrier(8), []

    def redeem() -> None:
        gate.wait()
        entered.append(operators.enter(services, token))

    threads = [threading.Thread(target=redeem) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entered) == 8
    assert sum(token is not None for token in entered) == 1


def test_a_link_goes_stale_and_dies_with_its_person(services):
    """15 minutes, and not for somebody who was disabled meanwhile."""
    made = person(services)
    late, barred = (token_of(operators.make_login_link(services, made.name)) for _ in range(2))
    with services.store.begin() as connection:
        rows.disable(connection, made.id, NOW)
    assert operators.enter(services, barred) is None
    with services.store.begin() as connection:
        rows.enable(connection, made.id)
    services.clock.now = NOW + timedelta(minutes=15)
    assert operators.enter(services, late) is None
    with pytest.raises(ConfigError, match="nobody is called 'eve'"):
        operators.make_login_link(services, "eve")


def test_each_role_may_what_the_one_before_may():
    """UI7: viewer, support, admin."""
    assert [role.includes(Role.SUPPORT) for role in Role] == [False, True, True]
    assert Role.ADMIN.includes(Role.VIEWER)


def test_the_migrations_make_the_tables_of_the_models(store):
    """The second migration says what models.py says, and a second run changes nothing."""
    upgrade(store.engine)
    found = sa.inspect(store.engine)
    for made in (table, sessions, login_links):
        assert {c["name"] for c in found.get_columns(made.name)} == {c.name for c in made.columns}
        assert made.name in metadata.tables


def test_everybody_can_be_listed(services):
    """By name, without a hash in it."""
    for name in ("eve", "ada"):
        person(services, name)
    with services.store.begin() as connection:
        rows.set_role(connection, rows.operator(connection, "eve").id, Role.VIEWER)
        everybody = rows.all_operators(connection)
    assert [(p.name, p.role) for p in everybody] == [("ada", Role.SUPPORT), ("eve", Role.VIEWER)]
    assert isinstance(everybody[0].created_at, datetime)
