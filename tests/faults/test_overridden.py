"""A host's Celery that is set up badly, and killed: mails arrive late, and all of them arrive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import flask
import pytest

from mailer import send_email
from tests.faults import overriding_host
from tests.faults.conftest import ROOT, Dispatcher, until, view, wait
from tests.faults.ground import children_of
from tests.peer import SmtpPeer

HI = {"subject": "Hi", "text": "Hello"}
BAD = {
    "task_acks_late": False,
    "worker_prefetch_multiplier": 10,
    "task_reject_on_worker_lost": True,
    "task_publish_retry": True,
    "worker_cancel_long_running_tasks_on_connection_loss": True,
    "worker_send_task_events": True,
    "worker_enable_remote_control": True,
}
AT_ONCE = 2
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@dataclass
class Host(Dispatcher):
    """Workers are plain `celery worker` on the host's own Celery."""

    def app(self) -> flask.Flask:
        return overriding_host.create_app()

    def start_worker(self, *options: str) -> subprocess.Popen:
        target = "tests.faults.overriding_host:celery_app"
        command = [sys.executable, "-m", "celery", "-A", target, "worker", "--pool", "prefork"]
        with (self.folder / f"worker-{len(self.workers)}.log").open("w") as log:
            worker = subprocess.Popen(
                [*command, "--concurrency", str(AT_ONCE), *options],
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker


@pytest.fixture(params=["early acks", "late acks"])
def host(request, any_broker):
    settings = BAD | {"task_acks_late": request.param == "late acks"}
    return any_broker("redis", Host, **{overriding_host.SETTINGS: json.dumps(settings)})


@pytest.mark.parametrize("killed", ["worker", "child"])
def test_every_accepted_mail_arrives(host, killed):
    """CE3, RT1: early acks, prefetch, requeued deaths: kill -9 in the middle loses and hides nothing."""
    with SmtpPeer(on_copy=lambda _: time.sleep(0.05)) as peer:
        # One connection a process, so that a dead hand held one mail.
        host.environment["MAILER_SMTP_URL"] = f"smtp://127.0.0.1:{peer.port}?connections=1"
        app = host.app()
        first = host.start_worker()
        with app.app_context():
            ids = [send_email.delay(to=f"a{n}@x.test", **HI).id for n in range(40)]
        until(lambda: len(peer.accepted) > 4, what="the first mails to leave")
        if killed == "worker":
            host.kill(first)
            host.start_worker()
        else:
            os.kill(children_of(first.pid)[0], signal.SIGKILL)
        assert {wait(app, id_, 40) for id_ in ids} == {"sent"}
    arrived = [recipient for copy in peer.accepted for recipient in copy.recipients]
    assert set(arrived) == {f"a{n}@x.test" for n in range(40)}
    assert len(arrived) - 40 <= AT_ONCE, "one copy more, at most, of each mail that was in a dead hand"
    twice = {r for r in arrived if arrived.count(r) > 1}
    for recipient in twice:
        assert len({c.data for c in peer.accepted if recipient in c.recipients}) == 1
    lost = [id_ for id_ in ids if "worker_lost" in [event.name for event in view(app, id_).events]]
    assert len(lost) >= len(twice), "and none of them without the store having counted it"
    assert host.workers[-1].poll() is None
