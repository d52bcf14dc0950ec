"""The servers that the other tests rely on come up empty, and go when the tests go, however they end."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from tests import servers
from tests.conftest import had
from tests.mail_servers import exim, postfix

ROOT = Path(__file__).resolve().parent.parent

STARTS_AND_TELLS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from tests import mail_servers, servers
servers.SCRATCH = sys.argv[2]
with eval(sys.argv[1]):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_redis_is_empty_when_a_test_begins(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


test_redis_is_empty_when_a_test_begins_again = test_redis_is_empty_when_a_test_begins


def test_postgres_is_empty_when_a_test_begins(fresh_postgres_url: str) -> None:
    engine = sa.create_engine(fresh_postgres_url)
    with engine.begin() as connection:
        assert sa.inspect(connection).get_table_names() == []
        connection.exec_driver_sql("CREATE TABLE left_behind (id int)")
        assert connection.exec_driver_sql("SELECT lower('Ä')").scalar_one() == "ä"
    engine.dispose()


test_postgres_is_empty_when_a_test_begins_again = test_postgres_is_empty_when_a_test_begins


@pytest.mark.usefixtures("redis_server")
def test_a_redis_can_come_back_at_the_same_port() -> None:
    with servers.redis() as url:
        port = int(url.rpartition(":")[2].removesuffix("/0"))
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    with servers.redis(port) as again:
        assert again == url


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=lambda end: end.name)
@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_no_server_outlives_its_tests(kind: str, end: signal.Signals, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue({"redis": "redis_server", "postgres": "postgres_url"}[kind])  # or be skipped
    check_that_it_ends(f"servers.{kind}()", end)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=lambda end: end.name)
@pytest.mark.parametrize("server", [postfix, exim], ids=lambda server: server.__name__)
def test_no_mail_server_outlives_its_tests(server: Callable[..., Any], end: signal.Signals) -> None:
    with had(server(next_hop=9)):  # or be skipped
        pass
    check_that_it_ends(f"mail_servers.{server.__name__}(next_hop=9)", end)


def check_that_it_ends(server: str, end: signal.Signals) -> None:
    # What is killed cannot tidy up, so the folder is ours; outside tmp_path, where nobody may not go.
    with tempfile.TemporaryDirectory(dir=servers.SCRATCH) as scratch:
        Path(scratch).chmod(0o755)
        command = [sys.executable, "-c", STARTS_AND_TELLS, server, scratch]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as tests:
            assert tests.stdout
            assert tests.stdout.readline() == b"ready\n"
            children = descendants_of(tests.pid)
            assert children
            tests.send_signal(end)
        wait_for_the_end_of(children)


def wait_for_the_end_of(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "a server was left behind"
        time.sleep(0.02)


def descendants_of(ancestor: int) -> list[int]:
    everyone = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    children = [pid for pid in everyone if stat_of(pid)[1] == str(ancestor)]
    return children + [pid for child in children for pid in descendants_of(child)]


def is_alive(pid: int) -> bool:
    return stat_of(pid)[0] not in ("", "X", "Z")  # a zombie has ended; who adopted it has not looked yet


def stat_of(pid: int) -> tuple[str, str]:
    """A process's state and its parent's number, from proc(5); empty if there is no such process."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return after_name[0], after_name[1]
