"""Webhooks: what is owed, how it is told and signed, and what endpoints may do to us."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest
import standardwebhooks
import svix.webhooks

from mailer import courier, outward, send_email, webhooks
from mailer.courier import GIVE_UP, LEASE, WAITS, Courier, serve
from mailer.errors import InvalidMessage
from mailer.retention import forget
from mailer.store import by_hand
from mailer.store import webhooks as rows
from tests.conftest import not_had
from tests.web.api.hooked import endpoint
from tests.web.api.service import HELLO, ApiService

REFUSED = (
    ValueError,
    standardwebhooks.WebhookVerificationError,
    svix.webhooks.WebhookVerificationError,
)
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "receive-webhooks.md"


class Clock:
    """The application's time, which a test can set forward."""

    def __init__(self, real) -> None:
        self._real, self.ahead = real, timedelta()

    def __call__(self):
        return self._real() + self.ahead


@pytest.fixture
def service(tmp_path):
    made = ApiService(tmp_path, fetch_local=True)
    made.services.now = Clock(made.services.now)
    return made


@pytest.fixture
def caller(service):
    return service.caller()


def subscribe(caller, told, *events: str) -> tuple[str, str]:
    answer = caller.post("/webhooks", {"endpoint": told.url, "events": list(events or webhooks.TYPES)})
    assert answer.status_code == 201, answer.text
    return answer.json["id"], answer.json["signing_secret"]


def owed(service, id_: str) -> list[rows.CallView]:
    with service.services.store.read() as connection:
        return rows.calls(connection, id_, 100)


def condition(service, id_: str) -> rows.WebhookRow:
    with service.services.store.read() as connection:
        return rows.find(connection, id_)


def later(service, **time_: float) -> None:
    service.services.now.ahead += timedelta(**time_)


# What is told


def test_each_recipient_is_told_of_and_signed_for(service, caller):
    """WH1: either library checks it; the id and the times are as the standard has them."""
    with endpoint() as told:
        id_, secret = subscribe(caller, told)
        mail = caller.send(
            to=["ada@example.test", "bob@example.test"], tags=[{"name": "order", "value": "17"}]
        )
        service.attempt()
        assert serve(service.services, id_) == 2
        assert serve(service.services, id_) == 0
    assert {call.path for call in told.taken} == {"/hook"}
    for call in told.taken:
        standardwebhooks.Webhook(secret).verify(call.body, call.headers)
        svix.webhooks.Webhook(secret).verify(call.body, call.headers)
        event = json.loads(call.body)
        assert (event["type"], event["data"]["email_id"]) == ("email.sent", mail)
        assert event["data"]["tags"] == {"order": "17"}
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(secret).verify(call.body + b" ", call.headers)
    assert sorted(json.loads(call.body)["data"]["to"] for call in told.taken) == [
        ["ada@example.test"],
        ["bob@example.test"],
    ]
    assert len({call.headers["webhook-id"] for call in told.taken}) == 2
    sequence = [json.loads(call.body)["data"]["sequence"] for call in told.taken]
    assert sequence == sorted(sequence)


def test_nothing_that_a_mail_says_is_told(service, caller):
    """WH5: no body, no secret, no words of a server."""
    with endpoint() as told:
        id_, secret = subscribe(caller, told)
        caller.send(to="bounced@resend.dev", html="<p>the-body</p>", text="the-body")
        service.attempt()
        serve(service.services, id_)
    [call] = told.taken
    event = json.loads(call.body)
    assert (event["type"], event["data"]["code"]) == ("email.bounced", 550)
    assert b"the-body" not in call.body
    assert b"no such user" not in call.body  # what the simulator's server said
    assert secret.encode() not in call.body


@pytest.mark.parametrize(
    ("asked", "type_", "others"),
    [
        ({"scheduled_at": "in 1 hour"}, "email.scheduled", []),
        ({"to": "bounced@resend.dev"}, "email.bounced", []),
        ({}, "email.sent", []),
        ({"to": "delivered@resend.dev"}, "email.delivered", ["email.sent"]),
        ({"to": "complained@resend.dev"}, "email.complained", ["email.sent"]),
        ({"to": "suppressed@resend.dev"}, "email.suppressed", []),
        ({"to": "deferred@resend.dev"}, "email.delivery_delayed", []),
        ({"to": "uncertain@resend.dev", "on_uncertain": "hold"}, "email.uncertain", []),
    ],
)
def test_only_what_was_subscribed_to_is_told(service, caller, asked, type_, others):
    """Each type by itself; an endpoint for the others hears of those only."""
    with endpoint() as told, endpoint() as other:
        id_, _ = subscribe(caller, told, type_)
        other_id, _ = subscribe(caller, other, *(set(webhooks.TYPES) - {type_}))
        caller.send(**asked)
        service.attempt()
        for each in (id_, other_id):
            serve(service.services, each)
    assert [json.loads(call.body)["type"] for call in told.taken] == [type_]
    assert [json.loads(call.body)["type"] for call in other.taken] == others


def test_a_mail_that_is_withdrawn_or_moved(service, caller):
    """Events of people are told, without who they were."""
    with endpoint() as told:
        id_, _ = subscribe(caller, told, "email.scheduled", "email.canceled")
        mail = caller.send(scheduled_at="in 1 hour")
        assert caller.ask("PATCH", f"/emails/{mail}", {"scheduled_at": "in 2 hours"}).status_code == 200
        assert caller.post(f"/emails/{mail}/cancel").status_code == 200
        serve(service.services, id_)
    events = [json.loads(call.body) for call in told.taken]
    assert [event["type"] for event in events] == ["email.scheduled", "email.scheduled", "email.canceled"]
    assert "API key" not in json.dumps(events)


def test_projects_and_the_application_hear_of_their_own(service, caller):
    """AK4: nobody is told of another's mails."""
    stranger = service.caller(project="other")
    with endpoint() as told, endpoint() as others, endpoint() as own:
        ids = [subscribe(caller, told)[0], subscribe(stranger, others)[0]]
        made, _ = webhooks.create(service.services, own.url)
        mail = caller.send()
        with service.app.app_context():
            ours = str(
                send_email.delay(to="ada@example.test", subject="Hi", text="Hi", sender="me@acme.test")
            )
        service.attempt()
        for id_ in [*ids, made.id]:
            serve(service.services, id_)
        assert stranger.get(f"/webhooks/{ids[0]}").status_code == 404
        assert stranger.ask("DELETE", f"/webhooks/{ids[0]}").status_code == 404
    assert [json.loads(call.body)["data"]["email_id"] for call in told.taken] == [mail]
    assert [json.loads(call.body)["data"]["email_id"] for call in own.taken] == [ours]
    assert others.taken == []


def test_what_is_rolled_back_is_not_told(service, caller):
    """The note is part of the transaction of the change."""
    with endpoint() as told:
        id_, _ = subscribe(caller, told)
        mail = caller.send(scheduled_at="in 1 hour")
        before = len(owed(service, id_))
        with service.services.store.begin() as connection:
            assert by_hand.cancel(connection, mail, "somebody", service.services.now()) == 1
            connection.rollback()
    assert len(owed(service, id_)) == before


def test_who_is_forgotten_is_not_told_of(service, caller):
    """PD5: the queue holds no address of its own."""
    with endpoint() as told:
        id_, _ = subscribe(caller, told)
        caller.send(to="ada@example.test")
        service.attempt()
        forget(service.services, "ada@example.test", by="somebody")
        serve(service.services, id_)
    assert all(b"ada@example.test" not in call.body for call in told.taken)


# Failing endpoints


def test_it_is_tried_again_for_three_days(service, caller):
    """WH4, WH1: the same id, more and more time between; then no more, and the endpoint is disabled."""
    with endpoint(503) as told:
        id_, _ = subscribe(caller, told)
        caller.send()
        service.attempt()
        assert serve(service.services, id_) == 0
        first = service.services.now()
        for wait in WAITS:
            assert serve(service.services, id_) == 0, "it is not due yet"
            later(service, seconds=wait.total_seconds() * 1.11)
            serve(service.services, id_)
    assert len(told.taken) == len(WAITS) + 1
    assert service.services.now() - first > GIVE_UP
    assert len({call.headers["webhook-id"] for call in told.taken}) == 1
    assert [call.ended_at is not None and call.answer for call in owed(service, id_)] == ["503"]
    assert condition(service, id_).disabled_why == "failing"
    shown = caller.get(f"/webhooks/{id_}").json
    assert (shown["status"], shown["disabled_why"]) == ("disabled", "failing")


def test_an_endpoint_that_is_back_gets_everything(service, caller):
    """WH6: what waited is told once it answers, and it counts as well again."""
    with endpoint(500, 204) as told:
        id_, _ = subscribe(caller, told)
        mails = [caller.send() for _ in range(8)]
        service.attempt()
        assert serve(service.services, id_) == 0
        assert len(told.taken) == 1, "after a failure it rests"
        assert condition(service, id_).failures == 1
        later(service, seconds=10)
        while serve(service.services, id_):
            pass
    assert {json.loads(call.body)["data"]["email_id"] for call in told.taken} == set(mails)
    assert (condition(service, id_).failures, condition(service, id_).rest_until) == (0, None)


def test_gone_is_gone(service, caller):
    """WH4: 410 disables at once; enabled again, the failed call can be repeated."""
    with endpoint(410, 204) as told:
        id_, _ = subscribe(caller, told)
        caller.send()
        service.attempt()
        serve(service.services, id_)
        assert condition(service, id_).disabled_why == "gone"
        [call] = owed(service, id_)
        assert caller.ask("PATCH", f"/webhooks/{id_}", {"status": "enabled"}).status_code == 200
        assert caller.post(f"/webhooks/{id_}/calls/{call.event}/replay").status_code == 200
        assert serve(service.services, id_) == 1
    assert len({call.headers["webhook-id"] for call in told.taken}) == 1
    assert [call.answer for call in owed(service, id_)] == ["204"]


def test_retry_after_is_respected(service, caller):
    """WH4: longer than we would have waited, and no longer than a day."""
    with endpoint(429, Retry_After="900") as told:
        id_, _ = subscribe(caller, told)
        caller.send()
        service.attempt()
        serve(service.services, id_)
        [call] = owed(service, id_)
    assert timedelta(seconds=890) < call.due_at - service.services.now() <= timedelta(seconds=900)
    assert len(told.taken) == 1


def drip(handler) -> None:
    with_ = handler.wfile.write
    with_(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100):
        with_(b"X-A: b\r\n")
        handler.wfile.flush()
        time.sleep(0.1)


def flood(handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(400):
        handler.wfile.write(b"x" * 65_536)


def hang_up(handler) -> None:
    handler.connection.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [(drip, "timeout"), (hang_up, "no_answer"), (302, "302"), (404, "404"), (flood, "200")],
)
def test_endpoints_that_misbehave(service, caller, monkeypatch, answer, said):
    """WH4: slow, silent, endless and redirecting ones cost a bounded time, and only 2xx counts."""
    monkeypatch.setattr(courier, "MAX_SECONDS", 1.0)
    with endpoint(answer, Location="http://127.0.0.1:1/") as told:
        id_, _ = subscribe(caller, told)
        caller.send()
        service.attempt()
        began = time.monotonic()
        serve(service.services, id_)
        assert time.monotonic() - began < 5
        assert [call.answer for call in owed(service, id_)] == [said]
        assert len(told.taken) == 1


def test_a_slow_endpoint_holds_up_nobody_else(service, caller):
    """One thread serves one endpoint: the other is told meanwhile."""
    with endpoint(lambda handler: time.sleep(3)) as slow, endpoint() as quick:
        subscribe(caller, slow)
        subscribe(caller, quick)
        for _ in range(3):
            caller.send()
        service.attempt()
        works = Courier(service.services)
        works.start()
        try:
            quick.wait(3, seconds=2.9)
        finally:
            works.stop()


def test_a_courier_that_is_lost_is_replaced(service, caller):
    """WH6: what it had in hand is told when its lease is over, and its late word counts no more."""
    with endpoint() as told:
        id_, _ = subscribe(caller, told)
        caller.send()
        service.attempt()
        with service.services.store.begin() as connection:
            [lost] = rows.claim(connection, id_, service.services.now(), LEASE, 5)
        assert serve(service.services, id_) == 0
        later(service, seconds=LEASE.total_seconds() + 1)
        assert serve(service.services, id_) == 1
        with service.services.store.begin() as connection:
            assert not rows.put_off(connection, id_, lost, "500", service.services.now())
    assert len(told.taken) == 1


# Secrets and addresses


def test_a_secret_is_changed_without_a_gap(service, caller):
    """WH1: for a day both sign; then only the new one does. At rest neither can be read."""
    with endpoint() as told:
        id_, old = subscribe(caller, told)
        new = caller.post(f"/webhooks/{id_}/rotate").json["signing_secret"]
        assert new != old
        assert caller.get(f"/webhooks/{id_}").json["signing_secret"] == new
        caller.send()
        service.attempt()
        serve(service.services, id_)
        later(service, days=1, seconds=1)
        caller.send()
        service.attempt()
        serve(service.services, id_)
        stored = condition(service, id_)
        shown = json.dumps(caller.get("/webhooks").json)
    first, second = told.taken
    assert len(first.headers["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        standardwebhooks.Webhook(secret).verify(first.body, first.headers)
    assert len(second.headers["webhook-signature"].split(" ")) == 1
    for secret in (old, new):
        assert secret.encode() not in (stored.secret, stored.old_secret)
        assert secret not in shown
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"))) <= 64


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/", "https://127.0.0.1/", "https://user:word@hooks.example/", "ftp://x/", "x",
        "https://hooks.example:8443/", "https://hooks.example./", "https://a b/", "https://", "https://[::1/",
    ],
)  # fmt: skip
def test_addresses_that_are_refused(tmp_path, url):
    """WH3: at once where the address itself shows it; inner addresses when they are called."""
    caller = ApiService(tmp_path).caller()
    answer = caller.post("/webhooks", {"endpoint": url, "events": ["email.sent"]})
    if url == "https://127.0.0.1/":
        assert answer.status_code == 201
        return
    assert (answer.status_code, answer.json["name"]) == (422, "validation_error")
    assert "word" not in answer.text


def test_an_inner_address_is_never_called(tmp_path):
    """WH3: what the name leads to is looked at, and the call fails without a word of it."""
    service = ApiService(tmp_path)
    caller = service.caller()
    with endpoint() as told:
        url = told.url.replace("http://", "https://").replace(f":{told.port}", "")
        id_ = caller.post("/webhooks", {"endpoint": url, "events": ["email.sent"]}).json["id"]
        caller.send()
        service.attempt()
        serve(service.services, id_)
        [call] = owed(service, id_)
    assert (call.answer, told.taken) == ("no_answer", [])
    with pytest.raises(outward.Unreachable), outward.conversation(1) as session:
        session.get("https://169.254.169.254/")


def test_events_that_are_not_known_are_refused(service, caller):
    """The error names the field and what is meant."""
    body = {"endpoint": "https://hooks.example/", "events": ["email.send"]}
    said = caller.refused(422, "validation_error", "POST", "/webhooks", body)
    assert "`events`" in said
    assert "email.sent" in said
    with pytest.raises(InvalidMessage, match="project"):
        webhooks.create(service.services, "https://hooks.example/", project="nobody's")


# Doors


def test_pages_of_calls(caller, service):
    """Keyset, the newest first."""
    with endpoint() as told:
        id_, _ = subscribe(caller, told)
        for _ in range(3):
            caller.send()
        service.attempt()
        first = caller.get(f"/webhooks/{id_}/calls?limit=2").json
        rest = caller.get(f"/webhooks/{id_}/calls?after={first['data'][-1]['event']}").json
    assert (len(first["data"]), first["has_more"], len(rest["data"]), rest["has_more"]) == (2, True, 1, False)


def test_a_webhook_is_changed_and_forgotten(caller, service):
    """What is not given stays; forgotten, it is owed nothing."""
    with endpoint() as told:
        id_, _ = subscribe(caller, told, "email.sent")
        caller.send()
        service.attempt()
        answer = caller.ask("PATCH", f"/webhooks/{id_}", {"events": ["email.bounced"]})
        assert answer.json == {"object": "webhook", "id": id_}
        shown = caller.get(f"/webhooks/{id_}").json
        assert (shown["events"], shown["endpoint"]) == (["email.bounced"], told.url)
        assert caller.ask("DELETE", f"/webhooks/{id_}").json["deleted"] is True
        caller.refused(404, "not_found", "GET", f"/webhooks/{id_}")
        serve(service.services, id_)
    assert told.taken == []
    assert HELLO["to"] == ["ada@example.test"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}(?: [^\n]*)?\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def told_once(service, caller) -> tuple[str, bytes, dict[str, str]]:
    with endpoint() as told:
        id_, secret = subscribe(caller, told)
        caller.send()
        service.attempt()
        serve(service.services, id_)
    [call] = told.taken
    return secret, call.body, call.headers


@pytest.mark.parametrize("code", blocks("python"), ids=["standardwebhooks", "svix", "by hand"])
def test_the_samples_for_python_verify(service, caller, code):
    """WH2: as they stand in the manual; another body or an old call is refused."""
    secret, body, headers = told_once(service, caller)
    names = {"secret": secret, "body": body, "headers": headers}
    exec(code, names)  # noqa: S102 - it is ours
    assert names["event"]["type"] == "email.sent"
    with pytest.raises(REFUSED):
        exec(code, names | {"body": body + b" "})  # noqa: S102
    old = {
        name: str(int(value) - 301) if name.endswith("timestamp") else value
        for name, value in headers.items()
    }
    with pytest.raises(REFUSED):
        exec(code, names | {"headers": old})  # noqa: S102


def test_the_sample_for_node_verifies(service, caller, tmp_path):
    """WH2: the same in Node."""
    if shutil.which("node") is None:
        not_had("no node")
    [code] = blocks("js")
    secret, body, headers = told_once(service, caller)
    asked = json.dumps({"body": body.decode(), "headers": headers, "secret": secret})
    program = f"""{code}
const {{ body, headers, secret }} = {asked};
console.log(verify(body, headers, secret).type);
try {{ verify(body + " ", headers, secret); console.log("taken"); }} catch {{ console.log("refused"); }}
"""
    (tmp_path / "verify.cjs").write_text(program)
    done = subprocess.run(["node", tmp_path / "verify.cjs"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["email.sent", "refused"]
