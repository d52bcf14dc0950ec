"""``send_email``: a Celery task that accepts a message when called and delivers one when run.

What ``.delay`` takes is a message; what travels through the broker is its id; what the worker runs takes
the id. Retry limits stand here in Celery's own words, but a retry waits in the store: a broker that
forgets it, repeats it after an hour, or crashes the worker that holds it cannot hurt.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from celery import Celery, Task
from celery.exceptions import InvalidTaskError
from celery.result import AsyncResult
from celery.worker.strategy import default as celery_strategy

from mailer import delivery, outbox
from mailer.broker import Publisher, Queues
from mailer.calls import message_for
from mailer.drain import Drain
from mailer.errors import StoreError
from mailer.outbox import UNSET
from mailer.retry import RetryPolicy
from mailer.services import Services
from mailer.states import FINAL, State
from mailer.store.deliveries import Wakeup
from mailer.telemetry import log

NAME = "mailer.send_email"


class Accepted(AsyncResult):  # type: ignore[misc]
    """What ``send_email.delay`` returns. ``id`` is the message's id, everywhere.

    The state is the store's, not a result backend's: there is none.
    """

    services: Services

    @property
    def state(self) -> str:
        """The message's state: see `mailer.states.State`."""
        return outbox.state(self.services, self.id)

    status = state

    def ready(self) -> bool:
        """Whether the message has ended, one way or another."""
        return State(self.state) in FINAL

    def successful(self) -> bool:
        """Whether every recipient's server took it."""
        return self.state == State.SENT

    def failed(self) -> bool:
        """Whether it was refused for good for at least one recipient."""
        return self.state == State.FAILED

    def get(self, timeout: float | None = None, **_ignored: Any) -> str:
        """Wait up to ``timeout`` seconds (default 60) for the end; return the state then."""
        return outbox.wait(self.services, self.id, 60 if timeout is None else timeout)


class SendEmail(Task):  # type: ignore[misc]
    """The task of one application. `mailer.send_email` finds the right one."""

    name = NAME
    ignore_result = True
    Strategy = f"{__name__}:careful_strategy"
    serializer = "json"  # whatever the application's other tasks are sent as: workers take nothing else
    # In Celery's words; `RetryPolicy` says what they mean here. Set from MAILER_MAX_RETRIES and so on.
    max_retries = 25
    retry_backoff = 60
    retry_backoff_max = 14_400
    retry_jitter = True

    services: Services
    queues: Queues
    drain: Drain

    def delay(self, *args: Any, **kwargs: Any) -> Accepted:
        """Accept a message; it is stored when this returns.

        ``delay(template=None, *, to, context=None, cc=None, bcc=None, reply_to=None, sender=None,
        subject=None, text=None, html=None, headers=None, attachments=(), locale=None, lane="default",
        send_at=None, countdown=None, eta=None, expires_at=None, expires_in=None, idempotency_key=None,
        on_uncertain=…, tags=(), metadata=None, session=…)``

        Either a template or ``subject`` with ``text`` or ``html``. ``session=None`` commits at once even
        where the application joins its callers' transactions. Raises InvalidMessage and its kin naming
        the field, IdempotencyConflict, or StoreError; then nothing was stored.
        """
        with self.services.app_context():
            return self._accept(*args, **kwargs)

    def _accept(self, template: str | None = None, *, session: Any = UNSET, **fields: Any) -> Accepted:
        services = self.services
        message = message_for(services, template, **fields)
        result = Accepted(outbox.accept(services, message, session=session), app=self.app)
        result.services = services
        return result

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        queue: str | None = None,
        **options: Any,
    ) -> Accepted:
        """Accept a message with Celery's options: they become its schedule, deadline and lane.

        ``countdown`` and ``eta`` become ``send_at``, ``expires`` (seconds or an instant) the deadline,
        ``queue`` the lane; all are stored, none is given to the broker. Options that mean nothing for
        mail are ignored.
        """
        fields = dict(kwargs or {})
        if countdown is not None:
            fields["countdown"] = countdown
        if eta is not None:
            fields["eta"] = eta
        if isinstance(expires, datetime):
            fields["expires_at"] = expires
        elif expires is not None:
            fields["expires_in"] = timedelta(seconds=expires)
        if queue is not None:
            fields["lane"] = self.queues.lane(queue)
        if any(options.get(name) for name in ("chain", "chord", "link", "link_error")):
            raise TypeError("a mail has no result for another task to follow; call that task yourself")
        return self.delay(*(args or ()), **fields)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """What Celery does with an id when it is eager. A message is accepted by `delay` only."""
        if kwargs or len(args or ()) != 1 or not _is_id(args[0]):
            raise TypeError("a message is accepted by send_email.delay(…)")
        return super().apply(args, kwargs, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if self.request.called_directly:
            raise TypeError("a message is accepted by send_email.delay(…)")
        self.run(*args, **kwargs)

    def publish(self, id_: str, *, queue: str, producer: Any = None) -> None:
        """Tell the broker that this message wants attention. Refuses anything but a message id."""
        if not _is_id(id_):
            raise TypeError("only a message id travels through the broker; call send_email.delay(…)")
        # "-" for the reprs: they are built on every publish and would end up in the broker.
        Task.apply_async(
            self, (id_,), task_id=id_, queue=queue, producer=producer, retry=False,
            argsrepr="-", kwargsrepr="-", ignore_result=True,
        )  # fmt: skip

    def policy(self) -> RetryPolicy:
        """The retry limits written on this task, as the rules use them."""
        backoff = self.retry_backoff
        return replace(
            self.services.policy,
            max_retries=10**6 if self.max_retries is None else self.max_retries,
            backoff_seconds=1 if backoff is True else float(backoff),
            backoff_max_seconds=float(self.retry_backoff_max),
            jitter=bool(self.retry_jitter),
        )

    def run(self, *args: Any, **kwargs: Any) -> None:
        """Deliver the message of this id. Anything else in the queue is logged and dropped (CE2)."""
        if kwargs or len(args) != 1 or not _is_id(args[0]):
            log.error("wakeup.refused", hint="only ids travel here; call send_email.delay(...)")
            return
        queue = (self.request.delivery_info or {}).get("routing_key", "")
        others = [task for task in _listening.get(queue, ()) if task is not self]
        for task in (self, *others):
            try:
                if self.request.is_eager:
                    task.deliver(args[0])
                else:
                    task.serve(args[0])
            except StoreError as exc:  # the row stays due, and the sweeper repeats the wake-up
                log.error("store.away", outcomes=0, error=str(exc))

    def deliver(self, id_: str) -> int:
        """Make one attempt at a message of this application; answer how many deliveries that was."""
        with self.services.app_context():
            self.services.policy = self.policy()
            return delivery.deliver(self.services, id_)

    def serve(self, id_: str) -> None:
        """Attempt what is due in this application; if more is left than this task may do, wake another."""

        def wake(lane: str) -> bool:
            return outbox.wake(self.services, [Wakeup(id_, lane)])

        with self.services.app_context():
            self.services.policy = self.policy()
            made, more = self.drain.attend(wake)
            while more and not wake(more) and not self.drain.stopping:
                more = self.drain.attend(wake)[1]
        if not made:
            log.debug("wakeup.idle", message=id_)


def careful_strategy(task: Any, app: Celery, consumer: Any, **options: Any) -> Callable[..., None]:
    """Celery's own way from a message to a task, but a body of another shape is refused (CE2).

    Celery unpacks it outside of what it catches: the worker would end, and give the message to the next.
    """
    handle = celery_strategy(task, app, consumer, **options)

    def receive(message: Any, body: Any, *rest: Any, **more: Any) -> None:
        payload = message.payload  # raises what Celery expects if it is no JSON
        shape = [type(part) for part in payload] if isinstance(payload, list) else None
        if shape != [list, dict, dict] and not isinstance(payload, dict):
            raise InvalidTaskError("the body is not [args, kwargs, options]")
        handle(message, body, *rest, **more)

    return receive


# Celery keeps one current app a process, so of two workers in one process, one runs the other's tasks. The
# queue a wake-up came by says whose it may be, and their stores say whose it is.
_listening: dict[str, weakref.WeakSet[SendEmail]] = {}


def _is_id(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def register(celery: Celery, services: Services, queues: Queues, publisher: Publisher) -> SendEmail:
    """Put an application's own ``send_email`` on its Celery, and on no other.

    Celery's ``shared_task`` and ``@app.task`` register a task on every Celery app of the process, so
    that two applications run each other's; this one stays where it is put.
    """
    settings = services.settings
    task = type("send_email", (SendEmail,), {
        "services": services,
        "queues": queues,
        "drain": Drain(services),
        "max_retries": settings.max_retries,
        "retry_backoff": settings.retry_backoff,
        "retry_backoff_max": settings.retry_backoff_max,
        "retry_jitter": settings.retry_jitter,
        "__module__": __name__,
    })()  # fmt: skip
    registered: SendEmail = celery.register_task(task)
    for name in queues.names():
        _listening.setdefault(name, weakref.WeakSet()).add(registered)
    services.publish = _publish_through(registered, queues, publisher)
    services.policy = registered.policy()
    return registered


def _publish_through(task: SendEmail, queues: Queues, publisher: Publisher) -> Callable[..., None]:
    def publish(wakeups: Any) -> None:
        publisher.publish(task, [(wakeup.message, queues.name(wakeup.lane)) for wakeup in wakeups])

    return publish
