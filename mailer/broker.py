"""Celery, set up for wake-ups: the settings with their reasons, the queues, and how an id is published.

Correctness never depends on any of these: rows are the truth, a wake-up may be lost, late or repeated.
They decide how soon a mail leaves and how a worker behaves when its broker does not.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.pools import ProducerPool

from mailer.config import Settings
from mailer.errors import ConfigError, NobodyListens

CELERY_SETTINGS: dict[str, Any] = {
    # Ids only, as JSON: nothing that arrives can make the worker run code (CE1).
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    # State is in SQL. A result backend is one more thing that can hang a request, for 19 s when refused.
    "task_ignore_result": True,
    # A hint that dies with its worker is repeated by the sweeper; late acknowledgement merely hastens it.
    "task_acks_late": True,
    # Never requeue what killed a worker: that loops for ever. SQL counts crashes and ends poison.
    "task_reject_on_worker_lost": False,
    # Few hints sit in a process that may die.
    "worker_prefetch_multiplier": 1,
    # Do not kill SMTP in the middle of a text because the broker blinked.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    # A backstop only: each socket has its own timeout, and their sum is below this.
    "task_time_limit": 3600,
    "worker_max_tasks_per_child": 1000,
    # The default gives up on the broker after 100 tries and the worker exits.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    # No idle pub/sub socket that can die unseen (celery#10502).
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    # Logging is the application's.
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}

GAP_SECONDS = 0.02
LINGER_SECONDS = 0.05
"""A worker that heard a wake-up looks for so long, and longer than `GAP_SECONDS` by any wait between two
steps: so what is committed within the gap after a wake-up needs none of its own."""

# Redis. Without ack emulation there is no visibility timeout after which a hint runs twice, and no slot
# that leaks when an acknowledgement fails; a worker may wait long for a broker that is slow (CE6).
_REDIS_WORKER = {
    "ack_emulation": False,
    "socket_timeout": 30,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 25,
}
# A request that publishes must not: with these a frozen broker costs it less than that.
_REDIS_PUBLISHER = {"socket_timeout": 0.4, "socket_connect_timeout": 0.4, "max_retries": 0}
_MEMORY = {"polling_interval": 0.01}


def build_celery(name: str, settings: Settings) -> Celery:
    """A Celery of our own for an application that has none."""
    # kombu warns of a URL without a host, which a broker in memory has no use for.
    url = "memory://localhost" if settings.broker_url == "memory://" else settings.broker_url
    celery = Celery(name, broker=url, set_as_current=False)
    celery.conf.update(CELERY_SETTINGS)
    if is_redis(settings.broker_url):
        celery.conf.broker_transport_options = dict(_REDIS_WORKER)
    elif is_memory(settings.broker_url):
        celery.conf.broker_transport_options = dict(_MEMORY)
    return celery


def adopt_celery(celery: Celery) -> None:
    """Check that a host's Celery can carry our wake-ups. Raises ConfigError if it takes more than JSON."""
    if set(celery.conf.accept_content) - {"json", "application/json"}:
        raise ConfigError(
            "accept_content",
            "of the application's Celery has more than json in it; set it to ['json'], "
            "or give Mailer another one: mailer.init_app(app, celery=Celery(broker=…))",
        )


def is_redis(url: str) -> bool:
    """Whether the URL names Redis or Valkey."""
    return url.startswith(("redis:", "rediss:", "redis+socket:"))


def is_memory(url: str) -> bool:
    """Whether the broker lives and dies with this process."""
    return url.startswith("memory:")


class Queues:
    """The queue of each lane. In-memory brokers are shared by a whole process, so names there are unique."""

    def __init__(self, settings: Settings, broker_url: str) -> None:
        unique = f".{secrets.token_hex(4)}" if is_memory(broker_url) else ""
        self._prefix = f"{settings.queue_prefix}{unique}"
        self.lanes = settings.lane_names

    def name(self, lane: str) -> str:
        """The queue of a lane; a lane that was configured away falls to ``default``."""
        return f"{self._prefix}.{lane if lane in self.lanes else 'default'}"

    def lane(self, queue: str) -> str:
        """The lane of a queue or of a plain lane name, for ``apply_async(queue=…)``."""
        return queue.removeprefix(f"{self._prefix}.")

    def names(self) -> list[str]:
        """All queues, the most urgent lane first."""
        return [self.name(lane) for lane in self.lanes]

    def declare(self, celery: Celery) -> None:
        """Make a plain ``celery worker`` consume these queues besides its own."""
        own = celery.conf.task_queues or [
            Queue(celery.conf.task_default_queue, routing_key=celery.conf.task_default_routing_key)
        ]
        if isinstance(own, Mapping):
            own = [Queue(name, **options) for name, options in own.items()]
        known = {queue.name for queue in own}
        ours = [Queue(name, routing_key=name) for name in self.names() if name not in known]
        celery.conf.task_queues = [*own, *ours]


class Publisher:
    """Publishes over connections of its own, with timeouts short enough for a request handler.

    The host's Celery may be set up to wait for its broker as long as it likes; a sign-up may not.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._pools: dict[int, ProducerPool] = {}
        self._told: dict[str, float] = {}
        self.worker_in_process = False

    def pool(self) -> ProducerPool:
        """The producers of this process: a forked child must not share its parent's sockets."""
        pid = os.getpid()
        if pid not in self._pools:
            self._pools = {pid: self._build()}
        return self._pools[pid]

    def _url(self) -> str:
        url = self._celery.conf.broker_write_url or self._celery.conf.broker_url or "memory://"
        return str(url if isinstance(url, str) else url[0])

    def redis(self) -> Any:
        """A client of the broker's Redis that gives up as soon; None if the broker is another one.

        Raises what the driver raises.
        """
        if not is_redis(self._url()):
            return None
        channel: Any = self._connection().default_channel
        return channel.client

    def _build(self) -> ProducerPool:
        pool = self._connection().Pool(limit=10)
        return ProducerPool(connections=pool, limit=10, Producer=self._celery.amqp.Producer)

    def _connection(self) -> Connection:
        celery, url = self._celery, self._url()
        options = dict(celery.conf.broker_transport_options or {})
        if is_redis(url):
            options |= _REDIS_PUBLISHER
        elif not is_memory(url):
            options["max_retries"] = 0  # AMQP waits two seconds for its second try
        return Connection(
            url,
            transport_options=options,
            connect_timeout=0.5,
            ssl=celery.conf.broker_use_ssl or False,
            login_method=celery.conf.broker_login_method,
        )

    def publish(self, task: Any, wakeups: Sequence[tuple[str, str]]) -> None:
        """Publish ``(id, queue)`` pairs as wake-ups of ``task``. Raises what the broker's driver raises.

        One for each queue, and none within `GAP_SECONDS` of another: who heard that one is still looking.
        """
        if self._celery.conf.task_always_eager:  # a host's tests: delivered here and now
            for id_, queue in wakeups:
                task.publish(id_, queue=queue)
            return
        if is_memory(self._url()) and not self.worker_in_process:
            # A shell beside `mailer dev`: nobody listens in here, but that process sweeps the same store.
            raise NobodyListens("the broker in memory has no worker in this process")
        now = time.monotonic()
        needed = {
            queue: id_ for id_, queue in wakeups if now - self._told.get(queue, -math.inf) >= GAP_SECONDS
        }
        if not needed:
            return
        with self.pool().acquire(block=True, timeout=1) as producer:
            for queue, id_ in needed.items():
                task.publish(id_, queue=queue, producer=producer)
        self._told |= dict.fromkeys(needed, now)  # the time before it: whoever heard it looks later than that
