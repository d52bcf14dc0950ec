"""Where the comparison takes place: a Redis, a Postgres that waits for its disk, and folders that go away."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import redis

from bench.contenders import Contender, Server, Setting, environment
from tests import servers


class Place:
    """Use it in ``with``. Everything is on the disk that holds temporary files, not in memory."""

    def __enter__(self) -> Place:
        self._ends = ExitStack()
        self._numbers = itertools.count()
        self.folder = Path(tempfile.mkdtemp(prefix="mailer-bench-"))
        self.folder.chmod(0o755)
        self._ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.redis = self._ends.enter_context(servers.redis())
        with redis.Redis.from_url(self.redis) as client:
            self._supporters = [client.info("server")["process_id"]]
        self._postgres: Path | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @contextmanager
    def setting(self, contender: Contender, server: Server) -> Iterator[Setting]:
        """The contender with an empty database and an empty Redis."""
        with redis.Redis.from_url(self.redis) as client:
            client.flushall()
        number = next(self._numbers)
        folder = self.folder / f"run{number}"
        folder.mkdir()
        database = f"sqlite:///{folder / 'store.db'}"
        if contender.database == "postgres":
            database = self.new_database(f"run{number}")
        variables = environment(contender, self.redis, database, folder, server)
        setting = Setting(contender, variables, folder, tuple(self._supporters))
        if contender.database:
            setting.run("-m", f"bench.{contender.program}", "migrate")
        yield setting
        shutil.rmtree(folder)

    def new_database(self, name: str) -> str:
        """The URL of an empty database of this name."""
        if self._postgres is None:
            self._postgres = self._start_postgres()
        with psycopg.connect(host=str(self._postgres), user="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://postgres@/{name}?host={self._postgres}"

    def drop_database(self, name: str) -> None:
        """Give back the room of one that nobody uses any more."""
        with psycopg.connect(host=str(self._postgres), user="postgres", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name}".encode())

    def _start_postgres(self) -> Path:
        user = "nobody" if os.geteuid() == 0 else None  # Postgres refuses to run as root
        folder = self.folder / "postgres"
        folder.mkdir()
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        programs = self._ends.enter_context(servers.postgres_programs(user))
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        servers.run_once([programs / "initdb", "-D", folder / "data", *options], folder, user)
        command = [programs / "postgres", "-D", folder / "data", "-k", folder, "-h", ""]
        command += ["-c", "max_connections=200", "-c", "shared_buffers=256MB"]
        running = servers.running(command, folder, user=user, stop=signal.SIGINT)
        process = self._ends.enter_context(running)
        servers.wait_until(lambda: servers.accepts_connections(folder), process, folder)
        self._supporters.append(process.pid)
        return folder
