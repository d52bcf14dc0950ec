"""The mailbox and its search, without servers."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mailer.errors import ConfigError
from mailer.inbox import Mailbox
from mailer.inbox.search import parse_query

from .conftest import make_mail, put


def test_the_newest_mails_stay(tmp_path: Path) -> None:
    """Beyond the number allowed, the oldest go, and their contents with them."""
    mailbox = Mailbox(tmp_path / "i.sqlite", max_mails=3)
    first = put(mailbox, make_mail(subject="0"))
    for number in range(1, 6):
        put(mailbox, make_mail(subject=str(number)))
    assert [mail.subject for mail in mailbox.messages()] == ["5", "4", "3"]
    assert mailbox.raw(first.id) is None
    mailbox.close()


def test_the_total_size_is_bounded(tmp_path: Path) -> None:
    """Beyond the bytes allowed, the oldest go; the newest stays even if it is too large by itself."""
    mailbox = Mailbox(tmp_path / "i.sqlite", max_total_bytes=10_000)
    for number in range(5):
        put(mailbox, b"Subject: %d\r\n\r\n" % number + b"x" * 4_000)
    assert [mail.subject for mail in mailbox.messages()] == ["4", "3"]
    put(mailbox, b"Subject: big\r\n\r\n" + b"x" * 50_000)
    assert [mail.subject for mail in mailbox.messages()] == ["big"]
    mailbox.close()


def test_deleted_mails_leave_no_trace_in_the_file(tmp_path: Path) -> None:
    """A deleted reset link cannot be read from the files, and kept ones only by their owner."""
    mailbox = Mailbox(tmp_path / "i.sqlite")
    put(mailbox, make_mail(text="https://x.example/reset/SECRET-TOKEN-1\n"))
    mailbox.delete()
    assert b"SECRET-TOKEN" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    mailbox.close()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("to:ada@example.com", ["reset", "receipt"]),
        ("TO:ADA", ["reset", "receipt"]),
        ("to:ada -subject:receipt", ["reset"]),
        ("to:ada !subject:receipt", ["reset"]),
        ('subject:"your receipt"', ["receipt"]),
        ('"choose a new"', ["reset"]),
        ("choose password", ["reset"]),
        ("from:shop", ["news", "reset", "receipt"]),
        ("cc:carol", ["receipt"]),
        ("bcc:hidden", ["receipt"]),
        ("addressed:carol", ["receipt"]),
        ("message-id:one@", ["reset"]),
        ("is:unread", ["news", "receipt"]),
        ("-is:unread", ["reset"]),
        ("has:attachment", ["receipt"]),
        ("grüsse", ["news"]),
        ("subject:GRÜSSE", ["news"]),
        ("100%", ["news"]),
        ("10_%", []),
        ("nothing-like-this", []),
        ("-", ["news", "reset", "receipt"]),
        ('to:"', ["news", "reset", "receipt"]),
        ("http://x.example/r", ["reset"]),
    ],
)
def test_a_search_finds(mailbox: Mailbox, query: str, found: list[str]) -> None:
    """Fields, phrases, negation and words work as in Mailpit; case does not matter, ``%`` is a character."""
    receipt = make_mail(subject="Your receipt", Cc="Carol <carol@example.com>")
    receipt.add_attachment(b"x", maintype="application", subtype="pdf", filename="r.pdf")
    reset = make_mail(
        subject="Reset", html="<p>choose a <b>new</b> password http://x.example/r", Message_ID="<one@x>"
    )
    news = make_mail(subject="Grüße", to="bob@example.net", text="save 100%!\n")
    ids = {put(mailbox, receipt, "ada@example.com", "carol@example.com", "hidden@example.com").id: "receipt"}
    ids[put(mailbox, reset).id] = "reset"
    mailbox.mark_read(list(ids)[1:])
    ids[put(mailbox, news, "bob@example.net").id] = "news"
    assert [ids[mail.id] for mail in mailbox.messages(query)] == found


def test_a_query_is_bounded() -> None:
    """RX1: however long a query is, fifty terms of its first thousand characters count."""
    assert len(parse_query("word " * 100_000)) == 50
    assert parse_query('"' * 100_000) == ()
    assert parse_query("-" * 100_000) == ()


def test_waiting_ends_when_the_mail_arrives(mailbox: Mailbox) -> None:
    """A waiting test wakes up by the mail itself, whichever thread brings it."""
    thread = threading.Thread(target=put, args=(mailbox, make_mail(subject="now")))
    thread.start()
    assert [mail.subject for mail in mailbox.wait_for(1, timeout=10)] == ["now"]
    assert mailbox.wait_for(lambda mails: mails[0].subject == "now", timeout=10)
    thread.join()


def test_waiting_in_vain_says_what_there_is(mailbox: Mailbox) -> None:
    """The error counts the mails that matched."""
    put(mailbox, make_mail())
    with pytest.raises(TimeoutError, match="holds 1 matching"):
        mailbox.wait_for(2, timeout=0.01)
    with pytest.raises(TimeoutError, match="holds 0 matching"):
        mailbox.wait_for(1, timeout=0.01, query="to:nobody")


def test_many_threads_may_use_it(mailbox: Mailbox) -> None:
    """Writers and readers at the same time lose and break nothing."""

    def work() -> None:
        for _ in range(20):
            put(mailbox, make_mail())
            mailbox.page("to:ada")
            mailbox.mark_read([mailbox.messages(limit=1)[0].id])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mailbox.totals().mails == 120


def test_a_file_that_is_no_mailbox_is_refused(tmp_path: Path) -> None:
    """The error names the setting and the file, and the file is left as it was."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are my notes, not a database\n" * 100)
    with pytest.raises(ConfigError, match=r"MAILER_DATA_DIR.*notes\.txt"):
        Mailbox(path)
    assert path.read_bytes().startswith(b"these are my notes")


def test_another_layout_is_emptied(tmp_path: Path) -> None:
    """A file from another version is started anew: the inbox holds nothing that must last."""
    mailbox = Mailbox(tmp_path / "i.sqlite")
    put(mailbox, make_mail())
    mailbox._connection.execute("PRAGMA user_version = 99")
    mailbox.close()
    mailbox = Mailbox(tmp_path / "i.sqlite")
    assert mailbox.messages() == []
    mailbox.close()
