"""What a mail says and carries, if `mailer.mime` can say and carry the same; else it is refused.

Understood are a text, an html, both as alternatives, images related to the html, and files beside them::

    multipart/mixed            the first part is what the mail says, or a file; all others are files
    ├── multipart/alternative  text/plain, then html
    │   ├── text/plain
    │   └── multipart/related  the html, or such alternatives, and what they show
    │       ├── text/html
    │       └── image/…
    └── files

Signed, encrypted and report mails, other alternatives (calendars, AMP) and other orders mean something that
would be lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from mailer.attachment import Attachment
from mailer.errors import InvalidMessage
from mailer.submission.entity import FIELD, Entity, Unsupported

_BODIES = ("text/plain", "text/html")
_SEALED = ("application/pkcs7-mime", "application/x-pkcs7-mime")
# What a reader does not need, or gets from us: RFC 2046 section 4.1.2, RFC 2387, and old names of files.
_KNOWN_PARAMETERS = frozenset({"charset", "name", "type", "start", "boundary"})
_FLOWED = frozenset({"format", "delsp"})
_ENDING = re.compile(r"[a-z0-9]{2,5}")
_ENDINGS = {"plain": "txt", "rfc822": "eml", "calendar": "ics", "javascript": "txt"}
_SHOWN = re.compile(r"[a-z0-9-]{1,20}")


@dataclass(slots=True)
class Contents:
    """Texts have lines ended by LF."""

    text: str | None = None
    html: str | None = None
    attachments: list[Attachment] = field(default_factory=list)


def contents_of(mail: Entity) -> Contents:
    """Raises InvalidMessage; Unsupported for what is right and cannot be kept."""
    found = Contents()
    if _is_file(mail):
        _add_file(found, mail)
    else:
        _read(found, mail, 0)
    if found.text is None and found.html is None:
        found.text = ""
    if mail.kind in _BODIES:  # the line end of its last line, which `mailer.mime` puts there, too
        found.text = found.text and found.text.removesuffix("\n")
        found.html = found.html and found.html.removesuffix("\n")
    return found


def _is_file(part: Entity) -> bool:
    if part.kind.startswith("multipart/"):
        return False
    return part.disposition == "attachment" or part.kind not in _BODIES or part.filename != ""


def _read(found: Contents, part: Entity, depth: int) -> None:
    """What the mail says, and what goes with it."""
    if part.kind in _BODIES:
        _add_body(found, part)
    elif part.kind == "multipart/alternative":
        _read_alternatives(found, part, depth)
    elif part.kind == "multipart/related":
        _read_related(found, part, depth)
    elif part.kind == "multipart/mixed":
        _read_mixed(found, part, depth)
    else:
        raise _lost(part, "is of a kind of multipart that cannot be kept")


def _read_mixed(found: Contents, part: Entity, depth: int) -> None:
    children = part.children(depth)
    files = children
    if children and not _is_file(children[0]):
        _read(found, children[0], depth + 1)
        files = children[1:]
    for child in files:
        _add_file(found, child)


def _read_alternatives(found: Contents, part: Entity, depth: int) -> None:
    for child in part.children(depth):
        if _is_file(child) or child.kind in ("multipart/alternative", "multipart/mixed"):
            raise _lost(child, "is an alternative other than text/plain and text/html")
        _read(found, child, depth + 1)


def _read_related(found: Contents, part: Entity, depth: int) -> None:
    children = part.children(depth)
    if not children or _is_file(children[0]) or children[0].kind in ("multipart/related", "multipart/mixed"):
        raise _lost(part, "is related parts that do not begin with html")
    if part.with_parameters("content-type").get_param("start") not in (None, children[0].one("content-id")):
        raise _lost(part, "is related parts that do not begin with their root")
    _read(found, children[0], depth + 1)
    for child in children[1:]:
        _add_file(found, child, is_related=True)


def _add_body(found: Contents, part: Entity) -> None:
    is_html = part.kind == "text/html"
    _check_parameters(part, frozenset() if is_html else _FLOWED)
    if found.html is not None or (found.text is not None and not is_html):
        raise _lost(part, "is a second text, or a text after html")
    if is_html:
        found.html = part.text()
    else:
        found.text = _text(part)


def _text(part: Entity) -> str:
    fields = part.with_parameters("content-type")
    if str(fields.get_param("format", "")).lower() != "flowed":
        return part.text()
    return unflowed(part.text(), delete_space=str(fields.get_param("delsp", "")).lower() == "yes")


def unflowed(text: str, *, delete_space: bool = False) -> str:
    """Text with paragraphs on one line each that format=flowed had on several (RFC 3676 section 4)."""
    lines, open_depth = list[str](), -1
    for given in text.split("\n"):
        line = given.lstrip(">")
        depth = len(given) - len(line)
        line = line.removeprefix(" ")
        is_soft = line.endswith(" ") and line != "-- "
        goes_on = depth == open_depth and line != "-- "
        shown = line[:-1] if is_soft and delete_space else line
        if goes_on:
            lines[-1] += shown
        else:
            lines.append(f"{'>' * depth} {shown}" if depth else shown)
        open_depth = depth if is_soft else -1
    return "\n".join(lines)


def _add_file(found: Contents, part: Entity, is_related: bool = False) -> None:
    if part.kind.startswith("multipart/"):
        raise _lost(part, "is a multipart among files")
    if part.kind in _SEALED:
        raise _lost(part, "is encrypted or signed, and opens only in the mail that it was made for")
    _check_parameters(part)
    id_ = (part.one("content-id") or "").strip().removeprefix("<").removesuffix(">")
    is_shown = is_related or part.disposition == "inline" or (id_ and f"cid:{id_}" in (found.html or ""))
    name = part.filename or _name_for(part)
    found.attachments.append(Attachment(name, _octets(part), part.kind, id_ if id_ and is_shown else None))


def _octets(part: Entity) -> bytes:
    """A file's content. A text in another character set than UTF-8 is put into that, the one ours name."""
    if part.kind.startswith("text/") and part.charset not in (None, "utf-8", "us-ascii"):
        return part.text().replace("\n", "\r\n").encode()
    return part.content()


def _name_for(part: Entity) -> str:
    subtype = part.kind.partition("/")[2]
    ending = _ENDINGS.get(subtype) or (subtype if _ENDING.fullmatch(subtype) else "bin")
    return f"part-{part.place}.{ending}"


def _check_parameters(part: Entity, more: frozenset[str] = frozenset()) -> None:
    for name, _value in part.with_parameters("content-type").get_params([])[1:]:
        name = name.lower().partition("*")[0]
        if name not in _KNOWN_PARAMETERS | more and not name.startswith("x-"):
            shown = f" {name}" if _SHOWN.fullmatch(name) else ""
            raise _lost(part, f"has the Content-Type parameter{shown}, which cannot be kept")


def _lost(part: Entity, why: str) -> InvalidMessage:
    return Unsupported(FIELD, f"part {part.place} {why}; send it as a file, or in another way")
