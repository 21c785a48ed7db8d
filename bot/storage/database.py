"""The database by its URL: SQLite (a file), or PostgreSQL (a server).

A unit of work is a plain function of a SQLAlchemy connection; `await database.run(unit)` carries it out in one
transaction, and `await database.read(unit)` on a connection of its own (`units`). What it does not do: know any table.
"""

from __future__ import annotations

import sqlite3

from bot.errors import ConfigurationError
from bot.storage.postgres import PostgresDatabase
from bot.storage.sqlite import SqliteDatabase
from bot.storage.units import Database, Unit

__all__ = ["Database", "PostgresDatabase", "SqliteDatabase", "Unit", "open_database"]

OLDEST_SQLITE = (3, 35)
"""The first one with RETURNING."""


def open_database(url: str) -> Database:
    """A database by URL. Nothing is opened before the first unit."""
    if not url.startswith("sqlite"):
        return PostgresDatabase(url)
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigurationError([f"Python has SQLite {sqlite3.sqlite_version}: take one with {oldest} or newer"])
    return SqliteDatabase(url)
