"""``mailer webhooks``, with a worker that calls."""

from __future__ import annotations

import json

import pytest
import standardwebhooks

from tests.flows.dev_process import running
from tests.web.api.hooked import endpoint


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    with running(tmp_path_factory.mktemp("dev"), MAILER_FETCH_LOCAL="true") as started:
        yield started


def test_a_worker_tells_what_became_of_a_mail(dev):
    """From the command to the call, as the manual has it, in seconds; then list, repeat, forget."""
    with endpoint() as told:
        made = json.loads(dev.run("webhooks", "create", told.url, "--event", "email.sent", "--json").stdout)
        id_ = dev.run("send", "welcome", "--to", "ada@example.com", "--set", "name=Ada").stdout.strip()
        [call] = told.wait(1)
        event = json.loads(call.body)
        standardwebhooks.Webhook(made["signing_secret"]).verify(call.body, call.headers)
        assert (event["type"], event["data"]["email_id"]) == ("email.sent", id_)
        assert made["id"] in dev.run("webhooks", "list").stdout
        assert "works" in dev.run("webhooks", "list").stdout
        [shown] = json.loads(dev.run("webhooks", "calls", made["id"], "--json").stdout)
        assert (shown["event"], shown["email_id"], shown["answer"]) == (event["data"]["sequence"], id_, "204")
        assert "told, 204" in dev.run("webhooks", "calls", made["id"]).stdout
        again = dev.run("webhooks", "replay", made["id"], "--event", str(shown["event"]))
        assert again.stdout.strip() == "1 to be told again."
        assert told.wait(2)[1].headers["webhook-id"] == call.headers["webhook-id"]
        new = dev.run("webhooks", "rotate", made["id"]).stdout.strip()
        assert new.startswith("whsec_")
        assert new != made["signing_secret"]
        assert dev.run("webhooks", "disable", made["id"]).returncode == 0
        assert "disabled: by_hand" in dev.run("webhooks", "list").stdout
        assert dev.run("webhooks", "enable", made["id"]).returncode == 0
        assert dev.run("webhooks", "remove", made["id"]).returncode == 0
        assert dev.run("webhooks", "list", "--json").stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "http://127.0.0.1:1/", "--project", "nobody's"], 2, "project"),
        (["create", "gopher://hooks.example/"], 2, "https://"),
        (["rotate", "nothing"], 3, "mailer webhooks list"),
        (["calls", "nothing"], 3, "mailer webhooks list"),
        (["replay", "nothing"], 3, "mailer webhooks list"),
    ],
)
def test_what_is_wrong_is_said(dev, arguments, code, said):
    """One line that names the field and the next step, and the exit code of its kind."""
    done = dev.run("webhooks", *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
