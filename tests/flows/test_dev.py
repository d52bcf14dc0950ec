"""``mailer dev``: everything in one process, started and stopped as a person does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import pytest

from tests.faults.conftest import until
from tests.flows.dev_process import running
from tests.peer import Say, Script, Silence, SmtpPeer


def test_it_serves_sends_and_stops(tmp_path):
    """A newcomer's first minute: it starts, a mail sent from a shell arrives, Ctrl-C ends it within 5 s."""
    with running(tmp_path) as dev:
        sent = dev.run("send", "verify_email", "--to", "a@example.com", "--set", "name=Ada", "--wait")
        assert sent.returncode == 0, sent.stderr
        assert sent.stdout.startswith("SENT")
        assert dev.wait_for_mails(1)[0]["To"] == [{"Name": "", "Address": "a@example.com"}]
        started = time.monotonic()
        assert dev.stop() == 0
        assert time.monotonic() - started < 5
        assert "Traceback" not in dev.log()


def test_a_server_that_hangs_does_not_hold_it_up(tmp_path):
    """Ctrl-C ends it within 5 s also while a mail waits for an answer; the next start sends it."""
    with SmtpPeer(Script(mail=[Silence(), Say(250)])) as peer:
        settings = {"MAILER_SMTP_URL": f"smtp://127.0.0.1:{peer.port}", "MAILER_LEASE_SECONDS": "2"}
        with running(tmp_path, **settings) as dev:
            id_ = dev.run("send", "welcome", "--to", "a@example.com", "--set", "name=Ada").stdout.strip()
            until(lambda: any(line.startswith("MAIL") for line in peer.commands), what="MAIL")
            started = time.monotonic()
            assert dev.stop() == 0
            assert time.monotonic() - started < 5
        with running(tmp_path, **settings) as dev:
            until(lambda: peer.accepted, what="the second try")
            assert json.loads(dev.run("show", id_, "--json").stdout)["deliveries"][0]["attempts"] == 2


def test_a_mail_from_another_shell_is_swept_up(tmp_path):
    """Without --wait nobody tells the process of it; its sweeper finds the row within a second or two."""
    with running(tmp_path) as dev:
        id_ = dev.run("send", "welcome", "--to", "a@example.com", "--set", "name=Ada").stdout.strip()
        dev.wait_for_mails(1)
        shown = json.loads(dev.run("show", id_, "--json").stdout)
        assert shown["state"] == "sent"


def test_what_was_accepted_goes_out_at_the_next_start(tmp_path):
    """RT1: accepted while nothing ran, sent as soon as something does."""
    with running(tmp_path) as dev:
        dev.stop()
        id_ = dev.run("send", "welcome", "--to", "a@example.com", "--set", "name=Ada").stdout.strip()
        assert json.loads(dev.run("show", id_, "--json").stdout)["state"] == "queued"
    with running(tmp_path) as dev:
        dev.wait_for_mails(1)


@pytest.mark.parametrize("setting", ["MAILER_WEB_PORT", "MAILER_INBOX_PORT", "MAILER_INBOX_SMTP_PORT"])
def test_a_taken_port_names_the_setting(tmp_path, setting):
    """A port in use ends the start with one line that says which setting to change, and exit code 5."""
    with running(tmp_path) as dev:
        dev.stop()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = dev.environment | {setting: str(taken.getsockname()[1])}
        done = subprocess.run(
            [sys.executable, "-m", "mailer", "dev"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 5
    assert setting in done.stderr
    assert "Traceback" not in done.stderr
