"""Celery as it is set up here, and the host's Celery as it is taken over."""

from __future__ import annotations

import celery
import flask
import pytest

from mailer import ConfigError, Mailer
from mailer.broker import Publisher, Queues, build_celery
from mailer.config import Settings

REDIS = "redis://127.0.0.1:1/0"


@pytest.fixture
def settings(tmp_path):
    return Settings.load({"MAILER_BROKER_URL": REDIS, "MAILER_DATA_DIR": str(tmp_path)})


def host(tmp_path, **config) -> flask.Flask:
    app = flask.Flask("host")
    app.config.update(MAILER_DATA_DIR=str(tmp_path), **config)
    return app


def test_only_json_is_accepted(settings):
    """CE1: nothing that arrives can make a worker run code."""
    conf = build_celery("x", settings).conf
    assert (conf.accept_content, conf.result_accept_content) == (["json"], ["json"])


def test_every_socket_has_a_timeout(settings):
    """CE6: long for workers, which may wait; short for publishers, which hold up a request."""
    app = build_celery("x", settings)
    assert app.conf.broker_transport_options["socket_timeout"] == 30
    connection = Publisher(app).pool().connections.connection
    options = connection.transport_options
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (0.4, 0.4)
    assert connection.connect_timeout == 0.5


def test_a_host_that_takes_pickle_is_refused(tmp_path):
    """CE1: checked at start, with what to do instead."""
    theirs = celery.Celery("host", broker=REDIS, set_as_current=False)
    theirs.conf.accept_content = ["json", "pickle"]
    with pytest.raises(ConfigError, match="accept_content"):
        Mailer().init_app(host(tmp_path), celery=theirs)


def test_a_hosts_celery_is_picked_up_with_its_own_queues(tmp_path):
    """The recipe's Celery stays as it is; a plain worker on it serves our queues too."""
    theirs = celery.Celery("host", broker=REDIS, set_as_current=False)
    theirs.conf.task_default_queue = "theirs"
    app = host(tmp_path)
    app.extensions["celery"] = theirs
    Mailer().init_app(app)
    assert app.extensions["mailer.send_email"].app is theirs
    queues = [queue.name for queue in theirs.conf.task_queues]
    assert queues == ["theirs", "mailer.critical", "mailer.default", "mailer.bulk"]


@pytest.mark.parametrize("config", [{"CELERY": {"broker_url": REDIS}}, {"CELERY_BROKER_URL": REDIS}])
def test_the_recipes_configuration_is_understood(tmp_path, config):
    """A `CELERY` mapping or `CELERY_BROKER_URL` in the Flask configuration names the broker."""
    app = host(tmp_path, **config)
    Mailer().init_app(app)
    assert app.extensions["celery"].conf.broker_url == REDIS


def test_a_task_is_registered_on_its_own_celery_only(tmp_path):
    """The known fault of shared tasks: ours never appears on another Celery of the process."""
    Mailer().init_app(host(tmp_path))
    stranger = celery.Celery("stranger", broker="memory://", set_as_current=False)
    stranger.finalize()
    assert "mailer.send_email" not in stranger.tasks


def test_queues_of_one_process_are_unique_in_memory(settings):
    """Brokers in memory are shared by a whole process; on a server the prefix tells applications apart."""
    one, two = Queues(settings, "memory://"), Queues(settings, "memory://")
    assert not set(one.names()) & set(two.names())
    assert Queues(settings, REDIS).names() == ["mailer.critical", "mailer.default", "mailer.bulk"]
    assert Queues(settings, REDIS).name("a lane that is gone") == "mailer.default"
