"""What the console says: sentences, times, and text that cannot deceive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mailer.events import Event
from mailer.store.queries import EventView
from mailer.web import console_words
from mailer.web.preview import MAX_TEXT, take_apart

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("plain ünï 漢字 👩‍👩‍👧", "plain ünï 漢字 👩‍👩‍👧"),
        ("a\x00b\x1bc\x7f", "a␀b␛c␡"),
        ("invoice\u202efdp.exe", "invoice⟦U+202E⟧fdp.exe"),
        ("a\u200bd\u00ada", "a⟦U+200B⟧d⟦U+00AD⟧a"),
        ("one\r\ntwo\tthree", "one␍␊two␉three"),
    ],
)
def test_what_deceives_is_made_visible(given, seen):
    """UI3: controls, invisible characters and those that turn the reading direction have a picture."""
    assert console_words.shown(given) == seen


def test_a_text_keeps_its_lines():
    """Line breaks and tabs stay in bodies, and nothing else does."""
    assert console_words.shown("a\r\nb\tc\x07", True) == "a\nb\tc␇"


@pytest.mark.parametrize(
    ("minutes", "said"),
    [(0.1, "just now"), (5, "5 min ago"), (59.9, "1 h ago"), (180, "3 h ago"), (60 * 11, "today 01:00"),
     (60 * 20, "yesterday 16:00"), (60 * 72, "19 Nov 12:00"), (60 * 24 * 365, "22 Nov 2025 12:00"),
     (-9, "in 9 min"), (-60 * 48, "24 Nov 12:00")],
)  # fmt: skip
def test_times_read_as_one_says_them(minutes, said):
    """Near ones as a span, far ones as a date."""
    assert console_words.ago(NOW - timedelta(minutes=minutes), NOW) == said


def test_every_event_has_a_sentence():
    """A new event needs a line in the one table; until then it is shown by its name."""
    assert set(console_words.SENTENCES) == set(Event)


@pytest.mark.parametrize("name", [*Event, "webhook_posted", ""])
def test_no_event_breaks_the_timeline(name):
    """Whatever the data lacks or has too much of, there is a sentence."""
    for data in ({}, {"recipient": "a@b.test", "not_before": "soon", "code": None, "odd": [1, {"a": True}]}):
        entry = console_words.entry(EventView(NOW, name, data))
        assert entry.sentence
        assert "None" not in entry.sentence


def test_an_unknown_event_shows_its_data():
    """Nothing is hidden because nobody worded it yet."""
    entry = console_words.entry(
        EventView(NOW, "bounce_report", {"recipient": "a@b.test", "code": 550, "reply": "no"})
    )
    assert (entry.sentence, entry.detail) == ("Bounce report", "550 no\nrecipient a@b.test")


@pytest.mark.parametrize(
    ("code", "reply", "meaning"),
    [
        (550, "5.1.1 who", "The recipient's matter: there is no such mailbox; correct the address"),
        (550, "5.7.509 no", "The sender's matter: SPF, DKIM or DMARC of the sender's domain do not vouch"),
        (
            552,
            "5.3.4 too big",
            "The mail's matter: the mail is larger than the server takes; make it smaller",
        ),
        (530, "5.7.0 log in", "The provider's matter: the server takes no mail without another log-in"),
    ],
)
def test_the_timeline_says_whose_matter_it_is(code, reply, meaning):
    """SC1, SC7: below the server's words, and with the next step."""
    told = {"recipient": "a@b.test", "stage": "data", "code": code, "reply": reply, "reason": "x"}
    words, shown = console_words.entry(EventView(NOW, "failed", told)).detail.splitlines()
    assert words == f"{code} {reply}"
    assert shown.startswith(meaning)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\xff\xfe", b"Content-Type: text/html; charset=nonsense\r\n\r\n<p>\xff",
     b"Content-Type: multipart/mixed\r\n\r\nno boundary", b"Content-Type: text/plain\r\n"
     b"Content-Transfer-Encoding: base64\r\n\r\n!!!!", b"Subject: =?x?q?=ff?=\r\n\r\n" + b"a" * 300_000],
)  # fmt: skip
def test_a_mail_that_is_no_good_can_be_looked_at(data):
    """Bounded, and never an error."""
    seen = take_apart(data)
    assert len(seen.source) <= MAX_TEXT
    assert len(seen.text or "") <= MAX_TEXT


def test_rewriting_is_linear():
    """A mail made to be slow is not."""
    for piece in (b"<link ", b"<link '", b"cid:", b'<<iframe "', b"<a href='"):
        take_apart(b"Content-Type: text/html\r\n\r\n" + piece * 200_000)
