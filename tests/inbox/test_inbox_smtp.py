"""The SMTP side, spoken to by a real client."""

from __future__ import annotations

import smtplib
import socket
import threading
import time
from pathlib import Path

import pytest

from mailer.errors import ConfigError
from mailer.inbox import Inbox
from mailer.inbox.behaviour import ACCEPTS, behaviour_of

from .conftest import make_mail


def test_a_mail_is_kept_byte_for_byte(inbox: Inbox, smtp: smtplib.SMTP) -> None:
    """What is kept is what was sent, envelope included; nothing is added and nothing is relayed."""
    raw = make_mail(subject="Grüße", text="Zeile\n.Punkt\n").as_bytes().replace(b"\n", b"\r\n")
    smtp.sendmail("a@example.com", ["ada@example.com", "hidden@example.com"], raw)
    [mail] = inbox.mailbox.wait_for(1)
    assert inbox.mailbox.raw(mail.id) == raw
    assert (mail.return_path, mail.recipients) == ("a@example.com", ("ada@example.com", "hidden@example.com"))
    assert [party.address for party in mail.bcc] == ["hidden@example.com"]
    assert mail.subject == "Grüße"


def test_the_offer_names_size_8bitmime_and_smtputf8(smtp: smtplib.SMTP) -> None:
    """SIZE is 25 MiB; international addresses and any login are accepted, as the docs say."""
    assert smtp.esmtp_features["size"] == str(25 * 1024 * 1024)
    assert smtp.has_extn("8bitmime")
    assert smtp.has_extn("smtputf8")
    assert smtp.login("anyone", "anything")[0] == 235


def test_an_international_address_arrives_as_it_is(inbox: Inbox, smtp: smtplib.SMTP) -> None:
    """SMTPUTF8: neither side of the address is changed."""
    smtp.send_message(make_mail(to="δοκιμή@παράδειγμα.δοκιμή"), from_addr="jörg@exämple.com")
    [mail] = inbox.mailbox.wait_for(1)
    assert mail.recipients == ("δοκιμή@παράδειγμα.δοκιμή",)


def test_a_bounce_has_no_sender(inbox: Inbox, smtp: smtplib.SMTP) -> None:
    """The null reverse-path is accepted, and shown as empty."""
    smtp.sendmail("", ["ada@example.com"], make_mail().as_bytes())
    assert inbox.mailbox.wait_for(1)[0].return_path == ""


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        ("bounce-550@x.example", 550),
        ("BOUNCE-554+ada@x.example", 554),
        ("defer-451@x.example", 451),
        ("bounce-451@x.example", 250),  # a deferral is no bounce: an ordinary address
        ("defer-550@x.example", 250),
        ("bounce-5500@x.example", 250),
        ("ada@bounce-550.example", 250),
    ],
)
def test_a_recipient_can_be_refused_by_its_name(smtp: smtplib.SMTP, recipient: str, code: int) -> None:
    """The local part says the code; only the documented forms mean anything."""
    smtp.mail("a@example.com")
    assert smtp.rcpt(recipient)[0] == code


def test_one_refused_recipient_does_not_cost_the_others(inbox: Inbox, smtp: smtplib.SMTP) -> None:
    """The mail is kept for those who were accepted."""
    refused = smtp.sendmail("a@x.example", ["bounce-550@x.example", "b@x.example"], make_mail().as_bytes())
    assert list(refused) == ["bounce-550@x.example"]
    assert inbox.mailbox.wait_for(1)[0].recipients == ("b@x.example",)


def test_defer_once_accepts_the_second_try(smtp: smtplib.SMTP) -> None:
    """451, then 250, then it starts over; another sender has a count of its own."""
    codes = []
    for sender in ("a@x.example", "b@x.example", "a@x.example", "a@x.example", "b@x.example"):
        smtp.mail(sender)
        codes.append(smtp.rcpt("defer-once@x.example")[0])
        smtp.rset()
    assert codes == [451, 451, 250, 451, 250]


def test_the_text_can_be_refused(inbox: Inbox, smtp: smtplib.SMTP) -> None:
    """``text-554`` is accepted as a recipient and refused with the text; nothing is kept."""
    with pytest.raises(smtplib.SMTPDataError, match="554"):
        smtp.sendmail("a@x.example", ["text-554@x.example"], make_mail().as_bytes())
    assert inbox.mailbox.messages() == []


@pytest.mark.parametrize(("recipient", "kept"), [("drop-after-text", 1), ("drop-before-text", 0)])
def test_a_connection_is_lost_after_the_text(inbox: Inbox, recipient: str, kept: int) -> None:
    """No answer comes, and the mail is kept or lost as the name says: the client cannot know which."""
    with (
        smtplib.SMTP("127.0.0.1", inbox.smtp_port, timeout=10) as smtp,
        pytest.raises(smtplib.SMTPServerDisconnected),
    ):
        smtp.sendmail("a@x.example", [f"{recipient}@x.example"], make_mail().as_bytes())
    assert len(inbox.mailbox.messages()) == kept


def test_a_lost_answer_shows_a_double(inbox: Inbox) -> None:
    """``drop-once-after-text`` keeps the first copy and accepts the second, so doubles can be seen."""
    raw = make_mail(Message_ID="<one@x.example>").as_bytes()
    for _ in range(2):
        with smtplib.SMTP("127.0.0.1", inbox.smtp_port, timeout=10) as smtp:
            try:
                smtp.sendmail("a@x.example", ["drop-once-after-text@x.example"], raw)
            except smtplib.SMTPServerDisconnected:
                continue
    assert [mail.message_id for mail in inbox.mailbox.messages()] == ["one@x.example"] * 2


@pytest.mark.parametrize("recipient", ["drop-at-rcpt@x.example", "defer-421@x.example"])
def test_a_connection_is_lost_at_rcpt(inbox: Inbox, recipient: str) -> None:
    """The connection closes at RCPT; before a 421 it is said why."""
    with socket.create_connection(("127.0.0.1", inbox.smtp_port), timeout=10) as connection:
        connection.sendall(f"HELO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<{recipient}>\r\n".encode())
        answer = connection.makefile("rb").read()  # ends because the inbox closes
    assert (b"421 4.3.2" in answer) == recipient.startswith("defer")


def test_slowness_is_bounded() -> None:
    """Whatever number is asked for, an answer takes ten seconds at most."""
    assert behaviour_of("slow@x.example").delay_seconds == 2
    assert behaviour_of("slow-1@x.example").delay_seconds == 1
    assert behaviour_of("slow-999@x.example").delay_seconds == 10
    assert behaviour_of("slowly@x.example") is ACCEPTS


def test_a_slow_recipient_does_not_hold_up_others(inbox: Inbox) -> None:
    """While one client waits for its answer, another is served."""
    waiting = smtplib.SMTP("127.0.0.1", inbox.smtp_port, timeout=10)
    waiting.helo("x")
    waiting.mail("a@x.example")
    waiting.rcpt("slow-5@x.example")
    waiting.putcmd("data")
    waiting.getreply()
    waiting.send(b"Subject: x\r\n\r\n.\r\n")
    with smtplib.SMTP("127.0.0.1", inbox.smtp_port, timeout=3) as smtp:
        smtp.send_message(make_mail(subject="quick"))
    assert [mail.subject for mail in inbox.mailbox.messages()] == ["quick"]
    waiting.close()


def test_a_hostile_reply_reaches_the_client(smtp: smtplib.SMTP) -> None:
    """SC19: ``hostile-reply`` says markup and terminal escapes, to be seen doing nothing elsewhere."""
    smtp.mail("a@x.example")
    code, words = smtp.rcpt("hostile-reply@x.example")
    assert code == 550
    assert b"<script>" in words
    assert b"\x1b[31m" in words


def test_a_mail_over_the_limit_is_refused(tmp_path: Path) -> None:
    """The limit holds whether the client declares the size or just sends."""
    with Inbox(tmp_path / "i.sqlite", smtp_port=0, web_port=0, max_message_bytes=10_000) as inbox:
        with smtplib.SMTP("127.0.0.1", inbox.smtp_port, timeout=10) as smtp:
            with pytest.raises(smtplib.SMTPSenderRefused, match="552"):
                smtp.send_message(make_mail(text="x" * 70 + "\n" + "y\n" * 10_000))
            smtp.ehlo_or_helo_if_needed()
            smtp.mail("a@x.example")
            smtp.rcpt("b@x.example")
            assert smtp.data(b"y\r\n" * 10_000)[0] == 552
        assert inbox.mailbox.messages() == []


@pytest.mark.parametrize(
    "garbage",
    [b"\x00\xff\xfe\r\n", b"MAIL FROM:<" + b"(" * 400 + b">\r\n", b"RCPT\r\nDATA\r\n\r\n", b"A" * 100_000],
)
def test_garbage_does_not_end_the_server(inbox: Inbox, garbage: bytes) -> None:
    """RX1: nonsense in the dialogue is answered or hung up on, and the next client is served."""
    with socket.create_connection(("127.0.0.1", inbox.smtp_port), timeout=10) as connection:
        connection.sendall(b"HELO x\r\n" + garbage)
        connection.shutdown(socket.SHUT_WR)
        connection.makefile("rb").read()
    with smtplib.SMTP("127.0.0.1", inbox.smtp_port, timeout=10) as smtp:
        smtp.send_message(make_mail())
    assert len(inbox.mailbox.messages()) == 1


def test_recipients_are_limited(inbox: Inbox) -> None:
    """The thousand-and-first recipient of a mail is deferred (RFC 5321 section 4.5.3.1.10)."""
    commands = "".join(f"RCPT TO:<u{n}@x.example>\r\n" for n in range(1_001))
    with socket.create_connection(("127.0.0.1", inbox.smtp_port), timeout=30) as connection:
        connection.sendall(f"HELO x\r\nMAIL FROM:<a@x.example>\r\n{commands}QUIT\r\n".encode())
        replies = connection.makefile("rb").read().splitlines()
    assert [reply[:3] for reply in replies[-3:]] == [b"250", b"452", b"221"]


def test_mails_survive_a_restart(tmp_path: Path) -> None:
    """A new inbox on the same file shows what the old one received."""
    for _ in range(2):
        with Inbox(tmp_path / "i.sqlite", smtp_port=0, web_port=0) as inbox:
            with smtplib.SMTP("127.0.0.1", inbox.smtp_port, timeout=10) as smtp:
                smtp.send_message(make_mail())
            count = len(inbox.mailbox.messages())
    assert count == 2


@pytest.mark.parametrize(
    ("setting", "ports"),
    [("MAILER_INBOX_SMTP_PORT", ("taken", 0)), ("MAILER_INBOX_PORT", (0, "taken"))],
)
def test_a_taken_port_names_the_setting(
    tmp_path: Path, setting: str, ports: tuple[int | str, int | str]
) -> None:
    """The error says which setting to change; nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        smtp_port, web_port = (taken if port == "taken" else 0 for port in ports)
        inbox = Inbox(tmp_path / "i.sqlite", smtp_port=smtp_port, web_port=web_port)
        before = threading.active_count()
        with pytest.raises(
            ConfigError, match=f"{setting}.*port {taken} is already in use; set {setting}"
        ) as error:
            inbox.start()
        assert error.value.setting == setting
        assert threading.active_count() == before
        inbox.stop()


def test_stopping_is_quick_with_clients_connected(tmp_path: Path) -> None:
    """Idle clients, an unanswered mail and an open web connection do not delay the end beyond a second."""
    inbox = Inbox(tmp_path / "i.sqlite", smtp_port=0, web_port=0)
    inbox.start()
    clients = [socket.create_connection(("127.0.0.1", inbox.smtp_port), timeout=10) for _ in range(3)]
    clients.append(socket.create_connection(("127.0.0.1", inbox.web_port), timeout=10))
    for client in clients[:3]:
        assert client.recv(100).startswith(b"220")
    clients[0].sendall(
        b"HELO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<slow-9@x.example>\r\nDATA\r\nx\r\n.\r\n"
    )
    clients[3].sendall(b"GET / HTTP/1.1\r\n")
    started = time.monotonic()
    inbox.stop()
    inbox.stop()
    assert time.monotonic() - started < 1.0
    for client in clients:
        client.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mailer-inbox")]


def test_it_listens_on_the_loopback_interface_only(inbox: Inbox) -> None:
    """Unless told otherwise, nobody else on the network reads the mails."""
    assert inbox.host == "127.0.0.1"
    assert inbox.url == f"http://127.0.0.1:{inbox.web_port}"
