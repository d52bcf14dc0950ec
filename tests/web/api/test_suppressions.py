"""The suppression list through the API: one project's own, and nobody else's."""

from __future__ import annotations

import json

import pytest

from mailer.states import State


@pytest.fixture
def listed(caller):
    """Put addresses on the caller's list; answer the entries."""

    def listed(*addresses: str, **fields):
        answer = caller.post("/suppressions", {"address": list(addresses)} | fields)
        assert answer.status_code == 201, answer.text
        return answer.json["data"]

    return listed


def test_an_address_is_added_seen_and_removed(service, caller, listed):
    """By address, in any case and with its own signs, or by id."""
    [entry] = listed("Ada+x@Bücher.example", cause="complaint", detail="wrote to us")
    assert entry["address"] == "Ada+x@xn--bcher-kva.example"
    assert (entry["cause"], entry["detail"], entry["email_id"]) == ("complaint", "wrote to us", None)
    assert entry["by"].startswith("API key re_")
    for which in (entry["id"], "ada+x@xn--bcher-kva.example", "ADA+X@BÜCHER.example"):
        assert caller.get(f"/suppressions/{which}").json == entry
    assert caller.get("/suppressions").json["data"] == [entry]
    id_ = caller.send(to="ada+x@bücher.example")
    assert caller.get(f"/emails/{id_}").json["last_event"] == "suppressed"
    told = caller.get(f"/emails/{id_}/events").json["data"][-1]
    assert (told["name"], told["entry"], told["cause"]) == ("suppressed", entry["id"], "complaint")
    gone = caller.ask("DELETE", "/suppressions/ada+x@bücher.example")
    assert gone.json == {"object": "suppression", "id": entry["id"], "deleted": True}
    caller.refused(404, "not_found", "DELETE", f"/suppressions/{entry['id']}")
    assert service.show(caller.send(to="ada+x@bücher.example")).state is State.QUEUED


def test_one_text_or_up_to_a_hundred(caller, listed):
    """In the order they were given; one that is there already is answered as it is."""
    [first] = caller.post("/suppressions", {"address": "a7@x.test"}).json["data"]
    many = listed(*(f"A{n}@x.test" for n in range(100)), cause="bounce")
    assert [entry["address"].lower() for entry in many] == [f"a{n}@x.test" for n in range(100)]
    assert many[7] == first
    for wrong in ([], [f"a{n}@x.test" for n in range(101)], ["a@x.test", "no address"], 5, None):
        caller.refused(422, "validation_error", "POST", "/suppressions", {"address": wrong})
    caller.refused(422, "missing_required_field", "POST", "/suppressions", {})
    body = {"address": "ok@x.test", "cause": "spite"}
    caller.refused(422, "validation_error", "POST", "/suppressions", body)
    assert caller.get("/suppressions/ok@x.test").status_code == 404


def test_pages(caller, listed):
    """As lists of messages: newest first, both ways."""
    listed(*(f"a{n}@x.test" for n in range(5)))
    whole = caller.get("/suppressions").json["data"]
    page = caller.get(f"/suppressions?limit=2&after={whole[1]['id']}").json
    assert (page["data"], page["has_more"]) == (whole[2:4], True)
    page = caller.get(f"/suppressions?limit=2&before={whole[2]['id']}").json
    assert (page["data"], page["has_more"]) == (whole[:2], False)
    for wrong in ("after=x", "limit=0", f"after={whole[0]['id']}&before={whole[1]['id']}"):
        caller.refused(422, "invalid_parameter", "GET", f"/suppressions?{wrong}")


def test_it_is_no_oracle_for_other_projects(service, caller, listed):
    """BN9, AK4: what others listed is answered word for word as what nobody did, and stops nothing here."""
    [entry] = listed("ada@x.test")
    other = service.caller(project="other")
    for method in ("GET", "DELETE"):
        asked = (entry["id"], "ada@x.test", "nobody@x.test", "01a20a1c-6691-7617-9162-8017db76123f")
        answers = {other.ask(method, f"/suppressions/{which}").text for which in asked}
        assert len(answers) == 1
        assert json.loads(answers.pop())["statusCode"] == 404
    assert other.get("/suppressions").json["data"] == []
    assert service.show(other.send(to="ada@x.test")).state is State.QUEUED
    assert caller.get("/suppressions/ada@x.test").json == entry
    for odd in ("x", "%00", "a@b@c", "x" * 400):
        caller.refused(422, "validation_error", "GET", f"/suppressions/{odd}")


def test_a_test_key_does_not_touch_a_live_list(service, caller, listed):
    """A key that lies in a CI system reads no addresses and unblocks nobody; its mail honours the list."""
    [entry] = listed("ada@x.test")
    test = service.caller(is_test=True)
    for method, path in (("GET", ""), ("POST", ""), ("GET", "/ada@x.test"), ("DELETE", f"/{entry['id']}")):
        test.refused(403, "validation_error", method, f"/suppressions{path}", {"address": "b@x.test"})
    assert service.show(test.send(to="ada@x.test")).state is State.SUPPRESSED
    assert len(caller.get("/suppressions").json["data"]) == 1


def test_a_batch_is_accepted_whole(service, caller, listed):
    """AU1: a suppressed recipient is no error of the request."""
    listed("ada@x.test")
    bodies = [
        {"from": "a@acme.test", "to": to, "subject": "Hi", "text": "x"} for to in ("ada@x.test", "bob@x.test")
    ]
    answer = caller.post("/emails/batch", bodies)
    assert answer.status_code == 200
    states = [service.show(each["id"]).state for each in answer.json["data"]]
    assert states == [State.SUPPRESSED, State.QUEUED]


def test_a_resend_honours_the_list(service, caller, listed):
    """RT12: it is accepted, and says what became of it where messages are looked at."""
    id_ = caller.send(to="ada@x.test")
    service.attempt()
    listed("ada@x.test")
    copy = caller.post(f"/emails/{id_}/resend").json["id"]
    assert caller.get(f"/emails/{copy}").json["last_event"] == "suppressed"
