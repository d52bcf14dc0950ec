"""Addresses in mails: made from the configured base URL only, and of a harmless kind only.

A link made from the request's ``Host`` header lets a stranger send people a genuine mail with a link to his
own server (reset poisoning), so nothing here looks at a request.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import flask
from werkzeug.routing import BuildError

from mailer.errors import RenderError

SCHEMES = ("http", "https", "mailto", "tel", "cid")
"""What an address in a mail may begin with; an anchor (``#…``) is fine too."""

_KEPT_IN_PATH = "/%:@!$&'()*+,;=~?#"
_NOT_IN_AN_ADDRESS = re.compile("[\x00-\x20\x7f-\x9f]")
_SCHEME = re.compile(f"(?:{'|'.join(SCHEMES)}):", re.IGNORECASE)

# The inliner writes every attribute as ` name="value"` in lower case, whatever the author wrote.
_WITH_ADDRESSES = (
    "href",
    "src",
    "srcset",
    "action",
    "formaction",
    "background",
    "poster",
    "data",
    "cite",
    "ping",
)
_TAG = re.compile(r'<[a-zA-Z][^\s>]*(?: [^\s=>]+="[^"]*")*\s*/?>')


class Links:
    """The functions ``absolute_url`` and ``url_for`` of mail templates.

    ``base_url`` is where people reach the application, with scheme and host, perhaps a path. ``app`` is
    the Flask application whose routes ``url_for`` knows; None: the current one.
    """

    def __init__(self, base_url: str, app: flask.Flask | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._base = urlsplit(self.base_url)
        self._app = app

    def absolute_url(self, path: str = "/", **query: Any) -> str:
        """The address of a path of the application: ``absolute_url("/verify", token=token)``.

        The path never leaves the host of the base URL. Query values of None are left out, lists repeat.
        """
        tail = "/" + quote(str(path), safe=_KEPT_IN_PATH).lstrip("/")
        pairs = urlencode({key: value for key, value in query.items() if value is not None}, doseq=True)
        return self.base_url + tail + (("&" if "?" in tail else "?") + pairs if pairs else "")

    def url_for(self, endpoint: str, **values: Any) -> str:
        """Flask's ``url_for`` on the base URL, always with its host. Raises RenderError: no such route."""
        app = self._app or flask.current_app
        for option in ("_external", "_scheme", "_method"):
            values.pop(option, None)
        anchor = values.pop("_anchor", None)
        app.inject_url_defaults(endpoint, values)
        routes = app.url_map.bind(
            self._base.netloc, script_name=self._base.path + "/", url_scheme=self._base.scheme
        )
        try:
            url = routes.build(endpoint, values, force_external=True)
        except BuildError as exc:
            raise RenderError(f"url_for({endpoint!r}): the application has no such route") from exc
        return url if anchor is None else f"{url}#{quote(str(anchor), safe='!#$%&()*+,/:;=?@~')}"


def is_checked(attribute: str) -> bool:
    """Whether an attribute of this name may hold an address, also one of a namespace (xlink:href)."""
    return attribute.rpartition(":")[2] in _WITH_ADDRESSES


def has_scheme(attribute: str, beginning: str) -> bool:
    """Whether a value that begins so is an address a mail may hold, whatever comes then."""
    of_several = attribute.rpartition(":")[2] in ("srcset", "ping")
    return not of_several and _SCHEME.match(beginning) is not None


def problem_in(attribute: str, value: str) -> str | None:
    """Words for the first address in the value of such an attribute that no mail may hold, or None."""
    name = attribute.rpartition(":")[2]
    for address in _addresses(name, value):
        problem = _problem_of(address)
        if problem is not None:
            return f"an address in {name}= {problem}"
    return None


def refused_address(page: str) -> str | None:
    """Words for the first address in an inlined page that no mail may hold, or None. Never the address.

    ``page`` is what the CSS inliner returned: parsed as a browser would and written out in one form, so
    that entities, blanks and odd quotes are gone (WHATWG HTML section 13.2).
    """
    suspects = [
        (position, problem)
        for name in _WITH_ADDRESSES
        for position, value in _values(page, name)
        if (problem := problem_in(name, value)) is not None
    ]
    return _first_in_a_tag(page, sorted(suspects)) if suspects else None


def _values(page: str, name: str) -> Iterator[tuple[int, str]]:
    """Where an attribute of this name, or a text that looks like one, begins, and what it holds."""
    opening = f'{name}="'
    position = page.find(opening)
    while position >= 0:
        begin = position + len(opening)
        if page[position - 1] in " :":  # xlink:href too
            yield position, page[begin : page.find('"', begin)]
        position = page.find(opening, begin)


def _addresses(name: str, value: str) -> Iterator[str]:
    plain = html.unescape(value) if "&" in value else value
    if name in ("srcset", "ping"):
        separator = "," if name == "srcset" else None
        yield from (entry.split()[0] for entry in plain.split(separator) if entry.strip())
    else:
        yield plain


def _problem_of(address: str) -> str | None:
    if _SCHEME.match(address):
        return None
    # Browsers drop tabs and line ends inside and controls before an address (WHATWG URL section 4.4).
    address = _NOT_IN_AN_ADDRESS.sub("", address)
    if _SCHEME.match(address) or address.startswith(("#", "•")):  # • begins a masked secret
        return None
    if not address:
        return "is empty"
    if re.match(r"[^/?#]*:", address):
        return f"is none of {', '.join(SCHEMES)}"
    return "is relative, which leads nowhere from a mail; use absolute_url(…)"


def _first_in_a_tag(page: str, suspects: list[tuple[int, str]]) -> str | None:
    """The first of the places that is an attribute, and not a piece of text that looks like one."""
    tags = _TAG.finditer(page)
    tag = next(tags, None)
    for position, problem in suspects:
        while tag is not None and tag.end() <= position:
            tag = next(tags, None)
        if tag is not None and tag.start() < position:
            return problem
    return None
