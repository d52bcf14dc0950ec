"""The pages, read without a browser."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from flask.testing import FlaskClient

from mailer.inbox import Mailbox
from mailer.inbox.pages import clock, human_size

from .conftest import make_mail, put


def token_of(page: str) -> str:
    match = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert match
    return match[1]


def test_an_empty_inbox_says_what_to_do(client: FlaskClient) -> None:
    """The first visit shows a command to try, and looks again by itself until a mail is there."""
    page = client.get("/").get_data(as_text=True)
    assert "No mail yet" in page
    assert "mailer send verify_email --to you@example.com" in page
    assert 'http-equiv="refresh"' in page


def test_the_list_leads_to_the_mail(client: FlaskClient, mailbox: Mailbox) -> None:
    """Recipient, subject and beginning are shown; a page with mails is never pulled away from its reader."""
    mail = put(mailbox, make_mail(subject="Reset your password"))
    page = client.get("/").get_data(as_text=True)
    assert "ada@example.com" in page
    assert "Reset your password" in page
    assert f'href="/mail/{mail.id}"' in page
    assert "http-equiv" not in page


def test_a_search_keeps_its_words_and_pages(client: FlaskClient, mailbox: Mailbox) -> None:
    """The box holds the query, the next page keeps it, and nothing found is said plainly."""
    for number in range(55):
        put(mailbox, make_mail(subject=f"News {number}"))
    page = client.get("/?q=subject:news").get_data(as_text=True)
    assert 'value="subject:news"' in page
    assert 'href="/?q=subject:news&amp;start=50"' in page
    assert "1 to 50 of 55" in page
    assert "News 4" in client.get("/?q=subject:news&start=50").get_data(as_text=True)
    assert "Nothing matches" in client.get("/?q=nothing-here").get_data(as_text=True)
    assert client.get("/?start=x").status_code == client.get("/?start=-5").status_code == 200


def test_every_tab_shows_its_view(client: FlaskClient, mailbox: Mailbox) -> None:
    """HTML in a sandboxed frame, linked text, source, headers with the envelope, files, and links."""
    mail = make_mail(
        text="Go to https://x.example/reset?t=1 now\n", html='<a href="https://x.example/h">Help</a>'
    )
    mail.add_attachment(b"x" * 1500, maintype="application", subtype="pdf", filename="a.pdf")
    path = f"/mail/{put(mailbox, mail).id}"
    pages = {tab: client.get(f"{path}/{tab}").get_data(as_text=True) for tab in
             ("html", "text", "source", "headers", "attachments", "links")}  # fmt: skip
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in pages["html"]
    link = '<a href="https://x.example/reset?t=1" target="_blank" rel="noopener noreferrer">'
    assert link in pages["text"]
    assert "Content-Transfer-Encoding" in pages["source"]
    assert "bounces@shop.example" in pages["headers"]
    assert "1.5 kB" in pages["attachments"]
    assert f'href="{path}/part/2"' in pages["attachments"]
    for tab in ("html", "text", "attachments", "links"):
        assert 'href="https://x.example/h" target="_blank" rel="noopener noreferrer"' in pages[tab]
    assert client.get(path).get_data(as_text=True) == pages["html"] or "allow-popups" in pages["html"]


def test_a_mail_without_html_opens_as_text(client: FlaskClient, mailbox: Mailbox) -> None:
    """The first view is one that shows something."""
    put(mailbox, make_mail(text="only words\n"))
    page = client.get("/mail/latest").get_data(as_text=True)
    assert "only words" in page
    assert "<iframe" not in page


def test_the_preview_has_the_policy(client: FlaskClient, mailbox: Mailbox) -> None:
    """UI1: sandboxed without scripts or origin, nothing loaded, types not guessed, no cookie."""
    put(mailbox, make_mail(html="<p>Hi"))
    answer = client.get("/mail/latest/preview")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox ")
    assert "allow-scripts" not in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Set-Cookie" not in answer.headers


def test_what_a_policy_does_not_cover_is_taken_out(client: FlaskClient, mailbox: Mailbox) -> None:
    """Tags that connect or navigate by themselves do not reach the frame."""
    html = (
        "<head><link rel=preconnect href=//x.example><META http-equiv=refresh content='0;//x'><base href=//x>"
    )
    html += "<iframe src=//x></iframe><object data=//x></object><embed src=//x><frameset><frame src=//x>"
    put(mailbox, make_mail(html=html + "<meta <p>Hi<iframe src='"))
    page = client.get("/mail/latest/preview").get_data(as_text=True)
    assert not re.search(r"<(link|meta|iframe|frame|frameset|object|embed)\b", page, re.IGNORECASE)
    assert re.findall(r"<base[^>]*>", page) == ['<base target="_blank">']


def test_pages_have_a_strict_policy(client: FlaskClient, mailbox: Mailbox) -> None:
    """UI6: no scripts at all, nothing inline, never framed; the pages contain none of it."""
    put(mailbox, make_mail(html="<p>Hi"))
    for path in ("/", "/mail/latest", "/mail/latest/headers", "/nowhere"):
        answer = client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script|<style|\son\w+=|\sstyle=", answer.get_data(as_text=True))


def test_deleting_needs_the_forms_token(client: FlaskClient, mailbox: Mailbox) -> None:
    """A forged form changes nothing and says so; the real one deletes what it shows."""
    put(mailbox, make_mail(subject="one"))
    put(mailbox, make_mail(subject="two"))
    put(mailbox, make_mail(subject="three"))
    refused = client.post("/delete")
    assert refused.status_code == 400
    assert "reload the page" in refused.get_data(as_text=True)
    assert mailbox.totals().mails == 3

    token = token_of(client.get("/?q=subject:one").get_data(as_text=True))
    answer = client.post("/delete", data={"csrf_token": token, "q": "subject:one"}, follow_redirects=True)
    assert "The mails that matched were deleted." in answer.get_data(as_text=True)
    latest = mailbox.messages()[0]
    client.post(f"/mail/{latest.id}/delete", data={"csrf_token": token})
    assert [mail.subject for mail in mailbox.messages()] == ["two"]
    client.post("/delete", data={"csrf_token": token})
    assert mailbox.messages() == []


def test_its_cookie_does_not_disturb_the_application(client: FlaskClient, mailbox: Mailbox) -> None:
    """Cookies ignore ports: the inbox's has a name of its own, so that nobody is logged out elsewhere."""
    put(mailbox, make_mail())
    cookie = client.get("/").headers["Set-Cookie"]
    assert cookie.startswith("mailer_inbox=")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


@pytest.mark.parametrize(
    "path", ["/mail/unknown", "/mail/latest", "/mail/x/preview", "/mail/x/part/1", "/mail/x/raw"]
)
def test_what_is_not_there_leads_back(client: FlaskClient, path: str) -> None:
    """A link to a deleted mail gives a page, not a stack trace."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert "Back to the inbox" in answer.get_data(as_text=True)


def test_sizes_and_times_are_for_people() -> None:
    """Bytes in powers of a thousand; the time for today, the date before."""
    assert [human_size(size) for size in (0, 999, 1_500, 25_000_000)] == ["0 B", "999 B", "1.5 kB", "25.0 MB"]
    now = datetime(2026, 11, 23, 12).astimezone()
    assert clock(now, now) == "12:00:00"
    assert clock(now - timedelta(days=1), now) == "22 Nov"
    assert clock(now - timedelta(days=400), now) == "19 Oct 2025"
