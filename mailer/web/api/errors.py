"""What goes wrong, in the shape and with the names that Resend's clients know.

https://resend.com/docs/api-reference/errors. The text carries no address, key or value: see `mailer.errors`.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from mailer.errors import (
    BodyErased,
    IdempotencyConflict,
    InvalidAddress,
    InvalidMessage,
    MailerError,
    MessageNotFound,
    MessageTooLarge,
    SecretErased,
    WrongState,
)


class ApiError(Exception):
    """An answer with an error's status. ``headers`` go with it."""

    def __init__(self, status: int, name: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.name, self.message = status, name, message
        self.headers = {header.replace("_", "-"): value for header, value in headers.items()}

    def body(self) -> dict[str, Any]:
        """JSON-able."""
        return {"statusCode": self.status, "name": self.name, "message": self.message}


FIELDS = {
    "sender": "from",
    "send_at": "scheduled_at",
    "context": "template.variables",
    "template": "template.id",
    "metadata": "tags",
    "idempotency_key": "Idempotency-Key",
}
"""Fields of a message, where a request calls them otherwise."""

_NOT_FOUND = "there is no such message; check the id and the project of the key"

# The first that fits.
_KINDS: tuple[tuple[type[MailerError], int, str], ...] = (
    (IdempotencyConflict, 409, "invalid_idempotent_request"),
    (MessageNotFound, 404, "not_found"),
    (WrongState, 422, "validation_error"),
    (SecretErased, 422, "validation_error"),
    (BodyErased, 422, "validation_error"),
    (MessageTooLarge, 413, "payload_too_large"),
    (InvalidMessage, 422, "validation_error"),
)
_UNEXPECTED = "the request could not be handled; nothing was accepted, try again"


def as_api_error(exc: MailerError) -> ApiError:
    """What a mistake or a mishap is called here. What is not the caller's matter says no more than that."""
    for kind, status, name in _KINDS:
        if isinstance(exc, kind):
            return ApiError(status, _narrowed(exc, name), _message(exc))
    return ApiError(500, "application_error", _UNEXPECTED)


def _narrowed(exc: MailerError, name: str) -> str:
    field = getattr(exc, "field", "")
    if isinstance(exc, InvalidAddress) and field == "sender":
        return "invalid_from_address"
    return "invalid_attachment" if field == "attachments" and name == "validation_error" else name


def _message(exc: MailerError) -> str:
    if isinstance(exc, MessageNotFound):
        return _NOT_FOUND
    if isinstance(exc, InvalidMessage):
        return f"`{FIELDS.get(exc.field, exc.field)}` {exc.problem}"
    return str(exc)


def not_found() -> ApiError:
    """The same for what does not exist and what belongs to somebody else (AK4)."""
    return ApiError(404, "not_found", _NOT_FOUND)


def missing(field: str) -> ApiError:
    """A field that must be there."""
    return ApiError(422, "missing_required_field", f"Missing `{field}` field.")


def of_model(exc: ValidationError, names: frozenset[str], parameters: bool = False) -> ApiError:
    """The first thing that pydantic found. ``names`` are fields: no other word of a request is shown."""
    first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(step) for step in first["loc"] if isinstance(step, int) or step in names)
    if first["type"] == "missing":
        return missing(where or "body")
    said = re.sub(r"\s+", " ", first["msg"])[:300]
    if first["type"] in ("model_type", "dict_type"):  # pydantic would name a class of ours
        said = "is not a JSON object; give {…}"
    name = "invalid_parameter" if parameters else "validation_error"
    name = "invalid_attachment" if where.startswith("attachments") else name
    whole = "query" if parameters else "body"
    return ApiError(422, name, f"`{where or whole}` {said[:1].lower()}{said[1:]}")
