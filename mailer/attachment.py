"""Attachments: files and inline images, with names and types that cannot harm who opens them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mailer.errors import InvalidMessage
from mailer.headers import check_header_text, kind_of

FIELD = "attachments"
MAX_ATTACHMENTS = 100
MAX_FILE_BYTES = 25_000_000  # before base64; the encoded message has a limit of its own
MAX_FILENAME = 255  # octets of UTF-8
MAX_GIVEN_NAME = 4_096  # characters, folders included, looked at before anything else


def _endings(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# What runs when it is opened, as Gmail refuses it (support.google.com/mail/answer/6590, seen 2026-11).
EXECUTABLE_TYPES = _endings(
    "ade adp apk app application appref-ms appx appxbundle bat cab chm cmd com cpl diagcab diagcfg diagpkg"
    " dll dmg exe gadget hta img ins inf iso isp jar jnlp js jse lib lnk mde mjs msc msh msh1 msh2 msi msix"
    " msixbundle msp mst nsh pif pkg ps1 ps1xml ps2 psc1 psc2 reg scf scr sct settingcontent-ms shb shs sys"
    " url vb vbe vbs vhd vhdx vxd workflow ws wsc wsf wsh xbap xll"
)
MACRO_TYPES = _endings("docm dotm pptm potm ppsm ppam sldm xlsm xlsb xltm xlam")
BLOCKED_TYPES = EXECUTABLE_TYPES | MACRO_TYPES
"""File name endings that `Message.create` refuses unless it is told another set."""

# Also words people put in the middle of harmless names: acme.com.pdf, vue.js.pdf.
_HARMLESS_INSIDE = frozenset({"app", "application", "com", "img", "js", "lib", "url", "workflow", "ws"})

# A table of our own: the standard library reads the machine's, so two machines would send other bytes.
_MEDIA_TYPES = {
    "csv": "text/csv",
    "css": "text/css",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "eml": "message/rfc822",
    "gif": "image/gif",
    "gz": "application/gzip",
    "htm": "text/html",
    "html": "text/html",
    "ics": "text/calendar",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "md": "text/markdown",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "pdf": "application/pdf",
    "png": "image/png",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "rtf": "application/rtf",
    "svg": "image/svg+xml",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "vcf": "text/vcard",
    "wav": "audio/x-wav",
    "webp": "image/webp",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xml": "application/xml",
    "zip": "application/zip",
}
_UNKNOWN = "application/octet-stream"

_RESTRICTED = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"  # RFC 6838 section 4.2
_CONTENT_TYPE = re.compile(rf"{_RESTRICTED}/{_RESTRICTED}")
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]{1,200}")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_WINDOWS_PATH = re.compile(r"(?:[A-Za-z]:|\.{0,2})\\|.*\\\.\.?\\")


@dataclass(frozen=True, slots=True, repr=False)
class Attachment:
    r"""A file. With a ``content_id`` it is an inline image that html shows with ``src="cid:…"``.

    ``filename``: folders (``/`` always; ``\`` in what looks like a Windows path), leading dots and trailing
    blanks are dropped and what is left is cut to 255 octets, the ending kept (RFC 2183 section 2.3).
    ``content_type`` is ``type/subtype`` without parameters, guessed from the name where None.

    Raises InvalidMessage, field ``attachments``: a name with a control character or a change of direction
    (which hides its ending), or with nothing left; content that is not bytes; a malformed content type or
    id; ``multipart/*``; a ``message/*`` that is not a 7-bit ``message/rfc822`` (RFC 2046 section 5.2).
    """

    filename: str
    content: bytes
    content_type: str | None = None
    content_id: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.content, bytes | bytearray | memoryview):
            raise InvalidMessage(FIELD, f"has content which is {kind_of(self.content)}; give bytes")
        filename, content = safe_filename(self.filename), bytes(self.content)
        object.__setattr__(self, "filename", filename)
        object.__setattr__(self, "content", content)
        if self.content_type is None:
            object.__setattr__(self, "content_type", _guessed_type(filename, content))
        else:
            _check_type(self.content_type, content)
        if self.content_id is not None:
            _check_content_id(self.content_id)

    @classmethod
    def from_path(
        cls,
        path: str | Path,
        *,
        content_type: str | None = None,
        content_id: str | None = None,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> Attachment:
        """A file of this machine under its own name; no more than ``max_bytes`` of it are ever read."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                content = file.read(max_bytes + 1)
        except OSError as exc:
            raise InvalidMessage(FIELD, f"has a file that cannot be read: {exc.strerror}") from None
        if len(content) > max_bytes:
            raise InvalidMessage(FIELD, f"has a file of more than {max_bytes:,} bytes; send a link instead")
        return cls(path.name, content, content_type, content_id)

    @property
    def is_inline(self) -> bool:
        """Whether html can show it by its content id."""
        return self.content_id is not None

    @property
    def is_mail(self) -> bool:
        """Whether it is a mail itself, which is never encoded (RFC 2046 section 5.2.1)."""
        return str(self.content_type).lower() == "message/rfc822"

    def __repr__(self) -> str:
        return f"Attachment({self.filename!r}, {len(self.content):,} bytes, {self.content_type})"


def safe_filename(given: object) -> str:
    """The last part of ``given``, harmless and at most 255 octets long. Raises InvalidMessage."""
    name = check_header_text(given, FIELD, MAX_GIVEN_NAME)
    if _BIDI.search(name) is not None:
        raise InvalidMessage(FIELD, "has a file name that changes its direction of writing; remove that mark")
    name = name.rpartition("/")[2]
    if _WINDOWS_PATH.match(name) is not None:
        name = name.rpartition("\\")[2]
    name = _shortened(name.lstrip(". ").rstrip()).rstrip()
    if not name:
        raise InvalidMessage(FIELD, "has a file without a name; give one")
    return name


def is_blocked(filename: str, blocked: Collection[str] = BLOCKED_TYPES) -> bool:
    """Whether a system may run a file of this name (AT2).

    Seen through: capitals, double endings (``a.pdf.exe``, ``a.exe.pdf``), trailing dots and blanks, alternate
    streams (``a.exe::$DATA``), invisible and fullwidth characters.
    """
    plain = unicodedata.normalize("NFKC", filename).lower()
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    for piece in plain.split(":"):
        endings = [part.strip() for part in piece.rstrip(". ").split(".")[1:]]
        if endings and endings[-1] in blocked:
            return True
        if any(part in blocked and part not in _HARMLESS_INSIDE for part in endings[-2:-1]):
            return True
    return False


def is_clean_mail(content: bytes) -> bool:
    """Whether a mail can go out unencoded: ASCII, no NUL, no bare CR, lines of at most 998 octets."""
    if not content.isascii() or b"\0" in content or content.count(b"\r") != content.count(b"\r\n"):
        return False
    return all(len(line) <= 998 for line in content.splitlines())


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_FILENAME:
        return name
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode()) > 20:
        stem, dot, ending = name, "", ""
    room = MAX_FILENAME - len((dot + ending).encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + ending


def _guessed_type(filename: str, content: bytes) -> str:
    guess = _MEDIA_TYPES.get(filename.rpartition(".")[2].lower(), _UNKNOWN)
    return _UNKNOWN if guess == "message/rfc822" and not is_clean_mail(content) else guess


def _check_type(given: object, content: bytes) -> None:
    kind = check_header_text(given, FIELD)
    if _CONTENT_TYPE.fullmatch(kind) is None:
        raise InvalidMessage(
            FIELD, "has a content type not of the form type/subtype; give one such as image/png"
        )
    lowered = kind.lower()
    if lowered.startswith("multipart/"):
        raise InvalidMessage(FIELD, "has a content type multipart/…; attach the parts one by one")
    if lowered.startswith("message/") and not (lowered == "message/rfc822" and is_clean_mail(content)):
        raise InvalidMessage(
            FIELD, "has a message/… which is no 7-bit message/rfc822; attach it as application/octet-stream"
        )


def _check_content_id(given: object) -> None:
    if not isinstance(given, str) or _CONTENT_ID.fullmatch(given) is None:
        raise InvalidMessage(
            FIELD,
            "has a content id that is not 1 to 200 letters, digits and . _ - @; give it without < and >",
        )
