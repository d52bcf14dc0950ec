"""The text part of a mail that has only HTML."""

from __future__ import annotations

import re

import inscriptis  # type: ignore[import-untyped] # neither it nor its parser has type information
from inscriptis.css_profiles import CSS_PROFILES  # type: ignore[import-untyped]
from inscriptis.html_properties import Display  # type: ignore[import-untyped]
from inscriptis.model.config import ParserConfig  # type: ignore[import-untyped]
from inscriptis.model.html_element import HtmlElement  # type: ignore[import-untyped]
from inscriptis.model.tag import CustomHtmlTagHandlerMapping  # type: ignore[import-untyped]

from mailer.errors import RenderError

_SELF_NAMED_LINK = re.compile(r"\[([^\[\]\s]+)\]\(\1\)")


def derive_text(html: str) -> str:
    """The plain text of a page, links as ``[words](address)``, layout tables read row by row.

    Ornaments marked ``aria-hidden`` are left out. A table of data becomes one cell a line: give
    ``body.txt`` where that matters. Raises RenderError: nothing can be made of the page.
    """
    try:
        text = inscriptis.get_text(html, _TEXT_RULES)
    except Exception as exc:  # a page nested thousands deep, a length in its styles that is no number
        raise RenderError(f"no text can be derived from the HTML ({type(exc).__name__}); give one") from None
    return _SELF_NAMED_LINK.sub(r"\1", "\n".join(line.strip() for line in text.splitlines()))


def _text_rules() -> ParserConfig:
    # Tables lay the page out: their cells are blocks one below the other, not columns (libraries pad those).
    css = CSS_PROFILES["strict"].copy()
    for tag in ("table", "tbody", "thead", "tr", "td", "th", "div"):
        css[tag] = HtmlElement(display=Display.block)
    tags = dict.fromkeys(("table", "tr", "td", "th"), lambda *_: None)
    handlers = CustomHtmlTagHandlerMapping(start_tag_mapping=tags, end_tag_mapping=tags)
    rules = ParserConfig(css=css, display_links=True, custom_html_tag_handler_mapping=handlers)
    known = rules.attribute_handler.attribute_mapping
    rules.attribute_handler.attribute_mapping = {**known, "aria-hidden": _hide_ornament}
    return rules


def _hide_ornament(value: str, element: HtmlElement) -> None:
    if value == "true":
        element.display = Display.none


_TEXT_RULES = _text_rules()
