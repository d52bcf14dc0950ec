"""`mailer doctor`: each rule, on real files, a real Redis and a real Postgres."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import celery
import flask
import pytest
import redis
from click.testing import CliRunner
from flask.cli import ScriptInfo

from mailer import Mailer
from mailer.broker import CELERY_SETTINGS, build_celery
from mailer.cli import mailer
from mailer.cli.group import DONE, NOT_SET_UP
from mailer.config import Settings
from mailer.doctor import CHECKS, Level, Patient, examine, queues, storage
from mailer.services import utc_now
from mailer.store import queries
from mailer.store.migrations import to, upgrade
from mailer.transports.url import Security, SmtpConfig
from tests import servers
from tests.conftest import had

GOOD_KEY = "pZ8vK2mQ-7sXwLdR4tYcB9nHfJ6gTa1e"
PRODUCTION = {
    "MAILER_BASE_URL": "https://app.acme.example",
    "MAILER_DEFAULT_SENDER": "no-reply@acme.example",
    "MAILER_SECRET_KEYS": GOOD_KEY,
    "MAILER_SMTP_URL": "smtp://user:pass-word@smtp.acme.example:587",
}


@pytest.fixture
def build(tmp_path):
    """Build an application as it would run in production, but for what the test changes."""

    def build(**config) -> flask.Flask:
        app = flask.Flask("host")
        known = {"MAILER_DATA_DIR": str(tmp_path), "MAILER_DATABASE_URL": f"sqlite:///{tmp_path / 'a.db'}"}
        app.config.update(known | PRODUCTION | config)
        options = {"celery": app.config.pop("celery")} if "celery" in app.config else {}
        Mailer().init_app(app, **options)
        upgrade(app.extensions["mailer"].store.engine)
        for path in tmp_path.glob("a.db*"):
            path.chmod(0o600)
        return app

    return build


def run(app: flask.Flask | Exception, *args: str):
    def create():
        if isinstance(app, Exception):
            raise app
        return app

    return CliRunner().invoke(mailer, ["doctor", *args], obj=ScriptInfo(create_app=lambda: create()))


def told(app: flask.Flask, *names: str) -> dict[str, Level]:
    """What stands out, by name: the worst level of each."""
    order = list(Level)
    found: dict[str, Level] = {}
    for f in examine(app):
        if f.name in names or (not names and f.level is not Level.OK):
            found[f.name] = max(found.get(f.name, Level.OK), f.level, key=order.index)
    return found


def test_a_good_set_up_passes(build, redis_url):
    """CE4: nothing to complain of in production on Redis, and the exit code says so."""
    app = build(MAILER_BROKER_URL=redis_url)
    done = run(app)
    assert told(app) == {}
    assert done.exit_code == DONE
    assert {line[0] for line in done.stdout.splitlines()} == {"✓"}


def test_findings_are_json_for_programs(build):
    """What programs read: level, name, what was found and the next step, and the same exit code."""
    done = run(build(DEBUG=True), "--json")
    assert done.exit_code == NOT_SET_UP
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert found["debug"].keys() == {"level", "name", "found", "next"}
    assert (found["debug"]["level"], found["store"]["level"]) == ("error", "ok")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"DEBUG": True}, {"debug": "error"}),
        ({"MAILER_BASE_URL": "http://app.acme.example"}, {"base_url": "error"}),
        ({"MAILER_BASE_URL": "http://127.0.0.1:8000"}, {"base_url": "warning"}),
        ({"MAILER_SECRET_KEYS": "k" * 40}, {"secret_keys": "error"}),
        ({"MAILER_SECRET_KEYS": f"{GOOD_KEY},please-change-me-before-production"}, {"secret_keys": "error"}),
        ({"MAILER_SECRET_KEYS": None}, {"secret_keys": "error"}),
        (
            {"MAILER_SECRET_KEYS": None, "MAILER_BASE_URL": "http://localhost:8000"},
            {"base_url": "warning"},
        ),
        ({"SECRET_KEY": "dev"}, {"flask_secret_key": "error"}),
        ({"SECRET_KEY": b"\x8f\x01\xb2rT\x10\xcdg\x99\xe4Kq\x07\xa6\x5d\x2e"}, {}),
        ({"MAILER_DEFAULT_SENDER": None}, {"default_sender": "warning"}),
        ({"MAILER_SMTP_URL": "smtp://smtp.acme.example?verify=off"}, {"smtp_certificate": "error"}),
        ({"MAILER_SMTP_URL": "smtps://u:p@smtp.acme.example?verify=off"}, {"smtp_certificate": "error"}),
        ({"MAILER_SMTP_URL": "smtp://127.0.0.1?verify=off"}, {}),
        ({"MAILER_SMTP_URL": "smtp://relay.acme.example"}, {"smtp_tls": "warning"}),
        ({"MAILER_SMTP_URL": None}, {"smtp": "warning"}),
        ({"MAILER_SMTP_URL": "memory://"}, {"smtp": "warning"}),
    ],
)
def test_settings(build, redis_url, config, expected):
    """CE4: debug, http, keys that are short, guessable or beside the mails, and TLS that checks nothing."""
    found = told(build(MAILER_BROKER_URL=redis_url, **config))
    found.pop("smtp_tls", None) if "smtp_tls" not in expected else None
    assert found == expected


def test_a_short_key_is_an_error_even_where_settings_refuse_it_first(build):
    """CE4: the start refuses it; doctor says the same as a finding, and does not repeat the key."""
    with pytest.raises(Exception, match="fewer than 32") as refused:
        build(MAILER_SECRET_KEYS="Xx7-short")
    done = run(refused.value, "--json")
    [found] = json.loads(done.stdout)
    assert (done.exit_code, found["level"], found["name"]) == (NOT_SET_UP, "error", "settings")
    assert "Xx7-short" not in done.stdout


@pytest.mark.parametrize("security", [Security.NONE, Security.OPTIONAL])
def test_a_password_without_tls(build, security):
    """CE4: no URL can ask for it, but a configuration built by hand can."""
    app = build()
    transport = app.extensions["mailer"].transport.ways[0].transport
    config = SmtpConfig("smtp.acme.example", username="u", password="p", security=security)
    transport.config = dataclasses.replace(config)
    assert told(app, "smtp_password") == {"smtp_password": "error"}


# Files


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
@pytest.mark.parametrize("name", ["a.db", "secret-key"])
def test_files_that_others_can_read(build, tmp_path, name, mode):
    """CE4: the database and the key are their owner's only; the next step is a command that helps."""
    app = build(MAILER_SECRET_KEYS=None)
    assert told(app, "files") == {"files": "ok"}
    (tmp_path / name).chmod(mode)
    assert told(app, "files") == {"files": "error"}
    [found] = [f for f in examine(app) if f.name == "files"]
    assert found.next == f"run: chmod 600 {tmp_path / name}"


def test_a_log_beside_the_database_holds_mails_too(build, tmp_path):
    """CE4: SQLite's write-ahead log is a part of the database."""
    app = build()
    (tmp_path / "a.db-wal").touch()
    (tmp_path / "a.db-wal").chmod(0o644)
    assert told(app, "files") == {"files": "error"}


# The store


def test_a_store_that_is_behind(build):
    """The tables of another version are an error that names the command."""
    app = build()
    engine = app.extensions["mailer"].store.engine
    with engine.begin() as connection:
        connection.exec_driver_sql("update mailer_alembic_version set version_num = '0001'")
    [found] = [f for f in examine(app) if f.name == "store"]
    assert found.level == "error"
    assert "0001" in found.found
    assert "mailer db upgrade" in found.next


def test_no_store_at_all(tmp_path):
    """A database that is not there is an error, and looking does not make it."""
    app = flask.Flask("host")
    app.config.update(MAILER_DATA_DIR=str(tmp_path), **PRODUCTION)
    Mailer().init_app(app)
    assert told(app, "store") == {"store": "error"}
    assert not (tmp_path / "mailer.db").exists()


def test_postgres_that_does_not_answer(tmp_path):
    """An error without the password that the URL holds, and the other checks go on."""
    app = flask.Flask("host")
    url = f"postgresql+psycopg://u:pass-word@127.0.0.1:{servers.free_port()}/x"
    app.config.update(MAILER_DATA_DIR=str(tmp_path), MAILER_DATABASE_URL=url, **PRODUCTION)
    Mailer().init_app(app)
    done = run(app)
    assert told(app, "store", "celery") == {"store": "error", "celery": "ok"}
    assert "pass-word" not in done.stdout


def test_the_databases_clock(tmp_path, fresh_postgres_url, monkeypatch):
    """On Postgres the clocks are compared; more than five seconds apart is a warning."""
    app = flask.Flask("host")
    app.config.update(MAILER_DATA_DIR=str(tmp_path), MAILER_DATABASE_URL=fresh_postgres_url, **PRODUCTION)
    Mailer().init_app(app)
    services = app.extensions["mailer"]
    to(services.store.engine, "head")
    assert told(app, "store", "clock") == {"store": "ok", "clock": "ok"}
    monkeypatch.setattr(storage, "utc_now", lambda: utc_now() + timedelta(seconds=30))
    [found] = [f for f in examine(app) if f.name == "clock"]
    assert (found.level, "30 s" in found.found) == ("warning", True)
    services.store.engine.dispose()


@pytest.mark.parametrize(
    ("seconds", "level"), [(0, "ok"), (5, "ok"), (-5, "ok"), (5.1, "warning"), (-6, "warning")]
)
def test_how_far_clocks_may_be_apart(seconds, level):
    """Five seconds either way are nothing to a link that is good for minutes."""
    now = datetime(2025, 1, 1, tzinfo=UTC)
    assert storage.compare_clocks(now + timedelta(seconds=seconds), now).level == level


def test_sqlite_has_no_clock_of_its_own(build):
    """One machine, one clock."""
    app = build()
    with app.extensions["mailer"].store.read() as connection:
        assert queries.clock(connection) is None
    assert told(app, "clock") == {}


# The broker


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        before = client.config_get("maxmemory-policy")["maxmemory-policy"]
        yield client
        client.config_set("maxmemory-policy", before)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_redis_that_throws_away(build, redis_url, client, policy):
    """CE4: a Redis that may evict queues is an error."""
    app = build(MAILER_BROKER_URL=redis_url)
    client.config_set("maxmemory-policy", policy)
    assert told(app) == {"broker_policy": "error"}
    client.config_set("maxmemory-policy", "noeviction")
    assert told(app) == {}


def test_redis_that_may_not_be_asked(build, redis_url, client):
    """A provider that forbids INFO gets a warning, not a traceback."""
    client.execute_command("ACL", "SETUSER", "shy", "on", ">pass-word", "~*", "&*", "+@all", "-info")
    try:
        app = build(MAILER_BROKER_URL=redis_url.replace("redis://", "redis://shy:pass-word@"))
        assert told(app) == {"broker_policy": "warning"}
    finally:
        client.execute_command("ACL", "DELUSER", "shy")


def test_a_broker_that_refuses_a_password(build, redis_url, client):
    """An error at once, and the password is in no line of it."""
    app = build(MAILER_BROKER_URL=redis_url.replace("redis://", "redis://nobody:pass-word@"))
    done = run(app)
    assert told(app) == {"broker": "error"}
    assert "pass-word" not in done.stdout


def test_a_broker_that_is_away_or_frozen_is_soon_told(build):
    """CE6: neither a refused nor a silent connection holds doctor up."""
    import os
    import signal
    import time

    port = servers.free_port()
    app = build(MAILER_BROKER_URL=f"redis://127.0.0.1:{port}/0")
    started = time.monotonic()
    assert told(app) == {"broker": "error"}
    with had(servers.redis(port)) as url:
        with redis.Redis.from_url(url) as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            assert told(app) == {"broker": "error"}
        finally:
            os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("redis://10.255.255.1:6379/0", {"broker_password", "broker_tls"}),
        ("redis://:pass-word@10.255.255.1:6379/0", {"broker_tls"}),
        ("rediss://10.255.255.1:6379/0?ssl_cert_reqs=required", {"broker_password"}),
        ("rediss://:pass-word@10.255.255.1:6379/0", {"broker_tls"}),
        ("rediss://:pass-word@10.255.255.1:6379/0?ssl_cert_reqs=none", {"broker_tls"}),
        ("rediss://:pass-word@10.255.255.1:6379/0?ssl_cert_reqs=required", set()),
        ("amqp://10.255.255.1//", {"broker_password", "broker_tls"}),
        ("amqps://user:pass-word@10.255.255.1//", set()),
        ("redis+socket:///nowhere.sock", set()),
        ("redis://localhost:1/0", set()),
    ],
)
def test_a_broker_on_another_machine(build, url, names):
    """CE4: Redis elsewhere needs a password and TLS; kombu's rediss:// verifies nothing by itself."""
    app = build(MAILER_BROKER_URL=url)
    found = told(app)
    assert found.pop("broker") == "error", "nobody is there"
    assert found == dict.fromkeys(names, "error")
    assert "pass-word" not in run(app).stdout


def test_tls_that_is_switched_on_wrong(build):
    """CE4: kombu ignores broker_use_ssl=True on Redis and speaks plainly; doctor does not believe it."""
    theirs = build_celery("host", Settings.load({"MAILER_BROKER_URL": "redis://:pw@10.255.255.1/0"}))
    theirs.conf.broker_use_ssl = True
    app = build(celery=theirs)
    assert told(app, "broker_tls") == {"broker_tls": "error"}
    theirs.conf.broker_use_ssl = {"ssl_cert_reqs": "required"}
    assert told(app, "broker_tls") == {}


def test_a_broker_in_memory(build):
    """Fine for one process, and a warning since there may be more."""
    app = build()
    assert told(app) == {"broker": "warning"}
    assert run(app).exit_code == DONE


# Celery


def test_each_setting_that_a_host_overrides_is_listed(build, redis_url):
    """CE3: every override is a warning that says what it changes; correctness depends on none."""
    theirs = build_celery("host", Settings.load({"MAILER_BROKER_URL": redis_url}))
    app = build(celery=theirs)
    assert told(app) == {}
    theirs.conf.update(task_acks_late=False, worker_prefetch_multiplier=10, task_reject_on_worker_lost=True)
    found = [f for f in examine(app) if f.name == "celery"]
    assert {f.level for f in found} == {"warning"}
    assert [f.found.split()[0] for f in found] == [
        "task_acks_late", "task_reject_on_worker_lost", "worker_prefetch_multiplier",
    ]  # fmt: skip
    assert run(app).exit_code == DONE


@pytest.mark.parametrize("setting", CELERY_SETTINGS)
def test_no_override_goes_unseen(build, setting):
    """CE3: whichever of our settings a host changes, doctor names it and says what that means."""
    theirs = build_celery("host", Settings.load())
    app = build(celery=theirs)
    ours = CELERY_SETTINGS[setting]
    theirs.conf[setting] = {list: ["json", "pickle"], str: "pickle", bool: not ours}.get(type(ours), 77)
    [found] = [f for f in examine(app) if f.name == "celery"]
    assert found.found.startswith(f"{setting} is ")
    fatal = setting in ("accept_content", "task_serializer")
    assert found.level == ("error" if fatal else "warning")


def test_the_hosts_own_celery_as_it_comes(build, redis_url):
    """A plain Celery differs in much, and in nothing that makes the exit code bad."""
    theirs = celery.Celery("host", broker=redis_url, set_as_current=False)
    found = [f for f in examine(build(celery=theirs)) if f.name == "celery"]
    assert {f.level for f in found} == {"warning"}
    named = {f.found.split()[0] for f in found}
    assert {"task_acks_late", "task_time_limit", "broker_transport_options"} <= named
    equal = {"accept_content", "result_accept_content", "task_serializer", "task_reject_on_worker_lost"}
    assert not named & (equal | {"broker_connection_retry_on_startup"})


def test_every_setting_has_its_word():
    """No setting is added without saying what another value changes."""
    assert set(queues.OVERRIDDEN) == set(CELERY_SETTINGS)


# The command


def test_a_check_that_breaks_hides_no_other(build, monkeypatch):
    """A bug in one check is a finding of its own."""
    app = build(DEBUG=True)
    app.extensions["mailer"].transport = None
    monkeypatch.setattr(queues, "celery_of", lambda app: 1 / 0)
    assert told(app, "debug", "celery_settings") == {"debug": "error", "celery_settings": "error"}


def test_the_service_is_looked_at_without_being_changed(tmp_path, monkeypatch):
    """Outside of an application it looks at the service, and makes no tables there."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(mailer, ["doctor"])
    assert done.exit_code == NOT_SET_UP
    assert "store: there is no database file" in done.stdout
    assert not list(Path(tmp_path).rglob("mailer.db*"))


def test_every_finding_is_documented():
    """The page has a row for each name, and no other."""
    import re

    root = Path(__file__).parents[2]
    section = (root / "docs/reference/cli.md").read_text("utf-8").partition("### mailer doctor")[2]
    rows = set(re.findall(r"^\| `(\w+)` \|", section.partition("\n## ")[0], re.MULTILINE))
    source = "".join(p.read_text("utf-8") for p in (root / "mailer/doctor").glob("*.py"))
    used = set(re.findall(r'\b(?:ok|warning|error|level)\(\s*"(\w+)"', source))
    assert rows == used | {"settings"}
    assert len(CHECKS) == 13
    assert Patient.__slots__


# CE5


@pytest.mark.parametrize(("user", "warned"), [(0, True), (1000, False)])
def test_a_worker_warns_when_it_is_root(build, monkeypatch, caplog, user, warned):
    """CE5: said in the log, since services are started by machines that read no documentation."""
    from mailer import worker

    class Started:
        exitcode = 0

        def start(self):
            pass

    monkeypatch.setattr(worker, "build", lambda *_, **__: Started())
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert worker.work(build(), concurrency=1, pool="threads") == 0
    assert ("worker.runs_as_root" in caplog.text) is warned
