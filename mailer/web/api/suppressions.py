"""The suppression list of the key's project. What stands on other lists is as if it were on none."""

from __future__ import annotations

import re
from typing import Any

from mailer import suppressions
from mailer.suppressions import Entry, Wanted
from mailer.web.api.errors import ApiError
from mailer.web.api.gate import key
from mailer.web.api.models import ListQuery, SuppressionIn
from mailer.web.api.reading import body, checked, query, warn_unknown
from mailer.web.console_login import services

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def get_many() -> dict[str, Any]:
    """A page of the list, newest first."""
    _check_live()
    wanted = query(ListQuery)
    if wanted.after is not None and wanted.before is not None:
        raise ApiError(422, "invalid_parameter", "`after` and `before` exclude each other; give one of them")
    for cursor in (wanted.after, wanted.before):
        if cursor is not None and _ID.fullmatch(cursor) is None:
            raise ApiError(422, "invalid_parameter", "`after` and `before` are ids of entries")
    which = Wanted(key().project, limit=wanted.limit, after=wanted.after, before=wanted.before)
    found, has_more = suppressions.page(services(), which)
    return {"object": "list", "has_more": has_more, "data": [_shown(entry) for entry in found]}


def add() -> dict[str, Any]:
    """Put one address or up to 100 on the list. Those that are on it already stay as they are."""
    _check_live()
    wanted = checked(SuppressionIn, body())
    warn_unknown(wanted.unknown())
    listed = suppressions.add(
        services(),
        wanted.address,
        by=_by(),
        project=key().project,
        cause=wanted.cause,
        detail=wanted.detail,
    )
    return {"object": "list", "has_more": False, "data": [_shown(entry) for entry in listed]}


def get(which: str) -> dict[str, Any]:
    """The entry of an address, or of an id."""
    _check_live()
    found = suppressions.find(services(), which, project=key().project)
    if found is None:
        raise _not_listed()
    return _shown(found)


def remove(which: str) -> dict[str, Any]:
    """Take an address, or the entry of an id, off the list."""
    _check_live()
    gone = suppressions.remove(services(), which, by=_by(), project=key().project)
    if gone is None:
        raise _not_listed()
    return {"object": "suppression", "id": gone.id, "deleted": True}


def _check_live() -> None:
    if key().is_test:  # it sees and makes nothing live, and its mail reaches nobody
        said = "a test key has no suppression list; suppressed@resend.dev shows what one does"
        raise ApiError(403, "validation_error", said)


def _by() -> str:
    return f"API key {key().prefix}…"


def _not_listed() -> ApiError:
    return ApiError(404, "not_found", "it is not on the suppression list of this project")


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        "object": "suppression",
        "id": entry.id,
        "address": entry.address,
        "cause": entry.cause,
        "detail": entry.detail,
        "created_at": entry.created_at.isoformat(),
        "by": entry.by,
        "email_id": entry.message,
    }
