"""Databases to be killed on: each flow gets a migrated one of its own, made from a template."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, create_engine, text

from bot.settings import database_url
from bot.storage.database import open_database
from bot.storage.migrations import upgrade


class Databases(Protocol):
    """`new` makes a migrated database without rows and tells its URL; it is gone with the block that made these."""

    async def new(self, folder: Path) -> str: ...


async def _migrate(url: str) -> None:
    opened = open_database(url)
    try:
        await upgrade(opened)
    finally:
        await opened.close()


class _Files:
    def __init__(self, template: Path) -> None:
        self._template = template

    async def new(self, folder: Path) -> str:
        return f"sqlite:///{shutil.copyfile(self._template, folder / 'otabrake.db')}"


@contextlib.asynccontextmanager
async def sqlite_files(folder: Path) -> AsyncIterator[Databases]:
    template = folder / "template.db"
    await _migrate(f"sqlite:///{template}")
    yield _Files(template)


class _OnServer:
    def __init__(self, server: str, engine: Engine, name: str) -> None:
        self._server = server
        self._engine = engine
        self._name = name
        self._lock = asyncio.Lock()
        self._made = 0

    async def new(self, folder: Path) -> str:
        async with self._lock:  # a template may be copied by one at a time
            self._made += 1
            name = f"{self._name}_{self._made}"
            await self.run(f"CREATE DATABASE {name} TEMPLATE {self._name}")
        return self.url(name)

    def url(self, name: str) -> str:
        return f"{self._server.rpartition('/')[0]}/{name}"

    async def run(self, statement: str) -> None:
        def carry_out() -> None:
            with self._engine.connect() as connection:
                connection.execute(text(statement))

        await asyncio.to_thread(carry_out)

    async def drop_all(self) -> None:
        for number in range(1, self._made + 1):
            await self.run(f"DROP DATABASE IF EXISTS {self._name}_{number} WITH (FORCE)")
        await self.run(f"DROP DATABASE IF EXISTS {self._name} WITH (FORCE)")


@contextlib.asynccontextmanager
async def postgres_databases(server: str) -> AsyncIterator[Databases]:
    """On a server that may make databases; those made here are dropped at the end."""
    server = database_url({"OTABRAKE_DATABASE_URL": server})
    engine = create_engine(
        server, isolation_level="AUTOCOMMIT", pool_pre_ping=True, connect_args={"connect_timeout": 5}
    )
    made = _OnServer(server, engine, f"otabrake_crash_{secrets.token_hex(4)}")
    try:
        await made.run(f"CREATE DATABASE {made._name}")
        await _migrate(made.url(made._name))
        yield made
    finally:
        await made.drop_all()
        engine.dispose()


@contextlib.asynccontextmanager
async def opened(server: str | None, folder: Path) -> AsyncIterator[Databases]:
    """Databases on a PostgreSQL server, or, without one, SQLite files."""
    async with postgres_databases(server) if server is not None else sqlite_files(folder) as made:
        yield made
