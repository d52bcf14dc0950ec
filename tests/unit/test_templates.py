"""The mails that come with the package: complete in every language, overridable, safe with any value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import flask
import pytest

from mailer.errors import InvalidTemplate
from mailer.rendering import Templates, text_of

PACKAGE = Path(__file__).parents[2] / "mailer" / "templates"
SHIPPED = ("password_changed", "receipt", "reset_password", "verify_email", "welcome")
LOCALES = (None, "de")

REQUIRED = {
    "password_changed": [],
    "receipt": ["currency", "date", "items", "number", "total"],
    "reset_password": ["link"],
    "verify_email": ["link"],
    "welcome": [],
}


def templates_of(root: Path) -> Templates:
    app = flask.Flask("site", root_path=str(root))
    app.register_blueprint(flask.Blueprint("mailer", "mailer", template_folder=str(PACKAGE)))
    return Templates(app.jinja_env, base_url="https://app.example", site_name="Acme & Söhne")


@pytest.fixture
def templates(tmp_path: Path) -> Templates:
    return templates_of(tmp_path)


def only_required(templates: Templates, name: str) -> dict[str, Any]:
    return {key: value for key, value in templates.preview_context(name).items() if key in REQUIRED[name]}


def test_the_list_of_shipped_templates(templates: Templates) -> None:
    """Five templates ship; the layout and its parts are none."""
    assert templates.names() == list(SHIPPED)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", SHIPPED)
def test_each_renders_from_its_example(templates: Templates, name: str, locale: str | None) -> None:
    """TP4: the example has all that is needed; every value of it that a reader is to see is in both parts."""
    context = templates.preview_context(name, locale)
    templates.check(name, context, locale)
    made = templates.render(name, context, locale)
    assert made.html is not None
    assert made.text is not None
    assert f'<html lang="{locale or "en"}" dir="ltr"' in made.html
    shown = text_of(made.html)
    for key, value in context.items():
        for word in _words(value):
            assert word in made.text, key
            assert word in shown, key
    assert not re.search(r"[{}]|None|Undefined", made.text + made.subject)


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [word for item in value for word in _words(item)]
    if isinstance(value, dict):
        return [word for item in value.values() for word in _words(item)]
    return [str(value)]


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", SHIPPED)
def test_each_renders_without_its_optional_values(
    templates: Templates, name: str, locale: str | None
) -> None:
    """TP4: what is optional may be absent, None or empty: no gap, no stray word, no double space shows."""
    example = templates.preview_context(name, locale)
    required = only_required(templates, name)
    for absent in (None, ""):
        context = {key: required.get(key, absent) for key in example}
        templates.check(name, context, locale)
        templates.check(name, required, locale)
        bare, empty = templates.render(name, required, locale), templates.render(name, context, locale)
        assert bare.text == empty.text
        assert "None" not in str(bare.html)
        assert not re.search(r"\n\n\n| ,|\S  \S", re.sub(r"(?m)^\w+: +", "", str(bare.text)))


@pytest.mark.parametrize("name", SHIPPED)
def test_each_names_what_it_lacks(templates: Templates, name: str) -> None:
    """TP4: without a context the names that are needed are told at the call."""
    if not REQUIRED[name]:
        templates.check(name, {})
        return
    with pytest.raises(InvalidTemplate, match=f"needs {', '.join(REQUIRED[name])}, which"):
        templates.check(name, {})


def test_a_receipt_checks_its_lines(templates: Templates) -> None:
    """TP4: a line of the receipt without an amount is told at the call too."""
    context = templates.preview_context("receipt")
    del context["items"][1]["amount"]
    with pytest.raises(InvalidTemplate, match=r"needs items\[\]\.amount"):
        templates.check("receipt", context)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", ["reset_password", "verify_email"])
def test_the_link_is_in_both_parts(templates: Templates, name: str, locale: str | None) -> None:
    """The link stands alone on a line of the text, and in the page behind the button and printed below."""
    link = "https://app.example/x?token=a-b_c.d&next=%2F"
    made = templates.render(name, {"link": link}, locale)
    assert link in str(made.text).splitlines()
    escaped = link.replace("&", "&amp;")
    assert str(made.html).count(f'href="{escaped}"') == 2
    assert f">{escaped}</a>" in str(made.html)


@pytest.mark.parametrize("name", SHIPPED)
def test_values_stay_values(templates: Templates, name: str) -> None:
    """TP2: markup in any value is shown, not obeyed; Jinja's own signs are too."""
    evil = "<script>alert(1)</script><img src=x onerror=y>{{ 7*7 }}\"'"

    def poisoned(value: Any) -> Any:
        if isinstance(value, list):
            return [poisoned(item) for item in value]
        if isinstance(value, dict):
            return {key: poisoned(item) for key, item in value.items()}
        return value if str(value).startswith("https:") else evil

    made = templates.render(name, poisoned(templates.preview_context(name)))
    assert not re.search(r"<script|<img|onerror=y>[^&]|\b49\b", str(made.html).replace("&lt;", "‹"))
    assert evil in str(made.text)


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_fit_for_mail_clients(templates: Templates, name: str, locale: str | None) -> None:
    """Dark mode and narrow windows are provided for; nothing is loaded from anywhere; tables are named."""
    html = str(templates.render(name, templates.preview_context(name, locale), locale).html)
    assert "@media (prefers-color-scheme: dark)" in html
    assert "@media (max-width: 480px)" in html
    assert '<meta name="color-scheme" content="light dark">' in html
    assert not re.search(r"<(img|script|link|iframe|form|object|video)\b|url\(|@import|@font-face", html)
    assert "var(--" not in html
    for table in re.findall(r"<table[^>]*>", html):
        assert 'role="presentation"' in table or "facts" in table or "lines" in table
    assert len(html.encode()) < 20_000  # Gmail cuts mails off at 102 kB, as of 2026-11
    assert html.index("preheader") < html.index("<h1")


def test_an_application_overrides_a_part(tmp_path: Path) -> None:
    """A file of the same name in the application's folder comes first; the others stay ours."""
    folder = tmp_path / "templates" / "email"
    (folder / "welcome").mkdir(parents=True)
    (folder / "welcome" / "subject.txt").write_text("Ahoy {{ name }}")
    made = templates_of(tmp_path).render("welcome", {"name": "Ada"})
    assert made.subject == "Ahoy Ada"
    assert "Hello Ada," in str(made.text)


def test_an_application_overrides_the_layout(tmp_path: Path) -> None:
    """With a layout of its own every mail wears the application's clothes."""
    folder = tmp_path / "templates" / "email"
    folder.mkdir(parents=True)
    (folder / "_layout.html").write_text("<main>{% block content %}{% endblock %}</main>Ours")
    (folder / "_layout.txt").write_text("{% block content %}{% endblock %}\nOurs")
    made = templates_of(tmp_path).render("welcome", {})
    assert str(made.text).endswith("Ours\n")
    assert "</main>Ours" in str(made.html)
    assert "prefers-color-scheme" not in str(made.html)


def test_an_application_extends_the_layout(tmp_path: Path) -> None:
    """A template of the application's own uses our layout and parts, in a language of its own."""
    folder = tmp_path / "templates" / "email" / "invite"
    folder.mkdir(parents=True)
    (folder / "subject.txt").write_text("Invitation")
    (folder / "body.html").write_text(
        '{% extends "email/_layout.html" %}{% from "email/_parts.html" import button %}'
        "{% block lang %}fr{% endblock %}{% block heading %}Bonjour{% endblock %}"
        '{% block content %}{{ button(link, "Entrez") }}{% endblock %}'
    )
    templates = templates_of(tmp_path)
    with pytest.raises(InvalidTemplate, match="needs link"):
        templates.check("invite", {})
    made = templates.render("invite", {"link": "https://app.example/i"})
    assert '<html lang="fr"' in str(made.html)
    assert "[Entrez](https://app.example/i)" in str(made.text)
