"""A mail taken apart: what is kept, what is refused, and with which words."""

from __future__ import annotations

import time
from email import policy
from email.message import EmailMessage

import pytest

from mailer.errors import InvalidMessage
from mailer.submission import entity
from mailer.submission.contents import contents_of, unflowed
from mailer.submission.entity import MAX_DEPTH, MAX_PARTS, Unsupported


def read(raw: bytes | EmailMessage):
    return contents_of(entity.mail(raw if isinstance(raw, bytes) else raw.as_bytes(policy=policy.SMTP)))


def multipart(kind: str, *parts: str, parameters: str = "", boundary: str = "b") -> bytes:
    inside = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts)
    head = f"Content-Type: multipart/{kind}; boundary={boundary}{parameters}"
    return f"{head}\r\n\r\n{inside}--{boundary}--\r\n".encode()


PLAIN = "Content-Type: text/plain\r\n\r\nHello"
HTML = "Content-Type: text/html\r\n\r\n<p>Hello</p>"
PNG = "Content-Type: image/png\r\nContent-ID: <logo>\r\nContent-Transfer-Encoding: base64\r\n\r\naGk="
PDF = 'Content-Type: application/pdf; name="a.pdf"\r\n\r\n%PDF'


def test_texts_and_files_as_python_builds_them():
    """Text, html with an image in it, a file with a name beyond ASCII, a mail."""
    mail = EmailMessage()
    mail.set_content("Grüße\n")
    mail.add_alternative('<img src="cid:logo">', subtype="html")
    mail.get_payload()[1].add_related(b"hi", maintype="image", subtype="png", cid="<logo>")
    mail.add_attachment(b"%PDF\0\xff", maintype="application", subtype="pdf", filename="Grüße.pdf")
    forwarded = EmailMessage()
    forwarded["Subject"] = "Forwarded"
    forwarded.set_content("From here on\n")
    mail.add_attachment(forwarded)
    found = read(mail)
    assert (found.text, found.html) == ("Grüße\n", '<img src="cid:logo">\n')
    assert [(a.filename, a.content_type, a.content_id) for a in found.attachments] == [
        ("part-1.2.2.png", "image/png", "logo"),
        ("Grüße.pdf", "application/pdf", None),
        ("part-3.eml", "message/rfc822", None),
    ]
    assert found.attachments[1].content == b"%PDF\0\xff"
    assert b"\r\n\r\nFrom here on\r\n" in found.attachments[2].content, "not >From"


@pytest.mark.parametrize(
    ("raw", "text", "html", "files"),
    [
        (b"\r\nHello\r\n", "Hello", None, []),
        (b"Content-Type: text/html\r\n\r\n<p>\r\n", None, "<p>", []),
        (PDF.encode(), "", None, ["a.pdf"]),
        (multipart("mixed", PLAIN, PDF), "Hello", None, ["a.pdf"]),
        (multipart("mixed", PLAIN, PDF.replace("a.pdf", "Grüße.pdf")), "Hello", None, ["Grüße.pdf"]),
        (multipart("mixed", PLAIN, PDF.replace("a.pdf", "=?utf-8?q?Gr=C3=BC?=")), "Hello", None, ["Grü"]),
        (multipart("mixed", PLAIN, PDF) + b"epilogue\r\n", "Hello", None, ["a.pdf"]),
        (multipart("mixed", PDF, PLAIN), "", None, ["a.pdf", "part-2.txt"]),
        (multipart("mixed", PLAIN, PLAIN), "Hello", None, ["part-2.txt"]),
        (multipart("related", HTML, PNG), None, "<p>Hello</p>", ["part-2.png logo"]),
        (multipart("mixed", HTML, PNG), None, "<p>Hello</p>", ["part-2.png"]),
        (multipart("mixed", HTML.replace("Hello", "cid:logo"), PNG), None, "<p>cid:logo</p>",
         ["part-2.png logo"]),
        (multipart("alternative", PLAIN, HTML), "Hello", "<p>Hello</p>", []),
        (multipart("related", multipart("alternative", PLAIN, HTML, boundary="c").decode(), PNG),
         "Hello", "<p>Hello</p>", ["part-2.png logo"]),
        (b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\n\xe4", "ä", None, []),
        (b"Content-Type: text/plain; charset=us-ascii\r\n\r\n\xc3\xa4", "ä", None, []),
        (b"Content-Type: text/plain; format=flowed\r\n\r\nso \r\nlong\r\n", "so long", None, []),
    ],
)  # fmt: skip
def test_what_is_understood(raw, text, html, files):
    """Which part is what the mail says, and which are files."""
    found = read(raw)
    assert (found.text, found.html) == (text, html)
    named = [f"{a.filename} {a.content_id}" if a.content_id else a.filename for a in found.attachments]
    assert named == files


def test_a_text_file_in_another_character_set_comes_in_utf8():
    """The one that our mails name; the octets of any other file stay."""
    name = "Content-Type: {}; charset=iso-8859-1\r\nContent-Disposition: attachment; filename=a\r\n\r\n\xe4"
    for kind, octets in (("text/csv", "ä".encode()), ("application/x-a", b"\xe4")):
        raw = multipart("mixed", PLAIN, name.format(kind)).decode().encode("latin-1")
        assert read(raw).attachments[0].content == octets


@pytest.mark.parametrize(
    "raw",
    [
        multipart("signed", PLAIN, PDF),
        multipart("encrypted", PDF, PDF),
        multipart("report", PLAIN, PDF),
        multipart("digest", PLAIN),
        multipart("parallel", PLAIN),
        b"Content-Type: application/pkcs7-mime; name=smime.p7m\r\n\r\nx",
        multipart("alternative", PLAIN, HTML, "Content-Type: text/calendar\r\n\r\nBEGIN:VCALENDAR"),
        multipart("alternative", HTML, PLAIN),
        multipart("alternative", PLAIN, HTML, HTML),
        multipart("related", PDF, HTML),
        multipart("related", HTML, PNG, parameters="; start=\"<logo>\""),
        multipart("mixed", PLAIN, multipart("mixed", PLAIN, boundary="c").decode()),
        multipart("mixed", PLAIN, "Content-Type: text/calendar; method=REQUEST; name=a.ics\r\n\r\nx"),
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nx",
        multipart("mixed", PLAIN, "Content-Type: message/delivery-status\r\n\r\nx"),
    ],
)  # fmt: skip
def test_what_would_be_something_else_is_refused(raw):
    """Never changed without a word (RFC 3463, X.6.1)."""
    with pytest.raises(InvalidMessage) as caught:
        read(raw)
    assert isinstance(caught.value, Unsupported) or caught.value.field == "attachments"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"Subject: a\nb: c\r\n\r\nx", "bare CR or LF"),
        (b"Subject: a\r\n\r\nx\n.\r\ny", "bare CR or LF"),
        (b"Subject: a\r\n\r\nx\r.\r\ny", "bare CR or LF"),
        (b"Subject: a\0\r\n\r\n", "a NUL"),
        (b"no header\r\n\r\n", "no header"),
        (b" folded: first\r\n\r\n", "no header"),
        (b"Sub ject: a\r\n\r\n", "no header"),
        (b"Subject: \xff\r\n\r\n", "not UTF-8"),
        (b"X: " + b"a\r\n " * 20_000 + b"\r\n\r\n", "2,000 lines"),
        (b"X: " + (b"a" * 900 + b"\r\n ") * 40 + b"\r\n\r\n", "no header"),
        (b"Subject: a\r\n\r\n" + b"a" * 999, "998 octets"),
        (b"X: a\r\n" * 3_000 + b"\r\n", "2,000 lines"),
        (b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n", "more than one Content-Type"),
        (multipart("mixed", PLAIN, parameters="; boundary=c"), "a parameter twice"),
        (b"Content-Type: text/plain; charset=utf-8; CHARSET=koi8-r\r\n\r\nx", "a parameter twice"),
        (b"Content-Transfer-Encoding: base64\r\n" + multipart("mixed", PLAIN), "is encoded"),
        (b"Content-Type: multipart/mixed\r\n\r\nx", "no good boundary"),
        (b"Content-Type: multipart/mixed; boundary=\"a\xc3\xa4\"\r\n\r\nx", "no good boundary"),
        (multipart("mixed", PLAIN).replace(b"--b--", b""), "no closing boundary"),
        (multipart("mixed", *[PLAIN] * (MAX_PARTS + 1)), "200 parts"),
        (b"Content-Type: text/plain; charset=utf-8\r\n\r\n\xff", "character set"),
        (b"Content-Type: text/plain; charset=nonsense\r\n\r\nx", "character set"),
        (b"Content-Type: text/plain; charset=punycode\r\n\r\nx", "character set"),
        (b"Content-Transfer-Encoding: base64\r\n\r\na*b", "base64"),
        (b"Content-Type: text/plain; x=" + (b"a" * 900 + b"\r\n ") * 5 + b"\r\n\r\n", "too long"),
    ],
)  # fmt: skip
def test_what_two_readers_could_read_differently_is_refused(raw, why):
    """The reason names the place and never what stands there."""
    with pytest.raises(InvalidMessage, match=why):
        read(raw)


def test_levels_are_limited():
    """A part in a part in a part."""
    raw = PLAIN
    for level in range(MAX_DEPTH + 1):
        raw = (
            f"Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n{raw}\r\n--b{level}--\r\n"
        )
    with pytest.raises(InvalidMessage, match="8 deep"):
        read(raw.encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 400_000,
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"\r\n--c" * 400_000,
        b"Subject: " + b"=?utf-8?q?a\r\n " * 1_500 + b"\r\n\r\n",
        b"From: " + (b"(" * 900 + b"\r\n ") * 30 + b"\r\n\r\n",
        b"Content-Type: text/plain; " + (b'a="' * 300 + b"\r\n ") * 4 + b"\r\n\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=\r\n" * 600_000,
    ],
)
def test_what_is_made_to_take_long_does_not(raw):
    """Two megabytes of whatever take less than two seconds."""
    began = time.monotonic()
    try:
        mail = entity.mail(raw)
        contents_of(mail)
        for _name, value in mail.fields:
            entity.words(value)
    except InvalidMessage:
        pass
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("one \ntwo\nthree", "one two\nthree"),
        ("one \n\ntwo", "one \ntwo"),
        ("-- \nAcme", "-- \nAcme"),
        ("text \n-- \nAcme", "text \n-- \nAcme"),
        (" From here \non", "From here on"),
        (">> a \n>> b\n> c", ">> a b\n> c"),
    ],
)
def test_flowed_text_is_whole_again(given, whole):
    """RFC 3676 section 4: soft line breaks, stuffed blanks, quotes, the line before a signature."""
    assert unflowed(given) == whole


def test_flowed_text_without_its_blanks():
    """delsp=yes, for languages without blanks."""
    assert unflowed("一 \n二", delete_space=True) == "一二"
