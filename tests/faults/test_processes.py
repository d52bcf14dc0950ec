"""``mailer worker --processes``: several workers under one program, which can be killed like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mailer import send_email
from mailer.store.workers import present
from tests.faults.conftest import until
from tests.peer import Drip, Script, SmtpPeer

SLOW = Script(text=Drip(b"250 ok\r\n", 0.03))


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(params=["sqlite"])
def database_url(request, tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def dispatcher(any_broker):
    return any_broker("redis")


def consuming(dispatcher, app, number: int) -> None:
    until(lambda: dispatcher.logs().count(" ready.") >= number, 40, f"{number} workers to consume")


def names(app) -> set[str]:
    with app.extensions["mailer"].store.read() as connection:
        return {row.name for row in present(connection)}


def test_each_process_works_and_the_first_signal_finishes_what_is_held(dispatcher):
    """Two workers, each with its heartbeat, share the mails; SIGTERM is passed on."""
    with SmtpPeer(SLOW) as peer:
        dispatcher.set("MAILER_SMTP_URL", f"smtp://127.0.0.1:{peer.port}")
        app = dispatcher.app()
        supervisor = dispatcher.start_worker("--processes", "2", "--concurrency", "2")
        consuming(dispatcher, app, 2)
        workers = children(supervisor.pid)
        assert len(workers) == 2
        until(lambda: len(names(app)) == 2, 10, "both heartbeats")
        with app.app_context():
            for n in range(60):
                send_email.delay(to=f"p{n}@x.test", subject="Hi", text="Hello")
        until(lambda: len(peer.accepted) >= 5, 20, "the first ones")
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(30) == 0
        assert not any(map(alive, workers))
        copies = [copy.recipients for copy in peer.accepted]
        assert len(copies) == len(set(map(tuple, copies))), "what was held was finished, not repeated"


def test_a_worker_that_dies_is_started_again(dispatcher):
    """Killed with -9, one of two: another takes its place, and the mails go on."""
    with SmtpPeer() as peer:
        dispatcher.set("MAILER_SMTP_URL", f"smtp://127.0.0.1:{peer.port}")
        app = dispatcher.app()
        supervisor = dispatcher.start_worker("--processes", "2", "--concurrency", "1")
        consuming(dispatcher, app, 2)
        first, second = children(supervisor.pid)
        os.kill(first, signal.SIGKILL)
        until(lambda: len(set(children(supervisor.pid)) - {first, second}) == 1, 20, "its successor")
        assert "event=worker.died process=1 code=-9" in dispatcher.logs()
        with app.app_context():
            send_email.delay(to="p@x.test", subject="Hi", text="Hello")
        until(lambda: len(peer.accepted) == 1, 20, "the mail")
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.wait(30) == 0


def test_workers_do_not_outlive_their_supervisor(dispatcher):
    """Killed with -9 itself, it leaves nobody behind: workers find the end of the pipe and stop."""
    app = dispatcher.app()
    supervisor = dispatcher.start_worker("--processes", "2", "--concurrency", "1")
    consuming(dispatcher, app, 2)
    workers = children(supervisor.pid)
    supervisor.kill()
    supervisor.wait(10)
    until(lambda: not any(map(alive, workers)), 20, "the workers to stop")


def test_a_wrong_setting_is_said_and_ends_it(dispatcher):
    """Nothing starts anew for ever what cannot start: exit code 2 at once, before any worker."""
    dispatcher.set("MAILER_LEASE_SECONDS", "soon")
    supervisor = dispatcher.start_worker("--processes", "3")
    assert supervisor.wait(30) != 0
    assert dispatcher.logs().count("MAILER_LEASE_SECONDS") == 1


def test_a_broker_in_memory_cannot_be_shared(tmp_path):
    """The setting is named, and what to do."""
    environment = {**os.environ, "MAILER_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "mailer", "worker", "--processes", "2"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "MAILER_BROKER_URL" in done.stderr
    assert "--processes" in done.stderr
