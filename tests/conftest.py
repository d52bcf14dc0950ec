"""What every test may ask for: servers, databases and a browser, and a clean environment.

Each pytest process (``-n`` starts several) has servers of its own, so no test can meet another's data.
What this machine has not got is skipped, and the end of the run says what it was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings

from tests import servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Given = TypeVar("Given")

NOT_HAD = "not had here: "
"""Begins the reason of every skip that another machine would not have."""

PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy"}


def clear_environment() -> None:
    """Forget what the developer's own shell says about mail, Flask and Celery, and how to reach the world."""
    for name in list(os.environ):
        if name.startswith(("MAILER_", "MAIL_", "CELERY_", "FLASK_")) or name.lower() in PROXIES:
            del os.environ[name]


clear_environment()  # here, before any test module is imported

# Hypothesis times each example. On a busy machine that finds slow neighbours, not slow code.
settings.register_profile(
    "mailer", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mailer")


# Redis


@pytest.fixture(scope="session")
def redis_server(worker_id: str) -> Iterator[str]:
    """The URL of a Redis for this whole run. Most tests want `redis_url`."""
    if url := os.environ.get("TEST_REDIS_URL"):
        yield own_redis_database(url, worker_id)
        return
    with had(servers.redis()) as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of a Redis database that is empty when the test begins."""
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.flushdb()
    return redis_server


def own_redis_database(url: str, worker_id: str) -> str:
    """The next database of the same server for each further pytest process, since each empties its own."""
    parts = urlsplit(url)
    number = int(parts.path.strip("/") or 0) + int(worker_id.removeprefix("gw").replace("master", "0"))
    return parts._replace(path=f"/{number}").geturl()


# Postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The SQLAlchemy URL of a Postgres for this whole run. Most tests want `fresh_postgres_url`."""
    if url := os.environ.get("TEST_POSTGRES_URL"):
        yield url
        return
    with had(servers.postgres()) as url:
        yield url


@pytest.fixture
def fresh_postgres_url(postgres_url: str) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database, dropped after the test together with who is still in it."""
    import sqlalchemy as sa

    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as server:
        server.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield engine.url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as server:
            server.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


# The browser


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The installed Chromium; pip cannot bring one."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return Path(path)
    return not_had("no browser: apt-get install chromium")


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    """A Chromium for this module. Most tests want `page`.

    Not for the whole run: while it is open, Playwright keeps an event loop running in this thread, and
    then neither ``asyncio.run`` nor a second Playwright works.
    """
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    quiet += ["--disable-sync", "--no-first-run"]
    if os.geteuid() == 0:
        quiet.append("--no-sandbox")  # Chromium refuses to run as root otherwise
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has never been anywhere."""
    context = browser.new_context()
    context.set_default_timeout(10_000)  # milliseconds; half a minute is long for a server next door
    try:
        yield context.new_page()
    finally:
        context.close()


# What could not be had


@contextlib.contextmanager
def had(server: AbstractContextManager[Given]) -> Iterator[Given]:
    """What the server gives, or a skip that says why there is none."""
    with contextlib.ExitStack() as stack:
        try:
            given = stack.enter_context(server)
        except servers.Missing as missing:
            not_had(str(missing))
        yield given


def not_had(what: str) -> NoReturn:
    pytest.skip(NOT_HAD + what)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was skipped because this machine lacks something."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = [str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)]
    missing = Counter(reason.partition(NOT_HAD)[2] for reason in reasons if NOT_HAD in reason)
    if missing:
        terminalreporter.section("could not be had on this machine")
        for what, count in sorted(missing.items()):
            terminalreporter.write_line(f"{what} ({count} test{'s' if count > 1 else ''} skipped)")
