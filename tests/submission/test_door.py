"""What a client meets at the door, message by message: who may, whom it goes to, what is kept."""

from __future__ import annotations

import re
import smtplib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.submission.process import DoorProcess, hello, submit


def refused(client: smtplib.SMTP, mail, *recipients: str) -> tuple[int, str]:
    with pytest.raises(smtplib.SMTPDataError) as caught:
        submit(client, mail, *recipients)
    return caught.value.smtp_code, caught.value.smtp_error.decode()


def delivered(door: DoorProcess, subject: str):
    """The one mail of that subject, and how it stood in the envelope."""
    door.deliver()
    [mail] = [mail for mail in door.mails() if mail.subject == subject]
    return door.arrived(mail), mail


# Who may


def test_nothing_is_taken_without_a_key(door):
    """530 for everything that a mail is made of."""
    with door.connect(key=None) as client:
        for command in ("MAIL FROM:<a@acme.test>", "RCPT TO:<a@acme.test>", "DATA"):
            code, said = client.docmd(command)
            assert (code, said[:5]) == (530, b"5.7.0")


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("initial", [True, False])
def test_any_user_name_and_a_key_log_in(door, mechanism, initial):
    """Both mechanisms, with and without an initial response."""
    with door.connect(key=None) as client:
        client.user, client.password = "resend", door.key
        method = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login}[mechanism]
        assert client.auth(mechanism, method, initial_response_ok=initial)[0] == 235
        assert client.docmd("AUTH PLAIN")[0] == 503
        submit(client, hello(Subject=f"{mechanism} {initial}"))


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("AUTH CRAM-MD5", (504, b"5.5.4")),
        ("AUTH", (504, b"5.5.4")),
        ("AUTH PLAIN ====", (501, b"5.5.2")),
        ("AUTH PLAIN YQ==", (501, b"5.5.2")),
        ("AUTH plain AGEAYg==", (535, b"5.7.8")),
        ("AUTH PLAIN AGEA/w==", (501, b"5.5.2")),
    ],
)
def test_what_is_no_log_in_is_refused(door, command, answer):
    """Garbage is told from a wrong key; the conversation goes on."""
    with door.connect(key=None) as client:
        code, said = client.docmd(command)
        assert (code, said[:5]) == answer
        assert client.noop()[0] == 250


def test_a_log_in_can_be_given_up(door):
    """RFC 4954 section 4: a lone star."""
    with door.connect(key=None) as client:
        assert client.docmd("AUTH LOGIN")[0] == 334
        assert client.docmd("*")[0] == 501


def test_a_key_without_the_scope_opens_nothing(door):
    """A key that may only look."""
    with pytest.raises(smtplib.SMTPAuthenticationError, match="lacks the scope send"):
        door.connect(key=door.new_key("--scope", "read"))


def test_a_revoked_key_is_refused_in_the_middle_of_a_conversation(door):
    """Looked at with each MAIL, and with each text."""
    key = door.new_key()
    id_ = re.search(r"([0-9a-f-]{36})  " + re.escape(key[:11]), door.run("keys", "list").stdout)[1]
    with door.connect(key=key) as before, door.connect(key=key) as within:
        submit(before, hello(Subject="Before"))
        within.mail("a@acme.test")
        within.rcpt("ada@example.test")
        assert door.run("keys", "revoke", id_).returncode == 0
        assert before.mail("a@acme.test")[0] == 530
        assert within.data(hello(Subject="Within").as_bytes())[0] == 530
        assert before.login("again", door.key)[0] == 235
        submit(before, hello(Subject="After"))


def test_a_key_sends_for_its_domains(door):
    """From counts; what MAIL says does not."""
    with door.connect(key=door.new_key("--domain", "acme.test")) as client:
        submit(client, hello(), sender="x@other.test")
        code, said = refused(client, hello(From="a@other.test"))
        assert (code, said[:5]) == (550, "5.7.1")


def test_three_wrong_keys_end_a_conversation(door):
    """So does a script that tries."""
    with door.connect(key=None) as client:
        for _ in range(3):
            code, said = client.docmd("AUTH PLAIN", "AGEAYg==")
            assert (code, said[:5]) == (535, b"5.7.8")
        assert client.getreply()[0] == 421


# Whom it goes to


def test_the_envelope_says_who_gets_it(door, client):
    """To and Cc as the header has them, Bcc who is only in the envelope, nobody who is not."""
    mail = hello(
        Subject="People", To="Ada <ada@example.test>, Shown <shown@example.test>", Cc="C@example.test"
    )
    submit(client, mail, "ada@example.test", "c@example.test", "hidden@example.test")
    arrived, envelope = delivered(door, "People")
    assert set(envelope.recipients) == {"ada@example.test", "C@example.test", "hidden@example.test"}
    assert [str(a) for a in arrived["To"].addresses] == [
        "Ada <ada@example.test>",
        "Shown <shown@example.test>",
    ]
    assert arrived["Cc"] == "C@example.test"
    assert b"hidden" not in arrived.as_bytes()


def test_nobody_need_be_shown(door, client):
    """Undisclosed recipients."""
    submit(
        client,
        hello(Subject="Undisclosed", To="undisclosed-recipients:;"),
        "x@example.test",
        "X@example.test",
    )
    arrived, envelope = delivered(door, "Undisclosed")
    assert arrived["To"] == "undisclosed-recipients:;"
    assert envelope.recipients == ("x@example.test",)


# What is kept


def test_headers_pass_on_and_those_for_us_do_not(door, client):
    """Threads, lists and whatever an application adds."""
    kept = {"In-Reply-To": "<1@x.test>", "References": "<0@x.test> <1@x.test>", "X-Thing": "Grüße 🎉",
            "List-Unsubscribe": "<https://x.test/u>", "Reply-To": "R <r@acme.test>"}  # fmt: skip
    ours = {"X-Tags": '["confirm"]', "X-Metadata": '{"user": 1}', "X-Mailer-Lane": "critical",
            "X-Expires-At": "in 1 day", "Idempotency-Key": "headers"}  # fmt: skip
    id_ = submit(client, hello(Subject="Headers", Received="from x", Message_ID="<x@y.test>", **kept, **ours))
    arrived, _ = delivered(door, "Headers")
    assert {name: str(arrived[name]) for name in kept} == kept
    assert not {name.lower() for name in arrived} & {name.lower() for name in [*ours, "Received"]}
    assert arrived["Message-ID"] == f"<{id_}@acme.test>"
    shown = door.run("show", id_, "--json").stdout
    assert '"confirm"' in shown
    assert '"critical"' in shown
    assert '"user": "1"' in shown


def test_a_mail_for_later_waits(door, client):
    """X-Scheduled-At, in words."""
    id_ = submit(client, hello(Subject="Later", X_Scheduled_At="in 1 hour"))
    door.deliver()
    assert "Later" not in [mail.subject for mail in door.mails()]
    assert '"scheduled"' in door.run("show", id_, "--json").stdout


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({"Subject": None}, "554 5.6.0"),
        ({"From": None}, "554 5.6.0"),
        ({"From": "a@acme.test, b@acme.test"}, "554 5.6.0"),
        ({"Sender": "b@acme.test"}, "554 5.6.1"),
        ({"Resent-To": "b@acme.test"}, "554 5.6.0"),
        ({"X-Tags": "confirm"}, "554 5.6.0"),
        ({"X-Metadata": "[]"}, "554 5.6.0"),
        ({"X-Mailer-Lane": "fast"}, "554 5.6.0"),
        ({"X-Scheduled-At": "soon"}, "554 5.6.0"),
        ({"X-Expires-At": "in 0 minutes"}, "554 5.6.0"),
        ({"Idempotency-Key": "a", "Resend-Idempotency-Key": "b"}, "554 5.6.0"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(client, headers, answer):
    """And the next mail is taken on the same connection."""
    code, said = refused(client, hello(**headers), headers.get("To") or "ada@example.test")
    assert f"{code} {said}".startswith(answer)
    assert ".test" not in said
    submit(client, hello())


def test_a_smuggled_text_is_one_text_and_is_refused(door, client):
    """CVE-2023-51764 and its like: what ends a text is CR LF dot CR LF and nothing else."""
    for end in (b"\n.\n", b"\n.\r\n", b"\r.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n\0.\r\n"):
        client.mail("a@acme.test")
        client.rcpt("ada@example.test")
        assert client.docmd("DATA")[0] == 354
        smuggled = b"MAIL FROM:<a@acme.test>\r\nRCPT TO:<eve@example.test>\r\nDATA\r\nSubject: Smuggled\r\n"
        client.send(hello().as_bytes().replace(b"\n", b"\r\n") + end + smuggled + b"\r\n.\r\n")
        code, said = client.getreply()
        assert (code, said[:5]) == (554, b"5.6.0"), end
        assert client.noop() == (250, b"2.0.0 OK")
    door.deliver()
    assert not any(mail.subject == "Smuggled" for mail in door.mails())


def test_dots_and_long_lines(door, client):
    """A leading dot arrives; 998 octets are a line, one more is not (RFC 5321 section 4.5.3.1.6)."""
    submit(client, hello(Subject="Dots", text=f".\n..\n.a\n{'x' * 998}\n", cte="8bit"))
    arrived, _ = delivered(door, "Dots")
    assert arrived.get_content().replace("\r\n", "\n") == f".\n..\n.a\n{'x' * 998}\n"
    raw = hello().as_bytes().replace(b"\n", b"\r\n")
    code, said = refused(client, raw + b"x" * 999 + b"\r\n")
    assert (code, said[:5]) == (554, "5.6.0")
    submit(client, raw + b"x" * 998 + b"\r\n")


# Keys of idempotency


def test_twenty_at_once_with_one_key_are_one_mail(door):
    """Everybody is told the same id, and one mail leaves."""
    mail = hello(Subject="Twenty", Idempotency_Key="twenty", X_Scheduled_At="now")

    def send(_number: int) -> str:
        with door.connect() as client:
            return submit(client, mail)

    with ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(send, range(20)))) == 1
    delivered(door, "Twenty")


def test_another_mail_with_the_same_key_is_refused(door, client):
    """Another Date or boundary is the same mail; another text, recipient or time is not."""
    first = submit(client, hello(Idempotency_Key="same", Date="Mon, 01 Jan 2024 00:00:00 +0000"))
    assert submit(client, hello(Idempotency_Key="same", Message_ID="<2@x.test>")) == first
    for other in (hello("Other\n", Idempotency_Key="same"),
                  hello(Idempotency_Key="same", X_Scheduled_At="in 1 hour")):  # fmt: skip
        code, said = refused(client, other)
        assert (code, said[:5]) == (554, "5.5.4")
    assert refused(client, hello(Idempotency_Key="same"), "b@example.test")[0] == 554
    with door.connect(key=door.new_key("--project", "other")) as stranger:
        assert submit(stranger, hello("Other\n", Idempotency_Key="same")) != first


# Where it goes


def test_mail_of_test_keys_and_to_the_simulator_leaves_nothing_behind(door, client):
    """A test key's mail goes to no provider, nor does what drives states."""
    with door.connect(key=door.new_key("--test")) as tester:
        captive = submit(tester, hello(Subject="Captive"))
    bounced = submit(client, hello(Subject="Bounced", To="bounced@resend.dev"), "bounced@resend.dev")
    door.deliver()
    assert not {"Captive", "Bounced"} & {mail.subject for mail in door.mails()}
    assert '"sent"' in door.run("show", captive, "--json").stdout
    assert '"failed"' in door.run("show", bounced, "--json").stdout
