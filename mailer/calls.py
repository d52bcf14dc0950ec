"""From what a caller gives to a checked message: the application's defaults first, then every field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mailer.address import Address
from mailer.errors import InvalidMessage
from mailer.message import Message
from mailer.services import Services


def message_for(services: Services, template: str | None = None, **fields: Any) -> Message:
    """The message that `mailer.send_email.delay` means by these arguments. Raises InvalidMessage."""
    settings = services.settings
    fields = _with_defaults(services.defaults.get(template or "", {}), fields)
    fields.setdefault("on_uncertain", settings.on_uncertain)
    fields.setdefault("locale", settings.default_locale)
    if fields.get("sender") is None:
        if settings.default_sender is None:
            raise InvalidMessage("sender", "is missing; pass sender=… or set MAILER_DEFAULT_SENDER")
        fields["sender"] = _read_once(settings.default_sender)
    return Message.create(
        template,
        now=services.now(),
        lanes=settings.lane_names,
        max_recipients=settings.max_recipients,
        **fields,
    )


@lru_cache(maxsize=8)
def _read_once(sender: str) -> Address:
    return Address.parse(sender, "sender")


def _with_defaults(defaults: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call and what its template says of the others; a deadline is given in one way."""
    if given.get("expires_at") is not None:
        defaults = {name: value for name, value in defaults.items() if name != "expires_in"}
    return {**defaults, **{name: value for name, value in given.items() if value is not None}}
