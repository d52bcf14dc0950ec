"""Input made to hurt: every parser and validator ends soon, and takes twice as long for twice as much.

One table of what reads, one of what is read. CPU seconds count, so that other work on the machine does not.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jinja2 import DictLoader, Environment
from markupsafe import escape

import mailer
from mailer import inlining, links, mime, reading, rendering, secret
from mailer.address import Address, masked, parse_list, quoted_name
from mailer.attachment import Attachment, is_blocked, is_clean_mail, safe_filename
from mailer.config import Settings
from mailer.context import checked_context
from mailer.dkim import DkimKey, Signer
from mailer.encoding import text_body, unstructured
from mailer.errors import InvalidTemplate, MailerError, RenderError
from mailer.framing import disarmed, with_images
from mailer.headers import check_header_name, check_header_text, check_headers, did_you_mean
from mailer.inbox import behaviour, guard, headers, html, mail, parsing, search
from mailer.lanes import Lane
from mailer.message import Message
from mailer.replies import explained
from mailer.sealing import Sealer
from mailer.store.forgetting import Person
from mailer.telemetry import escape_controls
from mailer.transports import Parcel, Stage
from mailer.transports.attempt import Errand
from mailer.transports.conversation import _is_mailbox, canonical
from mailer.transports.local import ConsoleTransport
from mailer.transports.smtp import PreparedMessage
from mailer.transports.transcript import Transcript
from mailer.transports.url import parse_smtp_url
from mailer.transports.ways import parse_named, take_routing
from mailer.transports.wire import Answer, Broken, Replies, reply_of
from mailer.web import console_words
from mailer.web.preview import take_apart
from tests.hostile import MAILS, TEXTS
from tests.test_imports import imports_of, sources

SHORT, LONG = 10_000, 100_000
MOST_SECONDS = 1.0
GROWTH = 30  # ten times as much input; a quadratic reader takes a hundred times as long
NOISE = 0.02

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ADA = Address("ada@x.test")
SIGNER = Signer([DkimKey("x.test", "s", Ed25519PrivateKey.generate())])


def message(**fields: Any) -> Message:
    given = {"to": "ada@x.test", "sender": "app@x.test", "subject": "s", "text": "t", "now": NOW, **fields}
    return Message.create(**given)


def built(**fields: Any) -> bytes:
    given = {
        "message_id": "<1@x.test>",
        "date": NOW,
        "sender": ADA,
        "to": [ADA],
        "subject": "s",
        "html": None,
    }
    return mime.build(**{**given, "text": "t", **fields})


def templates(source: str) -> rendering.Templates:
    files = {"email/a/subject.txt": "s", "email/a/body.html": source}
    return rendering.Templates(
        Environment(loader=DictLoader(files), autoescape=True), base_url="http://x.test"
    )


def replies(text: str) -> None:
    """What a server sends, in the pieces in which a network brings it."""
    found, data = Replies(), text.encode(errors="replace")
    for start in range(0, len(data), 1_400):
        found.feed(data[start : start + 1_400])
        while found.next() is not None:
            pass


def transcript(text: str) -> None:
    told = Transcript()
    told.hide("secret")
    told.remark(text)
    told.said(text)


OF_TEXT: dict[str, Callable[[str], object]] = {
    # What a caller of send_email gives
    "Address.parse": Address.parse,
    "Address.parse of a pair": lambda text: (
        Address.parse((text[:500], "a@x.test")),
        Address.parse(("a", text)),
    ),
    "parse_list": lambda text: parse_list([text, (text, text)], "to"),
    "masked": masked,
    "quoted_name": quoted_name,
    "check_header_name": check_header_name,
    "check_header_text": lambda text: check_header_text(text, "subject", 10**6),
    "check_headers": lambda text: check_headers([("X-A", text)]),
    "did_you_mean": lambda text: did_you_mean(text, ["welcome", "receipt"]),
    "safe_filename": safe_filename,
    "is_blocked": is_blocked,
    "Attachment": lambda text: Attachment("a.txt", b"", text, text),
    "is_clean_mail": lambda text: is_clean_mail(text.encode(errors="replace")),
    "checked_context": lambda text: checked_context({text: [text], "a": text}),
    "Lane.parse": Lane.parse,
    **{
        f"Message.create({name}=)": lambda text, name=name: message(**{name: text})
        for name in (
            "to",
            "cc",
            "sender",
            "reply_to",
            "subject",
            "text",
            "html",
            "locale",
            "lane",
            "idempotency_key",
        )
    },
    "Message.create(template=)": lambda text: message(template=text, subject=None, text=None),
    "Message.create(tags=)": lambda text: message(tags=[text], metadata={text: text}),
    # What is made of it
    "unstructured": lambda text: unstructured("Subject", _encodable(text)),
    "text_body": text_body,
    "mime.build": lambda text: built(text=text, html=text),
    "Signer.sign": lambda text: SIGNER.sign(
        f"Subject: {text}\r\nFrom: a\r\n\r\n{text}\r\n".encode(errors="replace"), "x.test", NOW
    ),
    "derive_text": rendering.text_of,
    "tidied": rendering.tidied,
    "a page": lambda text: inlining.Inliner().finish("a", [_encodable(text)]),
    "a value in a page": lambda text: inlining.Inliner().finish("a", ["<p title='", escape(text), "'>x</p>"]),
    "refused_address": links.refused_address,
    "refused_address in a page": lambda text: links.refused_address(f'<a href="{text}">'),
    "absolute_url": lambda text: links.Links("http://x.test").absolute_url(
        _encodable(text), a=_encodable(text)
    ),
    "masked secret": lambda text: rendering.masked({"a": secret.Secret(text)}),
    "Templates.check": lambda text: templates("t").check(text, {}, text),
    "template_check": lambda text: templates(text).check("a", {}),
    "template's variables": lambda text: templates("{{ b }}").check("a", {text: 1}),
    # What an operator gives
    **{
        f"Settings({name}=)": lambda text, name=name: Settings.load({f"MAILER_{name.upper()}": text})
        for name in (
            "lanes",
            "base_url",
            "broker_url",
            "default_sender",
            "secret_keys",
            "trusted_hosts",
            "smtp_url",
        )
    },
    "DKIM keys": lambda text: Signer.load([text]),
    "a person who is to be forgotten": Person(ADA, Sealer([b"k" * 32])).without,
    "parse_smtp_url": parse_smtp_url,
    "parse_smtp_url's parts": lambda text: parse_smtp_url(f"smtp://{text}:{text}@{text}?{text}"),
    "parse_smtp_url's options": lambda text: parse_smtp_url(f"smtp://a?name={text}"),
    "parse_named": parse_named,
    "take_routing": lambda text: take_routing(f"smtp://a?senders={text}&lanes={text}", "S"),
    # What a server says
    "Replies": replies,
    "Replies of one line": lambda text: replies(f"250 {text}\r\n"),
    "Replies of many lines": lambda text: replies(text.replace("", "\r\n250-")[: len(text)]),
    "reply_of": lambda text: reply_of(Answer(550, [text.encode(errors="replace")] * 3)),
    "Transcript": transcript,
    "explained": lambda text: [explained({"stage": s, "code": 550, "reply": text}) for s in Stage],
    "canonical": lambda text: canonical(text.encode(errors="replace")),
    "is_mailbox": _is_mailbox,
    # What is shown
    "escape_controls": escape_controls,
    "shown": lambda text: console_words.shown(text, True),
    "disarmed": disarmed,
    "with_images": lambda text: with_images(text, {"a": ("image/png", b"x")}),
    # What comes to the inbox
    "clean": reading.clean,
    "decode_words": reading.decode_words,
    "inbox parse_addresses": headers.parse_addresses,
    "inbox parse_date": headers.parse_date,
    "inbox search": lambda text: search.to_sql(search.parse_query(text)),
    "inbox host": lambda text: guard.is_known_host(text, set()),
    "inbox behaviour": lambda text: behaviour.behaviour_of(text + "@x.test"),
    "inbox safe_filename": lambda text: parsing.safe_filename(parsing.Part("1", text, "a/b", "", b"")),
    "inbox visible_text": html.visible_text,
    "inbox linkify": html.linkify,
    "inbox find_links": lambda text: html.find_links(parsing.Content((), text, text, (), (), True)),
    "inbox preview": lambda text: html.preview(parsing.Content((), text, text, (), (), True)),
    "inbox decode_text": lambda text: [
        reading.decode_text(text.encode(errors="replace"), c) for c in CHARSETS
    ],
}
CHARSETS = (
    "utf-8",
    "utf-7",
    "utf-16",
    "hz",
    "iso-2022-jp",
    "iso-2022-kr",
    "gb18030",
    "big5",
    "punycode",
    "idna",
)


def _encodable(text: str) -> str:
    """Without lone surrogates, which are refused before."""
    return text.replace("\ud800", "x")


def shown_by_flask_mail(raw: bytes) -> None:
    parcel = Parcel("1", "a@x.test", ("b@x.test",), raw)
    PreparedMessage(Errand([(parcel, raw)]).attempts[0]).show()


def kept_in_the_inbox(raw: bytes) -> None:
    content = parsing.parse(raw)
    mail.search_columns(
        mail.summarise(content, return_path="", recipients=("a@x.test",), size=len(raw), received_at=NOW),
        content,
    )
    html.preview(content)


OF_MAILS: dict[str, Callable[[bytes], object]] = {
    "the inbox": kept_in_the_inbox,
    "the console's preview": take_apart,
    "the console transport": lambda raw: ConsoleTransport(io.StringIO()).keep(
        Parcel("1", "a@x.test", ("b@x.test",), raw)
    ),
    "Flask-Mail's listeners": shown_by_flask_mail,
    "an attached mail": lambda raw: built(attachments=[Attachment("a.eml", raw)]),
}


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    with contextlib.suppress(
        MailerError, Broken, ValueError, inlining.RefusedAddress, inlining.NestedTooDeep
    ):
        call()
    return time.process_time() - began


def too_slow(read: Callable[[Any], object], make: Callable[[int], Any]) -> str:
    """How long it takes if that is too long, the best of three tries; else ""."""
    short, long = make(SHORT), make(LONG)
    taken = [(seconds(lambda: read(long)), 0.0)]
    for _ in range(3):
        if taken[-1][0] < NOISE:
            return ""
        taken.append((seconds(lambda: read(long)), seconds(lambda: read(short))))
        at_long, at_short = min(t[0] for t in taken), max(min(t[1] for t in taken[1:]), 1e-4)
        if at_long < MOST_SECONDS and at_long < GROWTH * at_short + NOISE:
            return ""
    return f"{at_short:.4f} s for {SHORT:,}, {at_long:.3f} s for {LONG:,}"


def slow_ones(read: Callable[[Any], object], shapes: dict[str, Callable[[int], Any]]) -> Iterator[str]:
    for name, make in shapes.items():
        if taken := too_slow(read, make):
            yield f"{name}: {taken}"


@pytest.mark.parametrize("reader", OF_TEXT)
def test_a_text_made_to_hurt_costs_little(reader: str) -> None:
    """RX1: 100 KB end in less than a second, and time grows about as the input does."""
    assert list(slow_ones(OF_TEXT[reader], TEXTS)) == []


@pytest.mark.parametrize("reader", OF_MAILS)
def test_a_mail_made_to_hurt_costs_little(reader: str) -> None:
    """RX1, RX2: many parts, deep ones, long headers, storms of boundaries."""
    assert list(slow_ones(OF_MAILS[reader], MAILS)) == []


# Where the standard library's readers of mail may be used, and on what.
READERS_OF_MAIL = {
    "reading.py": "the one parser, behind its bounds",
    "inbox/headers.py": "addresses of a value that is cut before, dates",
    "submission/entity.py": "encoded words and parameters of values that are cut before",
    "submission/asking.py": "addresses of such a value",
    "inbox/parsing.py": "the type of what `reading` made",
    "web/preview.py": "the same",
    "transports/smtp.py": "the same, and what Flask-Mail does to a table of the library",
    "mime.py": "to write a date",
    "testing.py": "in an application's tests, which want the library's own object",
}


def test_the_librarys_readers_of_mail_get_bounded_input_only() -> None:
    """RX2: ``email`` is imported where its input is bounded, and ``parseaddr`` nowhere."""
    package = Path(mailer.__file__).parent
    found: dict[str, set[str]] = {}
    for file in sources():
        names = {each.name for each in imports_of(file) if f"{each.name}.".startswith("email.")}
        if names:
            found[file.relative_to(package).as_posix()] = names
    assert set(found) == set(READERS_OF_MAIL)
    only_types = {"email.message.Message", "email.charset", "email.utils.format_datetime"}
    parsers = {place for place, names in found.items() if names - only_types}
    doors = {"submission/entity.py", "submission/asking.py"}
    assert parsers == {"reading.py", "inbox/headers.py", "testing.py"} | doors
    assert not [file.name for file in sources() if "parseaddr" in file.read_text("utf-8")]


def test_many_links_to_messages_are_no_nested_mails() -> None:
    """RX1: what counts as a container is a header, not a word of a text."""
    raw = b"Content-Type: text/plain\r\n\r\n" + b"https://x.test/message/1\r\n" * 100
    assert parsing.parse(raw).complete
    assert take_apart(raw).text is not None


def test_an_attached_mail_that_is_nested_deep_leaves_the_source_to_look_at() -> None:
    """RX2: the console shows a mail whose attachment no parser should be given."""
    attached = Attachment("a.eml", MAILS["nested mails"](SHORT))
    seen = take_apart(built(attachments=[attached]))
    assert (seen.text, seen.html, seen.files) == (None, None, ())
    assert seen.source.startswith("From: ada@x.test")


@pytest.mark.parametrize("piece", ["<div>", "<b>", "<table><tr><td>", "<svg>", "<ul><li>", "<b><div></b>"])
def test_a_page_that_is_nested_too_deep_is_refused(piece: str) -> None:
    """RX1: the inliner would end the process; a page that is only long is as good as any."""
    source = "{{ page|safe }}"
    with pytest.raises(RenderError, match="nested more than 500 deep"):
        templates(source).render("a", {"page": piece * 20_000})
    rows = "<table>" + "<tr><td>a<td><b>b</b><br></tr>" * 2_000 + "</table>" + "<p>c" * 4_000
    assert templates(source).render("a", {"page": rows}).text


def test_a_template_that_is_nested_too_deep_is_broken() -> None:
    """RX1: an error of the call, not an accident in the caller's request."""
    with pytest.raises(InvalidTemplate, match="is broken"):
        templates("{{" * 5_000).check("a", {})
