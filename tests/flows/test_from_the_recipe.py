"""The two applications of "From the recipe to Mailer", for real: processes, a broker, a mail server."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailer.inbox import Inbox

RECIPES = Path(__file__).parent / "recipes"
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "from-the-recipe.md"
APPLICATIONS = {"celery_init_app": "celery_app", "make_celery": "celery"}
WAIT_SECONDS = 20


class Host:
    """A host application's processes, in a folder of their own."""

    def __init__(self, folder: Path, inbox: Inbox, redis_url: str) -> None:
        self.folder = folder
        self.mailbox = inbox.mailbox
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{RECIPES}:{ROOT}",
            "FLASK_CELERY__broker_url": redis_url,
            "FLASK_CELERY_BROKER_URL": redis_url,
            "MAILER_SMTP_URL": f"smtp://127.0.0.1:{inbox.smtp_port}",
            "MAILER_SWEEP_SECONDS": "0.2",
        }

    def python(self, *arguments: str) -> str:
        """Run to the end; answer what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen]:
        """A process beside the test: told to stop at the end, and ended with all it started if need be."""
        log = self.folder / "worker.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=self.folder, env=self.environment, stdout=file,
                stderr=file, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, log.read_text()
        except (TimeoutError, subprocess.TimeoutExpired):
            raise AssertionError(log.read_text()) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def arrived(self, address: str) -> str:
        """The subject of the only mail to this address, once it is there."""
        [mail] = self.mailbox.wait_for(1, WAIT_SECONDS, query=f"to:{address}")
        return mail.subject


@pytest.fixture
def host(tmp_path, redis_url) -> Iterator[Host]:
    with Inbox(tmp_path / "inbox.db", smtp_port=0, web_port=0) as inbox:
        yield Host(tmp_path, inbox, redis_url)


def send(to: str, **options: object) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"send_email.delay(to={to!r}, subject='Directly', text='Hi.', {given})"


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_page_shows_what_runs(name):
    """The how-to's applications are these files, to the letter."""
    [shown] = re.findall(rf"```python file={name}\.py\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert shown == (RECIPES / f"{name}.py").read_text("utf-8")


@pytest.mark.parametrize(("name", "pool"), [("celery_init_app", "threads"), ("make_celery", "prefork")])
def test_a_plain_celery_worker_runs_both(host, name, pool):
    """The host's own task keeps its context, and its worker sends mails and sweeps."""
    host.python("-m", "flask", "--app", name, "mailer", "db", "upgrade")
    later = send("later@acme.example", countdown=1)
    host.python(
        "-c", f"from {name} import *; greet.delay('task@acme.example'); {send('now@acme.example')}; {later}"
    )
    celery = ("celery", "-A", f"{name}:{APPLICATIONS[name]}", "worker", "--pool", pool, "--concurrency", "2")
    with host.running(*celery, "--without-mingle", "--without-gossip"):
        assert host.arrived("task@acme.example") == "Hello from Acme"
        assert host.arrived("now@acme.example") == "Directly"
        assert host.arrived("later@acme.example") == "Directly"
    assert len(host.mailbox.messages()) == 3


def test_mailer_worker_serves_the_same_queues(host):
    """`flask mailer worker` beside or instead of `celery worker`: mails go out, and the host's tasks run."""
    host.python("-m", "flask", "--app", "celery_init_app", "mailer", "db", "upgrade")
    mails = f"{send('now@acme.example')}; {send('later@acme.example', countdown=1)}"
    host.python("-c", f"from celery_init_app import *; greet.delay('task@acme.example'); {mails}")
    with host.running("flask", "--app", "celery_init_app", "mailer", "worker"):
        assert host.arrived("task@acme.example") == "Hello from Acme"
        assert host.arrived("now@acme.example") == "Directly"
        assert host.arrived("later@acme.example") == "Directly"


def test_a_plain_celery_worker_runs_the_service(host, redis_url):
    """`celery -A mailer.app worker` is the service's worker."""
    host.environment |= {"MAILER_BROKER_URL": redis_url}
    host.python("-m", "mailer", "send", "welcome", "--to", "ada@acme.example", "--set", "name=Ada")
    solo = ("--pool", "solo", "--without-mingle", "--without-gossip")
    with host.running("celery", "-A", "mailer.app", "worker", *solo):
        assert host.arrived("ada@acme.example") == "Welcome to Mailer"


def test_a_module_with_send_email_in_it_can_be_searched():
    """Flask and Celery ask every name of a module whether it is an application: send_email answers no."""
    code = "import flask, celery, mailer; print(isinstance(mailer.send_email, (flask.Flask, celery.Celery)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout == "False\n"


def test_flask_mailer_db_upgrade_works_on_the_application(host):
    """The tables come into the database that the application is configured with, not the default one."""
    (host.folder / "configured.py").write_text(
        "import flask, mailer\n"
        "app = flask.Flask('configured')\n"
        f"app.config['MAILER_DATABASE_URL'] = 'sqlite:///{host.folder}/own.db'\n"
        "mailer.Mailer(app)\n"
    )
    flask = ("-m", "flask", "--app", "configured", "mailer", "db")
    host.python(*flask, "upgrade")
    assert host.python(*flask, "current").split()[0].isdigit()
    assert (host.folder / "own.db").exists()
    assert not (host.folder / ".mailer" / "mailer.db").exists()
