"""Keys made and revoked by a key with the scope admin, within its own project and no wider than itself."""

from __future__ import annotations

from typing import Any

from mailer import keys, scheduling
from mailer.errors import InvalidMessage
from mailer.store import keys as rows
from mailer.store.keys import KeyRow
from mailer.web.api.errors import ApiError
from mailer.web.api.gate import key
from mailer.web.api.models import KeyIn
from mailer.web.api.reading import body, checked, warn_unknown
from mailer.web.console_login import services


def get_many() -> dict[str, Any]:
    """The keys of the project, revoked ones too."""
    with services().store.read() as connection:
        found = rows.all_keys(connection, key().project)
    return {"object": "list", "has_more": False, "data": [_shown(each) for each in found]}


def create() -> dict[str, Any]:
    """Make a key. The answer has it, once."""
    wanted = checked(KeyIn, body())
    warn_unknown(wanted.unknown())
    if key().is_test and not wanted.test:
        raise ApiError(403, "validation_error", "`test` a test key makes test keys only")
    expires_at = wanted.expires_at
    made, token = keys.create(
        services(),
        wanted.name,
        project=key().project_name,
        scopes=wanted.scopes if wanted.scopes is not None else keys.DEFAULT_SCOPES,
        domains=_domains(wanted.domains),
        is_test=wanted.test,
        expires_at=scheduling.instant(expires_at, services().now(), "expires_at") if expires_at else None,
    )
    return {**_shown(made), "token": token}


def revoke(id_: str) -> dict[str, Any]:
    """Close a key; within a second it opens nothing."""
    if not keys.revoke(services(), id_, project=key().project):
        raise ApiError(404, "not_found", "there is no such key, or it was revoked already")
    return {"object": "api_key", "id": id_, "deleted": True}


def _domains(wanted: list[str] | None) -> list[str]:
    own = set(key().domains)
    if not own:
        return wanted or []
    if wanted is not None and not set(wanted) <= own:
        raise InvalidMessage("domains", "has one that this key may not send for")
    return wanted or sorted(own)


def _shown(found: KeyRow) -> dict[str, Any]:
    instants = {
        "created_at": found.created_at,
        "expires_at": found.expires_at,
        "revoked_at": found.revoked_at,
        "last_used_at": found.used_at,
    }
    return {
        "id": found.id,
        "name": found.name,
        "prefix": found.prefix,
        "project": found.project_name,
        "scopes": list(found.scopes),
        "domains": list(found.domains),
        "test": found.is_test,
        **{name: at and at.isoformat() for name, at in instants.items()},
    }
