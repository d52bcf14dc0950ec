"""A mail's HTML, made fit for a sandboxed frame: nothing that connects, and its inline images shown.

Safety does not rest on the rewriting here: the frame's ``sandbox`` and a Content-Security-Policy forbid
scripts and requests whatever the mail says (UI1). What is done here closes what a policy does not cover:
Chromium (as of version 156) opens a connection for a frame before it finds that the policy forbids it,
and no policy covers ``preconnect``. All patterns are linear: no alternative matches where another does.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from urllib.parse import unquote

MAX_IMAGES = 10_000_000
"""Octets of inline images on one page; what comes after them is left out."""

_INSIDE_TAG = r"""(?:[^<>"']|"[^"<]*"|'[^'<]*')*"""
_CONNECTING = r"(?:link|meta|base|i?frame|frameset|fencedframe|portal|object|embed|applet|script)\b"
_TAG = re.compile(rf"<{_CONNECTING}{_INSIDE_TAG}>", re.IGNORECASE)
_TAG_LEFT = re.compile(rf"<(?={_CONNECTING})", re.IGNORECASE)
_CID = re.compile(r"""cid:([^"'\s<>()]{1,250})""", re.IGNORECASE)
# Formats that are pixels only. SVG is left out: it is a document.
_IMAGE = re.compile(r"image/(?:png|jpeg|gif|webp|avif|bmp|x-icon)", re.IGNORECASE)


def disarmed(markup: str) -> str:
    """The HTML without the tags that make a browser connect before it asks the policy."""
    # What the first leaves, or makes by taking something out of the middle, the second renames.
    return _TAG_LEFT.sub("<x-", _TAG.sub("", markup))


def with_images(markup: str, images: Mapping[str, tuple[str, bytes]]) -> str:
    """The HTML with ``cid:`` addresses replaced by the images: content id → (content type, octets)."""
    left = MAX_IMAGES

    def as_data(found: re.Match[str]) -> str:
        nonlocal left
        kind, octets = images.get(unquote(html.unescape(found[1])), ("", b""))
        if not _IMAGE.fullmatch(kind) or len(octets) > left:
            return found[0]
        left -= len(octets)
        return f"data:{kind};base64,{base64.b64encode(octets).decode()}"

    return _CID.sub(as_data, markup) if images else markup
