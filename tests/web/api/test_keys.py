"""Who may do what through the HTTP API: keys, scopes, projects, limits, and keys that reach no provider."""

from __future__ import annotations

import json
import logging
import statistics
import time
from datetime import UTC, datetime, timedelta

import pytest

from mailer import keys, send_email
from mailer.admission import WRONG_KEYS
from mailer.errors import ConfigError
from mailer.keys import Scope
from mailer.states import State
from mailer.web.api.routes import ROUTES
from tests.web.api.service import HELLO, ApiService, Caller

BODIES = {
    "emails_send": HELLO,
    "emails_send_batch": [HELLO],
    "emails_reschedule": {"scheduled_at": "in 2 hours"},
    "templates_preview": {},
    "keys_create": {"name": "new"},
    "webhooks_create": {"endpoint": "https://hooks.example/", "events": ["email.sent"]},
    "webhooks_change": {},
    "suppressions_add": {"address": "off@x.test"},
}

# Who may, written out once more: the table of routes must not be its own judge.
ALLOWED = {
    "emails_send": {"send", "admin"},
    "emails_send_batch": {"send", "admin"},
    "emails_get_many": {"read", "read_bodies", "admin"},
    "emails_get": {"read", "read_bodies", "admin"},
    "emails_reschedule": {"send", "admin"},
    "emails_cancel": {"send", "admin"},
    "emails_resend": {"send", "admin"},
    "emails_events": {"read", "read_bodies", "admin"},
    "templates_get_many": {"read", "read_bodies", "admin"},
    "templates_preview": {"read", "read_bodies", "admin"},
    "keys_get_many": {"admin"},
    "keys_create": {"admin"},
    "keys_revoke": {"admin"},
    **{f"webhooks_{name}": {"admin"} for name in ("get_many", "create", "get", "change", "remove")},
    **{f"webhooks_{name}": {"admin"} for name in ("rotate", "calls", "replay")},
    "suppressions_get_many": {"suppressions", "admin"},
    "suppressions_add": {"suppressions", "admin"},
    "suppressions_get": {"suppressions", "admin"},
    "suppressions_remove": {"suppressions", "admin"},
}


def call(route, caller: Caller, id_: str):
    path = route.path.replace("<id_>", id_).replace("<path:name>", "welcome")
    path = path.replace("<int:event>", "1").replace("<path:which>", id_)
    return caller.ask(route.method, path, BODIES.get(route.name))


def target(route, caller: Caller, owner: Caller) -> str:
    """The id of something that the route is about, of the owner's project."""
    if route.name == "keys_revoke":
        return caller.id
    if route.name.startswith("webhooks"):
        return owner.post("/webhooks", BODIES["webhooks_create"]).json["id"]
    if "<path:which>" in route.path:
        return owner.post("/suppressions", {"address": "gone@x.test"}).json["data"][0]["id"]
    return owner.send(scheduled_at="in 1 hour")


# Scopes


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_each_endpoint_asks_for_its_scope(tmp_path, route):
    """AK2: every endpoint with every scope, and without a key; what is not allowed is denied."""
    service = ApiService(tmp_path)
    admin = service.caller()
    for scope in Scope:
        caller = service.caller(scope)
        answer = call(route, caller, target(route, caller, admin))
        if scope in ALLOWED[route.name] and route.name == "webhooks_replay":
            assert "event" in answer.json["message"], "let in, but nothing has ended yet"
        elif scope in ALLOWED[route.name]:
            assert answer.status_code == route.status, (scope, answer.text)
        else:
            assert (answer.status_code, answer.json["name"]) == (401, "restricted_api_key"), scope
    answer = call(route, Caller(service, None), "x")
    assert (answer.status_code, answer.json["name"]) == (401, "missing_api_key")


def test_every_endpoint_stands_in_the_matrix():
    """AK2: an endpoint that is added has to say here who may."""
    assert set(ALLOWED) == {route.name for route in ROUTES}


def test_bodies_are_for_those_who_may_read_them(service):
    """AK2: without read_bodies, everything but what the message says."""
    id_ = service.caller().send(html="<p>secret words</p>", text="secret words")
    assert service.caller("read_bodies").get(f"/emails/{id_}").json["html"] == "<p>secret words</p>"
    for scope in ("read", "send"):
        assert "secret words" not in service.caller(scope).get(f"/emails/{id_}").text
    seen = service.caller("read").get(f"/emails/{id_}").json
    assert (seen["html"], seen["text"], seen["subject"]) == (None, None, "Hello")


# Keys


def test_wrong_unknown_revoked_and_over_are_one_answer(service):
    """AK3: the same body for each; nothing tells which it was."""
    good, gone = service.caller(), service.caller()
    over = service.caller(expires_at=datetime.now(UTC) + timedelta(hours=1))
    keys.revoke(service.services, gone.id)
    now = service.services.now
    service.services.now = lambda: now() + timedelta(hours=2)
    answers = {
        Caller(service, token).get("/emails").text
        for token in (over.token, gone.token, keys.new_token(), good.token[:-1], "x", "re_x" * 500)
    }
    assert len(answers) == 1
    assert json.loads(answers.pop()) == {
        "statusCode": 403,
        "name": "invalid_api_key",
        "message": "API key is invalid",
    }
    assert good.get("/emails").status_code == 200


def test_wrong_keys_take_the_time_of_right_ones(service):
    """AK3: an unknown, a revoked and a garbled key cost the same look into the store."""
    service.app.extensions["mailer.api.gate"].failures.test = lambda *_: True
    gone = service.caller()
    keys.revoke(service.services, gone.id)
    tokens = {"unknown": keys.new_token(), "revoked": gone.token, "garbled": "re_"}
    took: dict[str, list[float]] = {name: [] for name in tokens}
    for _ in range(60):
        for name, token in tokens.items():
            began = time.perf_counter()
            assert keys.who(service.services, token) is None
            took[name].append(time.perf_counter() - began)
    medians = [statistics.median(times) for times in took.values()]
    assert max(medians) < 3 * min(medians), medians


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic cmU6eA==", "re_123"])
def test_a_key_comes_in_its_header_only(service, caller, header):
    """AK3: never in the address, where logs would collect it."""
    client = service.app.test_client()
    answer = client.get(f"/api/emails?api_key={caller.token}", headers={"Authorization": header})
    assert (answer.status_code, answer.json["name"]) == (401, "missing_api_key")


def test_keys_are_in_no_log_and_no_error(service, caller, caplog):
    """AK3, PD4: neither right ones nor wrong ones."""
    caplog.set_level(logging.DEBUG)
    wrong = keys.new_token()
    said = [Caller(service, wrong).get("/emails").text, caller.post("/emails", HELLO).text]
    said.append(caller.post("/emails", {"from": caller.token}).text)
    assert caller.token not in caplog.text + "".join(said)
    assert wrong not in caplog.text + "".join(said)


def test_wrong_keys_are_slowed_down(service, caller):
    """AK3: an address that tries many is not even told whether the next is right; others go on."""
    wrong = Caller(service, keys.new_token())
    for _ in range(WRONG_KEYS.amount):
        assert wrong.get("/emails").status_code == 403
    assert wrong.get("/emails").status_code == 429
    answer = caller.get("/emails")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    elsewhere = caller.get("/emails", environ_overrides={"REMOTE_ADDR": "203.0.113.9"})
    assert elsewhere.status_code == 200


def test_a_revoked_key_is_refused_within_a_second(service, caller):
    """AK1: not later, whichever process revoked it."""
    other = service.caller("send")
    assert other.send()
    assert caller.ask("DELETE", f"/keys/{other.id}").json == {
        "object": "api_key",
        "id": other.id,
        "deleted": True,
    }
    time.sleep(1)
    other.refused(403, "invalid_api_key", "POST", "/emails", HELLO)
    caller.refused(404, "not_found", "DELETE", f"/keys/{other.id}")


def test_a_key_may_be_bound_to_sender_domains(service):
    """AK2: another domain is 403, as Resend's unverified ones; a key it makes is no wider."""
    caller = service.caller(domains=["acme.test"])
    assert caller.send()
    body = HELLO | {"from": "a@sub.acme.test"}
    caller.refused(403, "validation_error", "POST", "/emails", body)
    caller.refused(403, "validation_error", "POST", "/emails/batch", [body])
    caller.refused(422, "validation_error", "POST", "/keys", {"name": "x", "domains": ["other.test"]})
    assert caller.post("/keys", {"name": "x"}).json["domains"] == ["acme.test"]


def test_a_key_is_made_and_shown_once(service, caller):
    """AK1: the answer has it, the list only its beginning."""
    body = {"name": "ci", "scopes": ["send"], "expires_at": "in 30 days", "test": True}
    made = caller.post("/keys", body)
    assert made.status_code == 201
    assert keys.is_key(made.json["token"])
    listed = caller.get("/keys")
    assert made.json["token"] not in listed.text
    assert made.json["token"].startswith(listed.json["data"][0]["prefix"])
    assert {k: v for k, v in made.json.items() if k != "token"} == listed.json["data"][0]


# Projects


def test_what_belongs_to_others_is_not_there(service):
    """AK4: other projects' messages and keys, and the application's own messages: 404, word for word."""
    theirs, ours = service.caller(project="theirs"), service.caller(project="ours")
    with service.app.app_context():
        own = send_email.delay(sender="a@acme.test", to="a@x.test", subject="Own", text="x").id
    nothing = "01a20a1c-6691-7617-9162-8017db76123f"
    for route in (route for route in ROUTES if "<id_>" in route.path):
        kept = theirs.id if route.name == "keys_revoke" else theirs.send(scheduled_at="in 1 hour")
        answers = {call(route, ours, id_).text for id_ in (kept, own, nothing, "x", "%00")}
        assert len(answers) == 1, route.name
        assert json.loads(answers.pop())["statusCode"] == 404
    assert service.show(own).state is State.QUEUED
    assert theirs.get("/emails").status_code == 200
    assert len(ours.get("/keys").json["data"]) == 1


# Limits


def test_a_key_has_its_rate(tmp_path):
    """AK5: 429 with Retry-After; the headers say how much is left; another key has its own."""
    service = ApiService(tmp_path, api_rate="3/minute")
    caller = service.caller()
    left = [caller.get("/emails").headers["ratelimit-remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    answer = caller.get("/emails")
    assert (answer.status_code, answer.json["name"]) == (429, "rate_limit_exceeded")
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert (answer.headers["ratelimit-limit"], answer.headers["ratelimit-remaining"]) == ("3", "0")
    assert service.caller().get("/emails").status_code == 200


def test_a_rate_that_is_none_is_a_setting_error(tmp_path):
    """The setting is named."""
    with pytest.raises(ConfigError, match="MAILER_API_RATE"):
        ApiService(tmp_path, api_rate="often")


# Keys and recipients that reach no provider


def test_a_test_keys_mail_reaches_no_provider(service):
    """It ends as sent, nothing leaves, and the timeline says why; a live key's goes out beside it."""
    test, live = service.caller(is_test=True), service.caller()
    held, sent = test.send(), live.send(to="bob@example.test")
    batch = test.post("/emails/batch", [HELLO]).json["data"][0]["id"]
    service.attempt()
    assert [parcel.id for parcel in service.sent()] == [sent]
    for id_ in (held, batch):
        assert service.show(id_).state is State.SENT
        assert service.show(id_).events[-1].data["transport"] == "held"
    again = live.post(f"/emails/{held}/resend").json["id"]
    service.attempt()
    assert [parcel.id for parcel in service.sent()] == [sent], "sent anew, it still goes to nobody"
    assert service.show(again).carrier == "test"


def test_a_test_key_sees_and_makes_nothing_live(service):
    """A key that lies in a CI system must not resend, read or widen anything real."""
    test, live = service.caller(is_test=True), service.caller()
    id_ = live.send(scheduled_at="in 1 hour")
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/resend"), ("GET", "/events")):
        test.refused(404, "not_found", method, f"/emails/{id_}{path}")
    assert test.get("/emails").json["data"] == []
    test.refused(403, "validation_error", "POST", "/keys", {"name": "live"})
    assert test.post("/keys", {"name": "x", "test": True}).json["token"].startswith("re_test_")


def test_a_test_keys_mail_goes_to_an_inbox(tmp_path):
    """Where the setting says; a provider, which wants a password, is refused."""
    folder = tmp_path / "kept"
    service = ApiService(tmp_path, test_smtp_url=f"file://{folder}")
    id_ = service.caller(is_test=True).send()
    service.attempt()
    assert service.sent() == []
    assert [file.name.startswith(id_) for file in folder.iterdir()] == [True]
    with pytest.raises(ConfigError, match="MAILER_TEST_SMTP_URL"):
        ApiService(tmp_path, test_smtp_url="smtp://user:password@smtp.provider.test")


@pytest.mark.parametrize(
    ("recipient", "state", "last_event"),
    [
        ("delivered@resend.dev", State.SENT, "delivered"),
        ("delivered+label@resend.dev", State.SENT, "delivered"),
        ("bounced@resend.dev", State.FAILED, "bounced"),
        ("Bounced+x@sim.acme.test", State.FAILED, "bounced"),
        ("complained@resend.dev", State.SENT, "complained"),
        ("suppressed+x@resend.dev", State.SUPPRESSED, "suppressed"),
        ("deferred@resend.dev", State.DEFERRED, "delivery_delayed"),
        ("uncertain@resend.dev", State.UNCERTAIN, "uncertain"),
    ],
)
def test_recipients_drive_states(tmp_path, recipient, state, last_event):
    """Without a provider, whichever key asks."""
    service = ApiService(tmp_path, simulator_domain="sim.acme.test")
    for caller in (service.caller(), service.caller(is_test=True)):
        id_ = caller.send(to=recipient, on_uncertain="hold")
        service.attempt()
        assert service.show(id_).state is state
        assert caller.get(f"/emails/{id_}").json["last_event"] == last_event
    assert service.sent() == []


def test_one_that_is_put_off_expires(service, caller):
    """The last of the states: ``deferred@`` with an end, and a clock."""
    id_ = caller.send(to="deferred@resend.dev", expires_at="in 1 hour")
    service.attempt()
    assert service.show(id_).state is State.DEFERRED
    real = service.services.now
    service.services.now = lambda: real() + timedelta(hours=2)
    service.attempt()
    assert service.show(id_).state is State.EXPIRED
    assert caller.get(f"/emails/{id_}").json["last_event"] == "expired"


def test_simulated_and_real_recipients_do_not_mix(service, caller):
    """Nobody would know what such a mail means."""
    to = ["delivered@resend.dev", "ada@example.test"]
    caller.refused(422, "validation_error", "POST", "/emails", HELLO | {"to": to})
    both = caller.send(to=["delivered@resend.dev", "bounced@resend.dev"])
    service.attempt()
    states = {delivery.recipient: delivery.state for delivery in service.show(both).deliveries}
    assert states == {"delivered@resend.dev": State.SENT, "bounced@resend.dev": State.FAILED}
