"""The console's page about transports: who may see it, what it says, and what can be done there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mailer.operators import Role
from mailer.store import transports as rows
from mailer.store.transports import Counts
from mailer.transports import Reply, Result, Stage
from tests.web.consoles import Console, press

NASTY = "<script>alert(1)</script>\u202e\x1b[31m"
TWO = "ses=smtp://me:s3cret@127.0.0.1:2525?allow_plain_auth_loopback=1&rate=14&lanes=bulk post=memory://"


@pytest.fixture
def console(tmp_path) -> Console:
    return Console(tmp_path, smtp_url=None, transports=TWO)


def rest(console, text="5.7.8 no") -> None:
    route = console.services.transport
    route.gates.failed(route.ways[0], Result(Stage.AUTH, Reply(535, text)))


def row(console, name="ses"):
    with console.services.store.read() as connection:
        return rows.all_transports(connection).get(name)


def test_the_page_says_how_each_stands(console):
    """SC7: state, reason, what to do, what was carried lately, limits, to all roles; a password to nobody."""
    rest(console)
    minute = console.services.now()
    with console.services.store.begin() as connection:
        rows.count(connection, minute, {"ses": Counts(1234, 5, 6)})
        rows.count(connection, minute - timedelta(hours=2), {"post": Counts(99)})
    page = console.client(Role.VIEWER).get("/console/transports").text
    assert page.index("<bdi>ses<") < page.index("<bdi>post<")
    assert "badge--resting" in page
    assert "badge--working" in page
    assert "the server refused the log-in (535 5.7.8 no); check the user name and password" in page
    for said in ("1,234", "rate=14", "lanes=bulk", "tried again at <time"):
        assert said in page
    assert ">99<" not in page
    assert "s3cret" not in page


def test_what_servers_and_people_say_is_text(console):
    """UI6: markup, colours and reading directions of a server or a person do nothing."""
    rest(console, NASTY)
    console.client()
    with console.services.store.begin() as connection:
        rows.pause(connection, "post", console.services.now(), NASTY, NASTY)
    page = console.client().get("/console/transports").text
    assert page.count("&lt;script&gt;") == 3
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_an_administrator_pauses_and_resumes(console):
    """UI7: with a reason, and it says by whom."""
    client = console.client(Role.ADMIN)
    done = press(client, "/console/transports/ses/pause", why="more quota")
    assert done.headers["Location"].endswith("/console/transports?done=paused")
    found = row(console)
    assert (found.state, found.words, found.by) == ("paused", "more quota", "admin@acme.test")
    page = client.get(done.headers["Location"]).text
    assert "Nothing goes this way until" in page
    assert "more quota" in page
    done = press(client, "/console/transports/ses/resume", "/console/transports")
    assert done.headers["Location"].endswith("?done=resumed")
    assert row(console).state == "working"


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SUPPORT])
@pytest.mark.parametrize("deed", ["pause", "resume"])
def test_others_may_only_look(console, role, deed):
    """UI7: no button, and no way around it."""
    rest(console)
    client = console.client(role)
    page = client.get("/console/transports").text
    assert "Pause" not in page
    assert "Resume" not in page
    token = press(client, "/console/transports/ses/pause", "/console/account")
    assert token.status_code == 403
    assert press(client, f"/console/transports/ses/{deed}", "/console/account").status_code == 403
    assert row(console).state == "resting"


def test_only_our_own_forms_do_something(console):
    """UI5: a page of somebody else cannot pause a provider."""
    client = console.client(Role.ADMIN)
    assert client.post("/console/transports/ses/pause").status_code == 400
    assert client.get("/console/transports/ses/resume").status_code == 405
    client.get("/console/transports/ses/pause")
    assert row(console) is None


@pytest.mark.parametrize("name", ["gone", "%3Cscript%3E", "a%00b"])
def test_a_name_that_is_not_there(console, name):
    """It may have been taken out of the settings meanwhile."""
    client = console.client(Role.ADMIN)
    found = client.get(f"/console/transports/{name}/pause")
    assert found.status_code == 404
    assert "no transport of this name" in found.text
    with console.services.store.read() as connection:
        assert rows.all_transports(connection) == {}


def test_a_refresh_is_the_part_that_changes(console):
    """Only what changes is sent again."""
    part = console.client().get("/console/transports", headers={"HX-Request": "true"}).text
    assert part.lstrip().startswith('<section id="live"')
    assert "<html" not in part


def test_a_single_local_transport_is_listed_too(tmp_path):
    """There is always somebody who carries the mail."""
    page = Console(tmp_path).client().get("/console/transports").text
    assert "memory" in page
    assert "badge--working" in page
