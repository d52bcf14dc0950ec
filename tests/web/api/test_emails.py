"""Messages through the HTTP API: what is accepted, what is refused and by which name, and what is shown."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from mailer import Secret, send_email
from mailer.errors import StoreError
from mailer.states import State
from tests.unit.test_address import SEPARATORS, SMUGGLING
from tests.web.api.service import HELLO, ApiService

HOUR = timedelta(hours=1)
NO_ID = "01a20a1c-6691-7617-9162-8017db76123f"


def mail_of(parcel):
    return email.message_from_bytes(parcel.data, policy=email.policy.default)


# Sending


def test_an_answer_with_an_id_is_a_committed_message(service, caller):
    """RT1: the row is there when the answer is, and the broker hears of it after that."""
    answer = caller.post("/emails", HELLO)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert set(answer.json) == {"id"}, "no statusCode in an answer that is no error"
    assert service.show(answer.json["id"]).state is State.QUEUED
    assert service.published == [[answer.json["id"]]]


def test_a_broker_that_is_away_is_nothing_to_the_caller(service, caller):
    """RT2: the same answer; the sweeper tells the broker later."""

    def away(_wakeups):
        raise ConnectionError

    service.services.publish = away
    assert caller.post("/emails", HELLO).status_code == 200


def test_a_store_that_is_away_is_a_500_in_json(service, caller, monkeypatch):
    """Then nothing was accepted, and the answer says so without a word of the inside."""

    def away(*_args, **_named):
        raise StoreError("the store does not answer (OperationalError); check MAILER_DATABASE_URL")

    monkeypatch.setattr("mailer.outbox.accept", away)
    assert "MAILER" not in caller.refused(500, "application_error", "POST", "/emails", HELLO)


def test_a_bug_of_ours_is_a_500_in_json(service, caller, monkeypatch):
    """Whatever happens the answer has Resend's shape, and no trace of a stack."""

    def bug(*_args, **_named):
        raise ZeroDivisionError("ada@example.test")

    monkeypatch.setattr("mailer.outbox.accept", bug)
    assert "ada@" not in caller.refused(500, "application_error", "POST", "/emails", HELLO)


def test_every_field_arrives(service, caller):
    """What the request says stands in the mail."""
    caller.send(
        **{"from": "Müller <m@acme.test>"},
        to="Ada <ada@example.test>",
        cc=["c@example.test"],
        bcc="b@example.test",
        reply_to=["r@acme.test"],
        subject="Grüße",
        html="<p>Hi</p>",
        text="Hi",
        headers={"X-Entity-Ref-ID": "1"},
        attachments=[
            {
                "filename": "a.txt",
                "content": base64.b64encode(b"text").decode(),
                "content_type": "text/plain",
            },
            {"filename": "b.bin", "content": [0, 255, 10]},
            {"filename": "c.bin", "content": {"type": "Buffer", "data": [1, 2]}},
            {"filename": "i.png", "content": "aGk=", "content_id": "logo"},
        ],
    )
    service.attempt()
    [parcel] = service.sent()
    assert set(parcel.recipients) == {"ada@example.test", "c@example.test", "b@example.test"}
    mail = mail_of(parcel)
    assert (mail["from"], mail["to"]) == ("Müller <m@acme.test>", "Ada <ada@example.test>")
    assert (mail["cc"], mail["bcc"], mail["reply-to"]) == ("c@example.test", None, "r@acme.test")
    assert (mail["subject"], mail["x-entity-ref-id"]) == ("Grüße", "1")
    files = {
        part.get_filename(): part.get_payload(decode=True) for part in mail.walk() if part.get_filename()
    }
    assert files == {"a.txt": b"text", "b.bin": b"\0\xff\n", "c.bin": b"\1\2", "i.png": b"hi"}


def test_a_template_is_the_applications_own(service, caller):
    """`template` names one of its folders; without its variables the request is refused."""
    body = {"from": "a@acme.test", "to": "ada@example.test", "template": {"id": "receipt"}}
    said = caller.refused(422, "validation_error", "POST", "/emails", body)
    assert "`template.variables` 'receipt' needs" in said
    body["template"] = {"id": "welcome", "variables": {"name": "Ada"}}
    id_ = caller.post("/emails", body).json["id"]
    assert caller.get(f"/emails/{id_}").json["html"] is None, "not rendered yet"
    service.attempt()
    shown = caller.get(f"/emails/{id_}").json
    assert "Hello Ada" in shown["html"]
    assert "Hello Ada" in shown["text"]
    assert shown["last_event"] == "sent"


def test_a_templates_defaults_hold_here_too(service, caller):
    """What the application says of a template is not the caller's to repeat; no sender is a missing field."""
    body = {"to": "ada@example.test", "template": {"id": "welcome", "variables": {"name": "Ada"}}}
    assert "from" in caller.refused(422, "validation_error", "POST", "/emails", body)
    service.mailer.defaults("welcome", sender="Acme <hi@acme.test>", lane="bulk")
    view = service.show(caller.post("/emails", body).json["id"])
    assert (view.sender, view.lane) == ("Acme <hi@acme.test>", "bulk")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("missing_required_field", {"from": None}),
        ("missing_required_field", {"to": ...}),
        ("missing_required_field", {"subject": None}),
        ("missing_required_field", {"text": None}),
        ("invalid_from_address", {"from": "nobody"}),
        ("validation_error", {"to": "nobody"}),
        ("validation_error", {"to": []}),
        ("validation_error", {"to": 7}),
        ("validation_error", {"cc": "a@x.test, b@x.test"}),
        ("validation_error", {"to": [f"a{n}@x.test" for n in range(51)]}),
        ("validation_error", {"subject": "two\nlines"}),
        ("validation_error", {"headers": {"Bcc": "eve@x.test"}}),
        ("validation_error", {"headers": {"X-A": "1\r\nBcc: eve@x.test"}}),
        ("validation_error", {"headers": {"X-Metadata": "no json"}}),
        ("validation_error", {"headers": {"X-Tags": "{}"}}),
        ("validation_error", {"scheduled_at": "next friday"}),
        ("validation_error", {"expires_at": "2020-01-01T00:00:00Z"}),
        ("validation_error", {"on_uncertain": "perhaps"}),
        ("validation_error", {"lane": "fast"}),
        ("validation_error", {"template": {"id": "welcome"}}),
        ("validation_error", {"tags": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}),
        ("validation_error", {"tags": [{"name": "a"}]} | {"tags": [{"name": "x" * 65, "value": ""}]}),
        ("invalid_attachment", {"attachments": [{"filename": "a.exe", "content": "aGk="}]}),
        ("invalid_attachment", {"attachments": [{"filename": "a.txt", "content": "no base64!"}]}),
        ("invalid_attachment", {"attachments": [{"filename": "a.txt", "content": [256]}]}),
        ("invalid_attachment", {"attachments": [{"filename": "a.txt"}]}),
        ("invalid_attachment", {"attachments": [{"filename": "a.txt", "content": "", "path": "https://x"}]}),
        ("invalid_attachment", {"attachments": [{"content": "aGk="}]}),
        ("invalid_attachment", {"attachments": [{"filename": "a", "content": "", "content_type": "text"}]}),
        ("invalid_attachment", {"attachments": [{"path": "https://127.0.0.1/x"}]}),
    ],
)
def test_mistakes_have_resends_names(service, caller, name, changes):
    """IN1, IN2, MF20: refused here and not in the worker; nothing is stored."""
    body = {k: v for k, v in (HELLO | changes).items() if v is not ...}
    caller.refused(422, name, "POST", "/emails", body)
    assert service.count() == 0


@pytest.mark.parametrize("field", ["from", "to", "cc", "bcc", "reply_to"])
def test_no_address_smuggles_another(service, caller, field):
    """IN2, IN3: one field, one address; refused, never shortened, and never repeated in the error."""
    for address in SMUGGLING:
        answer = caller.post("/emails", HELLO | {field: address})
        assert answer.status_code == 422, address
        assert len(address) < 5 or address not in answer.json["message"]
    assert service.count() == 0


@pytest.mark.parametrize("field", ["subject", "from", "to", "reply_to"])
def test_no_line_break_comes_into_a_header(service, caller, field):
    """IN1: each of the separators, in each field that becomes a header."""
    for separator in SEPARATORS:
        value = (
            f"Ada{separator}Bcc: eve@x.test" if field == "subject" else f"a@x.test{separator}Bcc: e@x.test"
        )
        assert caller.post("/emails", HELLO | {field: value}).status_code == 422, repr(separator)
    assert service.count() == 0


def test_a_mail_too_large_is_refused_before_it_is_stored(tmp_path):
    """MF20, AT1: the encoded size counts; a body beyond the limit is not even read."""
    service = ApiService(tmp_path, max_message_bytes=20_000, api_max_body_bytes=60_000)
    caller = service.caller()
    file = {"filename": "a.bin", "content": base64.b64encode(b"x" * 20_000).decode()}
    caller.refused(413, "payload_too_large", "POST", "/emails", HELLO | {"attachments": [file]})
    caller.refused(413, "payload_too_large", "POST", "/emails", HELLO | {"text": "x" * 60_000})
    assert service.count() == 0


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"\xff",
        b"nothing",
        b'{"a": NaN}',
        b"[" * 100_000,
        b'{"a":' * 30 + b"1" + b"}" * 30,
        b"[]",
        b'"x"',
    ],
)
def test_odd_bodies_are_refused(service, caller, data):
    """AK5: what is not JSON, and what is nested deeper than anybody needs."""
    answer = caller.ask("POST", "/emails", data=data, content_type="application/json")
    assert (answer.status_code, answer.mimetype) == (422, "application/json")
    assert "EmailIn" not in answer.text, "no word of ours"


def test_what_is_not_understood_is_named(service, caller):
    """AK5: a stock client's own fields do not stop a mail, and are not dropped silently."""
    file = {"filename": "a.txt", "content": "aGk=", "content_type": 'text/plain; charset="utf-8"', "odd": 1}
    body = HELLO | {"topic_id": "1", "esp": {}, "bad\r\nname": 1, "attachments": [file]}
    answer = caller.post("/emails", body)
    assert answer.status_code == 200
    warned = answer.headers["Mailer-Warning"]
    assert "not understood: attachments.0.odd, esp, topic_id, 1 more" in warned
    assert "attachments.0.content_type" in warned
    assert "Mailer-Warning" not in caller.post("/emails", HELLO).headers
    assert caller.post("/emails?dry_run=1", HELLO).headers["Mailer-Warning"] == "not understood: dry_run"


def test_tags_are_metadata_and_come_back(service, caller):
    """Name and value as they are; django-anymail's headers are understood, and do not go out."""
    headers = {"X-Tags": '["signup", "de"]', "X-Metadata": '{"user": 7, "plan": "pro"}', "X-Other": "1"}
    id_ = caller.send(tags=[{"name": "category", "value": "confirm email"}], headers=headers)
    view = service.show(id_)
    assert view.metadata == {"user": "7", "plan": "pro", "category": "confirm email"}
    assert list(view.tags) == ["signup", "de"]
    shown = caller.get(f"/emails/{id_}").json
    assert {"name": "category", "value": "confirm email"} in shown["tags"]
    assert shown["labels"] == ["signup", "de"]
    service.attempt()
    mail = mail_of(service.sent()[0])
    assert (mail["x-tags"], mail["x-metadata"], mail["x-other"]) == (None, None, "1")


# Idempotency


def test_the_same_key_is_one_mail(service, caller):
    """RT10: the same answer for the same body; another body is a conflict; another project another key."""
    first = caller.send("k", scheduled_at="in 1 hour")
    service.services.now = lambda: datetime.now(UTC) + timedelta(minutes=1)
    assert caller.send("k", scheduled_at="in 1 hour") == first, "as it was written, not when it is"
    said = caller.refused(
        409, "invalid_idempotent_request", "POST", "/emails", HELLO, headers={"Idempotency-Key": "k"}
    )
    assert "key" in said
    assert service.caller(project="other").send("k") != first
    assert service.caller(is_test=True).send("k") != first, "it may not see the other"
    service.services.now = lambda: datetime.now(UTC) + timedelta(hours=25)
    assert caller.send("k", scheduled_at="in 1 hour") != first
    assert service.count() == 4


@pytest.mark.parametrize("key", ["", "x" * 257, "a\x7f"])
def test_a_key_that_is_none_is_refused(service, caller, key):
    """1 to 256 printable characters."""
    headers = {"Idempotency-Key": key}
    for path, body in (("/emails", HELLO), ("/emails/batch", [HELLO])):
        caller.refused(400, "invalid_idempotency_key", "POST", path, body, headers=headers)


def test_fifty_at_once_make_one_mail(service, caller):
    """RT10: with one key, whichever comes first; all get the same answer."""
    ready, answers = threading.Barrier(50), []

    def send() -> None:
        client = type(caller)(service, caller.token)
        ready.wait()
        answers.append(client.post("/emails", HELLO, headers={"Idempotency-Key": "k"}))

    threads = [threading.Thread(target=send) for _ in range(50)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert service.count() == 1


# Batches


def test_a_batch_is_one_transaction_and_one_publication(service, caller):
    """In the order of the request."""
    body = [HELLO | {"subject": f"Mail {n}"} for n in range(100)]
    answer = caller.post("/emails/batch", body)
    assert set(answer.json) == {"data"}
    ids = [entry["id"] for entry in answer.json["data"]]
    assert [service.show(id_).subject for id_ in ids] == [email["subject"] for email in body]
    assert service.published == [ids]


def test_a_strict_batch_is_all_or_nothing(service, caller):
    """The error says which one it was."""
    said = caller.refused(422, "validation_error", "POST", "/emails/batch", [HELLO, HELLO | {"to": "x"}])
    assert said.startswith("emails.1: `to`")
    assert service.count() == 0


def test_a_permissive_batch_takes_the_good_ones(service, caller):
    """Each of the others is named by its place: a wrong shape, a wrong address, too large, no mail at all."""
    body = [HELLO | {"to": "x"}, HELLO, {}, 7, HELLO | {"text": "x" * 11_000_000}]
    answer = caller.post("/emails/batch", body, headers={"x-batch-validation": "permissive"})
    assert len(answer.json["data"]) == 1
    assert [error["index"] for error in answer.json["errors"]] == [0, 2, 3, 4]
    assert service.count() == 1


@pytest.mark.parametrize("body", [[], [HELLO] * 101, HELLO, None, "x"])
def test_a_batch_has_1_to_100(service, caller, body):
    """Anything else is refused."""
    answer = caller.post("/emails/batch", body)
    assert answer.status_code == 422
    assert service.count() == 0


def test_a_batch_says_how_it_is_checked(service, caller):
    """A word that is none of the two is refused, not taken for one of them."""
    headers = {"x-batch-validation": "maybe"}
    caller.refused(422, "invalid_parameter", "POST", "/emails/batch", [HELLO], headers=headers)


@pytest.mark.parametrize("mode", ["strict", "permissive"])
def test_a_key_covers_the_whole_batch(service, caller, mode):
    """RT10: the same batch gets the same answer, errors too; another one is a conflict."""
    body = [HELLO, HELLO | {"subject": "Two"}] + ([{}] if mode == "permissive" else [])
    headers = {"Idempotency-Key": "k", "x-batch-validation": mode}
    first = caller.post("/emails/batch", body, headers=headers)
    assert caller.post("/emails/batch", body, headers=headers).json == first.json
    caller.refused(409, "invalid_idempotent_request", "POST", "/emails/batch", body[:1], headers=headers)
    assert service.count() == 2
    assert caller.send("k"), "the other endpoint has its own keys"


# Looking


def test_a_message_is_shown_in_resends_shape(service, caller):
    """Every field is there, also where it is empty."""
    id_ = caller.send(html="<p>Hi</p>", reply_to="Re <r@acme.test>", scheduled_at="2030-01-01T00:00:00Z")
    shown = caller.get(f"/emails/{id_}", json={}).json
    assert shown == {
        "object": "email",
        "id": id_,
        "message_id": f"<{id_}@acme.test>",
        "to": ["ada@example.test"],
        "from": "Acme <a@acme.test>",
        "created_at": service.show(id_).created_at.isoformat(),
        "subject": "Hello",
        "html": "<p>Hi</p>",
        "text": "Hello there",
        "bcc": [],
        "cc": [],
        "reply_to": ["Re <r@acme.test>"],
        "last_event": "scheduled",
        "scheduled_at": "2030-01-01T00:00:00+00:00",
        "tags": [],
        "labels": [],
    }


def test_a_list_pages_both_ways(service, caller):
    """Newest first; `after` is older, `before` newer; nothing of other projects."""
    ids = [caller.send() for _ in range(5)][::-1]
    service.caller(project="other").send()
    with service.app.app_context():
        send_email.delay(sender="a@acme.test", to="a@x.test", subject="Own", text="x")

    def page(query: str) -> tuple[list[str], bool]:
        found = caller.get(f"/emails?{query}", json={}).json
        assert found["object"] == "list"
        return [entry["id"] for entry in found["data"]], found["has_more"]

    assert page("") == (ids, False)
    assert page("limit=2") == (ids[:2], True)
    assert page(f"limit=2&after={ids[1]}") == (ids[2:4], True)
    assert page(f"limit=2&before={ids[2]}") == (ids[:2], False)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "page=2", "after=x", "before=%00", f"after={NO_ID}&before={NO_ID}"],
)
def test_a_page_that_cannot_be_is_refused(caller, query):
    """By the name of the parameter."""
    caller.refused(422, "invalid_parameter", "GET", f"/emails?{query}")


def test_the_timeline_is_there(service, caller):
    """Oldest first, with the server's words."""
    id_ = caller.send()
    service.attempt()
    found = caller.get(f"/emails/{id_}/events").json["data"]
    assert [event["name"] for event in found] == ["accepted", "sent"]
    assert found[1]["code"] == 250


def test_what_was_erased_is_null(service, caller):
    """PD2: the rest is still there."""
    from mailer import retention

    id_ = caller.send(html="<p>Hi</p>", reply_to="r@acme.test")
    service.attempt()
    service.services.now = lambda: datetime.now(UTC) + timedelta(days=30)
    retention.tidy_all(service.services)
    shown = caller.get(f"/emails/{id_}").json
    assert (shown["html"], shown["text"], shown["reply_to"], shown["to"]) == (
        *(None, None, None),
        ["ada@example.test"],
    )
    caller.refused(422, "validation_error", "POST", f"/emails/{id_}/resend")


def test_secrets_that_a_provider_mints_are_masked(service, caller):
    """PD2: what is shown of a template is what the console shows."""

    @service.mailer.context_provider("reset_password", provides=("link", "minutes"))
    def mint(_context):
        return {"link": Secret("https://acme.test/reset/t0ken"), "minutes": 15}

    template = {"id": "reset_password", "variables": {"name": "Ada"}}
    body = {"from": "a@acme.test", "to": "ada@example.test", "template": template}
    answer = caller.post("/emails", body)
    assert answer.status_code == 200, answer.text
    service.attempt()
    shown = caller.get(f"/emails/{answer.json['id']}").text
    assert b"t0ken" in service.sent()[0].data
    assert "t0ken" not in shown
    assert "Ada" in shown


# Changing


def test_reschedule_and_cancel(service, caller):
    """Bodies as the clients send them: PATCH repeats the id, cancel has a JSON type and nothing in it."""
    id_ = caller.send(scheduled_at="in 1 hour")
    at = (datetime.now(UTC) + 2 * HOUR).replace(microsecond=0)
    answer = caller.ask("PATCH", f"/emails/{id_}", {"id": id_, "scheduled_at": at.isoformat()})
    assert answer.json == {"object": "email", "id": id_}
    assert "Mailer-Warning" not in answer.headers
    assert caller.get(f"/emails/{id_}").json["scheduled_at"] == at.isoformat()
    answer = caller.ask("POST", f"/emails/{id_}/cancel", data=b"", content_type="application/json")
    assert answer.json == {"object": "email", "id": id_}
    assert caller.get(f"/emails/{id_}").json["last_event"] == "canceled"
    assert "API key re_" in service.show(id_).events[-1].data["by"]


def test_what_has_left_cannot_be_changed(service, caller):
    """A wrong state is told as what it is."""
    id_ = caller.send()
    service.attempt()
    caller.refused(422, "validation_error", "POST", f"/emails/{id_}/cancel")
    body = {"scheduled_at": "in 1 hour"}
    caller.refused(422, "validation_error", "PATCH", f"/emails/{id_}", body)
    caller.refused(422, "missing_required_field", "PATCH", f"/emails/{id_}", {})


def test_resend_is_a_new_message_of_the_same_project(service, caller):
    """Twice with one key it is one."""
    id_ = caller.send()
    service.attempt()
    headers = {"Idempotency-Key": "k"}
    again = caller.post(f"/emails/{id_}/resend", headers=headers).json["id"]
    assert caller.post(f"/emails/{id_}/resend", headers=headers).json["id"] == again != id_
    assert caller.get(f"/emails/{again}").status_code == 200


# Templates


def test_templates_can_be_looked_at(service, caller):
    """By their own examples, or by what is given; what is missing is named, what does not exist is 404."""
    names = [entry["name"] for entry in caller.get("/templates").json["data"]]
    assert "welcome" in names
    assert "Hello Ada" in caller.post("/templates/welcome/preview").json["text"]
    shown = caller.post("/templates/welcome/preview", {"variables": {"name": "<Bob>"}}).json
    assert "Hello &lt;Bob&gt;" in shown["html"]
    german = caller.post("/templates/welcome/preview", {"locale": "de"}).json
    assert german["subject"] != shown["subject"]
    for variables in ({}, {"name": "Ada", "$secret": "0"}):
        body = {"variables": variables}
        caller.refused(422, "validation_error", "POST", "/templates/receipt/preview", body)
    for name in ("nothing", "../welcome", "email/welcome"):
        caller.refused(404, "not_found", "POST", f"/templates/{name}/preview", {})
    assert service.count() == 0


# Addresses


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "", 404),
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("POST", "/emails/", 404),
        ("PUT", "/emails", 405),
        ("DELETE", "/emails/x", 405),
        ("OPTIONS", "/emails", 405),
        ("TRACE", "/emails/batch", 405),
        ("POST", "/openapi.json", 405),
    ],
)
def test_what_is_not_there_is_json_too(service, method, path, status):
    """Clients parse every answer; 405 says which methods there are."""
    answer = service.app.test_client().open(f"/api{path}", method=method)
    assert (answer.status_code, answer.mimetype) == (status, "application/json")
    assert answer.json["statusCode"] == status
    assert ("Allow" in answer.headers) == (status == 405)


def test_another_application_mounts_it_elsewhere(tmp_path):
    """Beside pages of its own, with form tokens that do not stand in the way."""
    from flask_wtf.csrf import CSRFProtect

    service = ApiService(tmp_path, prefix="/mail/v1")
    assert service.caller().send()
    assert service.caller().get("/openapi.json").json["servers"] == [{"url": "/mail/v1"}]
    (tmp_path / "other").mkdir()
    app = ApiService(tmp_path / "other").app
    app.secret_key = "x"
    assert json.loads(CSRFProtect(app) and app.test_client().get("/api/x").text)["statusCode"] == 404
