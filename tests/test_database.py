"""Units of work: alone, together, failing, and on a database that cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from bot.errors import ConfigurationError, StoreUnavailable
from bot.storage.database import Database, open_database
from bot.storage.migrations import missing, upgrade
from bot.storage.tables import SCHEMA, metadata


def insert(connection: Connection, key: str) -> None:
    connection.execute(
        text("INSERT INTO inbox (delivery_id, key, received_at, body) VALUES (:key, :key, '2026-03-01', '')"),
        {"key": key},
    )


def keys(connection: Connection) -> list[str]:
    return sorted(connection.scalars(text("SELECT key FROM inbox")).all())


async def test_what_a_unit_wrote_is_there_when_it_returns(database: Database) -> None:
    await database.run(lambda connection: insert(connection, "a"))
    assert await database.read(keys) == ["a"]


async def test_a_unit_that_raises_leaves_nothing_and_its_neighbours_alone(database: Database) -> None:
    def broken(connection: Connection) -> None:
        insert(connection, "broken")
        raise ValueError("no")

    units = [database.run(lambda connection, n=n: insert(connection, f"k{n}")) for n in range(5)]
    results = await asyncio.gather(*units[:2], database.run(broken), *units[2:], return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [ValueError]
    assert await database.read(keys) == [f"k{n}" for n in range(5)]


async def test_many_units_at_once_are_all_carried_out(database: Database) -> None:
    await asyncio.gather(*(database.run(lambda connection, n=n: insert(connection, f"{n:03}")) for n in range(250)))
    assert len(await database.read(keys)) == 250


async def test_a_read_writes_nothing(database: Database) -> None:
    with contextlib.suppress(StoreUnavailable):
        await database.read(lambda connection: insert(connection, "a"))
    assert await database.read(keys) == []


async def test_a_database_that_cannot_be_opened_is_said_to_be_unusable(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
    with pytest.raises(StoreUnavailable, match="unable to open database file"):
        await database.run(keys)
    with pytest.raises(StoreUnavailable):
        await database.read(keys)
    await database.close()


async def test_a_read_only_database_refuses_units_and_says_so(tmp_path: Path, sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    await upgrade(database)
    await database.close()
    database = open_database(f"sqlite:///file:{tmp_path / 'otabrake.db'}?mode=ro&uri=true")
    with pytest.raises(StoreUnavailable, match="readonly"):
        await database.run(lambda connection: insert(connection, "a"))
    assert await database.read(keys) == []
    await database.close()


async def test_a_server_that_does_not_answer_is_said_to_be_unusable() -> None:
    database = open_database("postgresql+psycopg://postgres@127.0.0.1:1/none")
    with pytest.raises(StoreUnavailable):
        await database.run(keys)
    await database.close()


async def test_migrations_bring_an_empty_database_to_the_newest_schema(empty_database_url: str) -> None:
    database = open_database(empty_database_url)
    assert "is empty" in (await missing(database) or "")
    assert await upgrade(database)
    assert await missing(database) is None
    assert not await upgrade(database)
    await database.close()


async def test_migrations_and_tables_describe_the_same_schema(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    differences = await database.run(
        lambda connection: compare_metadata(MigrationContext.configure(connection), metadata)
    )
    assert differences == []


def test_the_newest_migration_is_the_schema_that_the_tables_name() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import bot.storage.migrations

    config = Config()
    config.set_main_option("script_location", str(Path(bot.storage.migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA]


def test_an_sqlite_that_is_too_old_is_said_at_once(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(ConfigurationError, match=r"take one with 3\.35 or newer"):
        open_database(sqlite_url)
