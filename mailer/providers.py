"""The transports of an application, with what all of its workers know of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mailer.breaker import Breaker, Rest
from mailer.config import Settings
from mailer.errors import ConfigError
from mailer.limits import SharedLimits
from mailer.origin import SIMULATOR, TEST
from mailer.places import StorePlaces
from mailer.slowdown import Slowdowns
from mailer.store import Store
from mailer.tally import Tally
from mailer.transports import Transport
from mailer.transports.factory import build_transport, ways_for
from mailer.transports.local import HeldTransport, LocalTransport
from mailer.transports.route import Route
from mailer.transports.simulator import SimulatorTransport
from mailer.transports.ways import Way


def transport_for(
    settings: Settings,
    flask_config: Mapping[str, Any],
    store: Store,
    now: Callable[[], datetime],
    redis: Callable[[], Any],
) -> Transport:
    """What carries the mail of an application. Raises ConfigError naming the setting that is wrong.

    A single transport that cannot fail, such as a folder, stands for itself. ``redis`` answers a client of
    the Redis that all workers share, None if there is none.
    """
    ways = ways_for(settings, flask_config)
    if len(ways) == 1 and isinstance(ways[0].transport, LocalTransport):
        return ways[0].transport
    places, slowdowns = StorePlaces(store, now), Slowdowns(store, now)
    limits = SharedLimits(places, slowdowns, redis, settings.queue_prefix)
    breaker = Breaker(store, now, Rest(settings.retry_backoff, settings.retry_backoff_max))
    return Route(ways, breaker, limits, Tally(store, now))


def captives_for(settings: Settings) -> dict[str, Transport]:
    """What carries the mail that no provider may have, by the carrier it names. Raises ConfigError."""
    return {TEST: _test_transport(settings), SIMULATOR: SimulatorTransport()}


def _test_transport(settings: Settings) -> Transport:
    setting = "MAILER_TEST_SMTP_URL"
    if settings.test_smtp_url is None:
        return HeldTransport()
    url = settings.test_smtp_url.get_secret_value()
    if "@" in url:
        raise ConfigError(setting, "has a user: mail of test keys goes to an inbox, never to a provider")
    return build_transport(url, setting)


def ways_of(transport: Transport) -> tuple[Way, ...]:
    """The named transports behind one."""
    return transport.ways if isinstance(transport, Route) else (Way(transport.name, transport),)
