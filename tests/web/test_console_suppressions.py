"""The console's page about suppression lists."""

from __future__ import annotations

import pytest

from mailer import keys, suppressions
from mailer.states import State
from tests.web.consoles import Console, fields_of

PAGE = "/console/suppressions"


@pytest.fixture
def console(tmp_path):
    return Console(tmp_path)


def posted(client, path: str, **fields: str):
    """Post a form of the page with its token."""
    token = {k: v for k, v in fields_of(client.get(PAGE)).items() if "csrf" in k or "token" in k}
    assert token, "the page has no form token"
    return client.post(path, data=token | fields, follow_redirects=True)


def test_support_adds_and_removes(console, caplog):
    """UI7: the page says what was done, the entry and the log say by whom."""
    caplog.set_level("INFO")
    client = console.client("support")
    page = posted(client, PAGE, address="Ada@x.test", cause="complaint", detail="<b>asked</b>")
    assert page.status_code == 200
    assert "On the list." in page.text
    assert "&lt;b&gt;asked&lt;/b&gt;" in page.text
    entry = suppressions.find(console.services, "ada@x.test")
    assert (entry.by, entry.cause) == ("support@acme.test", "complaint")
    page = posted(client, f"{PAGE}/{entry.id}/remove")
    assert "Off the list." in page.text
    assert suppressions.find(console.services, "ada@x.test") is None
    assert "console.suppressed" in caplog.text
    assert "console.unsuppressed" in caplog.text
    assert "not on the list any more" in posted(client, f"{PAGE}/{entry.id}/remove").text
    assert "not on the list any more" in posted(client, f"{PAGE}/x/remove").text


def test_a_viewer_looks_only(console):
    """UI7: no form, and no deed; without a token nobody does anything (UI5)."""
    [entry] = suppressions.add(console.services, "ada@x.test", by="eve")
    viewer = console.client("viewer")
    page = viewer.get(PAGE).text
    assert "ada@x.test" in page
    assert "do-suppress" not in page
    token = fields_of(viewer.get("/console/"))
    assert viewer.post(PAGE, data=token | {"address": "b@x.test"}).status_code == 403
    assert viewer.post(f"{PAGE}/{entry.id}/remove", data=token).status_code == 403
    assert console.client("admin").post(f"{PAGE}/{entry.id}/remove").status_code == 400
    assert console.client(None).get(PAGE).status_code == 303
    assert suppressions.find(console.services, "ada@x.test") == entry


def test_all_lists_are_shown_and_searched(console):
    """With the project's name; a forgotten person's entry too; older ones a page further."""
    made, _ = keys.create(console.services, "x", project="newsletters")
    suppressions.add(console.services, "of-project@x.test", by="eve", project=made.project)
    for start in (0, 30):
        many = [f"a{n}@y.test" for n in range(start, start + 30)]
        suppressions.add(console.services, many, by="eve")
    client = console.client("viewer")
    first = client.get(PAGE).text
    assert first.count('class="people__one"') == 50
    last = client.get(PAGE + "?after=" + first.partition("after=")[2].partition('"')[0]).text
    assert last.count('class="people__one"') == 11
    assert "newsletters" in last
    found = client.get(f"{PAGE}?q=OF-PROJECT").text
    assert found.count('class="people__one"') == 1
    assert "Nothing matches" in client.get(f"{PAGE}?q=nobody").text


def test_a_wrong_address_is_refused_with_words(console):
    """The page stays, and says what is wrong."""
    client = console.client("support")
    page = posted(client, PAGE, address="nonsense")
    assert page.status_code == 400
    assert "Not added: address: " in page.text


def test_the_page_of_a_message_says_why(console):
    """Since when and why; a resend says that it was not sent."""
    suppressions.add(console.services, "ada@example.test", by="eve", cause="bounce")
    id_ = console.send()
    client = console.client("support")
    page = client.get(f"/console/messages/{id_}")
    assert "who has been on the suppression list since" in page.text
    assert "bounce" in page.text
    assert "on suppression list" in page.text
    again = client.post(f"/console/messages/{id_}/resend", data=fields_of(page), follow_redirects=True)
    assert "Not sent: the recipient is on the suppression list." in again.text
    assert {m.state for m in console.everything()} == {State.SUPPRESSED}
