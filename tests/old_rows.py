"""Rows that earlier versions left in their databases, and databases of those revisions to put them into.

`vectors/left_by_*.json` were recorded by running the releases themselves (`vectors/recording.py`): each moment is the
whole of a database as a `kill -9` would have left it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Boolean, Connection, DateTime, LargeBinary, MetaData, Table, insert

import bot.storage.migrations
from bot.storage.migrations import revision

VECTORS = Path(__file__).parent / "vectors"
RELEASES = ("0001", "0003")
"""The revisions that releases had. (None had 0002: it came with 0003.)"""

Row = dict[str, Any]


@cache
def _told(release: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((VECTORS / f"left_by_{release}.json").read_text(encoding="utf-8"))
    assert told["revision"] == release
    return told


def messages(release: str) -> list[Row]:
    """What stood in the fake Slack while the cancel was "waiting": the card, its buttons, and what was before."""
    return list(_told(release)["messages"])


@cache
def recorded(release: str) -> dict[str, list[tuple[str, Row]]]:
    """By moment, the rows that stood in the database then, each with its table."""
    told = _told(release)
    rows = [(table, row) for table, row in told["rows"]]
    return {moment: [rows[place] for place in places] for moment, places in told["moments"].items()}


def moments(*names: str) -> list[tuple[str, str]]:
    """(release, moment) for the moments of these names, or for all."""
    return [(release, moment) for release in RELEASES for moment in recorded(release) if not names or moment in names]


def migrate_to(connection: Connection, to: str) -> None:
    """Brings a database to an earlier revision, as its version would have."""
    revision(connection)  # and so the transaction is open: Alembic leaves it so
    config = Config()
    config.set_main_option("script_location", str(Path(bot.storage.migrations.__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def put_back(connection: Connection, release: str, moment: str) -> None:
    """Makes the database that this release had at this moment."""
    migrate_to(connection, release)
    metadata = MetaData()
    metadata.reflect(connection)
    rows = recorded(release)[moment]
    for table in metadata.sorted_tables:
        if those := [_cells(table, row) for name, row in rows if name == table.name]:
            connection.execute(insert(table), those)
            _set_sequence(connection, table)


def _cells(table: Table, row: Row) -> Row:
    """What SQLite keeps as text or number, as what it is."""
    return {name: _cell(table.columns[name].type, value) for name, value in row.items()}


def _cell(kind: object, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(kind, DateTime):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    if isinstance(kind, LargeBinary):
        return value.encode()
    return bool(value) if isinstance(kind, Boolean) else value


def _set_sequence(connection: Connection, table: Table) -> None:
    """The release's own inserts would have counted on."""
    column = table.autoincrement_column
    if connection.dialect.name == "postgresql" and column is not None and column.server_default is not None:
        quoted = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
        connection.exec_driver_sql(f"SELECT setval({quoted}, (SELECT max({column.name}) FROM {table.name}))")
