"""`mailer transports`, and what doctor repeats of it, on a real log-in that is refused."""

from __future__ import annotations

import json

import flask
import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from mailer import Mailer, delivery, send_email
from mailer.cli import mailer
from mailer.cli.group import BAD_INPUT, DONE, NOT_SET_UP
from mailer.store.migrations import upgrade
from tests.peer import Say, Script, SmtpPeer

PASSWORD = "s3cret-word"
REFUSES = Script(credentials=("me", "another"), auth=Say(535, "5.7.8 Error: authentication failed"))


@pytest.fixture
def peers():
    with SmtpPeer(REFUSES) as first, SmtpPeer() as second:
        yield first, second


@pytest.fixture
def app(tmp_path, peers) -> flask.Flask:
    """Two transports, of which the first has a wrong password."""
    first, second = peers
    app = flask.Flask("cli")
    app.config.update(
        MAILER_DATA_DIR=str(tmp_path),
        MAILER_DEFAULT_SENDER="me@acme.test",
        MAILER_TRANSPORTS=f"ses=smtp://me:{PASSWORD}@127.0.0.1:{first.port}"
        "?allow_plain_auth_loopback=1&starttls=off&rate=14&domain_rate=0.5 "
        f"post=smtp://127.0.0.1:{second.port}",
    )
    Mailer(app)
    upgrade(app.extensions["mailer"].store.engine)
    return app


def run(app, *args: str) -> tuple[int, str]:
    done = CliRunner().invoke(mailer, args, obj=ScriptInfo(create_app=lambda: app))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def send(app, count: int = 1) -> list[str]:
    services, ids = app.extensions["mailer"], []
    services.publish = lambda wakeups: None
    with app.app_context():
        for _ in range(count):
            ids.append(send_email.delay(to="ada@x.test", subject="Hi", text="Hello").id)
            delivery.deliver(services, ids[-1])
    services.transport.tally.flush()
    return ids


def test_all_is_well_before_anything_was_sent(app):
    """Each transport is listed, in the order of naming, with its limits."""
    code, out = run(app, "transports")
    assert code == DONE
    head, ses, post = out.splitlines()
    assert head.split() == ["name", "state", "sent", "deferred", "failed", "limits"]
    assert ses.split() == ["ses", "working", "0", "0", "0", "rate=14", "domain_rate=0.5"]
    assert post.split() == ["post", "working", "0", "0", "0"]


def test_a_refused_log_in_is_told_in_words_and_the_mail_goes_another_way(app, peers):
    """SC7: the table, the JSON and doctor say why and what to do, and none of them the password."""
    send(app, 2)
    assert len(peers[1].accepted) == 2
    assert peers[0].connections == 1
    code, out = run(app, "transports")
    _, ses, why, post = out.splitlines()
    assert code == DONE
    assert ses.split()[:3] == ["ses", "resting", "until"]
    assert ses.split()[5:8] == ["0", "1", "0"]
    assert post.split()[2:] == ["2", "0", "0"]
    assert why.strip() == (
        "the server refused the log-in (535 5.7.8 Error: authentication failed); "
        "check the user name and password in MAILER_TRANSPORTS (ses)"
    )
    found = json.loads(run(app, "transports", "--json")[1])
    assert [(c["name"], c["state"], c["last_hour"]["sent"]) for c in found] == [
        ("ses", "resting", 0),
        ("post", "working", 2),
    ]
    assert found[0]["reason"] == "auth_failed"
    assert found[0]["why"] == why.strip()
    code, told = run(app, "doctor")
    assert code == NOT_SET_UP
    assert f"✗ transport: ses rests: {why.strip()}" in told
    assert "run: mailer transports resume ses" in told
    assert "✓ transport: post" in told
    assert PASSWORD not in out + told + json.dumps(found)


def test_a_pause_holds_until_it_is_resumed(app, peers):
    """Nothing goes through it, whatever a server says; who and why is told."""
    code, out = run(app, "transports", "pause", "post", "--reason", "more quota")
    assert (code, out) == (DONE, "post is paused. To use it again: mailer transports resume post\n")
    [id_] = send(app)
    shown = run(app, "show", id_)[1]
    assert "DEFERRED" in shown
    assert not peers[1].connections
    code, out = run(app, "transports")
    assert "paused by" in out
    assert "  more quota" in out
    assert "! transport: post is paused by" in run(app, "doctor")[1]
    assert run(app, "transports", "resume", "post") == (DONE, "Done.\n")
    assert run(app, "transports", "resume", "post") == (DONE, "post works already.\n")
    services = app.extensions["mailer"]
    services.transport.gates._read_at = float("-inf")  # as a second later
    delivery.deliver(services, id_)
    assert len(peers[1].accepted) == 1, "what waited was due at once"


def test_domains_that_asked_for_less_are_named(app, peers):
    """SR6: for how much of the usual is left, in the table and the JSON."""
    peers[1].script.rcpt = Say(451, "4.7.1 too much mail from you")
    send(app)
    out = run(app, "transports")[1]
    assert "  slowed down, as their servers asked: x.test at 1/2" in out.splitlines()
    found = json.loads(run(app, "transports", "--json")[1])
    assert [carrier["slow_domains"] for carrier in found] == [{}, {"x.test": 1}]


def test_another_name_is_refused(app):
    """The answer names those there are."""
    for deed in ("pause", "resume"):
        code, out = run(app, "transports", deed, "sess")
        assert code == BAD_INPUT
        assert "is none of the transports; there are: ses, post" in out
