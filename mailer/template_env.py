"""The two Jinja environments mails are made in, laid over the application's own."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import Any, cast

from jinja2 import BaseLoader, Environment, StrictUndefined, Template, TemplateNotFound
from jinja2.runtime import new_context
from markupsafe import Markup

_OF_A_REQUEST = ("request", "session", "get_flashed_messages")


class LeavesRoot(TemplateNotFound):
    """A template file is a link to a place outside the folder templates are read from."""


class RootedLoader(BaseLoader):
    """The application's loader, refusing files that a symbolic link places elsewhere.

    ``names`` keeps which template a file was, for the words of an error.
    """

    def __init__(self, loader: BaseLoader) -> None:
        self.names: dict[str, str] = {}
        self._loader = loader

    def get_source(
        self, environment: Environment, template: str
    ) -> tuple[str, str | None, Callable[[], bool] | None]:
        """As Jinja asks for it. Raises LeavesRoot as well."""
        source, filename, fresh = self._loader.get_source(environment, template)
        if filename is not None:
            filename = os.fspath(filename)
            _check_inside(filename, template)
            self.names[filename] = template
        return source, filename, fresh

    def list_templates(self) -> list[str]:
        """Every template the application can load."""
        return self._loader.list_templates()


def _check_inside(filename: str, template: str) -> None:
    # The root is what remains of the path without the template's name; loaders without files have none.
    tail = os.sep + template.replace("/", os.sep)
    if not filename.endswith(tail):
        return
    root = os.path.realpath(filename[: -len(tail)])
    if not os.path.realpath(filename).startswith(root.rstrip(os.sep) + os.sep):
        raise LeavesRoot(template, f"{template} is a link that leaves the template folder")


def overlay(source: Environment, autoescape: bool, own: Mapping[str, Any]) -> Environment:
    """An environment with the application's filters, tests, globals and extensions, and ``own`` globals.

    A missing variable is an error. What belongs to a request is absent: a mail is the same wherever it
    is rendered. The application's bytecode cache is not used, since it tells templates apart by name and
    text only, and the same file compiles differently with and without escaping.
    """
    environment = source.overlay(
        autoescape=autoescape,
        undefined=StrictUndefined,
        loader=RootedLoader(source.loader) if source.loader else None,
        bytecode_cache=None,
    )
    absent = {name: _absent(name) for name in _OF_A_REQUEST}
    layers = ChainMap({**absent, **own}, source.globals)
    environment.globals = cast("dict[str, Any]", layers)  # Jinja only reads it as a mapping
    if type(environment).getattr is Environment.getattr:  # else it has rules of its own, as a sandbox has
        environment.getattr = _quick(environment.getattr)  # type: ignore[assignment, method-assign]
    return environment


def pieces_of(template: Template, values: Mapping[str, Any]) -> list[str]:
    """What a template makes of these values, in pieces. Where there is escaping, those that are ``Markup``
    are values, and the others are the template's own text.

    As Jinja's ``render``, but for joining them, and for walking through the layers of globals name by name.
    """
    if template.environment.is_async:
        return [Markup(template.render(values))]  # noqa: S704 (it was escaped as it was rendered)
    try:
        known = {**_flat(template.globals), **values}
        context = new_context(template.environment, template.name, template.blocks, known, shared=True)
        return list(template.root_render_func(context))
    except Exception:
        template.environment.handle_exception()


def _flat(layers: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(layers, ChainMap):
        return dict(layers)
    found: dict[str, Any] = {}
    for layer in reversed(layers.maps):
        found |= _flat(layer)
    return found


_OF_DICTIONARIES = frozenset(dir(dict))


def _quick(general: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """Jinja's look-up of ``item.name``, without an exception for each that is in a dictionary."""

    def attribute(of: Any, name: str) -> Any:
        if type(of) is dict and name in of and name not in _OF_DICTIONARIES:
            return of[name]
        return general(of, name)

    return attribute


def _absent(name: str) -> StrictUndefined:
    return StrictUndefined(f"{name!r} does not exist in mails", name=name)
