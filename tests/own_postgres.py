"""A PostgreSQL server of the test's own, to be stopped, killed and silenced; never the one that others share.

Made with `initdb` in a folder of its own, on a free port of this machine. As root it runs as the user `postgres`, for
PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from tests.conftest import MUST_RUN_ALL

COMMAND_SECONDS = 60
_SETTINGS = (
    "listen_addresses = '127.0.0.1'",
    "fsync = off",
    "max_connections = 60",
    "shared_buffers = 16MB",
    "restart_after_crash = on",
    "log_min_messages = fatal",
)


def _binaries() -> Path | None:
    if (found := shutil.which("initdb")) is not None:
        return Path(found).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


def _user() -> str | None:
    """Whom the server runs as, where it cannot be ourselves."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


class OwnPostgres:
    """A running server. `stop` and `start`, `silence` and `go_on` come in pairs."""

    def __init__(self, binaries: Path, folder: Path, port: int) -> None:
        self._binaries = binaries
        self._folder = folder
        self.port = port

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"world_{secrets.token_hex(4)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url.rpartition("/")[0] + f"/{name}"

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        address = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres connect_timeout=5"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def make(self) -> None:
        self._carry_out("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        with (self._folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(
                "\n".join((*_SETTINGS, f"port = {self.port}", f"unix_socket_directories = '{self._folder}'"))
            )

    def start(self) -> None:
        self._carry_out("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", "30", "start")

    def stop(self, how: str = "fast") -> None:
        self._carry_out("pg_ctl", "-D", "data", "-w", "-t", "30", "-m", how, "stop")

    def restart(self) -> None:
        self._carry_out("pg_ctl", "-D", "data", "-l", "log", "-w", "-t", "30", "-m", "fast", "restart")

    @property
    def pid(self) -> int:
        return int((self._folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    def processes(self) -> list[int]:
        """The server and all its children."""
        return [self.pid, *_children(self.pid)]

    def silence(self, pids: Sequence[int] | None = None) -> None:
        """It answers nothing any more; the kernel still takes connections for it."""
        for pid in pids or self.processes():
            _signal(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for pid in self.processes():
            _signal(pid, signal.SIGCONT)

    def kill_backends(self, database_url: str) -> int:
        """kill -9 of every process that serves a connection to this database; the server then restarts by itself."""
        name = database_url.rpartition("/")[2]
        found = self.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'")
        for (pid,) in found:
            _signal(int(str(pid)), signal.SIGKILL)
        return len(found)

    def terminate_backends(self, database_url: str) -> int:
        name = database_url.rpartition("/")[2]
        return len(self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"))

    def _carry_out(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments],
            cwd=self._folder,
            user=_user(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server inherits it: a pipe would never end
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            log = self._folder / "log"
            raise RuntimeError(f"{program} failed\n{log.read_text()[-2000:] if log.exists() else ''}")


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    binaries = _binaries()
    if binaries is None or not Path("/proc/self/stat").exists():
        if MUST_RUN_ALL:
            raise RuntimeError("PostgreSQL's programs (initdb, pg_ctl) are not installed")
        pytest.skip("PostgreSQL's programs (initdb, pg_ctl) are not installed: no server can be stopped")
    folder = Path(tempfile.mkdtemp(prefix="otabrake-postgres-"))
    try:
        if (user := _user()) is not None:
            shutil.chown(folder, user)
        server = OwnPostgres(binaries, folder, _free_port())
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.go_on()
            with contextlib.suppress(RuntimeError):
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
