"""The command line, in-process, on a host application as ``flask mailer`` runs it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from mailer.cli import mailer
from mailer.cli.group import BAD_INPUT, DONE, NOT_FOUND, NOT_SENT, NOT_SET_UP, UNDER_WAY, WRONG_STATE
from mailer.heartbeat import Heartbeat
from mailer.retry import RetryPolicy
from mailer.store import searching
from mailer.transports import Reply, Result, Stage
from tests.delivery.conftest import build


@pytest.fixture
def app(tmp_path):
    from mailer import Mailer

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


def answer(app, result: Result) -> None:
    app.extensions["mailer"].transport.answer = lambda _: result


def test_send_waits_and_shows_the_outcome(run):
    """`mailer send … --wait` works from a shell and shows what the server said."""
    code, out, _ = run("send", "welcome", "--to", "a@x.test", "--set", "name=Ada", "--wait")
    assert code == DONE
    assert out.startswith("SENT")
    assert "250 ok" in out


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://nobody:pass-word@127.0.0.1:1/x", "does not answer"),
        ("sqlite:///{folder}", "does not answer"),
        ("sqlite:///{folder}/letter.txt", "no SQLite database"),
    ],
)
def test_a_store_that_cannot_be_used_is_said_in_one_line(tmp_path, monkeypatch, url, says):
    """The service looks at its tables before anything else."""
    (tmp_path / "letter.txt").write_text("Dear operator, this is no database. " * 50)
    monkeypatch.setenv("MAILER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MAILER_DATABASE_URL", url.format(folder=tmp_path))
    done = CliRunner().invoke(mailer, ["list"])
    assert (done.exit_code, done.stderr.count("\n")) == (NOT_SET_UP, 1)
    assert says in done.stderr
    assert "MAILER_DATABASE_URL" in done.stderr
    assert "pass-word" not in done.stderr


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Result(Stage.RCPT, Reply(550, "5.1.1 no")), NOT_SENT),
        (Result(Stage.RCPT, Reply(450, "later")), UNDER_WAY),
    ],
)
def test_exit_codes_tell_failed_from_under_way(run, app, result, code):
    """Scripts can tell a mail that failed from one that is still being tried."""
    answer(app, result)
    assert (
        run("send", "welcome", "--to", "a@x.test", "--set", "name=Ada", "--wait", "--timeout", "0.1")[0]
        == code
    )


def test_show_json_has_the_promised_shape(run):
    """Names others rely on: the shape of `mailer show ID --json`."""
    _, id_, _ = run(
        "send", "--to", "Ada <a@x.test>", "--subject", "Hi", "--text", "Hello", "--tag", "greeting"
    )
    code, out, _ = run("show", id_.strip(), "--json")
    shown = json.loads(out)
    assert code == DONE
    assert shown["id"] == id_.strip()
    assert {"id", "state", "template", "subject", "message_id", "created_at"} <= set(shown)
    assert {"recipient", "state", "attempts", "code", "reply"} <= set(shown["deliveries"][0])
    assert shown["events"][0]["name"] == "accepted"
    assert shown["events"][0]["at"].endswith("+00:00")
    listed = json.loads(run("list", "ada", "--json")[1]) + json.loads(run("list", "a@x", "--json")[1])
    assert [m["id"] for m in listed] == [shown["id"]]


def test_a_list_says_how_far_it_looked(run, monkeypatch):
    """A search for a part of a word that ran out of time is no "there is none": it says where to go on."""
    monkeypatch.setattr(searching, "WINDOW", 2)
    monkeypatch.setattr(searching, "PATIENCE_SECONDS", 0)
    ids = [
        run("send", "--to", f"reader{n}@x.test", "--subject", "Hi", "--text", "Hello")[1].strip()
        for n in range(5)
    ]
    code, out, err = run("list", "reader0")
    assert (code, out) == (DONE, "")
    assert err.startswith("mailer: looked through mails back to 20")
    assert f"go on with --before {ids[3]}" in err
    _, out, err = run("list", "reader0", "--before", ids[3], "--json")
    told = json.loads(err)
    assert (json.loads(out), told["before"]) == ([], ids[1])
    assert told["looked_back_to"].endswith("+00:00")
    _, out, err = run("list", "reader0", "--before", told["before"])
    assert (out.split()[0], err) == (ids[0], "")
    assert run("list", "reader0@x.test")[1].split()[0] == ids[0], "a whole address needs no luck"


def test_a_list_is_narrowed_to_dates(run):
    """Since then, and before that, in UTC."""
    id_ = run("send", "--to", "a@x.test", "--subject", "Hi", "--text", "Hello")[1].strip()
    for dates, found in (
        (["--since", "2001-01-01", "--until", "9999-12-31"], True),
        (["--since", "0001-01-01"], True),
        (["--since", "9999-01-01"], False),
        (["--until", "2001-01-01T08:30"], False),
    ):
        assert (id_ in run("list", *dates)[1]) is found, dates


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["send", "welcome", "--to", "nobody"], BAD_INPUT, "to: "),
        (["send", "wellcome", "--to", "a@x.test"], BAD_INPUT, "welcome"),
        (["send", "welcome", "--to", "a@x.test", "--set", "name"], BAD_INPUT, "NAME=VALUE"),
        (["send", "welcome", "--to", "a@x.test", "--context", "{"], BAD_INPUT, "JSON"),
        (["send", "--to", "a@x.test"], BAD_INPUT, "template"),
        (["show", "nope"], NOT_FOUND, "no message"),
        (["resend", "nope"], NOT_FOUND, "no message"),
        (["preview", "nope"], BAD_INPUT, "template"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(run, args, code, says):
    """A mistake ends in one plain line that names the field, never in a traceback."""
    found, out, err = run(*args)
    assert (found, out) == (code, "")
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_check_address_says_ok_or_the_reason(run):
    """IN2: the answer is on standard output either way, and the exit code tells it to a script."""
    assert run("check-address", "a@x.test") == (DONE, "ok\n", "")
    code, out, err = run("check-address", "canary@x.test,b@x.test")
    assert (code, err) == (BAD_INPUT, "")
    assert "canary" not in out
    assert len(out) > 10


def test_state_is_respected(run, app):
    """Cancel and retry say so when the message's state does not allow them."""
    _, id_, _ = run("send", "welcome", "--to", "a@x.test", "--set", "name=Ada", "--in", "60")
    assert run("cancel", id_.strip())[0] == DONE
    assert run("cancel", id_.strip())[0] == WRONG_STATE
    assert run("retry", id_.strip())[0] == WRONG_STATE
    code, new, _ = run("resend", id_.strip(), "--wait", "--json")
    assert (code, json.loads(new)["resent_from"]) == (DONE, id_.strip())


def test_what_waits_gets_another_time(run):
    """A mail that was not tried is moved; to after its deadline, or after it left, it is not."""
    _, id_, _ = run("send", "welcome", "--to", "a@x.test", "--set", "name=Ada", "--in", "60")
    assert run("reschedule", id_.strip(), "--at", "2027-01-31T08:30") == (
        DONE,
        "Waits until 2027-01-31 08:30:00 UTC for 1 recipient(s).\n",
        "",
    )
    assert json.loads(run("show", id_.strip(), "--json")[1])["send_at"] == "2027-01-31T08:30:00+00:00"
    assert run("reschedule", id_.strip())[0] == BAD_INPUT
    assert run("reschedule", id_.strip(), "--in", "-5")[0] == BAD_INPUT
    assert run("reschedule", id_.strip(), "--in", "0")[0] == DONE
    run("worker", "--once")
    assert json.loads(run("show", id_.strip(), "--json")[1])["state"] == "sent"
    assert run("reschedule", id_.strip(), "--in", "60")[0] == WRONG_STATE
    _, id_, _ = run(
        "send", "welcome", "--to", "a@x.test", "--set", "name=Ada", "--in", "60", "--expires-in", "90"
    )
    assert run("reschedule", id_.strip(), "--in", "155")[0] == BAD_INPUT
    assert run("reschedule", id_.strip(), "--in", "80")[0] == DONE


def test_workers_says_who_consumes(run, app):
    """A worker that is alive and takes no wake-ups does not count; none that does is exit code 5."""
    services = app.extensions["mailer"]
    assert run("workers")[0] == NOT_SET_UP
    beating = Heartbeat(services, "default")
    beating.beat()
    assert run("workers")[0] == NOT_SET_UP, "alive is not consuming"
    beating = Heartbeat(services, "default")
    beating.consumed()
    beating.beat()
    code, out, _ = run("workers", "--json")
    assert (code, [row["consuming"] for row in json.loads(out)]) == (DONE, [False, True])
    assert run("workers")[1].count("took a wake-up") == 2
    beating.leave()
    assert run("workers")[0] == NOT_SET_UP


def test_a_worker_serves_known_lanes_only(run):
    """A lane that is misspelt would be served by nobody."""
    code, _, err = run("worker", "--lanes", "critical,buk", "--pool", "threads")
    assert code == BAD_INPUT
    assert "'buk' is not one of critical, default, bulk" in err


def test_an_uncertain_mail_is_settled_by_a_person(run, app):
    """Promise 3: held as uncertain, shown as such, and settled by who found out."""
    answer(app, Result(Stage.TEXT, text_sent=True, problem="connection lost"))
    _, id_, _ = run("send", "welcome", "--to", "a@x.test", "--set", "name=Ada")
    app.extensions["mailer"].policy = RetryPolicy(max_uncertain_tries=1)
    run("worker", "--once")
    assert json.loads(run("show", id_.strip(), "--json")[1])["state"] == "uncertain"
    assert json.loads(run("show", id_.strip(), "--json")[1])["deliveries"][0]["unknowns"] == 1
    assert "attempt 1, 1 without an answer to the text" in run("show", id_.strip())[1]
    assert run("settle", id_.strip(), "--as", "sent")[0] == DONE
    assert json.loads(run("show", id_.strip(), "--json")[1])["state"] == "sent"
    assert run("settle", id_.strip(), "--as", "failed")[0] == WRONG_STATE


def test_a_hostile_reply_does_nothing_to_a_terminal(run, app):
    """SC19, IN6: escape sequences in a server's words are shown, not obeyed."""
    answer(app, Result(Stage.RCPT, Reply(550, "\x1b[31mred\x07\r\nFAKE LINE")))
    _, out, _ = run("send", "welcome", "--to", "a@x.test", "--set", "name=Ada", "--wait")
    assert "\x1b" not in out
    assert "\\x1b[31mred\\x07\\x0d\\x0aFAKE LINE" in out


def test_show_says_what_an_answer_means(run, app):
    """SC1: whose matter it is and what to do, for people and for programs; a good answer needs no words."""
    answer(app, Result(Stage.RCPT, Reply(550, "5.1.1 no such user")))
    _, id_, _ = run("send", "welcome", "--to", "a@x.test", "--set", "name=Ada")
    run("worker", "--once")
    assert "there is no such mailbox; correct the address" in run("show", id_.strip())[1]
    accepted, failed = json.loads(run("show", id_.strip(), "--json")[1])["events"]
    assert (failed["reason"], failed["blame"], failed["suppress_candidate"]) == (
        *("mailbox_unknown", "recipient"),
        True,
    )
    assert failed["means"] == "there is no such mailbox; correct the address, or take it out of your data"
    assert "means" not in accepted


def test_preview_renders_with_sample_values(run):
    """Every shipped template can be looked at without sending it."""
    names = run("preview")[1].split()
    assert {"verify_email", "reset_password", "password_changed", "welcome", "receipt"} <= set(names)
    assert "<table" in run("preview", "receipt", "--part", "html")[1]
    assert "Grace" in run("preview", "welcome", "--set", "name=Grace")[1]


def test_worker_once_drains_without_a_broker(run, app):
    """`mailer worker --once` sends what is due and exits."""
    for n in range(3):
        run("send", "welcome", "--to", f"a{n}@x.test", "--set", "name=Ada")
    assert run("worker", "--once")[1] == "Made 3 attempts.\n"
    assert len(app.extensions["mailer"].transport.sent) == 3


def test_forked_workers_refuse_a_broker_in_memory(run):
    """memory:// lives in one process: the error names the setting and what to use instead."""
    code, _, err = run("worker", "--pool", "prefork")
    assert code == NOT_SET_UP
    assert "MAILER_BROKER_URL" in err
    assert "--pool threads" in err


def test_an_operator_is_invited_by_a_link(run):
    """UI4: no default account; a person enters by a link that works once."""
    code, out, _ = run("user", "create", "eve", "--role", "viewer")
    assert code == DONE
    assert "/console/enter/" in out
    assert "eve" in run("user", "list")[1]
    assert run("user", "create", "eve")[0] == NOT_SET_UP
