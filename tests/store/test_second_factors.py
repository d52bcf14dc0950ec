"""The second factor's rows and rules, on both databases."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from types import SimpleNamespace

import pyotp
import pytest
import sqlalchemy as sa

from mailer import operators, second_factor
from mailer.errors import ConfigError
from mailer.operators import CodeNeeded, Role
from mailer.sealing import Sealer
from mailer.store import Store
from mailer.store import operators as rows
from mailer.store.models import half_logins, second_factors
from mailer.store.operators import Operator
from tests.store.conftest import NOW

PASSWORD = "correct horse battery"
STEP = timedelta(seconds=30)


@pytest.fixture
def services(store):
    """Just what the use cases need, with a clock that stands until a test moves it."""
    clock = SimpleNamespace(now=NOW)
    settings = SimpleNamespace(base_url="https://mail.example.test", site_name="Acme")
    return SimpleNamespace(store=store, settings=settings, clock=clock, now=lambda: clock.now)


@pytest.fixture
def ada(services) -> Operator:
    return operators.create_operator(services, "ada", Role.SUPPORT, PASSWORD)


def secret_of(services, person) -> str:
    second_factor.offer(services, person)
    return second_factor.offered(services, person).secret


def code(services, secret: str, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(services.now(), counter_offset=steps)


def wrong(services, secret: str) -> str:
    right = {code(services, secret, steps) for steps in (-1, 0, 1)}
    return next(guess for guess in map("{:06}".format, range(10)) if guess not in right)


@pytest.fixture
def secret(services, ada) -> str:
    """What Ada's app holds; her second factor is on, and no code of now is used."""
    made = secret_of(services, ada)
    assert second_factor.turn_on(services, ada, code(services, made), "")
    services.clock.now += 5 * STEP
    return made


def halfway(services) -> str:
    found = operators.log_in(services, "ada", PASSWORD)
    assert isinstance(found, CodeNeeded)
    return found.token


def stored(services, *columns: sa.Column) -> list:
    with services.store.read() as connection:
        return list(connection.execute(sa.select(*columns)))


def test_nobody_is_asked_before_a_code_came_back(services, ada):
    """UI4: offered, not forced; what was only shown locks nobody out."""
    made = secret_of(services, ada)
    assert not second_factor.is_on(services, ada)
    assert isinstance(operators.log_in(services, "ada", PASSWORD), str)
    assert not second_factor.turn_on(services, ada, wrong(services, made), "")
    assert isinstance(operators.log_in(services, "ada", PASSWORD), str)
    assert second_factor.turn_on(services, ada, code(services, made), "")
    assert isinstance(operators.log_in(services, "ada", PASSWORD), CodeNeeded)


def test_an_offer_replaces_the_one_before_and_never_one_in_use(services, ada):
    """UI4: a secret that somebody saw and left is void; one in use is shown to nobody."""
    first, second = (secret_of(services, ada) for _ in range(2))
    assert first != second
    assert not second_factor.turn_on(services, ada, code(services, first), "")
    assert second_factor.turn_on(services, ada, code(services, second), "")
    second_factor.offer(services, ada)
    assert second_factor.offered(services, ada) is None
    services.clock.now += STEP
    assert second_factor.log_in(services, halfway(services), code(services, second))


def test_the_password_alone_is_no_session(services, ada, secret):
    """UI4: what the password gives opens nothing by itself."""
    token = halfway(services)
    assert operators.person_of(services, token) is None
    assert second_factor.half_in(services, token) == "ada"
    session = second_factor.log_in(services, token, code(services, secret))
    assert operators.person_of(services, session).name == "ada"
    assert second_factor.half_in(services, token) is None
    assert operators.log_in(services, "ada", "wrong password") is None


def test_a_code_works_once(services, ada, secret):
    """UI4, RFC 6238 section 5.2: not a second time, and none older than the last one used."""
    used, older = code(services, secret), code(services, secret, -1)
    assert second_factor.log_in(services, halfway(services), used)
    assert second_factor.log_in(services, halfway(services), used) is None
    assert second_factor.log_in(services, halfway(services), older) is None
    assert not second_factor.turn_off(services, ada, used)
    assert second_factor.log_in(services, halfway(services), code(services, secret, 1))


def test_the_code_that_turned_it_on_is_used(services, ada):
    """UI4: whoever watched it being typed cannot use it at the log-in."""
    made = secret_of(services, ada)
    used = code(services, made)
    assert second_factor.turn_on(services, ada, used, "")
    assert second_factor.log_in(services, halfway(services), used) is None


@pytest.mark.parametrize(("steps", "lets_in"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_clocks_may_differ_by_one_step(services, ada, secret, steps, lets_in):
    """UI4: 30 seconds early or late, no more."""
    found = second_factor.log_in(services, halfway(services), code(services, secret, steps))
    assert (found is not None) == lets_in


def test_the_codes_are_those_of_the_rfc(services, ada):
    """RFC 6238, appendix B: the vector for 59 seconds, of which an app shows six digits."""
    twenty_digits = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    at = NOW.fromtimestamp(59, NOW.tzinfo)
    assert second_factor._step_of("287 082", at, twenty_digits) == 1


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "\ud800", "1" * 100_000])
def test_what_is_no_code_is_only_wrong(services, ada, secret, typed):
    """Nothing that can be typed makes an error."""
    assert second_factor.log_in(services, halfway(services), typed) is None


def test_of_many_with_the_same_code_one_gets_in(services, ada, secret):
    """UI4: a code that was looked at over a shoulder is worth nothing, at the same moment either."""
    tokens = [halfway(services) for _ in range(6)]
    gate, entered, typed = threading.Barrier(6), [], code(services, secret)

    def enter(token: str) -> None:
        gate.wait()
        entered.append(second_factor.log_in(services, token, typed))

    threads = [threading.Thread(target=enter, args=(token,)) for token in tokens]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(entered) == 6
    assert sum(session is not None for session in entered) == 1


def test_a_half_log_in_goes_stale_and_dies_with_its_person(services, ada, secret):
    """UI4: five minutes, and not past a new password, a reset, or being disabled."""

    def after(deed) -> str | None:
        services.clock.now += 2 * STEP
        token = halfway(services)
        deed()
        return second_factor.log_in(services, token, code(services, secret))

    def late() -> None:
        services.clock.now += operators.CODE_WAIT

    def disable() -> None:
        with services.store.begin() as connection:
            rows.disable(connection, ada.id, NOW)
            rows.enable(connection, ada.id)

    assert after(lambda: None)
    assert after(late) is None
    assert after(disable) is None
    assert after(lambda: operators.set_password(services, "ada", PASSWORD)) is None
    assert after(lambda: second_factor.reset(services, "ada")) is None
    assert stored(services, half_logins.c.operator) == []


def test_one_persons_code_is_not_anothers(services, ada, secret):
    """A sealed secret is bound to its person, and so is a code."""
    eve = operators.create_operator(services, "eve", Role.ADMIN, PASSWORD)
    made = secret_of(services, eve)
    assert second_factor.turn_on(services, eve, code(services, made), "")
    services.clock.now += STEP
    assert second_factor.log_in(services, halfway(services), code(services, made)) is None
    (sealed,) = stored(services, second_factors.c.secret, second_factors.c.operator)[:1]
    other = eve if sealed.operator == ada.id else ada
    with services.store.begin() as connection:
        moved = sa.update(second_factors).where(second_factors.c.operator == other.id)
        connection.execute(moved.values(secret=sealed.secret))
    with pytest.raises(ConfigError, match="reset-2fa"):
        second_factor.turn_off(services, other, "123456")


def test_turning_it_on_ends_the_sessions_that_began_without(services, ada):
    """UI4: only the one in which it was turned on goes on."""
    here, elsewhere = (operators.log_in(services, "ada", PASSWORD) for _ in range(2))
    made = secret_of(services, ada)
    assert second_factor.turn_on(services, ada, code(services, made), here)
    assert operators.person_of(services, here)
    assert operators.person_of(services, elsewhere) is None


def test_turning_it_off_takes_a_code(services, ada, secret):
    """UI4: an unwatched browser is not enough."""
    assert not second_factor.turn_off(services, ada, wrong(services, secret))
    assert second_factor.is_on(services, ada)
    assert second_factor.turn_off(services, ada, code(services, secret))
    assert isinstance(operators.log_in(services, "ada", PASSWORD), str)


def test_who_lost_the_app_gets_in_by_link_or_reset(services, ada, secret):
    """UI4: a link from the server's command line asks for no code; a reset ends what was open."""
    link = operators.make_login_link(services, "ada")
    session = operators.enter(services, link.rpartition("/")[2])
    assert operators.person_of(services, session)
    assert second_factor.reset(services, "Ada")
    assert operators.person_of(services, session) is None
    assert not second_factor.reset(services, "ada")
    assert isinstance(operators.log_in(services, "ada", PASSWORD), str)
    with pytest.raises(ConfigError, match="nobody is called 'eve'"):
        second_factor.reset(services, "eve")


def test_the_secret_is_in_no_table_and_no_log(services, ada, caplog):
    """UI4: sealed at rest; neither it nor a code is ever logged, and only a hash of the token is kept."""
    with caplog.at_level(logging.INFO, "mailer"):
        made = secret_of(services, ada)
        typed = [code(services, made), code(services, made, 1)]
        second_factor.turn_on(services, ada, typed[0], "")
        token = halfway(services)
        kept = repr([stored(services, *table.c) for table in (second_factors, half_logins)])
        second_factor.log_in(services, token, "000000")
        second_factor.log_in(services, token, typed[1])
    for event in ("console.second_factor_on", "console.code_refused", "console.logged_in"):
        assert event in caplog.text
    for hidden in (made, token, *typed):
        assert hidden not in kept
        assert hidden not in caplog.text


def test_a_used_factor_moves_to_the_new_key(services, ada, secret):
    """A key can be rotated: the secret is sealed anew with each code, so the old key can go."""
    engine, old, new = services.store.engine, b"k" * 32, b"n" * 32
    services.store = Store(engine, Sealer([new, old]))
    assert second_factor.log_in(services, halfway(services), code(services, secret))
    services.store = Store(engine, Sealer([new]))
    services.clock.now += STEP
    assert second_factor.log_in(services, halfway(services), code(services, secret))
