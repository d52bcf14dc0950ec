"""The broker, and the Celery that speaks to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from mailer.broker import CELERY_SETTINGS, build_celery, is_memory, is_redis
from mailer.doctor.findings import Finding, Patient, error, ok, warning
from mailer.transports.url import is_loopback
from mailer.worker import celery_of

ANSWER_SECONDS = 0.5
"""How long a broker may take to let us in, and for each answer."""

# What another value than ours changes. What it costs, at length, is in docs/explanation/celery-settings.md.
OVERRIDDEN = {
    "task_serializer": "workers refuse wake-ups that are not JSON, and mails wait for sweepers",
    "result_serializer": "nothing for mail, which keeps no results",
    "accept_content": "a message in the queue can run code in the worker",
    "result_accept_content": "nothing for mail, which reads no results",
    "task_ignore_result": "nothing for mail, whose task ignores its result by itself",
    "task_acks_late": "a wake-up that dies with its worker is lost; the sweeper repeats it",
    "task_reject_on_worker_lost": "a wake-up whose worker died comes back while its lease still runs",
    "worker_prefetch_multiplier": "a worker hoards wake-ups, and they die with it",
    "worker_cancel_long_running_tasks_on_connection_loss": "a blink of the broker cuts SMTP off",
    "task_time_limit": "too short, it cuts SMTP off; with none, nothing ends a forked process that hangs",
    "worker_max_tasks_per_child": "the memory that a forked process leaks is given back sooner or later",
    "broker_connection_retry_on_startup": "a worker exits if its broker is away when it starts",
    "broker_connection_max_retries": "a worker exits if its broker is away for long",
    "worker_enable_remote_control": "who reaches the broker can stop workers, and one more socket can die",
    "worker_send_task_events": "more traffic through the broker, of ids only",
    "worker_hijack_root_logger": "`celery worker` takes the application's log handlers away",
    "worker_redirect_stdouts": "what is printed goes to the log",
}
_FATAL = {"task_serializer", "accept_content"}
_NEXT = "remove it from the application's Celery, or give Mailer one of its own"


def broker(patient: Patient) -> Iterator[Finding]:
    """Who can reach the queues, and whether we can."""
    urls = [url for url in _urls(patient) if not is_memory(url)]
    if not urls:
        found = "in memory: only the process that accepts a mail, or a sweeper beside it, can send it"
        yield warning("broker", found, "set MAILER_BROKER_URL=redis://… to run workers of their own")
    for url in urls:
        yield from _broker_at(url, celery_of(patient.app))


def _urls(patient: Patient) -> list[str]:
    conf = celery_of(patient.app).conf
    found: list[str] = []
    for given in (conf.broker_write_url, conf.broker_read_url):
        found += given.split(";") if isinstance(given, str) else given or []
    return list(dict.fromkeys(found))


def _broker_at(url: str, celery: Any) -> Iterator[Finding]:
    name, connection = "the broker", None
    try:
        connection = celery.connection_for_write(
            url, connect_timeout=ANSWER_SECONDS, transport_options=_quick(url)
        )
        name = str(connection.hostname or "this machine")
        yield from _exposed(url, connection)
        channel = connection.default_channel  # connects, and asks once only
        yield ok("broker", f"{name} answers")
        if is_redis(url):
            yield _eviction(channel.client)
    except Exception as exc:  # whatever its driver raises; the text may repeat the URL
        found = f"{name} does not let us in ({type(exc).__name__})"
        yield error("broker", found, "start it, or correct MAILER_BROKER_URL")
    finally:
        if connection is not None:
            connection.release()


def _quick(url: str) -> dict[str, Any]:
    waits = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
    return {"max_retries": 0, **(waits if is_redis(url) else {})}


def _exposed(url: str, connection: Any) -> Iterator[Finding]:
    host = connection.hostname
    if not host or "://" in host or is_loopback(host):
        return
    if not connection.password:
        found = f"{host} asks for no password: whoever reaches it can hold up all mail"
        yield error("broker_password", found, "set one there, and in MAILER_BROKER_URL")
    # kombu ignores broker_use_ssl=True on Redis: there it has to be a dictionary.
    encrypted = isinstance(connection.ssl, dict) if is_redis(url) else connection.ssl or url[:5] == "amqps"
    if not encrypted:
        yield error("broker_tls", f"{host} is spoken to without TLS", "use rediss:// or amqps://")
    elif is_redis(url) and not _verified(connection.ssl):
        found = f"{host}: any certificate is taken, so anybody can be that broker"
        yield error("broker_tls", found, "add ?ssl_cert_reqs=required to the URL")


def _verified(ssl: dict[str, Any]) -> bool:
    asked = ssl.get("ssl_cert_reqs", "required")
    return bool(asked) and not str(asked).lower().endswith("none")


def _eviction(client: redis.Redis) -> Finding:
    try:
        policy = client.info("memory")["maxmemory_policy"]
    except (redis.ResponseError, KeyError):
        step = "ask whoever runs it whether maxmemory-policy is noeviction"
        return warning("broker_policy", "its maxmemory-policy may not be read", step)
    if policy == "noeviction":
        return ok("broker_policy", "maxmemory-policy is noeviction")
    found = f"maxmemory-policy is {policy}: short of memory, it throws queues away"
    return error("broker_policy", found, "set maxmemory-policy noeviction in its configuration")


def celery_settings(patient: Patient) -> Iterator[Finding]:
    """Where a host's Celery differs from ours. Correctness does not depend on it, delays do."""
    conf = celery_of(patient.app).conf
    changed = {name for name, ours in CELERY_SETTINGS.items() if not is_same(name, ours, conf)}
    for name in sorted(changed):
        level = error if name in _FATAL else warning
        yield level("celery", f"{name} is {conf[name]!r}: {OVERRIDDEN[name]}", _NEXT)
    if missing := _transport_options(patient):
        found = (
            f"broker_transport_options lacks {', '.join(missing)}: a worker may wait long for a dead socket"
        )
        yield warning("celery", found, "set them as docs/explanation/celery-settings.md says")
    if not changed and not missing:
        yield ok("celery", "set up as Mailer does it")


def is_same(name: str, ours: Any, conf: Any) -> bool:
    """Whether a host's value means what ours does."""
    theirs = conf[name]
    if name.endswith("accept_content"):
        # Without one for results, that for tasks counts.
        return set(theirs or conf.accept_content) <= {"json", "application/json"}
    if name == "broker_connection_retry_on_startup" and theirs is None:
        theirs = conf.broker_connection_retry
    return bool(theirs == ours or not (theirs or ours))


def _transport_options(patient: Patient) -> list[str]:
    """The options that a worker of ours would have, and this one has not."""
    urls = _urls(patient)
    settings = patient.services.settings.model_copy(update={"broker_url": urls[0] if urls else "memory://"})
    if not is_redis(settings.broker_url):
        return []
    ours = build_celery("wanted", settings).conf.broker_transport_options
    # kombu checks as often as we do where nobody says otherwise.
    theirs = {"health_check_interval": 25} | (celery_of(patient.app).conf.broker_transport_options or {})
    return sorted(name for name, value in ours.items() if theirs.get(name) != value)
