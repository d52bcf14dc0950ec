"""What went wrong in a template, in words that name the place and the kind of fault, never a value."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import TracebackType

from jinja2 import (
    Environment,
    TemplateAssertionError,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    UndefinedError,
)

from mailer.template_env import LeavesRoot, RootedLoader

_QUOTED = re.compile(r"'([^'\s]{1,100})'(?: is undefined| does not exist in mails|$)")


def describe(exc: BaseException, environment: Environment) -> str:
    """Words for an exception that Jinja, a filter or a function of the application raised."""
    for kind, words in _TABLE:
        if isinstance(exc, kind):
            return words(exc, environment)
    return f"{_place(exc, environment)}raised {type(exc).__name__}"


def _syntax(exc: BaseException, environment: Environment) -> str:
    if not isinstance(exc, TemplateSyntaxError):  # only for the type checker
        return ""
    return f"{exc.name or 'template'} line {exc.lineno}: {exc.message}"


def _not_found(exc: BaseException, environment: Environment) -> str:
    return f"{_place(exc, environment)}there is no template {str(getattr(exc, 'name', ''))[:200]!r}"


def _leaves(exc: BaseException, environment: Environment) -> str:
    return "a file leaves the template folder by a link"


def _undefined(exc: BaseException, environment: Environment) -> str:
    name = _QUOTED.search(str(exc))
    # labels[status] names the value of status: say only what the author wrote himself.
    known = name is not None and any(
        re.search(rf"\b{re.escape(name[1])}\b", source) for source in _sources(exc, environment)
    )
    what = repr(name[1]) if name is not None and known else "a variable"
    return f"{_place(exc, environment)}{what} is undefined"


def _recursion(exc: BaseException, environment: Environment) -> str:
    return "includes or calls itself without end"


_TABLE: tuple[tuple[type[BaseException], Callable[[BaseException, Environment], str]], ...] = (
    (LeavesRoot, _leaves),
    (TemplateNotFound, _not_found),
    (TemplateAssertionError, _syntax),
    (TemplateSyntaxError, _syntax),
    (UndefinedError, _undefined),
    (RecursionError, _recursion),
    (TemplateError, lambda exc, environment: f"{_place(exc, environment)}{type(exc).__name__}"),
)


def _place(exc: BaseException, environment: Environment) -> str:
    """``email/x/body.html line 3: `` of the innermost template the exception passed, or nothing."""
    frames = _template_frames(exc)
    if not frames:
        return ""
    filename, line = frames[-1]
    loader = environment.loader
    names = loader.names if isinstance(loader, RootedLoader) else {}
    name = names.get(filename)
    return f"{name} line {line}: " if name else f"line {line}: "


def _template_frames(exc: BaseException) -> list[tuple[str, int]]:
    # Jinja replaces the frames of compiled templates by ones with the author's file and line
    # (jinja2/debug.py, fake_traceback), and marks them so.
    frames: list[tuple[str, int]] = []
    traceback: TracebackType | None = exc.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if "__jinja_exception__" in frame.f_globals:
            frames.append((frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return frames


def _sources(exc: BaseException, environment: Environment) -> list[str]:
    loader = environment.loader
    if not isinstance(loader, RootedLoader):
        return []
    names = {loader.names[filename] for filename, _ in _template_frames(exc) if filename in loader.names}
    return [loader.get_source(environment, name)[0] for name in names]
