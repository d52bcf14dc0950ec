"""Style sheets put into the elements they are for, and addresses checked: once for each shape of a page.

A page from the same template with as many items differs from the last one in its values only. So the inliner
gets it once, with placeholders in their place (the shape); later pages take the shape and put their values
in, written as the inliner would have written them. What it gives is the same to the octet either way.

A value takes part if it is text and nothing else: escaped by Jinja, standing in a text or in a quoted
attribute in which no selector can be interested. A page with any other value goes through the inliner as a
whole; so does one whose markup comes out of a macro, since a value could hide in it. What is kept of a page
is what its template says, and what it prints unescaped beside that.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import css_inline
from markupsafe import Markup

from mailer.links import has_scheme, is_checked, problem_in, refused_address
from mailer.nesting import is_too_deep

MOST_SHAPES = 500
PATIENCE = 20
"""So many pages of a template in a row with a shape of their own, and its shapes are not kept any more."""

_INLINER = css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)


class UnreadableStyle(Exception):
    """The inliner cannot read a style sheet of the page."""


class NestedTooDeep(Exception):
    """Its elements stand inside each other so often that the inliner would end the process."""


class RefusedAddress(Exception):
    """An address no mail may hold. The text says what is wrong with it, never the address."""


class Inliner:
    """Finishes pages. Safe to use from several threads."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[str | None, ...], Shape | None] = {}
        self._misses = Counter[str]()
        # Nobody outside can know it, so that no page can hold it.
        self._token = f"v{secrets.token_hex(8)}"

    def finish(self, name: str, pieces: Sequence[str]) -> str:
        """The page that a template gave in pieces. ``name`` is the template's.

        Raises UnreadableStyle, NestedTooDeep and RefusedAddress.
        """
        shape, values = self._shape(name, pieces)
        return inlined("".join(pieces)) if shape is None else shape.filled(values)

    def _shape(self, name: str, pieces: Sequence[str]) -> tuple[Shape | None, list[str]]:
        values: list[str] = []
        key: list[str | None] = []
        for piece in pieces:
            if type(piece) is not Markup:
                key.append(piece)
            elif _SIMPLE(piece) is not None or ("&" in piece and _SIMPLE(_REFERENCE.sub("r", str(piece)))):
                key.append(None)
                values.append(piece)
            elif not piece.isspace() and piece:
                return None, []
            else:
                key.append(piece)
        known = tuple(key)
        try:
            shape = self._shapes[known]
        except KeyError:
            return self._new_shape(name, known), values
        self._misses[name] = 0
        return shape, values

    def _new_shape(self, name: str, key: tuple[str | None, ...]) -> Shape | None:
        if self._misses[name] >= PATIENCE:
            return None
        self._misses[name] += 1
        if len(self._shapes) >= MOST_SHAPES:
            self._shapes.clear()
        shape = self._shapes[key] = shape_of(key, self._token)
        return shape


def inlined(page: str) -> str:
    """A page as the inliner writes it, its addresses checked. Raises as `Inliner.finish` does."""
    if is_too_deep(page):
        raise NestedTooDeep
    try:
        # A page without a style sheet, too: what `refused_address` reads must have been through a parser.
        page = _INLINER.inline(page)
    except css_inline.InlineError as exc:
        raise UnreadableStyle from exc
    problem = refused_address(page)
    if problem is not None:
        raise RefusedAddress(problem)
    return page


# A value that the parser takes for one run of text wherever it stands: no markup, no blank at either end,
# nothing that HTML leaves out or changes, and no other references than the commonest.
_REFERENCES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&#39;": "'", "&#34;": '"', "&nbsp;": "\xa0"}
_INNER = r"[^<>\"'&\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff]"
_END = _INNER.replace("[^", r"[^\s")
_SIMPLE = re.compile(f"{_END}(?:{_INNER}*{_END})?").fullmatch
_REFERENCE = re.compile("|".join(_REFERENCES))


def _plain(value: str) -> str:
    return _REFERENCE.sub(lambda found: _REFERENCES[found[0]], str(value))  # Markup would escape again


def _as_text(value: str) -> str:
    """As the inliner writes it between two tags (WHATWG HTML section 13.3)."""
    escaped = _plain(value).replace("&", "&amp;").replace("\xa0", "&nbsp;")
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def _as_attribute(value: str) -> str:
    """As the inliner writes it in an attribute."""
    return _plain(value).replace("&", "&amp;").replace("\xa0", "&nbsp;").replace('"', "&quot;")


@dataclass(frozen=True, slots=True)
class _Address:
    """An attribute whose address is made of values: its text, with the numbers of the values in it."""

    attribute: str
    pieces: tuple[str | int, ...]

    def problem(self, written: Sequence[str]) -> str | None:
        """What is wrong with it, given the values as they are written."""
        value = "".join([piece if isinstance(piece, str) else written[piece] for piece in self.pieces])
        return problem_in(self.attribute, value)


@dataclass(frozen=True, slots=True)
class Shape:
    """An inlined page without its values. ``parts`` stand around them, one more than there are values."""

    parts: tuple[str, ...]
    writers: tuple[Callable[[str], str], ...]
    addresses: tuple[_Address, ...]
    problem: str | None

    def filled(self, values: Sequence[str]) -> str:
        """The page with these values. Raises RefusedAddress."""
        written = [
            write(value) if "&" in value or "\xa0" in value else value
            for write, value in zip(self.writers, values, strict=True)
        ]
        problem = self.problem
        for address in self.addresses:
            problem = problem or address.problem(written)
        if problem is not None:
            raise RefusedAddress(problem)
        page = [""] * (2 * len(written) + 1)
        page[::2], page[1::2] = self.parts, written
        return "".join(page)


# Looking where the placeholders came to stand

_TAG = re.compile(r'<[a-zA-Z][^\s<>/="]*(?: [^\s<>=/"]+="[^"]*")*\s*/?>')
_ATTRIBUTE = re.compile(r' ([^\s<>=/"]+)="([^"]*)"')
# What browsers do not read as text, and what has rules of its own.
_OTHER = re.compile(
    r"<!doctype [^<>]*>|</[a-zA-Z][^\s<>/=\"]*>|<!--.*?-->"
    r"|<(script|style|xmp|iframe|noembed|noframes|noscript|plaintext|template|svg|math)\b.*?</\1>",
    re.DOTALL | re.IGNORECASE,
)
_STYLED = re.compile("<style|<link", re.IGNORECASE)
_OF_SELECTORS = frozenset({"class", "id", "style"})


class _Unfit(Exception):
    """A value might mean something else here."""


def shape_of(key: Sequence[str | None], token: str) -> Shape | None:
    """The shape of a page whose values are None in the key. None if it has to be inlined as a whole."""
    # The blank shows whether an attribute has quotes: without them it ends there.
    numbers = itertools.count()
    placed = "".join(f"{token}n{next(numbers)} e" if piece is None else piece for piece in key)
    if is_too_deep(placed):
        return None
    try:
        page = _INLINER.inline(placed)
        selective = "[" in placed and _STYLED.search(placed) is not None
        return _Search(page, token, selective).shape(next(numbers))
    except (_Unfit, css_inline.InlineError):
        return None


class _Search:
    """Goes through an inlined page, tag by tag, for the placeholders in it."""

    def __init__(self, page: str, token: str, selective: bool) -> None:
        """``selective`` says that a style sheet may choose elements by any attribute."""
        self._page, self._token, self._selective = page, token, selective
        self._placeholder = re.compile(rf"{token}n(\d+) e")
        self._found: list[tuple[int, Callable[[str], str]]] = []
        self._addresses: list[_Address] = []

    def shape(self, values: int) -> Shape:
        """The shape of a page with so many values. Raises _Unfit."""
        end = 0
        while (start := self._page.find("<", end)) >= 0:
            self._text(self._page[end:start])
            end = self._tag(start)
        self._text(self._page[end:])
        if [number for number, _ in self._found] != list(range(values)):
            raise _Unfit  # one is gone, or stands twice or somewhere else
        # The addresses made of values are looked at when these are there.
        others = re.sub(rf'="[^"]*{self._token}[^"]*"', '="#"', self._page)
        return Shape(
            tuple(self._placeholder.split(self._page)[::2]),
            tuple(write for _, write in self._found),
            tuple(self._addresses),
            refused_address(others),
        )

    def _text(self, text: str) -> None:
        self._found += [(int(number), _as_text) for number in self._placeholder.findall(text)]

    def _tag(self, start: int) -> int:
        """Look at the tag that begins here, or whatever it is; answer where it ends."""
        other = _OTHER.match(self._page, start)
        if other is not None:
            if self._token in other[0]:
                raise _Unfit
            return other.end()
        tag = _TAG.match(self._page, start)
        if tag is None:
            raise _Unfit
        for attribute in _ATTRIBUTE.finditer(tag[0]):
            self._attribute(attribute[1], attribute[2])
        if self._token in _ATTRIBUTE.sub("", tag[0]):
            raise _Unfit
        return tag.end()

    def _attribute(self, name: str, value: str) -> None:
        if self._token not in value:
            return
        if name in _OF_SELECTORS or self._selective:
            raise _Unfit
        pieces = self._placeholder.split(value)
        self._found += [(int(number), _as_attribute) for number in pieces[1::2]]
        if is_checked(name) and not has_scheme(name, pieces[0]):
            mixed = (int(piece) if n % 2 else piece for n, piece in enumerate(pieces))
            self._addresses.append(_Address(name, tuple(mixed)))
