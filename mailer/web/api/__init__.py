"""The HTTP API, in the shape of Resend's, so that its clients work by changing one address.

One more door to `mailer.outbox`, with the same promises: what was answered with an id is committed. Read
`routes` for what there is, `gate` for who may, `asking` for what becomes of a request.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from mailer.admission import Admission
from mailer.errors import ConfigError, MailerError
from mailer.services import Services
from mailer.telemetry import log
from mailer.web.api import spec
from mailer.web.api.errors import ApiError, as_api_error
from mailer.web.api.gate import GATE, let_in
from mailer.web.api.reading import warn_unknown
from mailer.web.api.routes import ROUTES, Route
from mailer.web.console_login import is_https, services
from mailer.web.health import healthz

__all__ = ["init_api"]

PAGES: dict[str, Callable[[], Any]] = {
    "/openapi.json": spec.openapi,
    "/docs": spec.docs,
    "/healthz": healthz,
}
"""What is there for everybody, without a key."""
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
_JSON = "application/json"

blueprint = flask.Blueprint("mailer_api", __name__, template_folder="../../templates")


class _Anything(BaseConverter):
    """Whatever is left of an address, line breaks too: even that gets an answer in JSON."""

    regex = r"[\s\S]*"
    part_isolating = False
    weight = 300  # after everything else


def init_api(app: flask.Flask, url_prefix: str = "/api") -> None:
    """Add the API to an application that has Mailer set up. Raises ConfigError if it has not."""
    found: Services | None = app.extensions.get("mailer")
    if found is None:
        raise ConfigError("Mailer", "was not set up for this application; call mailer.init_app(app) first")
    app.extensions[GATE] = Admission(found)
    if csrf := app.extensions.get("csrf"):
        csrf.exempt(blueprint)  # no cookie lets anybody in here: a key does
    app.url_map.converters["anything"] = _Anything
    app.register_blueprint(blueprint, url_prefix=url_prefix)


# Endpoints


def _serve(route: Route) -> Callable[..., flask.Response]:
    def view(**values: str) -> flask.Response:
        let_in(route.scope)
        if route.query is None:
            warn_unknown(flask.request.args)
        return _answer(route.view(**values), route.status)

    view.__doc__ = route.view.__doc__
    return view


def _answer(value: dict[str, Any], status: int, **headers: str) -> flask.Response:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return flask.Response(text, status, headers, mimetype=_JSON)


def _refuse(methods: set[str]) -> Callable[..., flask.Response]:
    def view(**_values: str) -> flask.Response:
        allowed = ", ".join(sorted(methods))
        raise ApiError(405, "method_not_allowed", f"this address takes {allowed}", Allow=allowed)

    return view


def _nowhere(**_values: str) -> flask.Response:
    raise ApiError(404, "not_found", "there is nothing at this address; GET openapi.json lists what there is")


def _add_all() -> None:
    known: dict[str, set[str]] = {}
    for route in ROUTES:
        _add(route.path, route.name, _serve(route), {route.method})
        known.setdefault(route.path, set()).add(route.method)
    for path, view in PAGES.items():
        _add(path, view.__name__, view, {"GET"})
        known[path] = {"GET"}
    for path, methods in known.items():
        methods |= {"HEAD"} if "GET" in methods else set()
        name = "not_" + path.translate(str.maketrans("/<>:.", "_____"))
        _add(path, name, _refuse(methods), _METHODS - methods)
    for path in ("", "/", "/<anything:_rest>"):
        _add(path, "nowhere", _nowhere, _METHODS)


def _add(path: str, name: str, view: Callable[..., flask.Response], methods: set[str]) -> None:
    # Flask would answer OPTIONS by itself, and not in JSON.
    blueprint.add_url_rule(path, name, view, methods=list(methods), provide_automatic_options=False)


_add_all()


# Around every request


@blueprint.before_request
def bound() -> None:
    """The application's own limit is for its forms: a mail with files is larger."""
    flask.request.max_content_length = services().settings.api_max_body_bytes


@blueprint.after_request
def finish(response: flask.Response) -> flask.Response:
    """What goes with every answer: nobody keeps it, and the client learns how much more it may ask."""
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Cache-Control"] = "no-store"
    if is_https():
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    for name, value in flask.g.get("api_limits", {}).items():
        headers[name] = value
    if notes := flask.g.get("api_warnings"):
        headers["Mailer-Warning"] = "; ".join(dict.fromkeys(notes))[:1000]
    return response


# Errors


@blueprint.errorhandler(ApiError)
def explain(error: ApiError) -> flask.Response:
    """A mistake of the caller's."""
    return _answer(error.body(), error.status, **error.headers)


@blueprint.errorhandler(MailerError)
def explain_ours(error: MailerError) -> flask.Response:
    """What the outbox refuses, and what is wrong with us."""
    told = as_api_error(error)
    if told.status >= 500:
        log.error("api.failed", error=type(error).__name__, why=str(error))
    return explain(told)


@blueprint.errorhandler(HTTPException)
def explain_http(error: HTTPException) -> flask.Response:
    """What Werkzeug refuses while it reads a request."""
    status = error.code or 500
    if status == 413:
        most = services().settings.api_max_body_bytes
        return explain(ApiError(413, "payload_too_large", f"the body has more than {most:,} bytes"))
    return explain(ApiError(status, "application_error" if status >= 500 else "validation_error", error.name))


@blueprint.errorhandler(Exception)
def explain_bug(error: Exception) -> flask.Response:
    """A bug of ours: its kind goes to the log, nothing to the caller."""
    log.error("api.failed", error=type(error).__name__, why="unexpected")
    return explain(ApiError(500, "application_error", "an unexpected error; nothing was accepted, try again"))
