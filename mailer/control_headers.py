"""Headers of a mail that are for Mailer and not for its reader: ``X-Tags`` and ``X-Metadata``.

In the form of django-anymail's Resend backend: a JSON list, and a JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mailer.errors import InvalidMessage


def tags(name: str, value: str) -> list[str]:
    """Those of a header of this name. Raises InvalidMessage, field ``headers``."""
    return _strings(_json(name, value, list))


def metadata(name: str, value: str) -> dict[str, str]:
    """That of a header of this name; what is no text becomes JSON. Raises as `tags` does."""
    found = _json(name, value, dict)
    return dict(zip(found, _strings(list(found.values())), strict=True))


def _json(name: str, value: str, kind: type) -> Any:
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, kind):
        shape = "an object" if kind is dict else "a list"
        raise InvalidMessage("headers", f"{name} is not JSON text of {shape}; leave it out, or use tags")
    return found


def _strings(values: Sequence[Any]) -> list[str]:
    return [value if isinstance(value, str) else json.dumps(value) for value in values]
