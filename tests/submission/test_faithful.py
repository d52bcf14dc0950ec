"""Whatever Python's own library builds arrives with the same parts, or is refused; never something else."""

from __future__ import annotations

import base64
import contextlib
import socket
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import getaddresses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.submission.in_process import Hall
from tests.submission.process import submit


@pytest.fixture(scope="module")
def hall(tmp_path_factory) -> Iterator[Hall]:
    with Hall(tmp_path_factory.mktemp("hall")) as opened:
        yield opened


# No controls, no halves of surrogate pairs, nothing that another reader takes for a line end.
_LETTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])
_WORDS = st.text(_LETTERS, min_size=1, max_size=20).map(lambda text: " ".join(text.split())).filter(bool)
SUBJECTS = st.one_of(st.sampled_from(["Grüße 🎉🎉", "a" * 200, "=?utf-8?q?no?=", "x, y; z"]),
                     st.lists(_WORDS, min_size=1, max_size=8).map(" ".join))  # fmt: skip
TEXTS = st.lists(st.text(_LETTERS, max_size=90), max_size=6).map(lambda lines: "\n".join([*lines, ""]))
NAMES = st.text("abcäöü ,\"'()-_日本🎉", min_size=1, max_size=30)
NAMES = NAMES.map(lambda name: " ".join(name.split())).filter(bool)
KINDS = st.sampled_from(["application/pdf", "image/png", "audio/mpeg"])
FILES = st.lists(st.tuples(st.binary(max_size=300), KINDS, NAMES), max_size=3)
PERSON = st.tuples(NAMES, st.sampled_from("abcdefg"))
PEOPLE = st.lists(PERSON, min_size=1, max_size=3, unique_by=lambda person: person[1])


@st.composite
def mails(draw) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Acme <a@acme.test>"
    mail["Subject"] = draw(SUBJECTS)
    mail["X-Thing"] = draw(SUBJECTS)
    mail["To"] = [_address(*person) for person in draw(PEOPLE)]
    mail.set_content(draw(TEXTS), cte=draw(st.sampled_from(["quoted-printable", "base64"])))
    if draw(st.booleans()):
        mail.add_alternative(draw(TEXTS), subtype="html", cte="quoted-printable")
        if draw(st.booleans()):
            html = mail.get_payload()[1]
            html.add_related(draw(st.binary(max_size=300)), maintype="image", subtype="png", cid="<logo@x>")
    for content, kind, name in draw(FILES):
        mail.add_attachment(content, *kind.split("/"), filename=name)
    return mail


def _address(name: str, local: str):

    return Address(name, local, "example.test")


def parts(mail: EmailMessage) -> list[tuple[str, str | bytes]]:
    """Each leaf's type and what it holds, decoded; of a text, up to its last line end."""
    return [(part.get_content_type(), _content(part)) for part in mail.walk() if not part.is_multipart()]


def _content(part: EmailMessage) -> str | bytes:
    content = part.get_content()
    return content.replace("\r\n", "\n").rstrip("\n") if isinstance(content, str) else content


def header(raw: bytes, name: str) -> str:
    """By the library's older reader: that of 3.11's newer one keeps blanks between encoded words."""
    value = message_from_bytes(raw)[name].replace("\r\n", "")
    return str(make_header(decode_header(value)))


def display_names(raw: bytes) -> list[str]:
    pairs = getaddresses([message_from_bytes(raw)["To"].replace("\r\n", "")])
    return [str(make_header(decode_header(name))) for name, _spec in pairs]


def names(mail: EmailMessage) -> list[str | None]:
    return [part.get_filename() for part in mail.iter_attachments()] if mail.is_multipart() else []


@given(mails(), st.booleans())
@settings(max_examples=150, report_multiple_bugs=False)
def test_equal_parts_leave(hall, mail, has_bcc):
    """Texts, files, names, images, people, subject and another header."""
    people = [address.addr_spec for address in mail["To"].addresses]
    recipients = [*people, "hidden@example.test"] if has_bcc else people
    with hall.client() as client:
        id_ = submit(client, mail, *recipients)
    arrived = hall.arrived(id_)
    assert sorted(hall.sent()[-1].recipients) == sorted(recipients)
    assert parts(arrived) == parts(mail)
    assert names(arrived) == names(mail)
    assert [a.addr_spec for a in arrived["To"].addresses] == people
    left, given_ = hall.sent()[-1].data, mail.as_bytes(policy=policy.SMTP)
    for name in ("Subject", "X-Thing"):
        assert header(left, name) == header(given_, name)
    assert display_names(left) == display_names(given_)


COMMANDS = st.sampled_from(
    [b"EHLO x", b"HELO x", b"AUTH PLAIN AGEAYg==", b"AUTH LOGIN", b"*", b"MAIL FROM:<a@acme.test>", b"RSET",
     b"RCPT TO:<a@x.test>", b"DATA", b".", b"", b"NOOP", b"VRFY a", b"HELP", b"STARTTLS", b"BDAT 3", b"=",
     b"MAIL FROM:<a@acme.test> SIZE=99999999999", b"RCPT TO:<a@x.test", b"Subject: x", b"From: a@acme.test",
     b"MAIL FROM:<\xff@x.test> SMTPUTF8", b"RCPT TO:<\xff@x.test>", b"\0", b"A" * 1_200]
)  # fmt: skip
JUNK = st.one_of(COMMANDS, COMMANDS, COMMANDS, st.binary(max_size=80))


@given(st.lists(JUNK, max_size=25), st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r"]), st.booleans())
@settings(max_examples=200)
def test_garbage_is_never_accepted(hall, junk, end, logged_in):
    """Nothing of it is queued that is no mail, and the door stands: a good mail is taken after it."""
    before = hall.count()
    said = _talk(hall, end.join([*junk, b""]) + b"\r\n.\r\nQUIT\r\n", logged_in)
    queued = said.count(b"250 2.0.0 Ok: queued as ")
    # What has a From and a Subject in its text is a mail.
    assert queued == 0 or (logged_in and b"From:" in b"".join(junk) and b"Subject:" in b"".join(junk))
    assert hall.count() == before + queued
    for line in said.splitlines():
        assert line[:3].isdigit(), line
        assert line.isascii(), line


def _talk(hall: Hall, octets: bytes, logged_in: bool) -> bytes:

    with socket.create_connection(("127.0.0.1", hall.port), timeout=20) as connection:
        if logged_in:
            login = base64.b64encode(f"\0x\0{hall.key}".encode())
            connection.sendall(b"EHLO x\r\nAUTH PLAIN " + login + b"\r\n")
            while b"235 " not in (heard := connection.recv(4096)):
                assert heard
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)
        said = b""
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(4096):
                said += more
        return said
