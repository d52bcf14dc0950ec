"""The shipped mails in a browser: nothing sticks out, and every word can be read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import flask
import pytest
from playwright.sync_api import expect

from mailer.rendering import Templates

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PACKAGE = Path(__file__).parents[2] / "mailer" / "templates"
SHIPPED = ("password_changed", "receipt", "reset_password", "verify_email", "welcome")

# Every element with a text of its own, its colour and the first opaque background behind it.
COLOURS = """() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const [r, g, b, a = 1] = parts(getComputedStyle(element).backgroundColor);
      if (a === 1) return [r, g, b];
    }
    return null;
  };
  const words = node => [...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  return [...document.body.querySelectorAll("*")]
    .filter(e => words(e) && e.checkVisibility())
    .map(e => [e.textContent.trim().slice(0, 40), parts(getComputedStyle(e).color).slice(0, 3), behind(e)]);
}"""

# Elements that reach beyond the window.
BEYOND = """() => [...document.body.querySelectorAll("*")]
  .filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture
def mails(tmp_path: Path) -> Templates:
    app = flask.Flask("site", root_path=str(tmp_path))
    app.register_blueprint(flask.Blueprint("mailer", "mailer", template_folder=str(PACKAGE)))
    return Templates(app.jinja_env, base_url="https://accounts.app.example", site_name="Acme")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 600])
@pytest.mark.parametrize("locale", [None, "de"])
@pytest.mark.parametrize("name", SHIPPED)
def test_each_mail_can_be_read(
    browser: Browser, mails: Templates, name: str, locale: str | None, width: int, scheme: Any
) -> None:
    """In a narrow and a wide window, by day and by night: no sideways scrolling, contrast of 4.5 at least.

    4.5 is level AA of WCAG 2.2, success criterion 1.4.3, for text of any size.
    """
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.set_content(str(mails.render(name, mails.preview_context(name, locale), locale).html))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(BEYOND) == []
        expect(page.locator("h1")).to_be_visible()
        expect(page.locator(".preheader")).to_be_hidden()
        seen = page.evaluate(COLOURS)
        assert len(seen) > 5
        weak = [(words, ratio) for words, ink, paper in seen if (ratio := contrast(ink, paper)) < 4.5]
        assert weak == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == BACKGROUNDS[scheme]
        assert requests == []
    finally:
        page.close()


BACKGROUNDS = {"light": "rgb(243, 244, 246)", "dark": "rgb(15, 18, 23)"}


def test_long_words_wrap(browser: Browser, mails: Templates) -> None:
    """A name, a link and an item of absurd length stay inside a narrow window."""
    page = browser.new_page(viewport={"width": 320, "height": 800})
    example = mails.preview_context("receipt")
    long = "W" * 120
    context = {
        **example,
        "name": long,
        "number": long,
        "link": f"https://app.example/{long}",
        "items": [{"name": long, "quantity": 1000, "amount": "1,234,567.89"}],
        "total": "1,234,567.89",
    }
    try:
        page.set_content(str(mails.render("receipt", context).html))
        assert page.evaluate(BEYOND) == []
    finally:
        page.close()


def contrast(ink: list[float], paper: list[float]) -> float:
    """The contrast ratio of two colours (WCAG 2.2, section "contrast ratio"), 1 to 21."""
    lighter, darker = sorted((_luminance(ink), _luminance(paper)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_is_measured_as_the_standard_says() -> None:
    """Black on white is 21, a colour on itself 1, and #767676 on white the well-known 4.54."""
    assert contrast([0, 0, 0], [255, 255, 255]) == pytest.approx(21)
    assert contrast([9, 9, 9], [9, 9, 9]) == pytest.approx(1)
    assert contrast([118, 118, 118], [255, 255, 255]) == pytest.approx(4.54, abs=0.01)
