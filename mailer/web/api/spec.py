"""The specification, OpenAPI 3.1, made from the table of routes and the models that validate; and a page."""

from __future__ import annotations

import re
import secrets
from functools import cache
from typing import Any

import flask
from markupsafe import Markup, escape
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mailer.web.api import models
from mailer.web.api.routes import ROUTES, Route

_REFS = "#/components/schemas/{model}"
_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key: `mailer keys create NAME` prints one.",
}
_ERRORS = {
    "400": "The idempotency key is no good.",
    "401": "There is no key, or it lacks a scope.",
    "403": "The key is wrong, unknown, revoked or over; or it may not send for this domain.",
    "404": "There is no such thing in the project of the key.",
    "409": "The idempotency key was used for something else.",
    "413": "The body or the message is too large.",
    "422": "A field is missing or wrong; the message names it.",
    "429": "Too many requests; Retry-After says when to come again.",
    "500": "Our fault; nothing was accepted.",
}
_HEADERS = {
    "Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[!-~]+$"},
    "x-batch-validation": {"type": "string", "enum": ["strict", "permissive"]},
}


def openapi() -> flask.Response:
    """The specification as JSON."""
    prefix = flask.request.path.removesuffix("/openapi.json")
    return flask.jsonify({**document(), "servers": [{"url": prefix or "/"}]})


@cache
def document() -> dict[str, Any]:
    """The specification, without the place where it is served."""
    shapes = {shape for route in ROUTES for shape in (route.body, route.answer) if shape} | {models.Error}
    modes: dict[type[BaseModel], Any] = {shape: _mode(shape) for shape in shapes}
    ordered = sorted(modes.items(), key=lambda pair: pair[0].__name__)
    _, schemas = models_json_schema(ordered, ref_template=_REFS)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(_path(route.path), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mailer", "version": "1", "description": models.__doc__},
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"key": _KEY}},
        "security": [{"key": []}],
    }


def _mode(shape: type[BaseModel]) -> str:
    return "validation" if any(route.body is shape for route in ROUTES) else "serialization"


def _path(path: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+?)_?>", r"{\1}", path)


def _operation(route: Route) -> dict[str, Any]:
    text = " ".join((route.view.__doc__ or "").split())
    described: dict[str, Any] = {
        "operationId": route.name,
        "summary": text.partition(". ")[0].rstrip("."),
        "description": f"{text} Needs the scope {route.scope}.",
        "parameters": _parameters(route),
        "responses": {
            str(route.status): {"description": "Done.", "content": _content(route.answer)},
            **{
                code: {"description": _ERRORS[code], "content": _content(models.Error)}
                for code in _errors(route)
            },
        },
    }
    if route.body is not None:
        described["requestBody"] = {"required": True, "content": _body(route.body)}
    return described


def _errors(route: Route) -> list[str]:
    """The statuses with which a request to it can be refused, in order."""
    found = ["401", "403", "429", "500"]
    found += ["400", "409"] if "Idempotency-Key" in route.headers else []
    found += ["404"] if "<" in route.path else []
    found += ["413"] if route.body else []
    found += ["422"] if route.body or route.query or route.method == "POST" or "<path:" in route.path else []
    return sorted(found)


def _content(shape: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFS.format(model=shape.__name__)}}}


def _body(shape: type[BaseModel]) -> dict[str, Any]:
    if shape is not models.BatchIn:
        return _content(shape)
    email = {"$ref": _REFS.format(model="EmailIn")}
    batch = {"type": "array", "minItems": 1, "maxItems": models.MAX_BATCH, "items": email}
    return {"application/json": {"schema": batch}}


def _parameters(route: Route) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", _path(route.path))
    ]
    found += [{"name": name, "in": "header", "schema": _HEADERS[name]} for name in route.headers]
    if route.query is not None:
        properties = route.query.model_json_schema()["properties"]
        found += [
            {"name": name, "in": "query", "schema": _plain(schema)} for name, schema in properties.items()
        ]
    return found


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is not there is null only in Python."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    return kinds[0] if kinds else {k: v for k, v in schema.items() if k != "title"}


def docs() -> flask.Response:
    """The specification as a page for people. It needs no script, and nothing from elsewhere."""
    nonce, prefix = secrets.token_urlsafe(16), flask.request.path.removesuffix("/docs")
    page = flask.render_template(
        "api/docs.html",
        spec=document(),
        errors=_ERRORS,
        prefix=prefix,
        nonce=nonce,
        shape=_shape,
        kind_of=_kind,
    )
    answer = flask.make_response(page)
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    )
    return answer


def _shape(content: dict[str, Any]) -> Markup:
    return _kind(content["application/json"]["schema"])


def _kind(schema: dict[str, Any]) -> Markup:
    """A schema in a word or two: "string or list of EmailIn", with links to the shapes."""
    if "$ref" in schema:
        return Markup('<a href="#shape-{0}">{0}</a>').format(str(schema["$ref"]).rpartition("/")[2])
    if "anyOf" in schema:
        return Markup(" or ").join(_kind(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return Markup("list of {}").format(_kind(schema.get("items", {})))
    if "enum" in schema or "const" in schema:
        return escape(", ".join(map(str, schema.get("enum") or [schema["const"]])))
    return escape(schema.get("type", "anything"))
