"""An inbox of one's own for each test, and mails to put into it."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from mailer.inbox import Inbox, Mail, Mailbox, create_inbox_app


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    """A running inbox on free ports."""
    with Inbox(tmp_path / "inbox.sqlite", smtp_port=0, web_port=0) as inbox:
        yield inbox


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mailbox in memory, without servers."""
    mailbox = Mailbox(":memory:")
    yield mailbox
    mailbox.close()


@pytest.fixture
def client(mailbox: Mailbox) -> FlaskClient:
    """A client of the pages and the API over `mailbox`."""
    app = create_inbox_app(mailbox)
    app.testing = True
    return app.test_client()


@pytest.fixture
def smtp(inbox: Inbox) -> Iterator[smtplib.SMTP]:
    """A connection to the inbox, greeted."""
    with smtplib.SMTP("127.0.0.1", inbox.smtp_port, timeout=10) as connection:
        connection.ehlo("client.example")
        yield connection


def make_mail(
    *,
    subject: str = "Hello",
    to: str = "Ada <ada@example.com>",
    sender: str = "Shop <shop@example.com>",
    text: str = "Hello Ada\n",
    html: str | None = None,
    **headers: str,
) -> EmailMessage:
    """Return a mail with a text part and, if asked for, an HTML part."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, to, subject
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content(text)
    if html is not None:
        mail.add_alternative(html, subtype="html")
    return mail


def put(mailbox: Mailbox, mail: EmailMessage | bytes, *recipients: str) -> Mail:
    """Put a mail into a mailbox as the SMTP server would."""
    raw = mail if isinstance(mail, bytes) else mail.as_bytes().replace(b"\n", b"\r\n")
    return mailbox.add(raw, mail_from="bounces@shop.example", recipients=recipients or ("ada@example.com",))
