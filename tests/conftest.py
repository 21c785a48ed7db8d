"""Shared fixtures: a clock that stands until it is moved, values of the core, and the two databases."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from bot.settings import database_url
from bot.storage.database import Database, open_database
from bot.storage.migrations import upgrade

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


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """An empty database of its own, dropped afterwards."""
    name = f"otabrake_test_{secrets.token_hex(4)}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield postgres_server.rpartition("/")[0] + f"/{name}"
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'otabrake.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(any_database_url: str) -> AsyncIterator[Database]:
    """A migrated database, once on SQLite and once on PostgreSQL."""
    opened = open_database(any_database_url)
    await upgrade(opened)
    yield opened
    await opened.close()
