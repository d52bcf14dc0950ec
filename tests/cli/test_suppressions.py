"""`mailer suppress`, in-process."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from mailer import Mailer, keys
from mailer.cli import mailer
from mailer.cli.group import BAD_INPUT, DONE, NOT_FOUND, NOT_SENT
from tests.delivery.conftest import build


@pytest.fixture
def app(tmp_path):
    return build(tmp_path, Mailer(), name="cli")


@pytest.fixture
def run(app):
    """Run a command; answer its exit code, standard output and standard error."""

    def run(*args: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(mailer, args, obj=ScriptInfo(create_app=lambda: app))
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


def test_an_address_is_put_on_the_list_and_taken_off(run):
    """Each command says what is so now; exit code 3 is for what is not on the list."""
    assert run("suppress", "check", "ada@x.test")[0] == NOT_FOUND
    code, out, _ = run("suppress", "add", "Ada@x.test", "bob@x.test", "--cause", "bounce", "--json")
    added = json.loads(out)
    assert (code, [e["address"] for e in added]) == (DONE, ["Ada@x.test", "bob@x.test"])
    assert json.loads(run("suppress", "check", "ADA@x.test", "--json")[1]) == added[0]
    assert "bounce" in run("suppress", "check", added[0]["id"])[1]
    listed = run("suppress", "list")[1].splitlines()
    assert ["bob@x.test" in listed[0], "Ada@x.test" in listed[1]] == [True, True]
    code, out, err = run("suppress", "list", "--limit", "1")
    assert (len(out.splitlines()), added[1]["id"] in err) == (1, True)
    assert "Ada@x.test" in run("suppress", "list", "--after", added[1]["id"])[1]
    assert "bob" not in run("suppress", "list", "--search", "ada")[1]
    assert run("suppress", "remove", "ada@x.test")[0] == DONE
    assert run("suppress", "remove", "ada@x.test")[0] == NOT_FOUND
    assert len(json.loads(run("suppress", "list", "--json")[1])) == 1


def test_sending_to_it_says_so(run):
    """Exit code 1, the mail did not get through; a resend says it as well."""
    run("suppress", "add", "ada@x.test")
    mail = ("--to", "ada@x.test", "--subject", "Hi", "--text", "Hello")
    assert run("send", *mail, "--wait")[0] == NOT_SENT
    code, out, err = run("send", *mail)
    assert code == DONE
    code, out, err = run("resend", out.strip())
    assert (code, "suppression list" in err) == (DONE, True)
    assert run("resend", out.strip(), "--wait")[0] == NOT_SENT


def test_a_project_has_its_own(app, run):
    """Named, it must be known."""
    keys.create(app.extensions["mailer"], "x", project="ours")
    assert run("suppress", "add", "ada@x.test", "--project", "ours")[0] == DONE
    assert run("suppress", "check", "ada@x.test")[0] == NOT_FOUND
    assert run("suppress", "check", "ada@x.test", "--project", "ours")[0] == DONE
    code, _, err = run("suppress", "list", "--project", "theirs")
    assert (code, "project: is not known" in err) == (BAD_INPUT, True)


def test_what_is_no_address_is_refused(run):
    """And nothing of the same call is added."""
    code, _, err = run("suppress", "add", "ok@x.test", "nonsense")
    assert (code, err.startswith("mailer: address: ")) == (BAD_INPUT, True)
    assert run("suppress", "check", "ok@x.test")[0] == NOT_FOUND
