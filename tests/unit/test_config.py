"""Settings: read once, typed, and refused with the name and the fix."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from mailer.config import PREFIX, Settings
from mailer.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_flask_configuration_wins_over_the_environment(monkeypatch):
    """First found wins: Flask's configuration, the environment, .env, the default."""
    Path(".env").write_text("MAILER_SITE_NAME=dotenv\nMAILER_LANES=critical,default\n")
    assert Settings.load().site_name == "dotenv"
    monkeypatch.setenv("MAILER_SITE_NAME", "environment")
    assert Settings.load().site_name == "environment"
    assert Settings.load({"MAILER_SITE_NAME": "flask"}).site_name == "flask"
    assert Settings.load().lane_names == ["critical", "default"]


@pytest.mark.parametrize("text", ["False", "false", "0", "no", "off"])
def test_booleans_from_the_environment_are_parsed(monkeypatch, text):
    """`MAILER_RETRY_JITTER=False` is false, unlike in the usual stack."""
    monkeypatch.setenv("MAILER_RETRY_JITTER", text)
    assert Settings.load().retry_jitter is False


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WEB_PORT", "eighty", "integer"),
        ("WEB_PORT", "70000", "65535"),
        ("BASE_URL", "my-own-host", "absolute URL"),
        ("BASE_URL", "https://user@app.example.com", "nothing but"),
        ("SECRET_KEYS", "short", "32 characters"),
        ("LANES", "bulk", "default"),
        ("LANES", "default,default", "different words"),
        ("LANES", "default:0", "weights from 1"),
        ("LANES", "default:1:101", "1 to 100 percent"),
        ("LANES", "default:many", "critical:8:100"),
        ("LANES", "default,re set", "plain words"),
        ("ON_UNCERTAIN", "maybe", "retry"),
        ("MAX_RETRIES", "-1", "0"),
        ("KEEP_BODIES", "-1", "0"),
        ("KEEP_MESSAGES", "604799", "less than MAILER_KEEP_BODIES"),
        ("LEASE_SECONDS", "inf", "finite"),
        ("BROKER_URL", "localhost:6379", "redis://"),
        ("BROKER_URL", "foo://bar", "redis://"),
        ("DEFAULT_SENDER", "nobody-at-all", "write it as"),
    ],
)
def test_a_wrong_setting_is_named_with_the_fix(monkeypatch, name, value, says):
    """A ConfigError names the setting as it stands in the environment, and not its value."""
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigError, match=says) as caught:
        Settings.load()
    assert caught.value.setting == PREFIX + name
    assert value not in str(caught.value) or len(value) < 6


def test_a_misspelt_setting_gets_a_suggestion():
    """A typo in the Flask configuration is an error, not a setting without effect."""
    with pytest.raises(ConfigError, match="did you mean MAILER_SMTP_URL"):
        Settings.load({"MAILER_SMPT_URL": "smtp://x"})


def test_flask_mail_names_the_default_sender():
    """Flask-Mail's own keys are understood."""
    assert Settings.load({"MAIL_DEFAULT_SENDER": ("Me", "me@x.test")}).default_sender == "Me <me@x.test>"


def test_a_folder_that_cannot_be_made_is_named():
    """A data folder nobody can make is one line, not a traceback."""
    Path("file").write_text("")
    with pytest.raises(ConfigError, match="MAILER_DATA_DIR"):
        Settings.load({"MAILER_DATA_DIR": "file/data"}).sealing_keys()


def test_links_follow_the_web_port():
    """With nothing but another port set, links still lead here."""
    assert Settings.load({"MAILER_WEB_PORT": 8123}).base_url == "http://127.0.0.1:8123"
    assert Settings.load({"MAILER_BASE_URL": "https://x.test/"}).base_url == "https://x.test"


def test_a_key_is_made_once_and_kept_private():
    """On one machine no key has to be configured; it is readable by its owner only."""
    settings = Settings.load({"MAILER_DATA_DIR": "data"})
    first = settings.sealing_keys()
    assert settings.sealing_keys() == first
    assert stat.S_IMODE(Path("data/secret-key").stat().st_mode) == 0o600


def test_a_shared_database_needs_a_configured_key():
    """Several machines must not each make up a key of their own."""
    with pytest.raises(ConfigError, match="MAILER_SECRET_KEYS"):
        Settings.load({"MAILER_DATABASE_URL": "postgresql://x/y"}).sealing_keys()


def test_secrets_do_not_show_in_repr():
    """SC22: neither keys nor the SMTP password stand in a settings object's text."""
    settings = Settings.load({"MAILER_SMTP_URL": "smtp://u:hunter2@x.test", "MAILER_SECRET_KEYS": "k" * 40})
    assert "hunter2" not in repr(settings)
    assert "kkkk" not in repr(settings)


def test_the_example_names_every_setting():
    """`.env.example` lists each setting once, and no other."""
    named = re.findall(rf"^#? ?({PREFIX}[A-Z_]+)=", (ROOT / ".env.example").read_text(), re.M)
    assert sorted(named) == sorted(PREFIX + name.upper() for name in Settings.model_fields)
