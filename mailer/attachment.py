"""Attachments: files and inline images, with names and types that cannot harm who opens them."""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path

from mailer.errors import InvalidMessage
from mailer.headers import check_header_text

MAX_ATTACHMENTS = 100
MAX_FILENAME = 255  # octets

# Types that mailbox providers refuse and that run when opened. As of 2026-11: support.google.com/mail/answer/6590
_EXECUTABLE = frozenset(
    ["ade", "adp", "apk", "app", "appx", "bat", "cab", "chm", "cmd", "com", "cpl", "diagcab", "dll", "dmg", "ex", "exe", "hta", "img", "ins", "iso", "isp", "jar", "jnlp", "js", "jse", "lib", "lnk", "mde", "mjs", "msc", "msi", "msix", "msp", "mst", "nsh", "pif", "ps1", "reg", "scr", "sct", "shb", "sys", "vb", "vbe", "vbs", "vhd", "vxd", "wsc", "wsf", "wsh", "docm", "xlsm", "pptm", "xll"]
)
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,100}"
_CONTENT_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?:; ?{_TOKEN}=(?:{_TOKEN}|"[^"\\\x00-\x1f\x7f-\uffff]*"))*')
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]{1,200}")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f]")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file. With a ``content_id`` it is an inline image that html shows with ``src="cid:…"``.

    ``filename`` loses folders, leading dots and trailing blanks; ``content_type`` is guessed from it
    where None. Raises InvalidMessage naming ``attachments`` if name or type is no good.
    """

    filename: str
    content: bytes
    content_type: str | None = None
    content_id: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.content, bytes | bytearray | memoryview):
            raise InvalidMessage("attachments", f"content is {type(self.content).__name__}; give bytes")
        name = _safe_filename(self.filename)
        guessed = mimetypes.guess_type(name)[0] or "application/octet-stream"
        kind = _checked_type(guessed if self.content_type is None else self.content_type)
        for field, value in (("filename", name), ("content", bytes(self.content)), ("content_type", kind)):
            object.__setattr__(self, field, value)
        if kind.lower().startswith("message/rfc822") and not _is_7bit(self.content):
            raise InvalidMessage(
                "attachments", "a mail that is not 7-bit text; attach it as application/octet-stream"
            )
        if self.content_id is not None:
            object.__setattr__(self, "content_id", _checked_content_id(self.content_id))

    @classmethod
    def from_path(cls, path: str | Path, **options: str) -> Attachment:
        """A file of this machine, under its own name."""
        path = Path(path)
        return cls(path.name, path.read_bytes(), **options)

    @property
    def is_inline(self) -> bool:
        return self.content_id is not None


def _safe_filename(name: str) -> str:
    check_header_text(name, "attachments")
    if _BIDI.search(name):
        raise InvalidMessage("attachments", "a file name that changes its direction, which hides its type")
    name = re.split(r"[/\\]", name)[-1].lstrip(".").strip(" ")
    if not name:
        raise InvalidMessage("attachments", "a file without a name")
    if len(name.encode()) > MAX_FILENAME:
        raise InvalidMessage("attachments", f"a file name longer than {MAX_FILENAME} octets")
    if name.rstrip(". ").rpartition(".")[2].lower() in _EXECUTABLE:
        raise InvalidMessage(
            "attachments", "a type that runs when opened, which providers refuse; send a link"
        )
    return name


def _checked_type(kind: str) -> str:
    check_header_text(kind, "attachments")
    if not _CONTENT_TYPE.fullmatch(kind):
        raise InvalidMessage("attachments", "a content type not of the form type/subtype")
    if kind.lower().startswith("multipart/"):
        raise InvalidMessage("attachments", "a content type of several parts; attach the parts")
    return kind


def _checked_content_id(content_id: str) -> str:
    if not isinstance(content_id, str) or not _CONTENT_ID.fullmatch(content_id.strip("<>")):
        raise InvalidMessage(
            "attachments", "a content id with characters other than letters, digits, . _ - @"
        )
    return content_id.strip("<>")


def _is_7bit(content: bytes) -> bool:
    return content.isascii() and b"\x00" not in content and all(len(x) <= 998 for x in content.splitlines())
