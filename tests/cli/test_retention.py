"""`mailer purge`, `mailer forget` and `mailer db reseal`, in-process."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from mailer import Mailer
from mailer.cli import mailer
from mailer.cli import retention as commands
from mailer.cli.group import BAD_INPUT, DONE, NOT_SET_UP, UNDER_WAY, WRONG_STATE
from mailer.sealing import Sealer
from mailer.store import deliveries as delivery_rows
from mailer.store import messages as message_rows
from tests.delivery.conftest import build

OLD, NEW = "o" * 32, "n" * 32


@pytest.fixture
def app(tmp_path):
    return build(tmp_path, Mailer(), name="cli", MAILER_SECRET_KEYS=OLD)


@pytest.fixture
def services(app):
    return app.extensions["mailer"]


@pytest.fixture
def run(app):
    """Run a command; answer its exit code, standard output and standard error."""

    def run(*args: str, **options) -> tuple[int, str, str]:
        done = CliRunner().invoke(mailer, args, obj=ScriptInfo(create_app=lambda: app), **options)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


@pytest.fixture
def send(run):
    """Send a text to these, at once or in a minute; answer its id."""

    def send(*to: str, wait: bool = True) -> str:
        recipients = [word for address in to for word in ("--to", address)]
        id_ = run("send", *recipients, "--subject", "Hi", "--text", "Hello", "--in", "0" if wait else "60")[1]
        if wait:
            run("worker", "--once")
        return id_.strip()

    return send


def a_week_later(services) -> None:
    real = services.now
    services.now = lambda: real() + timedelta(days=7, seconds=1)


def test_purge_says_what_would_go_and_then_does_it(run, send, services):
    """PD2: the dry run keeps everything; afterwards show, resend and list say that it was erased."""
    id_ = send("ada@x.test")
    assert run("purge") == (
        DONE,
        "Released 0 idempotency key(s), erased 0 bodies and removed 0 message(s).\n",
        "",
    )
    a_week_later(services)
    said = "Would release 0 idempotency key(s), erase 1 bodies and remove 0 message(s).\n"
    assert [run("purge", "--dry-run")[1] for _ in range(2)] == [said, said]
    assert json.loads(run("purge", "--json")[1]) == {"keys": 0, "bodies": 1, "messages": 0, "dry_run": False}
    code, out, _ = run("show", id_)
    assert (code, out.splitlines()[0]) == (DONE, "SENT  (erased)")
    assert "what it said was erased" in out
    assert json.loads(run("show", id_, "--json")[1])["body_erased_at"] is not None
    code, out, err = run("resend", id_)
    assert (code, out) == (WRONG_STATE, "")
    assert "was erased" in err
    assert len(err.strip().splitlines()) == 1


def test_purge_goes_on_until_nothing_is_left(run, services, monkeypatch):
    """PD2: many small steps, told as they come where somebody looks on."""
    from mailer.retention import Tidied

    steps = [Tidied(messages=200), Tidied(bodies=200), Tidied(keys=7)]
    monkeypatch.setattr("mailer.retention.tidy", lambda _: steps.pop(0))
    assert "Released 7" in run("purge")[1]
    assert steps == []


def test_forget_asks_first_and_says_what_it_did(run, send, monkeypatch):
    """PD5: no without a terminal or a yes; then the counts, and the address is gone from what can be read."""
    send("ada@x.test")
    waits = send("Ada@x.test", wait=False)
    code, _, err = run("forget", "ada@x.test")
    assert (code, "--yes" in err) == (BAD_INPUT, True)
    monkeypatch.setattr(commands, "_asks", lambda: True)
    code, out, err = run("forget", "ada@x.test", input="n\n")
    assert code == 1
    assert "Forget a***@x.test?" in err
    assert "ada@x.test" in run("list")[1]
    code, out, _ = run("forget", "ada@x.test", input="y\n")
    assert code == DONE
    assert out.splitlines()[0].endswith("@invalid stands in 2 message(s) now.")
    assert out.splitlines()[1:] == ["Cancelled 1, erased 2 bodies and 0 account(s)."]
    assert "ada@x.test" not in run("list")[1].lower()
    assert "CANCELLED" in run("show", waits)[1]
    again = json.loads(run("forget", "ada@x.test", "--yes", "--json")[1])
    assert (again["messages"], again["complete"]) == (0, True)


def test_forget_says_when_to_come_again(run, send, services):
    """PD5: what leaves now, and what others still wait for, is exit code 6."""
    held = send("ada@x.test", wait=False)
    send("ada@x.test", "bob@x.test", wait=False)
    with services.store.begin() as connection:
        later = services.now() + timedelta(minutes=2)
        delivery_rows.claim(connection, held, "t", later, timedelta(minutes=9))
    code, out, _ = run("forget", "ada@x.test", "--yes")
    assert code == UNDER_WAY
    assert "1 message(s) are leaving for this address right now" in out
    assert "1 message(s) are under way to others" in out


def test_forget_says_what_stays(run, send, services):
    """PD5: the application's own sender and people of the console are not recipients."""
    send("bob@x.test")
    run("user", "create", "no-reply@acme.test")
    code, out, _ = run("forget", "no-reply@acme.test", "--yes")
    assert code == DONE
    assert "the sender of 1 message(s)" in out
    assert "the name of 1 person(s)" in out


def test_a_typing_error_forgets_nobody(run):
    """PD5: what is no address is bad input."""
    assert run("forget", "ada", "--yes")[0] == BAD_INPUT


def test_reseal_makes_the_old_key_dispensable(run, send, services, tmp_path):
    """PD1: under the old key, then both, then the new one alone; exit code 5 where a key is missing."""
    id_ = send("ada@x.test", wait=False)
    services.store.sealer = Sealer([NEW.encode(), OLD.encode()])
    assert run("db", "reseal")[:2] == (DONE, "Resealed 1 message(s) and 0 second factor(s).\n")
    assert json.loads(run("db", "reseal", "--json")[1]) == {"messages": 0, "second_factors": 0, "left": 0}
    services.store.sealer = Sealer([NEW.encode()])
    with services.store.read() as connection:
        content, _ = message_rows.open_content(connection, id_, services.store.sealer)
    assert content["text"] == "Hello"
    services.store.sealer = Sealer([b"another" * 8])
    code, _, err = run("db", "reseal")
    assert code == NOT_SET_UP
    assert "1 could not be opened" in err
