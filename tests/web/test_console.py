"""The console's pages: what is shown, to whom, what can be done, and what a mail cannot do to them."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest

from mailer import Attachment, Secret, delivery
from mailer.job import Lease
from mailer.ledger import StoreLedger
from mailer.operators import Role
from mailer.states import State
from mailer.store import deliveries as delivery_rows
from mailer.store import searching
from mailer.transports import Receipt, Result, Stage
from mailer.web import console_list
from mailer.web.console_list import PAGE
from mailer.web.preview import HTML_POLICY
from tests.web.consoles import Console, fields_of, press

NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def console(tmp_path) -> Console:
    return Console(tmp_path)


# The list


def test_the_list_answers_whether_she_got_it(console):
    """Newest first, each with its state, recipients, subject and time."""
    console.send(attempt=True, subject="First")
    console.send("welcome", context={"name": "Ada"}, to=["ada@example.test", "bob@example.test"])
    page = console.client(Role.VIEWER).get("/console/").text
    assert page.index("welcome") < page.index("First")
    for word in ("badge--sent", "badge--queued", "+1", "not rendered yet", "just now"):
        assert word in page
    assert re.search(r'<time datetime="[^"]*\+00:00" title="20\d\d-[^"]*">', page)


@pytest.mark.parametrize(
    "query",
    ["q=grace", "q=GRACE%40example", "q=Wanted", "state=cancelled", "lane=bulk", "template=", "q={id}",
     "q=%3C{id}%40acme.test%3E", "state=cancelled&lane=bulk&q=wanted"],
)  # fmt: skip
def test_one_search_finds_it(console, query):
    """By recipient, subject, id, Message-ID, state and lane, and by all of them together."""
    console.send(subject="Other")
    id_ = console.send(subject="Wanted", to="grace@example.test", lane="bulk")
    press(console.client(), f"/console/messages/{id_}/cancel", f"/console/messages/{id_}")
    page = console.client(Role.VIEWER).get("/console/messages?" + query.format(id=id_)).text
    assert f'id="m-{id_}"' in page
    assert page.count('class="row"') == (2 if query == "template=" else 1)


@pytest.mark.parametrize(
    "query", ["state=nonsense", "before=x&trail=..%00", "q=%00%ED%A0%80", "lane=x" + "y" * 999]
)
def test_odd_questions_get_an_answer(console, query):
    """Nothing that is typed into an address breaks the list."""
    console.send()
    assert console.client().get(f"/console/messages?{query}").status_code == 200


def test_the_list_is_narrowed_to_days_and_tags(console):
    """From a day to a day, both included; by a tag from the page of a message."""
    id_ = console.send(tags=["a&b"])
    console.send()
    today, client = console.services.now(), console.client()
    for path, found in (
        (f"?since={today:%Y-%m-%d}&until={today:%Y-%m-%d}", True),
        (f"?until={today - timedelta(days=1):%Y-%m-%d}", False),
        (f"?since={today + timedelta(days=1):%Y-%m-%d}", False),
        ("?since=nonsense&until=9999-12-31&since=0001-01-01", True),
    ):
        assert (f'id="m-{id_}"' in client.get(f"/console/messages{path}").text) is found, path
    link = re.search(
        r'<a class="badge" href="([^"]*)">a&amp;b</a>', client.get(f"/console/messages/{id_}").text
    )
    page = client.get(html.unescape(link[1])).text
    assert page.count('class="row"') == 1
    assert 'name="tag" value="a&amp;b"' in page


def test_a_search_says_how_far_it_looked(console, monkeypatch):
    """Out of time is not "nothing matches": the page says back to when, does not ask again, and goes on."""
    monkeypatch.setattr(searching, "WINDOW", 2)
    monkeypatch.setattr(searching, "PATIENCE_SECONDS", 0)
    id_ = console.send(to="wanted@example.test")
    for n in range(4):
        console.send(to=f"other{n}@example.test")
    client, path = console.client(), "/console/messages?q=wanted"
    page = client.get(path).text
    assert "Nothing found yet" in page
    assert "It looked through mails back to 20" in page
    for absent in ("Nothing matches", "hx-get", 'class="row"'):
        assert absent not in page
    for _ in range(2):
        path = html.unescape(re.search(r'rel="next" href="([^"]*)">Look further back|$', page)[1] or "")
        page = client.get(path).text
    assert f'id="m-{id_}"' in page
    assert "It looked" not in page
    assert 'rel="prev"' in page


def test_great_numbers_are_not_counted(console, monkeypatch):
    """A most and a plus sign, where counting on would take as long as the log."""
    for _ in range(3):
        console.send()
    assert '<span class="states__count">3</span>' in console.client().get("/console/").text
    monkeypatch.setattr(console_list, "MOST_COUNTED", 2)
    assert '<span class="states__count">3+</span>' in console.client().get("/console/").text


def test_empty_lists_say_why(console):
    """Nothing sent yet, and nothing found, are two things."""
    client = console.client()
    assert "No messages yet" in client.get("/console/").text
    console.send()
    assert "Nothing matches" in client.get("/console/messages?q=nobody").text


def test_pages_lead_to_older_ones_and_back(console):
    """Paging by key: each message once, and the way back is the way that was come."""
    ids = [console.send(subject=f"Mail {n}", session=None) for n in range(2 * PAGE + 3)]
    client, path, seen, pages = console.client(), "/console/messages?q=Mail", [], []
    while path:
        page = client.get(path).text
        pages.append(path)
        seen += re.findall(r'id="m-([0-9a-f-]{36})"', page)
        path = next(iter(re.findall(r'rel="next" href="([^"]*)"', page)), "").replace("&amp;", "&")
    assert seen == ids[::-1]
    assert len(pages) == 3
    back = []
    path = pages[-1]
    while path:
        back.append(re.findall(r'id="m-([0-9a-f-]{36})"', client.get(path).text)[0])
        path = next(iter(re.findall(r'rel="prev" href="([^"]*)"', client.get(path).text)), "").replace(
            "&amp;", "&"
        )
    assert back == [ids[2], ids[PAGE + 2], ids[-1]]


def test_a_refresh_brings_the_changing_part_only(console):
    """htmx asks for the part that changes; that neither keeps a session alive nor outlives one."""
    id_ = console.send(attempt=True)
    client, htmx = console.client(), {"HX-Request": "true"}
    for path in ("/console/", f"/console/messages/{id_}"):
        part = client.get(path, headers=htmx)
        assert "<html" not in part.text
        assert 'id="live"' in part.text
    start = console.services.now()
    console.services.now = lambda: start + timedelta(minutes=29)
    assert client.get("/console/", headers=htmx).status_code == 200
    console.services.now = lambda: start + timedelta(minutes=31)
    late = client.get("/console/", headers=htmx)
    assert (late.status_code, late.headers["HX-Redirect"]) == (401, "/console/login")


# One message


def test_a_message_tells_its_story(console):
    """State, recipients with the server's words, timeline in plain English, details."""
    id_ = console.send(attempt=True, tags=["signup"], metadata={"order": "A-1"}, lane="critical")
    page = console.client(Role.VIEWER).get(f"/console/messages/{id_}").text
    for words in ("Accepted for 1 recipient, lane critical", "The server took it for ada@example.test",
                  "250 2.0.0", "1 attempt", f"&lt;{id_}@acme.test&gt;", "signup", "A-1"):  # fmt: skip
        assert words in page


def test_an_unknown_message_is_not_found(console):
    """A page in our words; an id that is none is not even looked for."""
    for id_ in ("00000000-0000-7000-8000-000000000000", "x", "%00", "..%2f"):
        answer = console.client().get(f"/console/messages/{id_}")
        assert answer.status_code == 404
    assert "There is no message with this id" in console.client().get("/console/messages/x").text


def test_nothing_of_a_mail_is_markup_in_our_pages(console):
    """UI3: subject, names, filenames, tags, metadata, replies and the text are escaped everywhere."""
    id_ = console.send(
        subject=NASTY, text=NASTY, html=f"<p>{NASTY}", sender=f'"{NASTY.replace(chr(34), "")}" <a@acme.test>',
        tags=["<b>tag</b>"], metadata={"<i>key</i>": NASTY},
        attachments=[Attachment('<u>"name".txt', b"x", "text/plain")],
    )  # fmt: skip
    say(console, id_, f"550 {NASTY}\x1b[31m\u202etxt.exe")
    client = console.client()
    paths = ["/console/", "/console/messages?q=" + NASTY, f"/console/messages/{id_}"]
    paths += [f"/console/messages/{id_}?part={part}" for part in ("text", "source", "files")]
    for path in paths:
        page = client.get(path).text
        for tag in ("<script>alert", "<img", "<b>", "<i>", "<u>"):
            assert tag not in page, path
    page = client.get(f"/console/messages/{id_}").text
    assert page.count("␛[31m⟦U+202E⟧txt.exe") == 3, "the recipient's line, the timeline, the transcript"
    assert "\x1b" not in page
    assert "\u202e" not in page


def say(console: Console, id_: str, reply: str) -> None:
    """Let an attempt fail with these words of a server."""
    services = console.services
    lease, now = Lease("t" * 32, timedelta(seconds=60)), services.now()
    with services.store.begin() as connection:
        claimed = delivery_rows.claim(connection, id_, lease.token, now, lease.duration)
    jobs = delivery.jobs_of(claimed)
    delivery.prepare(services, lease, jobs, StoreLedger(services, lease, jobs))
    data = {
        "recipient": claimed[0].recipient,
        "attempt": 1,
        "code": 550,
        "reply": reply,
        "reason": "mailbox_unknown",
        "transcript": [f"S: {reply}"],
    }
    finish = delivery_rows.Finish(claimed[0].id, id_, State.FAILED, "mailbox_unknown", 550, reply, data=data)
    with services.store.begin() as connection:
        assert delivery_rows.finish(connection, [finish], [finish.id], now)


def test_the_html_of_a_mail_comes_in_a_sandbox(console):
    """UI1: its own route, under exactly this policy, in a frame that allows nothing."""
    logo = Attachment("logo.png", b"\x89PNG", "image/png", content_id="logo")
    markup = '<base href="//evil.test"><link rel=preconnect href=//evil.test>'
    markup += '<img src="cid:logo"><img src="cid:none">'
    id_ = console.send(html=markup, attachments=[logo], attempt=True)
    client = console.client()
    assert '<iframe class="preview__frame" sandbox=""' in client.get(f"/console/messages/{id_}").text
    answer = client.get(f"/console/messages/{id_}/html")
    assert answer.headers["Content-Security-Policy"] == HTML_POLICY
    assert HTML_POLICY == "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.content_type == "text/html; charset=utf-8"
    assert 'src="data:image/png;base64,iVBORw=="' in answer.text
    assert "cid:none" in answer.text
    assert "evil.test" not in answer.text


def test_before_it_was_rendered_there_is_nothing_to_see(console):
    """A template's mail has no body until a worker made one."""
    id_ = console.send("welcome", context={"name": "Ada"})
    assert "Not rendered yet" in console.client().get(f"/console/messages/{id_}").text
    assert console.client().get(f"/console/messages/{id_}/html").text == ""


def test_secrets_are_masked_in_every_view(console):
    """The value of a Secret is in no page, before and after the message ended."""
    id_ = console.send(text=Secret("code 493-201"), html=Secret("<b>code 493-201</b>"), attempt=True)
    for part in ("?part=text", "?part=source", "/html", ""):
        assert "493-201" not in console.client(Role.ADMIN).get(f"/console/messages/{id_}{part}").text


def test_what_waits_gets_another_time(console):
    """A scheduled mail is moved, or sent at once; one that is gone is not, and the page says so."""
    client = console.client()
    id_ = console.send(countdown=3600)
    page = client.get(f"/console/messages/{id_}/reschedule")
    token = {"csrf_token": fields_of(page)["csrf_token"]}
    path = f"/console/messages/{id_}/reschedule"
    assert "Write the time as" in client.post(path, data=token | {"at": "<soon>"}).text
    moved = client.post(path, data=token | {"at": "2027-01-31T08:30"}, follow_redirects=True)
    assert "It has another time to leave now" in moved.text
    assert "Moved by" in moved.text
    assert f"{console.show(id_).send_at:%Y-%m-%d %H:%M}" == "2027-01-31 08:30"
    client.post(path, data=token | {"now": "yes"})
    assert console.show(id_).state is State.QUEUED
    assert delivery.deliver(console.services, id_) == 1
    late = client.post(path, data=token | {"at": "2027-01-31T08:30"}, follow_redirects=True)
    assert late.status_code == 409
    assert "Not done: it has left" in late.text


# Roles


def test_a_viewer_sees_metadata_and_no_bodies(console):
    """UI7: no body, no button, and no deed by hand either."""
    id_ = console.send(text="The body itself", html="<p>The body itself", attempt=True)
    client = console.client(Role.VIEWER)
    page = client.get(f"/console/messages/{id_}?part=text")
    assert "The server took it" in page.text
    for absent in ("The body itself", "Resend", "iframe", "do-retry", "do-cancel"):
        assert absent not in page.text
    assert client.get(f"/console/messages/{id_}/html").status_code == 403
    token = {"csrf_token": fields_of(page)["csrf_token"]}
    for deed in ("resend", "retry", "cancel", "reschedule"):
        refused = client.post(f"/console/messages/{id_}/{deed}", data=token)
        assert refused.status_code == 403
        assert "This needs the role support" in refused.text
    assert len(console.everything()) == 1


def test_reading_a_body_is_noted(console, caplog):
    """UI7, in part: who read which body is in the log, by id."""
    id_ = console.send(html="<p>x", attempt=True)
    client = console.client()
    with caplog.at_level("INFO", "mailer"):
        client.get(f"/console/messages/{id_}")
        assert "console.body_viewed" not in caplog.text
        client.get(f"/console/messages/{id_}/html")
    assert f"event=console.body_viewed operator=1 message={id_} part=html" in caplog.text


# Deeds


def test_resend_makes_a_linked_copy_once(console):
    """RT12: a double click sends one; both messages know each other, and who did it."""
    id_ = console.send(attempt=True)
    client = console.client()
    fields = fields_of(client.get(f"/console/messages/{id_}"))
    answers = [client.post(f"/console/messages/{id_}/resend", data=fields) for _ in range(2)]
    assert answers[0].location == answers[1].location
    page = client.get(answers[0].location).text
    assert "This is the new message" in page
    assert id_ in page
    copy = next(m for m in console.everything() if m.id != id_)
    assert len(console.everything()) == 2
    assert (copy.resent_from, console.show(id_).resent_as) == (id_, [copy.id])
    assert "Sent again by support@acme.test" in client.get(f"/console/messages/{id_}").text
    assert copy.id in client.get(f"/console/messages/{id_}").text


def test_resend_asks_before_it_repeats_to_several(console):
    """The list of recipients first, then the deed; still one for two clicks."""
    id_ = console.send(to=["ada@example.test", "bob@example.test"], cc="eve@example.test", attempt=True)
    client, path = console.client(), f"/console/messages/{id_}/resend"
    asked = press(client, path, f"/console/messages/{id_}")
    assert asked.status_code == 200
    assert "Send it again to 3 people?" in asked.text
    assert "eve@example.test" in asked.text
    assert len(console.everything()) == 1
    for _ in range(2):
        assert client.post(path, data=fields_of(asked)).status_code == 303
    assert len(console.everything()) == 2


def test_resend_refuses_what_lost_its_secret(console):
    """RT12: a clear notice instead of a mail with a hole; the button is not there to begin with."""
    id_ = console.send(text=Secret("code 493-201"), attempt=True)
    page = console.client().get(f"/console/messages/{id_}")
    assert "do-resend" not in page.text
    answer = press(console.client(), f"/console/messages/{id_}/resend", f"/console/messages/{id_}")
    assert answer.status_code == 409
    assert "carried a secret that was erased" in answer.text
    assert len(console.everything()) == 1


def test_retry_and_cancel(console):
    """What failed is queued again; what has not left is withdrawn; what has left says so."""
    id_ = console.send()
    say(console, id_, "5.1.1 no such user")
    client, path = console.client(), f"/console/messages/{id_}"
    assert press(client, f"{path}/retry", path).location == f"{path}?done=retried"
    assert "Queued for another try" in client.get(f"{path}?done=retried").text
    assert console.show(id_).state is State.QUEUED
    assert press(client, f"{path}/cancel", path).location == f"{path}?done=cancelled"
    assert console.show(id_).state is State.CANCELLED
    late = press(client, f"{path}/cancel", path)
    assert (late.status_code, late.text.count("it has left, is leaving now, or has ended")) == (409, 1)
    assert [e.data["by"] for e in console.show(id_).events if "by" in e.data] == ["support@acme.test"] * 2


def test_an_uncertain_message_is_settled_by_who_found_out(console):
    """Promise 3: nobody pretends to know; a person who found out says so, and may also send it again."""
    lost = Result(Stage.TEXT, text_sent=True, problem="connection lost")
    console.services.transport = Answering(lost)
    client = console.client()
    for outcome in (State.SENT, State.FAILED):
        id_ = console.send(attempt=True, on_uncertain="hold")
        path = f"/console/messages/{id_}"
        page = client.get(path)
        assert console.show(id_).state is State.UNCERTAIN
        assert "do-settle-sent" in page.text
        assert "do-retry" in page.text
        assert press(client, f"{path}/settle", path, **{"as": outcome}).location == f"{path}?done=settled"
        assert console.show(id_).state is outcome
    assert "uncertain" in press(client, f"{path}/settle", path, **{"as": "sent"}).text


class Answering:
    """A transport that says the same of every recipient."""

    name = "answering"

    def __init__(self, result: Result) -> None:
        self.result = result

    def transmit(self, batch, ledger):
        ledger.update((), batch)
        return [Receipt(self.name, dict.fromkeys(parcel.recipients, self.result)) for parcel in batch]

    def close(self) -> None:
        pass


def test_buttons_are_there_when_they_can_do_something(console):
    """Cancel before it left, retry after it failed."""
    waiting, failed, done = console.send(), console.send(), console.send(attempt=True)
    say(console, failed, "no")

    def buttons(id_: str) -> list[str]:
        return re.findall(r'id="do-([a-z]+)"', console.client().get(f"/console/messages/{id_}").text)

    assert [buttons(id_) for id_ in (waiting, failed, done)] == [
        ["cancel", "resend"],
        ["retry", "resend"],
        ["resend"],
    ]
