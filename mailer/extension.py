"""``Mailer``: a Flask extension like any other, with one set of services per application."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import flask
from celery import Celery, signals
from werkzeug.local import LocalProxy

from mailer.broker import Publisher, Queues, adopt_celery, build_celery
from mailer.config import Settings
from mailer.courier import Courier
from mailer.dkim import Signer
from mailer.drain import Drain
from mailer.errors import ConfigError
from mailer.providers import captives_for, transport_for
from mailer.rendering import Templates
from mailer.retry import RetryPolicy
from mailer.sealing import Sealer
from mailer.services import ContextProvider, Provider, Services
from mailer.store import Store, create_engine
from mailer.store.clock import Clock
from mailer.store.engine import close_with
from mailer.store.joining import bind_of, engine_beside
from mailer.sweeper import Sweeper
from mailer.tasks import SendEmail, register

KEY = "mailer"
"""The key in ``app.extensions``."""

_DEFAULTABLE = {"lane", "on_uncertain", "expires_in", "sender", "reply_to", "tags"}

_applications: weakref.WeakSet[flask.Flask] = weakref.WeakSet()


class Mailer:
    """Transactional mail for Flask applications.

    ``session`` is the application's SQLAlchemy session (``db.session``): mails then exist exactly if the
    transaction they were asked for in commits. ``celery`` is the application's Celery; without it the
    one in ``app.extensions["celery"]`` is used, or else Mailer builds its own.
    """

    def __init__(self, app: flask.Flask | None = None, **options: Any) -> None:
        self._providers: dict[str, Provider] = {}
        self._defaults: dict[str, dict[str, Any]] = {}
        if app is not None:
            self.init_app(app, **options)

    def init_app(self, app: flask.Flask, *, session: Any = None, celery: Celery | None = None) -> None:
        """Bind to an application. Raises ConfigError naming the setting that is wrong."""
        settings = Settings.load(app.config)
        app.register_blueprint(flask.Blueprint("mailer", __name__, template_folder="templates"))
        services = self._build(app, settings, session)
        app.extensions[KEY] = services
        celery = celery or app.extensions.get("celery")
        celery = _own_celery(app, settings) if celery is None else _checked(celery)
        app.extensions.setdefault("celery", celery)
        queues = Queues(settings, str(celery.conf.broker_url or ""))
        queues.declare(celery)
        publisher = Publisher(celery)
        task = register(celery, services, queues, publisher)
        app.extensions[f"{KEY}.send_email"] = task
        app.extensions[f"{KEY}.worker"] = worker = _Worker(task, publisher)
        _workers[id(celery)] = worker
        _applications.add(app)

    def context_provider(
        self, template: str, provides: Collection[str] = ()
    ) -> Callable[[ContextProvider], ContextProvider]:
        """Register a function that mints values for a template when a mail is rendered, in the worker.

        ``provides`` names them, so that callers are not asked for them::

            @mailer.context_provider("reset_password", provides=("link",))
            def reset_link(context):
                return {"link": Secret(make_link(context["user_id"]))}
        """

        def keep(function: ContextProvider) -> ContextProvider:
            self._providers[template] = Provider(function, frozenset(provides))
            return function

        return keep

    def defaults(self, template: str, **arguments: Any) -> None:
        """What calls with this template mean unless they say otherwise; raises ConfigError for other names.

        ``lane``, ``on_uncertain``, ``expires_in``, ``sender``, ``reply_to`` and ``tags`` can be given::

            mailer.defaults("invoice", on_uncertain="hold")
            mailer.defaults("log_in_code", lane="critical", expires_in=600)
        """
        if unknown := sorted(set(arguments) - _DEFAULTABLE):
            known = ", ".join(sorted(_DEFAULTABLE))
            raise ConfigError(f"defaults({template!r})", f"has {unknown[0]!r}; it may have {known}")
        self._defaults[template] = arguments

    def _build(self, app: flask.Flask, settings: Settings, session: Any) -> Services:
        theirs = None if session is None else bind_of(app, session)
        if settings.database_url is not None or theirs is None:
            engine = create_engine(settings.store_url)
        else:
            engine = engine_beside(theirs)
        store = Store(engine, Sealer(settings.sealing_keys()))
        close_with(store, engine)
        now = Clock(engine)
        return Services(
            settings=settings,
            store=store,
            templates=Templates(
                app.jinja_env,
                base_url=settings.base_url,
                default_locale=settings.default_locale,
                site_name=settings.site_name,
            ),
            transport=transport_for(settings, app.config, store, now, lambda: _redis_of(app)),
            policy=RetryPolicy(uncertain_delay_seconds=settings.uncertain_delay),
            providers=self._providers,
            defaults=self._defaults,
            app_context=lambda: _context_of(app),
            publish=_not_yet,
            session=session,
            captives=captives_for(settings),
            signer=Signer.load(settings.dkim_keys),
            now=now,
        )


def _not_yet(_wakeups: Any) -> None:
    raise ConnectionError("the application has no Celery yet")


def _context_of(app: flask.Flask) -> contextlib.AbstractContextManager[Any]:
    """The application's context, without a second one where it is already there."""
    if flask.has_app_context() and flask.current_app._get_current_object() is app:  # type: ignore[attr-defined]
        return contextlib.nullcontext()
    return app.app_context()


def _redis_of(app: flask.Flask) -> Any:
    worker: _Worker = app.extensions[f"{KEY}.worker"]
    return worker.publisher.redis()


def _own_celery(app: flask.Flask, settings: Settings) -> Celery:
    """Build a Celery for an application that has none; the recipes' configuration keys are honoured."""
    recipe = dict(app.config.get("CELERY") or {})
    url = recipe.pop("broker_url", None) or app.config.get("CELERY_BROKER_URL")
    if url and "broker_url" not in settings.model_fields_set:
        settings = settings.model_copy(update={"broker_url": url})
    celery = build_celery(app.import_name, settings)
    celery.conf.update({key: value for key, value in recipe.items() if key != "accept_content"})
    return celery


def _checked(celery: Celery) -> Celery:
    adopt_celery(celery)
    return celery


@dataclass
class _Worker:
    """What a worker of one Celery does for one application."""

    task: SendEmail
    publisher: Publisher
    sweeper: Sweeper | None = None
    courier: Courier | None = None

    def begin(self, at_once: int, forks: bool) -> None:
        """Work in this process, on the lanes whose queues it consumes.

        A parent of forked children leaves the sending to them unless the broker is really away.
        """
        self.publisher.worker_in_process = True
        self._set_up(at_once)
        self.sweeper = Sweeper(self.task.services, self.task.drain, math.inf if forks else 2)
        self.sweeper.start()
        self.courier = Courier(self.task.services)
        self.courier.start()

    def begin_in_child(self) -> None:
        """Work in a forked child, which does one thing at a time and must not share database sockets."""
        self.task.services.store.engine.dispose(close=False)
        self._set_up(1)

    def _set_up(self, at_once: int) -> None:
        consumed, queues = self.task.app.amqp.queues.consume_from, self.task.queues
        lanes = [lane for lane in queues.lanes if queues.name(lane) in consumed]
        self.task.drain = Drain(self.task.services, at_once, lanes)

    def stopping(self) -> None:
        self.task.drain.stopping = True

    def end(self) -> None:
        self.stopping()
        self.publisher.worker_in_process = False
        if self.sweeper is not None:
            self.sweeper.stop()
        if self.courier is not None:
            self.courier.stop()


# Signals are the whole process's: each handler looks up whose worker it is. By the id of the Celery, which
# the worker keeps, and weak: an application which is dropped, as in tests, goes with everything it holds.
_workers: weakref.WeakValueDictionary[int, _Worker] = weakref.WeakValueDictionary()


def _worker_of(sender: Any) -> _Worker | None:
    return _workers.get(id(getattr(sender, "app", None)))


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _begin_work(sender: Any = None, **_: Any) -> None:
    if worker := _worker_of(sender):
        forks = "prefork" in sender.controller.pool_cls.__module__
        worker.begin(1 if forks else sender.controller.concurrency or 1, forks)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator]
def _forked(**_: Any) -> None:
    for worker in list(_workers.values()):
        worker.begin_in_child()


@signals.task_received.connect  # type: ignore[untyped-decorator]
def _consumed(sender: Any = None, **_: Any) -> None:
    worker = _worker_of(sender)
    if worker is not None and worker.sweeper is not None and worker.sweeper.heartbeat is not None:
        worker.sweeper.heartbeat.consumed()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_soon(**_: Any) -> None:
    for worker in list(_workers.values()):
        worker.stopping()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _end_work(sender: Any = None, **_: Any) -> None:
    if worker := _worker_of(sender):
        worker.end()


def services_of(app: flask.Flask) -> Services:
    """The services of an application. Raises ConfigError if ``init_app`` was never called."""
    try:
        services: Services = app.extensions[KEY]
    except KeyError:
        raise ConfigError(
            "Mailer", "was not set up for this application; call mailer.init_app(app)"
        ) from None
    return services


class _WhichApplication(ConfigError, RuntimeError):
    """A RuntimeError too, as Flask's own proxies raise: `LocalProxy` then answers for itself.

    Flask and Celery ask ``isinstance`` of everything in a module when they look for its application.
    """


def _current_task() -> SendEmail:
    if flask.has_app_context():
        app = flask.current_app._get_current_object()  # type: ignore[attr-defined]
    elif len(_applications) == 1:
        app = next(iter(_applications))
    else:
        raise _WhichApplication(
            "send_email",
            f"was used outside an application context with {len(_applications)} applications set up; "
            "use it inside `with app.app_context():`",
        )
    services_of(app)
    task: SendEmail = app.extensions[f"{KEY}.send_email"]
    return task


send_email: SendEmail = LocalProxy(_current_task)  # type: ignore[assignment]
"""The current application's ``send_email`` task; outside a context, that of the only application."""
