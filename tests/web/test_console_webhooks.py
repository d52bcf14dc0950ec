"""The console's pages about webhooks."""

from __future__ import annotations

import pytest

from mailer import send_email, webhooks
from mailer.courier import serve
from mailer.store import webhooks as rows
from mailer.worker import work_once
from tests.web.api.hooked import endpoint
from tests.web.consoles import Console, fields_of

PAGE = "/console/webhooks"


@pytest.fixture
def console(tmp_path):
    made = Console(tmp_path)
    made.services.settings = made.services.settings.model_copy(update={"fetch_local": True})
    return made


def told_of_a_mail(console, url: str) -> str:
    """Make an endpoint and call it about one mail; answer its id."""
    made, _ = webhooks.create(console.services, url)
    with console.app.app_context():
        send_email.delay(to="ada@x.test", subject="Hi", text="Hello", sender="me@acme.test")
        work_once(console.services)
    serve(console.services, made.id)
    return made.id


def post(client, path: str):
    return client.post(path, data=fields_of(client.get("/console/")), follow_redirects=True)


def event_of(console, id_: str) -> int:
    with console.services.store.read() as connection:
        [call] = rows.calls(connection, id_, 10)
    return call.event


def test_support_replays_a_call(console):
    """The page shows how each endpoint does, and the button tells it again."""
    client = console.client("support")
    assert "Nobody is told yet" in client.get(PAGE).text
    with endpoint(410, 204) as told:
        id_ = told_of_a_mail(console, told.url)
        assert "disabled" in client.get(PAGE).text
        page = client.get(f"{PAGE}/{id_}").text
        assert "It answered 410" in page
        assert "answered: 410" in page
        assert "do-enable" not in page, "that is for admins"
        admin = console.client("admin")
        assert "Told again" in post(admin, f"{PAGE}/{id_}/enable").text
        page = post(client, f"{PAGE}/{id_}/calls/{event_of(console, id_)}/replay")
        assert "It is told again" in page.text
        serve(console.services, id_)
        assert "answered: 204" in client.get(f"{PAGE}/{id_}").text
        assert "nothing to tell again" in post(client, f"{PAGE}/{id_}/replay").text
        assert "Told nothing" in post(admin, f"{PAGE}/{id_}/disable").text
    assert len(told.taken) == 2


def test_a_viewer_looks_only(console):
    """UI7, UI5: no button, and no deed; without a token nobody does anything."""
    with endpoint(410) as told:
        id_ = told_of_a_mail(console, told.url)
    viewer = console.client("viewer")
    assert "do-replay" not in viewer.get(f"{PAGE}/{id_}").text
    for path in ("replay", f"calls/{event_of(console, id_)}/replay", "enable", "disable"):
        assert post(viewer, f"{PAGE}/{id_}/{path}").status_code == 403
    assert post(console.client("support"), f"{PAGE}/{id_}/enable").status_code == 403
    assert console.client("admin").post(f"{PAGE}/{id_}/enable").status_code == 400
    assert console.client(None).get(PAGE).status_code == 303
    assert viewer.get(f"{PAGE}/nothing").status_code == 404
    assert viewer.get(f"{PAGE}/{id_}?before=x").status_code == 200


def test_pages_of_calls(console):
    """The newest first, fifty at a time."""
    with endpoint() as told:
        made, _ = webhooks.create(console.services, told.url, ["email.sent"])
        with console.app.app_context():
            for _ in range(55):
                send_email.delay(to="ada@x.test", subject="Hi", text="Hello", sender="me@acme.test")
            work_once(console.services)
    client = console.client("viewer")
    first = client.get(f"{PAGE}/{made.id}").text
    assert first.count('class="people__one"') == 50
    before = first.partition("before=")[2].partition('"')[0]
    assert client.get(f"{PAGE}/{made.id}?before={before}").text.count('class="people__one"') == 5


def test_an_address_is_shown_as_text(console):
    """UI1: what an API key gave is hostile in the browser."""
    webhooks.create(console.services, "https://hooks.example/<img%20src=x%20onerror=alert(1)>")
    page = console.client("viewer").get(PAGE).text
    assert "<img" not in page
    assert "&lt;img" in page
