"""Template + context → subject, text and HTML.

A template is a folder ``email/<name>/`` with ``subject.txt``, ``body.html`` or ``body.txt`` or both, and
``preview.json`` (example values). ``email/<name>/<locale>/`` holds the same in another language. The
application's template folders come first, so that placing a file of the same name overrides ours.

HTML is always escaped and subject and text never are, whatever the files are called.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, TemplateError, TemplateNotFound

from mailer.context import PLAIN
from mailer.errors import InvalidMessage, InvalidTemplate, MailerError, RenderError
from mailer.headers import check_header_text
from mailer.inlining import Inliner, NestedTooDeep, RefusedAddress, UnreadableStyle
from mailer.links import Links
from mailer.nesting import MAX_DEPTH
from mailer.secret import MASK, Secret
from mailer.template_check import Fresh, Need, Tree, has_all, is_global, missing, needs_of, tree_of
from mailer.template_env import LeavesRoot, overlay, pieces_of
from mailer.template_errors import describe

MAX_NAME = 100
"""Characters of a template's name."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(?:/[a-z0-9][a-z0-9_-]*)*")
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*")
_LOCALE_FOLDER = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")
_MAX_PLANS = 1000
_BLANK_LINES = re.compile(r"\n(?:[ \t\r]*\n){2,}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a mail says. At least one of ``text`` and ``html`` is there; the subject is one line."""

    subject: str
    text: str | None
    html: str | None


@dataclass(frozen=True, slots=True)
class _Plan:
    """A template found for a locale: its folder, language, which bodies it has, what it needs."""

    name: str
    folder: str
    lang: str
    has_html: bool
    has_text: bool
    needs: frozenset[Need]
    tree: Tree
    fresh: tuple[Fresh, ...]


class Templates:
    """The mail templates of one application, by name.

    ``base_url`` is where people reach the application; every link is made from it. ``default_locale``
    stands in where a call names none. Templates see ``base_url``, ``site_name``, ``lang`` and the
    functions ``absolute_url(path, **query)`` and ``url_for(endpoint, **values)``.
    """

    def __init__(
        self,
        jinja_env: Environment,
        *,
        base_url: str,
        default_locale: str | None = None,
        site_name: str = "Mailer",
    ) -> None:
        self._source = jinja_env
        self._default_locale = default_locale
        links = Links(base_url, getattr(jinja_env, "app", None))
        self._globals = {
            "base_url": links.base_url,
            "site_name": site_name,
            "absolute_url": links.absolute_url,
            "url_for": links.url_for,
        }
        self._plans: dict[tuple[str, str | None], _Plan] = {}
        self._inliner = Inliner()

    # Made at the first use: until then the application may still set its environment up.
    @cached_property
    def _html(self) -> Environment:
        return overlay(self._source, True, self._globals)

    @cached_property
    def _text(self) -> Environment:
        return overlay(self._source, False, self._globals)

    def names(self) -> list[str]:
        """Every template there is, sorted, localisations left out."""
        try:
            found = self._loader_names()
        except TypeError:  # a loader that cannot list what it has
            return []
        return sorted(name for name in found if not _is_localisation(name, found))

    def check(
        self, name: str, context: Mapping[str, Any], locale: str | None = None, provided: Collection[str] = ()
    ) -> None:
        """Make sure that the template exists and gets the variables it needs; costs microseconds.

        ``provided`` are the names a context provider will add. Raises InvalidTemplate: the name is
        unknown or not a name, the files are broken, or variables are missing (all are named).
        """
        plan = self._plan(name, locale)
        if has_all(plan.tree, context):
            return
        # A global may have come after the template was read.
        gaps = [gap for gap in missing(plan.needs, context, provided) if not is_global(self._html, gap)]
        if gaps:
            raise InvalidTemplate("context", f"{name!r} needs {', '.join(gaps)}, which the context lacks")

    def render(self, name: str, context: Mapping[str, Any], locale: str | None = None) -> Rendered:
        """Make the mail. ``context`` holds plain values (see `revealed` and `masked`).

        Raises RenderError, which names the template, the place and the kind of fault, never a value.
        """
        try:
            plan = self._plan(name, locale)
        except InvalidTemplate as exc:
            raise RenderError(f"template {exc.problem}") from exc
        values = {"lang": plan.lang, **context}
        subject = self._part(self._text, plan, "subject.txt", values)
        text = self._part(self._text, plan, "body.txt", values) if plan.has_text else None
        html = self._page(plan, values) if plan.has_html else None
        return _finished(plan.folder, subject, text, html)

    def preview_context(self, name: str, locale: str | None = None) -> dict[str, Any]:
        """The example values of ``preview.json``: the localisation's own, the template's, or none.

        Raises InvalidTemplate: no such template, or the file is not a JSON object.
        """
        plan = self._plan(name, locale)
        for folder in dict.fromkeys((plan.folder, f"email/{name}")):
            source = self._read(f"{folder}/preview.json")
            if source is None:
                continue
            try:
                values = json.loads(source)
            except ValueError as exc:
                raise InvalidTemplate("template", f"{folder}/preview.json is not JSON") from exc
            if not isinstance(values, dict):
                raise InvalidTemplate("template", f"{folder}/preview.json is not a JSON object")
            return values
        return {}

    def _plan(self, name: str, locale: str | None) -> _Plan:
        locale = locale or self._default_locale
        try:
            plan = self._plans[name, locale]
            if not self._html.auto_reload or all(fresh() for fresh in plan.fresh):
                return plan
        except (KeyError, TypeError):  # not seen yet, or not even a text
            pass
        plan = self._look_up(name, locale)
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[name, locale] = plan
        return plan

    def _look_up(self, name: str, locale: str | None) -> _Plan:
        if not isinstance(name, str) or len(name) > MAX_NAME or not _NAME.fullmatch(name):
            raise InvalidTemplate(
                "template", "is not a name; use lower-case letters, digits, - and _ such as reset_password"
            )
        if locale is not None and (not isinstance(locale, str) or not _LOCALE.fullmatch(locale)):
            raise InvalidTemplate("locale", "is not a language tag such as de or pt-BR")
        try:
            return self._found(name, locale)
        except LeavesRoot as exc:
            raise InvalidTemplate("template", f"{name!r} leaves the template folder by a link") from exc
        except (TemplateError, RecursionError) as exc:
            raise InvalidTemplate("template", f"{name!r} is broken: {describe(exc, self._html)}") from exc

    def _found(self, name: str, locale: str | None) -> _Plan:
        files: list[Fresh] = []
        for tag in _fallbacks(locale):
            folder = f"email/{name}/{tag}" if tag else f"email/{name}"
            if self._exists(f"{folder}/subject.txt"):
                break
            files.append(partial(self._absent, f"{folder}/subject.txt"))
        else:
            raise InvalidTemplate("template", self._unknown(name))
        bodies = [part for part in ("body.html", "body.txt") if self._exists(f"{folder}/{part}")]
        if not bodies:
            raise InvalidTemplate("template", f"{name!r} has neither body.html nor body.txt")
        needs: frozenset[Need] = frozenset()
        for part in ("subject.txt", *bodies):
            needs |= needs_of(self._html, f"{folder}/{part}", files)
        return _Plan(
            name=name,
            folder=folder,
            lang=(tag or "en").replace("_", "-"),
            has_html="body.html" in bodies,
            has_text="body.txt" in bodies,
            needs=needs,
            tree=tree_of(needs),
            fresh=tuple(files),
        )

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names(), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"its place is templates/email/{name}/"
        return f"{name!r} does not exist; {hint}"

    def _exists(self, path: str) -> bool:
        return self._read(path) is not None

    def _absent(self, path: str) -> bool:
        return self._read(path) is None

    def _read(self, path: str) -> str | None:
        loader = self._html.loader
        if loader is None:
            return None
        try:
            return loader.get_source(self._html, path)[0]
        except LeavesRoot:
            raise
        except TemplateNotFound:
            return None

    def _loader_names(self) -> set[str]:
        loader = self._html.loader
        paths = loader.list_templates() if loader else []
        pattern = re.compile(r"email/(.+)/subject\.txt")
        found = {match[1] for path in paths if (match := pattern.fullmatch(path))}
        return {name for name in found if _NAME.fullmatch(name) or _is_localisation(name, found)}

    def _page(self, plan: _Plan, values: dict[str, Any]) -> str:
        path = f"{plan.folder}/body.html"
        pieces = self._pieces(self._html, plan, "body.html", values)
        try:
            return self._inliner.finish(path, pieces)
        except UnreadableStyle as exc:
            raise RenderError(f"{path}: its style sheet cannot be read") from exc
        except NestedTooDeep as exc:
            raise RenderError(f"{path}: its elements are nested more than {MAX_DEPTH} deep") from exc
        except RefusedAddress as exc:
            raise RenderError(f"{path}: {exc}") from exc

    def _part(self, environment: Environment, plan: _Plan, part: str, values: dict[str, Any]) -> str:
        return "".join(self._pieces(environment, plan, part, values))

    def _pieces(self, environment: Environment, plan: _Plan, part: str, values: dict[str, Any]) -> list[str]:
        path = f"{plan.folder}/{part}"
        try:
            return pieces_of(environment.get_template(path), values)
        except MailerError as exc:  # from one of our own functions
            raise RenderError(f"{path}: {exc}") from exc
        except Exception as exc:
            # Not `from exc`: its text may hold values, and whoever prints the cause would show them.
            words = describe(exc, environment)
            raise RenderError(words if words.startswith(path) else f"{path}: {words}") from None


def text_of(html: str) -> str:
    """The plain text of a page: see `mailer.plain_text`. Raises RenderError."""
    # Imported here: most templates give a text, and the parser takes 8 MiB.
    from mailer.plain_text import derive_text

    return tidied(derive_text(html))


def tidied(text: str) -> str:
    """Without blanks at its ends, and with no more than one empty line in a row."""
    return _BLANK_LINES.sub("\n\n", text).strip() + "\n"


def revealed(context: Any) -> Any:
    """A copy with every `Secret` replaced by its value. Raises SecretErased where it is gone."""
    return _replaced(context, lambda secret: secret.reveal())


def masked(context: Any) -> Any:
    """A copy with every `Secret` masked; a link keeps its scheme and host: ``https://a.example/••••••``."""
    return _replaced(context, _mask)


def _replaced(value: Any, by: Callable[[Secret], str]) -> Any:
    if type(value) in PLAIN:
        return value
    if isinstance(value, Secret):
        return by(value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, by) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, by) for item in value]
    return value


def _mask(secret: Secret) -> str:
    try:
        url = urlsplit(secret.reveal())
        if url.scheme in ("http", "https") and url.hostname:
            port = f":{url.port}" if url.port else ""
            return f"{url.scheme}://{url.hostname}{port}/{MASK}"
    except (MailerError, ValueError):
        pass
    return MASK


def _finished(folder: str, subject: str, text: str | None, html: str | None) -> Rendered:
    """Check and finish the rendered parts. Raises RenderError."""
    subject = subject.strip(" \t\r\n")
    try:
        check_header_text(subject, "subject")
    except InvalidMessage as exc:
        raise RenderError(f"{folder}/subject.txt: the subject {exc.problem}") from exc
    if not subject:
        raise RenderError(f"{folder}/subject.txt: the subject is empty")
    if html is not None:
        text = text_of(html) if text is None else tidied(text)
    elif text is not None:
        text = tidied(text)
    if text is not None and "\x00" in text:
        raise RenderError(f"{folder}: the text holds a NUL character")
    return Rendered(subject, text, html)


def _fallbacks(locale: str | None) -> Iterator[str]:
    """Folders to look in: ``pt-BR`` → pt-BR, pt_BR, pt, and the template's own folder (empty)."""
    if locale is not None:
        tag = _canonical(locale)
        while tag:
            yield tag
            if "-" in tag:
                yield tag.replace("-", "_")
            tag = tag.rpartition("-")[0]
    yield ""


def _canonical(locale: str) -> str:
    """``DE_at`` as folders are named, ``de-AT``: RFC 5646 section 2.1.1, where case carries no meaning."""
    language, *others = locale.replace("_", "-").split("-")
    cased = [part.upper() if len(part) == 2 else part.title() if len(part) == 4 else part for part in others]
    return "-".join([language.lower(), *cased])


def _is_localisation(name: str, names: Collection[str]) -> bool:
    parent, _, last = name.rpartition("/")
    return parent in names and _LOCALE_FOLDER.fullmatch(last) is not None
