"""What one application's mail works with, built once by the extension and handed to every use case."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from mailer.config import Settings
from mailer.dkim import Signer
from mailer.rendering import Templates
from mailer.retry import RetryPolicy
from mailer.store import Store
from mailer.store.deliveries import Wakeup
from mailer.transports import Transport


class ContextProvider(Protocol):
    """Mints values when a mail is rendered, so that no link or code is stored or queued.

    Runs in the worker, inside the application's context, with the context of the call. What it returns
    is added to that context; values wrapped in `Secret` are masked wherever people look.
    """

    def __call__(self, context: Mapping[str, Any]) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Provider:
    """A registered context provider, and the names it promises to return."""

    function: ContextProvider
    provides: frozenset[str]


def utc_now() -> datetime:
    """The current instant, aware."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Services:
    """Settings and resources of one application.

    ``defaults`` are arguments of the call, for each template, where the call does not give them.
    ``session`` answers the caller's SQLAlchemy session to join, if the application gave one.
    ``captives`` carry what ``transport`` must not, by the carrier that a message names.
    ``publish`` hands wake-ups to the broker and raises ``ConnectionError`` if it does not take them.
    """

    settings: Settings
    store: Store
    templates: Templates
    transport: Transport
    policy: RetryPolicy
    providers: Mapping[str, Provider]
    defaults: Mapping[str, Mapping[str, Any]]
    app_context: Callable[[], contextlib.AbstractContextManager[Any]]
    publish: Callable[[Sequence[Wakeup]], None]
    session: Any = None
    captives: Mapping[str, Transport] = field(default_factory=dict)
    now: Callable[[], datetime] = field(default=utc_now)
    signer: Signer = field(default_factory=Signer)

    def provided(self, template: str) -> frozenset[str]:
        """The names a template's context provider will add."""
        provider = self.providers.get(template)
        return provider.provides if provider else frozenset()
