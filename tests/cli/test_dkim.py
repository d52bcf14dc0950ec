"""``mailer dkim``: from no key to a signed mail, and what doctor says of it."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from flask.cli import ScriptInfo

from mailer import Mailer
from mailer.cli.group import mailer
from mailer.dkim import Signer
from mailer.doctor import Patient, application
from tests.delivery.conftest import build


@pytest.fixture
def run(tmp_path):
    app = build(tmp_path, Mailer(), name="cli")

    def run(*args: str, **config):
        app.extensions["mailer"].signer = Signer.load(config.get("keys", []))
        return CliRunner().invoke(mailer, ["dkim", *args], obj=ScriptInfo(create_app=lambda: app))

    run.app = app
    return run


def test_a_new_key_says_what_to_publish_and_what_to_set(run, tmp_path):
    """DK5: only its owner can read the file; what the command prints is what the setting takes."""
    path = tmp_path / "s1.pem"
    done = run("new", "acme.test", "--selector", "s1", "--out", str(path))
    assert done.exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert "s1._domainkey.acme.test\nv=DKIM1; k=rsa; p=" in done.stdout
    entry = re.search("MAILER_DKIM_KEYS=(.*)", done.stdout)[1]
    shown = run("show", keys=[entry])
    assert shown.stdout.splitlines()[1] in done.stdout
    assert "PRIVATE" not in done.stdout + shown.stdout
    findings = list(application.dkim(Patient(run.app, run.app.extensions["mailer"])))
    assert [f.level.value for f in findings] == ["ok"]


def test_nothing_is_written_over_and_nothing_half_done(run, tmp_path):
    """A file that is there stays as it is; a domain that is none leaves no file."""
    path = tmp_path / "s1.pem"
    path.write_text("mine")
    done = run("new", "acme.test", "--selector", "s1", "--out", str(path))
    assert (done.exit_code, path.read_text()) == (2, "mine")
    assert "name another file" in done.stderr
    other = tmp_path / "other.pem"
    assert run("new", "not a domain", "--selector", "s1", "--out", str(other)).exit_code != 0
    assert not other.exists()


def test_doctor_names_a_sender_without_a_key(run, tmp_path):
    """SR1: mails of the default sender's domain would leave unsigned."""
    run("new", "other.test", "--selector", "s1", "--ed25519", "--out", str(tmp_path / "s1.pem"))
    run("show", keys=[f"other.test:s1:{tmp_path / 's1.pem'}"])
    findings = list(application.dkim(Patient(run.app, run.app.extensions["mailer"])))
    assert [f.level.value for f in findings] == ["ok", "warning"]
