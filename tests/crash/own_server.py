"""A PostgreSQL server of a test's own, in a temporary folder, to be stopped and started again. Never the shared one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

USER = "postgres"
_PLACES = "/usr/lib/postgresql"


class NoServer(Exception):
    """PostgreSQL's programs are not here, or did not do what they were told."""


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, of the newest version that is installed."""
    found = shutil.which("pg_ctl")
    if found is not None and Path(found).with_name("initdb").exists():
        return Path(found).parent
    by_version = sorted(Path(_PLACES).glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[-3]))
    return by_version[-1].parent if by_version else None


class OwnServer:
    """`url` is that of a superuser's database on it."""

    def __init__(self, folder: Path, bin_folder: Path, port: int) -> None:
        self._folder = folder
        self._bin = bin_folder
        self._port = port
        self.url = f"postgresql://{USER}@127.0.0.1:{port}/postgres"

    async def make(self) -> None:
        await self._run("initdb", "--auth=trust", f"--username={USER}", "--no-sync")
        settings = f"listen_addresses = '127.0.0.1'\nport = {self._port}\nunix_socket_directories = ''\nfsync = off\n"
        with (self._folder / "postgresql.conf").open("a") as configuration:
            configuration.write(settings)

    async def start(self) -> None:
        await self._run("pg_ctl", "start", "--wait", "--log", str(self._folder / "server.log"))

    async def stop(self, mode: str) -> None:
        """`fast` ends its connections and writes everything; `immediate` is a crash."""
        await self._run("pg_ctl", "stop", "--wait", "--mode", mode)

    async def _run(self, program: str, *arguments: str) -> None:
        """As the user that PostgreSQL runs as: it refuses root."""
        is_root = os.geteuid() == 0
        process = await asyncio.create_subprocess_exec(
            self._bin / program,
            f"--pgdata={self._folder}",
            *arguments,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            stdin=asyncio.subprocess.DEVNULL,
            cwd="/",
            user=USER if is_root else None,
            group=USER if is_root else None,
            extra_groups=[] if is_root else None,
        )
        if await process.wait() != 0:
            raise NoServer(f"{program} {' '.join(arguments)} ended with {process.returncode}")


@contextlib.asynccontextmanager
async def own_server(bin_folder: Path) -> AsyncIterator[OwnServer]:
    """A running server, gone with the block."""
    with tempfile.TemporaryDirectory(prefix="otabrake-postgres-", ignore_cleanup_errors=True) as name:
        if os.geteuid() == 0:
            owner = pwd.getpwnam(USER)
            os.chown(name, owner.pw_uid, owner.pw_gid)
        server = OwnServer(Path(name), bin_folder, _free_port())
        await server.make()
        await server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(NoServer):
                await server.stop("immediate")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
