"""Bringing a database to the newest schema: `upgrade`, and `missing` which only looks.

All of it is one transaction, so a process that is killed in the middle leaves the database as it was; of several that
start at once one migrates, and the others wait for it. Alembic is imported only when there is something to do: at an
ordinary start the database is already there. There is no way back: a step back is an older version on its own backup.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from bot.errors import ConfigurationError
from bot.storage.database import Database
from bot.storage.tables import SCHEMA

_LOCK = 0x07AB4A6E
"""The PostgreSQL advisory lock under which one replica migrates and the others wait."""

_WAITS = (
    # A migration takes as long as it takes, and so does another replica's that is waited for, up to a minute.
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL lock_timeout = '60s'",
    f"SELECT pg_advisory_xact_lock({_LOCK})",
    # What waits for a table makes everybody behind it wait too: it gives up, and is tried again.
    "SET LOCAL lock_timeout = '5s'",
)


def revision(connection: Connection) -> str | None:
    """The schema revision of this database, or None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def is_known(found: str) -> bool:
    """Whether this version has this revision behind it, or is at it."""
    return found.isdigit() and len(found) == len(SCHEMA) and found <= SCHEMA


def lacking(found: str | None) -> str | None:
    """A sentence that says what a schema of this revision lacks, or None if it is up to date."""
    if found == SCHEMA:
        return None
    if found is None:
        return f"the database is empty: run `otabrake db upgrade` to bring it to revision {SCHEMA}"
    if is_known(found):
        return f"the database is at revision {found}, this version needs {SCHEMA}: run `otabrake db upgrade`"
    return (
        f"the database is at revision {found}, and this version of otabrake knows none after {SCHEMA}: a newer version "
        "has used it, or another program. Run that version, or name another database"
    )


async def missing(database: Database) -> str | None:
    """A sentence that says what the schema lacks, or None if it is up to date."""
    return lacking(await database.read(revision))


async def upgrade(database: Database) -> bool:
    """Brings the schema to the newest revision. True if anything had to be done.

    Raises `ConfigurationError` for a revision that a newer version made, and `StoreUnavailable`.
    """
    if await database.read(revision) == SCHEMA:
        return False
    return await database.run(_upgrade)


def _upgrade(connection: Connection) -> bool:
    if connection.dialect.name == "postgresql":
        for statement in _WAITS:
            connection.execute(text(statement))
    found = revision(connection)
    if found == SCHEMA:
        return False
    if found is not None and not is_known(found):
        raise ConfigurationError([f"{lacking(found)}. Nothing was changed."])
    _migrate(connection)
    return True


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
