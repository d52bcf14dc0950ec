"""Whether a page is nested too deep for parsers that take a frame of the stack for each level.

The CSS inliner does, and at some ten thousand levels ends the process instead of raising.
"""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 500
"""Levels: browsers stop at 512."""
MAX_UNCHECKED = 4_000
"""With so few tags it cannot be too deep, even where each opens a level and implies another."""


def is_too_deep(page: str) -> bool:
    """Whether elements stand in each other more than `MAX_DEPTH` deep. Costs next to nothing for most."""
    if page.count("<") <= MAX_UNCHECKED:
        return False
    # Imported here: hardly a page comes so far. inscriptis brings it.
    from lxml import etree  # type: ignore[import-untyped] # it has no type information

    parser = etree.HTMLParser(target=_Depth(), huge_tree=True, encoding="utf-8")
    try:
        parser.feed(page.encode("utf-8", "replace"))
        parser.close()
    except _TooDeep:
        return True
    except etree.ParserError:  # nothing but comments, say
        return False
    return False


class _TooDeep(Exception):
    """Deep enough to stop."""


class _Depth:
    """What the parser tells of what it finds."""

    def __init__(self) -> None:
        self._open = 0

    def start(self, _tag: str, _attributes: Any) -> None:
        self._open += 1
        if self._open > MAX_DEPTH:
            raise _TooDeep

    def end(self, _tag: str) -> None:
        self._open -= 1

    def close(self) -> None:
        """Nothing is made of it."""
