"""The JSON API has Mailpit's shape, so that helpers written for it work."""

from __future__ import annotations

import json
import smtplib
import urllib.request

import pytest
from flask.testing import FlaskClient

from mailer.inbox import Inbox, Mailbox

from .conftest import make_mail, put

SUMMARY = {
    "ID", "MessageID", "Read", "From", "To", "Cc", "Bcc", "ReplyTo", "Subject", "Created", "Username", "Tags",
    "Size", "Attachments", "Snippet",
}  # fmt: skip
MESSAGE = {
    "ID", "MessageID", "From", "To", "Cc", "Bcc", "ReplyTo", "ReturnPath", "Subject", "ListUnsubscribe",
    "Date", "Tags", "Username", "Text", "HTML", "Size", "Inline", "Attachments",
}  # fmt: skip


def test_over_the_wire(inbox: Inbox) -> None:
    """A mail sent by SMTP is found by HTTP on the inbox's own port, and deleted there."""
    with smtplib.SMTP("127.0.0.1", inbox.smtp_port, timeout=10) as smtp:
        smtp.send_message(make_mail(subject="Over the wire"))
    with urllib.request.urlopen(f"{inbox.url}/api/v1/search?query=to:ada@example.com", timeout=10) as answer:
        found = json.load(answer)
    assert [message["Subject"] for message in found["messages"]] == ["Over the wire"]
    request = urllib.request.Request(f"{inbox.url}/api/v1/messages", method="DELETE")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.read() == b"ok"
    assert inbox.mailbox.messages() == []


def test_the_list_has_mailpits_fields(client: FlaskClient, mailbox: Mailbox) -> None:
    """Totals, counts and every field of a summary are there under Mailpit's names."""
    mail = make_mail(html="<p>Hi", Cc="c@x.example", Reply_To="R <r@x.example>", Message_ID="<id@x.example>")
    kept = put(mailbox, mail, "ada@example.com", "c@x.example", "hidden@x.example")
    body = client.get("/api/v1/messages").get_json()
    [summary] = body.pop("messages")
    assert body == {
        "total": 1, "unread": 1, "count": 1, "messages_count": 1, "messages_unread": 1, "start": 0,
        "tags": [],
    }  # fmt: skip
    assert set(summary) == SUMMARY
    assert summary["ID"] == kept.id
    assert summary["MessageID"] == "id@x.example"
    assert summary["From"] == {"Name": "Shop", "Address": "shop@example.com"}
    assert summary["To"] == [{"Name": "Ada", "Address": "ada@example.com"}]
    assert summary["Bcc"] == [{"Name": "", "Address": "hidden@x.example"}]
    assert summary["ReplyTo"] == [{"Name": "R", "Address": "r@x.example"}]
    assert (summary["Read"], summary["Attachments"], summary["Snippet"]) == (False, 0, "Hello Ada")
    assert summary["Created"].endswith("Z")


def test_the_list_is_newest_first_and_paged(client: FlaskClient, mailbox: Mailbox) -> None:
    """``start`` and ``limit`` cut a page; nonsense in them means the default."""
    for number in range(60):
        put(mailbox, make_mail(subject=str(number)))
    page = client.get("/api/v1/messages?start=5&limit=2").get_json()
    assert [message["Subject"] for message in page["messages"]] == ["54", "53"]
    assert (page["total"], page["messages_count"], page["count"], page["start"]) == (60, 60, 2, 5)
    assert len(client.get("/api/v1/messages?start=-1&limit=x").get_json()["messages"]) == 50


def test_one_message_has_mailpits_fields(client: FlaskClient, mailbox: Mailbox) -> None:
    """Texts, date, return path and parts; reading it marks it as read; ``latest`` is an id."""
    mail = make_mail(html="<p>Hi", Date="Mon, 23 Nov 2026 10:00:00 +0200")
    mail["List-Unsubscribe"] = "<https://x.example/u>, <mailto:u@x.example>"
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="Rechnung für Ada.pdf")
    kept = put(mailbox, mail)
    body = client.get("/api/v1/message/latest").get_json()
    assert set(body) == MESSAGE
    assert body["ID"] == kept.id
    assert body["Date"] == "2026-11-23T08:00:00.000Z"
    assert body["ReturnPath"] == "bounces@shop.example"
    assert (body["Text"], body["HTML"]) == ("Hello Ada\n", "<p>Hi\n")
    assert body["ListUnsubscribe"]["Links"] == ["https://x.example/u", "mailto:u@x.example"]
    [part] = body["Attachments"]
    assert (part["FileName"], part["ContentType"], part["Size"]) == (
        "Rechnung für Ada.pdf",
        "application/pdf",
        4,
    )
    assert client.get(f"/api/v1/message/{kept.id}/part/{part['PartID']}").data == b"%PDF"
    assert mailbox.messages()[0].read


def test_headers_and_source(client: FlaskClient, mailbox: Mailbox) -> None:
    """Headers are lists under canonical names; the source is the bytes that came."""
    kept = put(mailbox, b"received: one\r\nReceived: two\r\nMESSAGE-id: <x>\r\n\r\nbody")
    assert client.get(f"/api/v1/message/{kept.id}/headers").get_json() == {
        "Received": ["one", "two"],
        "Message-Id": ["<x>"],
    }
    raw = client.get(f"/api/v1/message/{kept.id}/raw")
    assert raw.data == mailbox.raw(kept.id)
    assert raw.content_type == "text/plain; charset=utf-8"


def test_parts_are_only_ever_downloaded(client: FlaskClient, mailbox: Mailbox) -> None:
    """UI8: octet-stream, attachment, nosniff and a sandbox, from the API and from the page alike."""
    mail = make_mail()
    mail.add_attachment(b"<script>", maintype="image", subtype="svg+xml", filename="../x.svg")
    kept = put(mailbox, mail)
    for path in (f"/api/v1/message/{kept.id}/part/2", f"/mail/{kept.id}/part/2"):
        answer = client.get(path)
        assert answer.content_type == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment; filename=x.svg"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("sandbox;")


def test_deleting(client: FlaskClient, mailbox: Mailbox) -> None:
    """By ids, by search, or all; a body that is no JSON deletes nothing."""
    ids = [put(mailbox, make_mail(subject=f"n{number}")).id for number in range(4)]
    assert client.delete("/api/v1/messages", data=b"{garbage").status_code == 400
    assert client.delete("/api/v1/messages", json={"IDs": "all"}).status_code == 400
    assert mailbox.totals().mails == 4
    assert client.delete("/api/v1/messages", json={"IDs": [ids[0], "unknown"]}).data == b"ok"
    assert client.delete("/api/v1/search?query=subject:n1").data == b"ok"
    assert [mail.subject for mail in mailbox.messages()] == ["n3", "n2"]
    assert client.delete("/api/v1/messages", json={"IDs": []}).data == b"ok"
    assert mailbox.messages() == []


def test_marking(client: FlaskClient, mailbox: Mailbox) -> None:
    """By ids, by search, or all, in both directions."""
    one, two = put(mailbox, make_mail(subject="one")), put(mailbox, make_mail(subject="two"))
    client.put("/api/v1/messages", json={"IDs": [one.id], "Read": True})
    assert mailbox.totals().unread == 1
    client.put("/api/v1/messages", json={"Search": "subject:two", "Read": True})
    assert mailbox.totals().unread == 0
    client.put("/api/v1/messages", json={})
    assert mailbox.totals().unread == 2
    assert client.put("/api/v1/messages", json={"Read": "yes"}).status_code == 400
    assert mailbox.get(two.id) is not None


def test_information_and_health(client: FlaskClient, mailbox: Mailbox) -> None:
    """Scripts can wait for the inbox and ask how much it holds."""
    put(mailbox, make_mail())
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    info = client.get("/api/v1/info").get_json()
    assert (info["Messages"], info["Unread"]) == (1, 1)


@pytest.mark.parametrize(
    "path",
    ["/api/v1/message/none", "/api/v1/message/latest", "/api/v1/message/x/raw", "/api/v1/message/x/part/1"],
)
def test_what_is_not_there_is_404_in_json(client: FlaskClient, path: str) -> None:
    """A helper gets an error it can read."""
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.get_json() == {"Error": "No such mail in the inbox"}


def test_a_search_without_a_query_is_refused(client: FlaskClient) -> None:
    """Neither listing nor deleting everything by a forgotten parameter."""
    assert client.get("/api/v1/search").status_code == 400
    assert client.delete("/api/v1/search?query=%20").status_code == 400


@pytest.mark.parametrize(
    "host", ["attacker.example", "127.0.0.1.attacker.example", "localhost.attacker.example"]
)
def test_a_strangers_name_for_this_machine_is_refused(
    client: FlaskClient, mailbox: Mailbox, host: str
) -> None:
    """DNS rebinding: a web site that points its name here reads and changes nothing."""
    put(mailbox, make_mail(subject="secret"))
    for method, path in (("GET", "/"), ("GET", "/api/v1/messages"), ("DELETE", "/api/v1/messages")):
        answer = client.open(path, method=method, headers={"Host": host})
        assert answer.status_code == 403
        assert b"secret" not in answer.data
    assert mailbox.totals().mails == 1


@pytest.mark.parametrize(
    "host", ["localhost:8025", "127.0.0.1", "[::1]:8025", "LOCALHOST", "inbox.localhost:1"]
)
def test_this_machines_own_names_are_answered(client: FlaskClient, host: str) -> None:
    """Any IP address will do, as only names can be rebound."""
    assert client.get("/api/v1/messages", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_sites_cannot_change_anything(
    client: FlaskClient, mailbox: Mailbox, headers: dict[str, str]
) -> None:
    """A page of another origin, another port of this machine included, cannot delete or mark mails."""
    put(mailbox, make_mail())
    assert client.delete("/api/v1/messages", headers=headers).status_code == 403
    assert client.put("/api/v1/messages", json={"Read": True}, headers=headers).status_code == 403
    assert client.delete("/api/v1/messages", headers={"Origin": "http://localhost"}).status_code == 200
