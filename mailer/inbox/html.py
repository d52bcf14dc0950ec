"""Prepare a mail's HTML for showing, and find the links in it.

Safety does not rest on this module: the sandbox and the Content-Security-Policy of `mailer.inbox.guard`
forbid scripts and requests whatever the HTML says, and `mailer.framing` takes out what they do not cover.
All patterns are linear: no alternative can match where another one does.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from markupsafe import Markup

from mailer.framing import disarmed, with_images
from mailer.inbox.parsing import Content

MAX_LINKS = 200
MAX_URL_CHARS = 4_096

_INSIDE_TAG = r"""(?:[^<>"']|"[^"<]*"|'[^'<]*')*"""
_HEAD_OPEN = re.compile(r"<head\b[^<>]*>|<!doctype[^<>]*>", re.IGNORECASE)
_ANCHOR = re.compile(rf"<(/?)(?:a|area)\b({_INSIDE_TAG})>", re.IGNORECASE)
_HREF = re.compile(r"""(?:^|\s)href\s{0,9}=\s{0,9}(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_ALT = re.compile(r"""\salt\s{0,9}=\s{0,9}(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_UNSEEN = re.compile(r"<(style|script|head|title)\b[^<>]*>[^<]*(?:<(?!/\1)[^<]*)*", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s<>\"'`{}|\\^\x00-\x1f\x7f]{1,4000}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a mail: an absolute ``http`` or ``https`` address, and the words it hangs on."""

    url: str
    text: str

    @property
    def host(self) -> str:
        """The host and port the link leads to, or ``""`` if it cannot be told."""
        try:
            return urlsplit(self.url).netloc.rpartition("@")[2]
        except ValueError:
            return ""


def preview(content: Content) -> str:
    """Return the HTML part for the sandboxed frame: images inlined, links opening in a new tab."""
    parts = content.inline + content.attachments
    images = {part.content_id: (part.content_type, part.data) for part in parts if part.content_id}
    markup = with_images(disarmed(content.html), images)
    base = '<base target="_blank">'
    head = _HEAD_OPEN.search(markup[:10_000])
    at = head.end() if head else 0
    return markup[:at] + base + markup[at:]


def find_links(content: Content) -> tuple[Link, ...]:
    """Return the mail's links in reading order, each address once: those of the HTML, then of the text."""
    found: dict[str, Link] = {}
    for link in (*_html_links(content.html), *(Link(url, "") for url in _text_urls(content.text))):
        if len(found) >= MAX_LINKS:
            break
        found.setdefault(link.url, link)
    return tuple(found.values())


def _html_links(markup: str) -> list[Link]:
    links: list[Link] = []
    tags = list(_ANCHOR.finditer(markup))
    ends = [tag.start() for tag in tags[1:]] + [len(markup)]
    for tag, end in zip(tags, ends, strict=False):
        url = _href(tag)
        if url and len(links) < MAX_LINKS:
            inner = markup[tag.end() : min(end, tag.end() + 2_000)]
            links.append(Link(url, visible_text(inner)[:200]))
    return links


def _href(tag: re.Match[str]) -> str:
    if tag[1]:
        return ""
    match = _HREF.search(tag[2])
    if match is None:
        return ""
    url = html.unescape(match[1] or match[2] or match[3] or "")
    url = re.sub(r"[\x00-\x20\x7f]", "", url)
    return url if url.lower().startswith(("http://", "https://")) and len(url) <= MAX_URL_CHARS else ""


def visible_text(markup: str) -> str:
    """Return roughly the words a reader sees, on one line; images give their alternative text."""
    markup = _UNSEEN.sub(" ", markup)
    markup = _TAG.sub(lambda tag: _alt(tag[0]), markup)
    return " ".join(html.unescape(markup).split())


def _alt(tag: str) -> str:
    match = _ALT.search(tag) if tag[:4].lower() == "<img" else None
    return (match[1] or match[2] or "") if match else " "


def _text_urls(text: str) -> list[str]:
    return [_without_tail(match[0]) for match, _ in zip(_URL.finditer(text), range(MAX_LINKS), strict=False)]


def _without_tail(url: str) -> str:
    """Drop the punctuation that ends a sentence rather than an address."""
    url = url.rstrip(".,;:!?*_")
    return url[:-1] if url.endswith(")") and "(" not in url else url


def linkify(text: str) -> Markup:
    """Return plain text as safe HTML in which every web address is a link that opens in a new tab."""
    out: list[Markup] = []
    at = 0
    for match in _URL.finditer(text):
        url = _without_tail(match[0])
        out.append(Markup.escape(text[at : match.start()]))
        out.append(Markup('<a href="{0}" target="_blank" rel="noopener noreferrer">{0}</a>').format(url))
        at = match.start() + len(url)
    out.append(Markup.escape(text[at:]))
    return Markup("").join(out)
