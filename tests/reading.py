"""Mails as others read them: with the standard library's parser, and RFC 2047 where that falls short."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses


def parsed(data: bytes) -> EmailMessage:
    """As the standard library reads it, which must find nothing to complain about."""
    mail = email.message_from_bytes(data, policy=email.policy.default)
    for part in mail.walk():
        assert not part.defects
        for name in part:
            if name not in ("To", "Cc", "From", "Reply-To"):  # its parser stumbles over long names
                assert not part[name].defects
    return mail


def people(data: bytes, header: str) -> list[tuple[str, str]]:
    """(name, address) by RFC 2047 section 6.2: blanks between encoded words are dropped."""
    raw = email.message_from_bytes(data)[header]
    unfolded = str(raw).replace("\r\n", "").replace("\n", "")
    return [(str(make_header(decode_header(name))), spec) for name, spec in getaddresses([unfolded])]


def leaves(part: EmailMessage) -> Iterator[EmailMessage]:
    """The parts that hold something, from the first to the last; an attached mail is one of them."""
    if part.get_content_maintype() != "multipart":
        yield part
        return
    for inner in part.iter_parts():
        yield from leaves(inner)


def text_of(part: EmailMessage) -> str:
    return part.get_payload(decode=True).decode()


def with_crlf(text: str) -> str:
    return re.sub("\r\n|\r|\n", "\r\n", text)


def check_wire(data: bytes, foldable: bool = True, lone_dots: bool = False) -> None:
    """MF2, MF3, MF4: what holds for every mail. Only in an attached one a dot may have a line of its own."""
    assert data.endswith(b"\r\n")
    assert data.isascii()
    lines = data.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
    assert max(map(len, lines)) <= 998
    assert lone_dots or b"." not in lines
    head = data.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert all(line.strip() for line in head)
    if foldable:
        assert max(map(len, head)) <= 78
