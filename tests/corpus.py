"""Three hundred mails that differ in whatever made mails break: the arguments of ``send_email``, by name.

Each kind is a function of a number below ten, without chance in it: the same on every Python. What is
asked for and what arrived are compared by `assert_same`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

from mailer import Attachment
from mailer.address import Address, parse_list
from mailer.message import Message
from mailer.mime import build
from tests.reading import leaves, parsed, people, text_of, with_crlf

Fields = dict[str, Any]
EACH = 10

EMOJI = "🎉👩‍👩‍👧‍👦🇪🇺👋🏽🎈🦄🍕🚀🧵"
WORDS = "Grüße aus Zürich, 東京 und Москва: naïve Ünïcode – “quotes” … "
IMAGE = '<p><img src="cid:{}" alt=""></p>\n'


def octets(n: int, length: int) -> bytes:
    return hashlib.shake_128(str(n).encode()).digest(length)


def plain(n: int) -> Fields:
    return {"text": f"Dear Ada,\n\nyour order {n} is on its way.\n" + "All the best\n" * n}


def both_parts(n: int) -> Fields:
    return {"text": "Hello\n" * n + "Bye", "html": f"<h1>Hello</h1>\n<p>Order {n}</p>\n" * (n + 1)}


def only_html(n: int) -> Fields:
    return {"html": f"<table>{'<tr><td>Item</td><td>1,99</td></tr>' * (40 * n + 1)}</table>"}


def long_links(n: int) -> Fields:
    link = f"https://acme.test/confirm?n={n}&token=" + octets(n, 2_500).hex()
    return {"text": f"Open {link}\n", "html": f'<p><a href="{link}">Confirm</a></p>'}


def long_lines(n: int) -> Fields:
    return {"text": "x" * (990 + n) + "\n" + "word " * 4_000 + "\n" + "=" * 998, "html": "<b>" * 900}


def emoji_subjects(n: int) -> Fields:
    return {"subject": EMOJI[n:] * (n * 3 + 1), "text": EMOJI}


def long_subjects(n: int) -> Fields:
    return {
        "subject": ["a" * 990, "two  blanks " * 60 + ".", "Zoë " * 200 + "."][n % 3] + str(n),
        "text": "x",
    }


def odd_subjects(n: int) -> Fields:
    odd = [
        "=?utf-8?q?hidden?=",
        "Re: [a] (b) <c@d>",
        ":",
        "a_b=c?d",
        '"quoted"',
        "\\",
        "%s{}",
        "-- ",
        "ﬁ",
        "e\u0301",
    ]
    return {"subject": odd[n], "text": "x"}


def names(n: int) -> Fields:
    odd = [
        "Zoë Ünïcode " * 5,
        "Acme, Inc",
        '"Q" Co',
        "a@evil.test",
        "Acme <x>",
        "Dr. Who",
        "(c); [x]",
        "山田",
        "x" * 300,
    ]
    name = [*odd, EMOJI][n].strip()
    return {
        "sender": (name, "no-reply@acme.test"),
        "to": [(name, "ada@box.test"), "bob@far.test"],
        "text": "x",
    }


def many_recipients(n: int) -> Fields:
    to = [(f"Person, {i} é", f"person{i}.{n}@{'far' if i % 2 else 'box'}.test") for i in range(15)]
    cc = [f"cc{i}.{n}@box.test" for i in range(10)]
    return {"to": to, "cc": cc, "bcc": "hidden@far.test", "text": "to many\n"}


def odd_addresses(n: int) -> Fields:
    odd = ["a+tag@box.test", "o'neill@box.test", "x" * 64 + "@box.test", "a/b@box.test", "a.b-c_d@far.test"]
    odd += ["{~}@far.test", "1@box.test", "a=b@box.test", "UPPER@box.test", "ada@bücher.test"]
    return {"to": odd[n], "reply_to": [("Replies", "r@acme.test")], "text": "x"}


def long_headers(n: int) -> Fields:
    values = {
        "X-Words": "word " * (n * 80) + "end",
        "X-Unicode": WORDS * (n + 1),
        "X-" + "N" * 74: "v" * 80 * n,
    }
    return {"headers": {**values, "X-Unbroken": "u" * (100 * n)}, "text": "x"}


def unsubscribe(n: int) -> Fields:
    headers = {
        "List-Unsubscribe": f"<https://acme.test/u/{octets(n, 40).hex()}>",
        "Feedback-ID": f"a:b:c:acme{n}",
    }
    return {"headers": {**headers, "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}, "text": "x"}


def no_text(n: int) -> Fields:
    return {"text": ["", "\n", "\n\n\n\n", " ", "\t \n \n", "\r\n", ".", ".\n", "\n.\n", "="][n]}


def trailing_lines(n: int) -> Fields:
    return {"text": "Hello" + "\n" * n * 40, "html": "<p>Hello</p>" + " \n" * n}


def dots(n: int) -> Fields:
    return {
        "text": ".\n" * n + "..\n...\n.hidden\n" + "x" * 75 + ".\n" + ("y" * 73 + ".\n") * n,
        "html": "\r\n.\r\n" * n,
    }


def blanks(n: int) -> Fields:
    return {
        "text": "blanks  in \t rows   \n\t\n  at the end \t\n" * (n + 1) + " " * 200 * n,
        "html": "<pre>  \t\n</pre>",
    }


def line_ends(n: int) -> Fields:
    return {
        "text": "one\rtwo\ntwo\r\nthree\n\r\r\nfour\x85five\u2028six\v" * (n + 1),
        "html": "<p>\r\r\n\n\r</p>",
    }


def from_lines(n: int) -> Fields:
    return {
        "text": "From here\n>From there\n\nFrom: a@evil.test\n" * (n + 1),
        "html": "From <b>me</b>\nFrom you",
    }


def controls(n: int) -> Fields:
    return {"text": "".join(map(chr, range(1, 160))) * (n + 1), "html": "\x7f\x1b[31m\ufeff\u202e" * n}


def smuggling(n: int) -> Fields:
    ends = [
        "\n.\n",
        "\n.\r\n",
        "\r.\r",
        "\r.\r\n",
        "\r\n.\n",
        "\r\n.\r",
        "\n.\r",
        "\r.\n",
        "\r\n\0.\r\n",
        "\r\n.\r\n",
    ]
    command = "MAIL FROM:<e@evil.test>\r\nRCPT TO:<v@box.test>\r\nDATA\r\nSubject: evil\r\n"
    evil = f"before{ends[n]}{command}{ends[n]}"
    return {"text": evil, "html": evil, "attachments": [Attachment("a.txt", evil.encode())]}


def other_scripts(n: int) -> Fields:
    texts = [
        "Привет, мир! ",
        "こんにちは世界。",
        "مرحبا بالعالم ",
        "שלום עולם ",
        "नमस्ते ",
        "สวัสดี",
        "你好",
        "한국어 ",
        "Ελλάδα ",
        WORDS,
    ]
    return {"subject": texts[n] * 5, "text": texts[n] * 200, "html": f"<p>{texts[n] * 300}</p>"}


def thirty_files(n: int) -> Fields:
    files = [Attachment(f"file {i}.bin", octets(i + n, i * 37 * (n + 1))) for i in range(30)]
    return {"text": "thirty files", "html": "<p>thirty files</p>", "attachments": files}


def file_names(n: int) -> Fields:
    odd = [
        "Übersicht März.pdf",
        "報告書.pdf",
        "😀" * 60 + ".png",
        "x" * 251 + ".pdf",
        "é" * 120 + ".pdf",
        'quo"te.pdf',
    ]
    odd += ["back\\slash.pdf", "semi;colon=x.pdf", "quote's*%20.pdf", "=?utf-8?q?x?=.pdf"]
    return {"text": "x", "attachments": [Attachment(odd[n], octets(n, 100)), Attachment(odd[n - 1], b"")]}


def file_types(n: int) -> Fields:
    types = ["text/csv", "text/html", "text/plain", "image/svg+xml", "application/json", "text/calendar"]
    body = [b"a;b\n1;2\n", b"<p>\r\n.\r\n", b"\xff\xfe\0", WORDS.encode(), b"{}", b"BEGIN:VCALENDAR\r\n"]
    files = [Attachment(f"{i}.x{n}", content * n, kind) for i, (kind, content) in enumerate(zip(types, body))]
    return {"html": "<p>files</p>", "attachments": files}


def one_large_file(n: int) -> Fields:
    return {"text": "x", "attachments": [Attachment("large.bin", octets(n, 40_000 * (n + 1)))]}


def inline_images(n: int) -> Fields:
    images = [
        Attachment(f"i{i}.png", b"\x89PNG" + octets(i, 500), content_id=f"image{i}@acme.test")
        for i in range(n + 1)
    ]
    html = "".join(IMAGE.format(image.content_id) for image in images)
    files = [Attachment("terms.pdf", b"%PDF-1.7\n" + octets(n, 2_000))] * (n % 2)
    return {"text": "pictures", "html": html, "attachments": [*images, *files]}


def attached_mails(n: int) -> Fields:
    inner = (
        b"From: a@evil.test\nSubject: inner\nMessage-ID: <inner@evil.test>\n\n.\nFrom here  \n\n"
        + b"x" * 900
        + b"\n" * n
    )
    nested = b"Subject: outer\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b--\n"
    return {"text": "see below", "attachments": [Attachment("a.eml", inner), Attachment("b.eml", nested)]}


def boundaries(n: int) -> Fields:
    evil = "--=_0123456789abcdef01234567--\n--=_\nContent-Type: text/html\n\n<b>\n" * (n + 1)
    return {"text": evil, "html": evil, "attachments": [Attachment("a.txt", evil.encode())]}


def odd_markup(n: int) -> Fields:
    """Markup that careless tools repair."""
    odd = [
        "<p>&nbsp;&amp;&lt;",
        "<!-- -->",
        "<![CDATA[x]]>",
        "<?php ?>",
        "<style>a{}</style>",
        "<br/>",
        "<P ALIGN=x>",
    ]
    return {"text": "x", "html": [*odd, "no markup", "<", "&"][n] * 5}


KINDS: tuple[Callable[[int], Fields], ...] = (
    plain, both_parts, only_html, long_links, long_lines, emoji_subjects, long_subjects, odd_subjects, names,
    many_recipients, odd_addresses, long_headers, unsubscribe, no_text, trailing_lines, dots, blanks,
    line_ends, from_lines, controls, smuggling, other_scripts, thirty_files, file_names, file_types,
    one_large_file, inline_images, attached_mails, boundaries, odd_markup,
)  # fmt: skip


def mails() -> dict[str, Fields]:
    """All of them. Every second one is for a mailbox of the server, the others it passes on."""
    found = {}
    for kind in KINDS:
        for n in range(EACH):
            usual = {
                "to": "ada@box.test" if n % 2 else "ada@far.test",
                "sender": "Acme <no-reply@acme.test>",
                "subject": f"{kind.__name__} {n}",
            }
            found[f"{kind.__name__}-{n}"] = usual | kind(n)
    return found


def built(name: str, asked: Mapping[str, Any]) -> bytes:
    """The mail as our builder makes it, with a Message-ID of its name."""
    at = datetime(2026, 11, 23, 12, tzinfo=UTC)
    message = Message.create(**asked, now=at)
    return build(
        message_id=f"<{name}@acme.test>",
        date=at,
        sender=message.sender,
        to=message.to,
        cc=message.cc,
        reply_to=message.reply_to,
        subject=message.subject or "",
        text=message.text,
        html=message.html,
        headers=message.headers,
        attachments=message.attachments,
    )


def assert_same(asked: Mapping[str, Any], data: bytes) -> None:
    """What arrived (CRLF line ends) says what was asked for: headers, and every part octet for octet."""
    mail = parsed(data)
    assert mail["subject"] == asked["subject"]
    for name, value in asked.get("headers", {}).items():
        assert mail[name] == value
    for header in ("to", "cc", "reply_to"):
        if header in asked:
            wanted = [(a.name, a.addr_spec) for a in parse_list(asked[header], header)]
            assert people(data, header.replace("_", "-")) == wanted
    sender = Address.parse(asked["sender"], "sender")
    assert people(data, "from") == [(sender.name, sender.addr_spec)]
    assert mail["bcc"] is None
    assert_same_parts(asked, data)


def assert_same_parts(asked: Mapping[str, Any], data: bytes) -> None:
    mail = parsed(data)
    parts = list(leaves(mail))
    bodies = {part.get_content_subtype(): part for part in parts if part.get_filename() is None}
    assert ("html" in bodies) == ("html" in asked)
    for kind, name in (("plain", "text"), ("html", "html")):
        if name in asked:  # else a text was derived
            wanted = with_crlf(asked[name].replace("\0", "\ufffd"))
            # A mail ends with a line end: one more than the text has, where the text is all of it.
            more = "" if mail.is_multipart() else "\r\n"
            assert text_of(bodies[kind]) in (wanted, wanted + more)
    files = sorted(asked.get("attachments", ()), key=lambda item: not item.is_inline)
    for part, item in zip((part for part in parts if part.get_filename()), files, strict=True):
        assert_same_file(item, part, data)


def assert_same_file(item: Attachment, part: EmailMessage, data: bytes) -> None:
    assert part.get_filename() == item.filename
    assert part.get_content_type() == item.content_type
    assert part["content-id"] == (f"<{item.content_id}>" if item.is_inline else None)
    if item.is_mail:
        assert item.content.replace(b"\n", b"\r\n") in data
    else:
        assert part.get_payload(decode=True) == item.content


if __name__ == "__main__":
    for name, asked in mails().items():
        print(hashlib.sha256(built(name, asked)).hexdigest(), name)
