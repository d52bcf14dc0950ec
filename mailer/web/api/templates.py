"""The application's templates: which there are, and how one looks."""

from __future__ import annotations

from typing import Any

from mailer.context import checked_context
from mailer.errors import InvalidMessage, InvalidTemplate, RenderError
from mailer.rendering import Rendered
from mailer.web.api.errors import ApiError
from mailer.web.api.models import PreviewIn
from mailer.web.api.reading import body, checked, warn_unknown
from mailer.web.console_login import services


def get_many() -> dict[str, Any]:
    """The names of all templates."""
    names = services().templates.names()
    return {"object": "list", "has_more": False, "data": [{"id": name, "name": name} for name in names]}


def preview(name: str) -> dict[str, Any]:
    """What a template makes of the variables given, or of its own examples. Nothing is sent."""
    wanted = checked(PreviewIn, body())
    warn_unknown(wanted.unknown())
    templates = services().templates
    if name not in templates.names():
        raise ApiError(404, "not_found", "there is no such template; GET /templates lists them")
    made = _made(name, wanted)
    return {"object": "template_preview", "subject": made.subject, "html": made.html, "text": made.text}


def _made(name: str, wanted: PreviewIn) -> Rendered:
    templates = services().templates
    if wanted.locale is not None and len(wanted.locale) > 35:
        raise InvalidMessage("locale", "is no language tag; give one such as 'de' or 'pt-BR'")
    values = templates.preview_context(name, wanted.locale)
    if wanted.variables is not None:
        # What a context provider mints in the worker has its example here.
        provided = services().provided(name)
        examples = {key: value for key, value in values.items() if key in provided}
        values = examples | checked_context(wanted.variables)
        templates.check(name, values, wanted.locale)
    try:
        return templates.render(name, values, wanted.locale)
    except RenderError as exc:
        raise InvalidTemplate("template", f"cannot be rendered with these: {exc}") from None
