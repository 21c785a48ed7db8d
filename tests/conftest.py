"""Shared fixtures: a clock that stands until it is moved, values of the core, and the two databases."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from bot.settings import database_url
from bot.storage.database import Database, open_database
from bot.storage.migrations import upgrade
from bot.storage.tables import metadata

POSTGRES = os.environ.get("OTABRAKE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
MUST_RUN_ALL = os.environ.get("OTABRAKE_TEST_ALL") == "1"


class Clock:
    """Stands until it is moved; `sleep` moves it and returns at once."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 3, 12, tzinfo=UTC)
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.at

    def pass_by(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_by(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """The URL of a PostgreSQL server that may make databases."""
    url = database_url({"OTABRAKE_DATABASE_URL": POSTGRES})
    engine = create_engine(url, connect_args={"connect_timeout": 2})
    try:
        with engine.connect():
            return url
    except OperationalError:
        if MUST_RUN_ALL:
            raise
        pytest.skip("no PostgreSQL answers at OTABRAKE_TEST_POSTGRES")
    finally:
        engine.dispose()


@contextmanager
def new_postgres(server: str) -> Iterator[str]:
    """An empty database of its own, dropped afterwards."""
    name = f"otabrake_test_{secrets.token_hex(4)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.rpartition("/")[0] + f"/{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


async def migrate(url: str) -> None:
    opened = open_database(url)
    await upgrade(opened)
    await opened.close()


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: str) -> Iterator[str]:
    """A migrated database that tests use one after the other, each leaving it empty."""
    with new_postgres(postgres_server) as url:
        asyncio.run(migrate(url))
        yield url


@pytest.fixture
def postgres_url(shared_postgres: str) -> Iterator[str]:
    """A migrated database without rows."""
    yield shared_postgres
    engine = create_engine(shared_postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(_END_OTHERS)
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)} RESTART IDENTITY"))
    engine.dispose()


_END_OTHERS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    with new_postgres(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "otabrake.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_file: Path) -> str:
    """A migrated database without rows."""
    path = shutil.copyfile(migrated_file, tmp_path / "otabrake.db")
    return f"sqlite:///{path}"


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'empty.db'}"


BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=BOTH)
def any_database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database without rows, once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=BOTH)
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """A database with nothing in it, once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


async def lapse(database: Database) -> None:
    """All leases have lapsed: whoever held them is gone."""
    await database.run(lambda connection: connection.execute(text("UPDATE leases SET until = 1")) and None)


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    opened = open_database(any_database_url)
    yield opened
    await opened.close()
