"""Shapes of input made to hurt a parser, by size: texts and mails."""

from __future__ import annotations

from collections.abc import Callable

PIECES = {
    "letters": "a",
    "dots": ".",
    "labels": "a.",
    "at signs": "@",
    "addresses": "a@b.test,",
    "quotes": '"',
    "comments": "(",
    "closed comments": "(a)",
    "angles": "<",
    "closed angles": "<a>",
    "quoted-pairs": '"\\',
    "backslashes": "\\",
    "open words": "=?utf-8?q?",
    "words": "=?utf-8?q?a?= ",
    "blanks": " ",
    "tabs": "\t",
    "CR": "\r",
    "LF": "\n",
    "blank lines": " \r\n",
    "line separators": "\u2028",
    "combining": "\u0301",
    "umlauts": "é",
    "emoji": "👩‍👩‍👧",
    "fullwidth": "＠",
    "NUL": "\0",
    "surrogates": "\ud800",
    "escapes": "\x1b[31m",
    "semicolons": ";",
    "colons": ":",
    "commas": ",",
    "equals": "=",
    "percent": "%41",
    "ampersands": "&",
    "entities": "&#x41;",
    "hyphens": "-",
    "slashes": "/",
    "questions": "?",
    "brackets": "[](",
    "web addresses": "http://",
    "anchors": '<a href="',
    "anchors'": "<a href='",
    "tags": "<a b ",
    "style": "<style>",
    "HTML comments": "<!--",
    "nested": "<div>",
    "tables": "<table><tr><td>",
    "links": "<link ",
    "cid": "cid:",
    "braces": "{{",
    "options": "&a=b",
    "named": "a=smtp://b ",
    "enhanced": "5.1.1 ",
    "words of a query": 'to:"a" -b ',
}
AROUND_ADDRESSES = (
    "letters",
    "dots",
    "labels",
    "quotes",
    "comments",
    "angles",
    "quoted-pairs",
    "backslashes",
    "open words",
    "blanks",
    "combining",
    "umlauts",
)
ENDS = {"": ("", ""), "a@…": ("a@", ""), "…@x.test": ("", "@x.test"), "…<a@x.test>": ("", " <a@x.test>")}


def texts() -> dict[str, Callable[[int], str]]:
    found = {}
    for name, piece in PIECES.items():
        for how, (start, end) in ENDS.items():
            if how and piece not in (
                "a",
                "a.",
                '"',
                "(",
                "<",
                '"\\',
                "=?utf-8?q?",
                " ",
                ".",
                "é",
                "\u0301",
                "\\",
            ):
                continue
            found[f"{name} {how}".strip()] = lambda size, p=piece, s=start, e=end: (
                s + p * (size // len(p)) + e
            )
    return found


def _repeated(piece: str, start: str, end: str) -> Callable[[int], str]:
    return lambda size: start + piece * (size // len(piece)) + end


TEXTS = texts()


def mail_of(header: bytes, size: int, piece: bytes, end: bytes = b"\r\n\r\nx") -> bytes:
    return header + piece * (size // len(piece)) + end


def nested(size: int, kind: bytes) -> bytes:
    found = b""
    depth = 0
    while len(found) < size:
        found += kind.replace(b"%", b"%d" % depth)
        depth += 1
    return found + b"\r\ndeep\r\n"


MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
MAILS: dict[str, Callable[[int], bytes]] = {
    "parts": lambda n: mail_of(MIXED, n, b"--b\r\n\r\nx\r\n"),
    "parts with names": lambda n: mail_of(
        MIXED, n, b'--b\r\nContent-Disposition: attachment; filename="a"\r\n\r\nx\r\n'
    ),
    "boundaries": lambda n: mail_of(MIXED, n, b"--b\r\n"),
    "ends of boundaries": lambda n: mail_of(MIXED, n, b"--b--\r\n"),
    "almost boundaries": lambda n: mail_of(MIXED, n, b"--c\r\n--\r\n"),
    "a long boundary": lambda n: (
        b"Content-Type: multipart/mixed; boundary=" + b"b" * n + b"\r\n\r\n--" + b"b" * n
    ),
    "nested": lambda n: nested(n, b"Content-Type: multipart/mixed; boundary=b%\r\n\r\n--b%\r\n"),
    "nested mails": lambda n: nested(n, b"Content-Type: message/rfc822\r\n\r\n"),
    "nested, same boundary": lambda n: nested(n, MIXED + b"--b\r\n"),
    "a header": lambda n: mail_of(b"Subject: ", n, b"x"),
    "a header of 1 MB": lambda n: mail_of(b"Subject: ", 10 * n, b"x y "),
    "a folded header": lambda n: mail_of(b"Subject: x\r\n", n, b" y\r\n"),
    "headers": lambda n: mail_of(b"", n, b"A: b\r\n"),
    "header names": lambda n: mail_of(b"", n, b"A"),
    "no header": lambda n: mail_of(b"", n, b"\r\n"),
    "CRs": lambda n: mail_of(b"Subject: ", n, b"\r"),
    "parameters": lambda n: mail_of(b"Content-Type: text/plain", n, b"; a=b"),
    "numbered parameters": lambda n: mail_of(b"Content-Type: text/plain", n, b'; a*0="b"'),
    "a quoted parameter": lambda n: mail_of(b'Content-Disposition: attachment; filename="', n, b'\\"'),
    "semicolons in quotes": lambda n: mail_of(b'Content-Type: text/plain; a="', n, b";"),
    "charset": lambda n: mail_of(b"Content-Type: text/plain; charset=", n, b"a"),
    "encoded filename": lambda n: mail_of(b"Content-Disposition: attachment; filename*=utf-8''", n, b"%41"),
    "content ids": lambda n: mail_of(
        MIXED, n, b"--b\r\nContent-ID: <a>\r\nContent-Type: image/png\r\n\r\nx\r\n"
    ),
    "base64": lambda n: mail_of(b"Content-Transfer-Encoding: base64\r\n\r\n", n, b"A=\n"),
    "quoted-printable": lambda n: mail_of(
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n", n, b"=\n=3"
    ),
    "uuencode": lambda n: mail_of(b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 a\n", n, b"M\n"),
    "html": lambda n: mail_of(b"Content-Type: text/html\r\n\r\n", n, b"<a href='"),
    "high bytes": lambda n: mail_of(b"Subject: ", n, b"\xff"),
    **{
        f"{name}: {label}": lambda n, name=name, piece=piece: mail_of(f"{name}: ".encode(), n, piece)
        for name in ("To", "Subject", "Message-ID", "Content-Type", "Content-ID", "Date", "X-A")
        for label, piece in {
            "labels": b"a.",
            "quotes": b'"',
            "comments": b"(",
            "angles": b"<",
            "words": b"=?utf-8?q?a?= ",
            "open words": b"=?utf-8?q?",
            "quoted-pairs": b'"\\',
            "commas": b"a@b,",
            "colons": b":",
            "blanks": b" ",
            "groups": b"a:;",
        }.items()
    },
}
