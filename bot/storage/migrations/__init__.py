"""Bringing a database to the newest schema: `upgrade`, and `missing` which only looks.

Alembic is imported only when there is something to do: at an ordinary start the database is already there.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from bot.storage.database import Database
from bot.storage.tables import SCHEMA

_LOCK = 0x07AB4A6E
"""The PostgreSQL advisory lock under which one replica migrates and the others wait."""


def revision(connection: Connection) -> str | None:
    """The schema revision of this database, or None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


async def missing(database: Database) -> str | None:
    """A sentence that says what the schema lacks, or None if it is up to date."""
    found = await database.read(revision)
    if found == SCHEMA:
        return None
    if found is None:
        return f"the database is empty: run `otabrake db upgrade` to bring it to revision {SCHEMA}"
    return f"the database is at revision {found}, this version needs {SCHEMA}: run `otabrake db upgrade`"


async def upgrade(database: Database) -> bool:
    """Brings the schema to the newest revision. True if anything had to be done."""
    if await database.read(revision) == SCHEMA:
        return False
    return await database.run(_upgrade)


def _upgrade(connection: Connection) -> bool:
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        connection.execute(text("SET LOCAL statement_timeout = 0"))
    if revision(connection) == SCHEMA:
        return False
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return True
