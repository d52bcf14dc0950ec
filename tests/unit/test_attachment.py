"""Names and types of attachments that cannot harm who opens them."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailer.attachment import BLOCKED_TYPES, EXECUTABLE_TYPES, Attachment, is_blocked
from mailer.errors import InvalidMessage
from mailer.message import Message

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def message_with(*attachments: Attachment, **options: object) -> Message:
    return Message.create(
        subject="s", text="t", to="a@x.test", sender="s@x.test", now=NOW, attachments=attachments, **options
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a.pdf", "a.pdf"),
        ("Übersicht März.pdf", "Übersicht März.pdf"),
        ('we"ird\\;na me.txt', 'we"ird\\;na me.txt'),
        ("/etc/passwd", "passwd"),
        ("../../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\a.pdf", "a.pdf"),
        ("..\\..\\a.pdf", "a.pdf"),
        ("\\\\server\\share\\a.pdf", "a.pdf"),
        ("x/..\\a.pdf", "a.pdf"),
        ("docs\\..\\..\\a.pdf", "a.pdf"),
        (".htaccess", "htaccess"),
        ("... .bashrc", "bashrc"),
        ("a.pdf   ", "a.pdf"),
        ("a.pdf\u3000", "a.pdf"),
        (" a b .pdf", "a b .pdf"),
        ("a;b=c%20.pdf", "a;b=c%20.pdf"),
        ("x" * 300 + ".pdf", "x" * 251 + ".pdf"),
        ("é" * 200 + ".pdf", "é" * 125 + ".pdf"),
        ("😀" * 100, "😀" * 63),
    ],
    ids=lambda v: ascii(v)[:30],
)
def test_filenames_are_made_harmless(given, kept):
    """MF12: path parts, leading dots and trailing blanks are dropped; 255 octets at most, the ending kept."""
    name = Attachment(given, b"").filename
    assert name == kept
    assert len(name.encode()) <= 255
    assert Attachment(name, b"").filename == name


@pytest.mark.parametrize("name", ["", "/", "a/", "..", ". .", "  ", "\\", "..\\", None, 3, b"a.pdf"])
def test_a_name_with_nothing_left_is_refused(name):
    """MF12: no made-up names."""
    with pytest.raises(InvalidMessage, match="^attachments: "):
        Attachment(name, b"")


@pytest.mark.parametrize(
    "bad", [*map(chr, range(32)), "\x7f", *map(chr, range(0x80, 0xA0)), "\u2028", "\u2029", "\ud800"]
)
def test_control_characters_are_refused(bad):
    """MF13, IN1: in names, content types and content ids."""
    for arguments in [
        (f"a{bad}.pdf", b""),
        ("a.pdf", b"", f"text/plain{bad}"),
        ("a.png", b"", None, f"a{bad}b"),
    ]:
        with pytest.raises(InvalidMessage) as caught:
            Attachment(*arguments)
        assert caught.value.field == "attachments"


@pytest.mark.parametrize("mark", "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u200e\u200f\u061c")
def test_names_keep_their_direction(mark):
    """AT2: a change of direction would show exe.fdp as pdf.exe the other way round."""
    with pytest.raises(InvalidMessage, match="direction"):
        Attachment(f"invoice{mark}fdp.exe", b"")


@pytest.mark.parametrize(
    "name",
    [
        *(f"a.{ending}" for ending in sorted(BLOCKED_TYPES)),
        "A.EXE",
        "invoice.pdf.exe",
        "invoice.exe.pdf",
        "invoice.scr.zip",
        "a.exe.",
        "a.exe. .",
        "a.exe...",
        "a. exe",
        "a.ex\u200be",
        "a.\uff45\uff58\uff45",
        "a\uff0eexe",
        "a.exe::$DATA",
        "a.exe:stream",
        "a.txt:b.exe",
        "/tmp/.exe.exe",
        "x" * 300 + ".exe",
    ],
    ids=lambda v: ascii(v)[:30],
)
def test_executable_types_are_refused(name):
    """AT2: by name, double ending, trailing dot and blank, and whatever else hides the ending."""
    with pytest.raises(InvalidMessage, match="^attachments: entry 1 is of a type that runs"):
        message_with(Attachment(name, b"MZ"))


@pytest.mark.parametrize(
    "name",
    ["a.pdf", "exe", "exe.pdf", "acme.com.pdf", "vue.js.txt", "a.exempt", "comm", "v1.2.app.notes.txt", "a."],
)
def test_harmless_names_pass(name):
    """AT2: no more is refused than what runs."""
    assert not is_blocked(name)
    assert message_with(Attachment(name, b"")).attachments[0].filename == name


def test_the_block_list_is_a_parameter():
    """AT2: macros, or everything, can be let through by who knows why."""
    assert message_with(Attachment("a.xlsm", b""), blocked_types=EXECUTABLE_TYPES).attachments
    assert message_with(Attachment("a.exe", b""), blocked_types=()).attachments
    with pytest.raises(InvalidMessage):
        message_with(Attachment("a.exe", b""), blocked_types=EXECUTABLE_TYPES)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/vnd.oasis.opendocument.text", "image/svg+xml", "X-A/x.y!#$&^_"]
)
def test_content_types(kind):
    """AT4: type/subtype as the caller wrote it."""
    assert Attachment("a", b"", kind).content_type == kind


@pytest.mark.parametrize(
    "kind",
    [
        *["", "text", "text/", "/plain", "text/plain/x", "text /plain", "text/ plain", "text/plain;", "*/*"],
        *["text/plain; x=y", "text/plain, text/html", "text/plain\r\nX: y", "te(x)t/plain", "text/pläin"],
        *["text/" + "x" * 200, "multipart/mixed", "Multipart/Mixed", "message/partial"],
        *["message/external-body", "message/delivery-status", 3, b"text/plain"],
    ],
    ids=ascii,
)
def test_malformed_content_types_are_refused(kind):
    """AT4, MF10: the grammar of tokens, without parameters; nothing that may not be encoded."""
    with pytest.raises(InvalidMessage, match="^attachments: "):
        Attachment("a", b"", kind)


def test_types_are_guessed_the_same_everywhere():
    """MF7: from our own table, not from the machine's."""
    kinds = {
        "a.PDF": "application/pdf",
        "a.csv": "text/csv",
        "a.tar.gz": "application/gzip",
        "a": None,
        "a.xyz": None,
    }
    for name, kind in kinds.items():
        assert Attachment(name, b"").content_type == (kind or "application/octet-stream")


CLEAN = b"Subject: x\r\n\r\nhello\r\n"


def test_mails_are_attached_clean_or_not_as_mails():
    """MF10: what cannot go out unencoded is refused as message/rfc822, and guessed to be a file."""
    assert Attachment("a.eml", CLEAN).is_mail
    assert Attachment("a", CLEAN.replace(b"\r", b""), "message/RFC822").is_mail
    for content in [b"\xc3\xa9", b"a\0b", b"a\rb", b"x" * 999, b"a\r\r\n"]:
        assert Attachment("a.eml", content).content_type == "application/octet-stream"
        with pytest.raises(InvalidMessage, match="7-bit"):
            Attachment("a.eml", content, "message/rfc822")


@pytest.mark.parametrize("content_id", ["", "<logo>", "a b", "é", "a" * 201, "a>b", 'a"b', 3])
def test_malformed_content_ids_are_refused(content_id):
    """MF13: an id must stand between angle brackets and in a cid: URL as it is."""
    with pytest.raises(InvalidMessage, match="content id"):
        Attachment("a.png", b"", None, content_id)


def test_content_ids_are_unique():
    """MF9: two images of one id could not both be shown."""
    with pytest.raises(InvalidMessage, match="twice"):
        message_with(Attachment("a.png", b"", None, "i"), Attachment("b.png", b"", None, "i"))


@pytest.mark.parametrize("content", ["text", None, 3, [1]])
def test_content_is_bytes(content):
    """AT1: a text would need an encoding nobody named."""
    with pytest.raises(InvalidMessage, match="give bytes"):
        Attachment("a.txt", content)
    assert Attachment("a.txt", bytearray(b"x")).content == b"x"


@pytest.mark.parametrize(
    "attachments", ["a.pdf", b"x", 3, {"a": 1}, ["a.pdf"], [b"x"], [("a.pdf", b"x")], None]
)
def test_attachments_are_attachments(attachments):
    """AT6: no path and no tuple is taken for a file."""
    with pytest.raises(InvalidMessage, match="^attachments: "):
        Message.create(
            subject="s", text="t", to="a@x.test", sender="s@x.test", now=NOW, attachments=attachments
        )


def test_limits(tmp_path):
    """AT1: per file while it is read, and in number."""
    path = tmp_path / "a.pdf"
    path.write_bytes(b"x" * 1_000)
    assert Attachment.from_path(path, max_bytes=1_000).filename == "a.pdf"
    with pytest.raises(InvalidMessage, match="more than 999 bytes"):
        Attachment.from_path(path, max_bytes=999)
    message_with(*[Attachment("a.txt", b"")] * 100)
    with pytest.raises(InvalidMessage, match="at most 100"):
        message_with(*[Attachment("a.txt", b"")] * 101)
    with pytest.raises(InvalidMessage, match="entry 2 has more than 25,000,000 bytes"):
        message_with(Attachment("a.txt", b""), Attachment("b.txt", bytes(25_000_001)))


def test_repr_shows_no_content():
    """PD4: a traceback does not print the file."""
    assert repr(Attachment("a.pdf", b"secret")) == "Attachment('a.pdf', 6 bytes, application/pdf)"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_any_name_is_refused_or_harmless(name):
    """MF12: what is accepted stays as it is when it is given again, and names no folder."""
    try:
        kept = Attachment(name, b"").filename
    except InvalidMessage:
        return
    assert "/" not in kept
    assert not kept.startswith((".", " "))
    assert kept == kept.rstrip()
    assert len(kept.encode()) <= 255
    assert Attachment(kept, b"").filename == kept


@pytest.mark.parametrize("piece", [".", ".exe", "\\", "\\..", "/", ":", "a:", " ", "\u3000", "\u200b", "é"])
def test_hostile_names_cost_next_to_nothing(piece):
    """RX1: names of 100 KB end at once, and the longest that is looked at is quick."""
    for name in (piece * 100_000, (piece * 4_096)[:4_096]):
        began = time.perf_counter()
        with contextlib.suppress(InvalidMessage):
            is_blocked(Attachment(name, b"").filename)
        assert time.perf_counter() - began < 0.25
