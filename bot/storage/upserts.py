"""Rows that are written whether or not they are there already, in the one spelling that both databases share.

Rows are written in the order of their keys, so that two processes that write the same ones do not wait for each other
in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

Row = Mapping[str, object]


def upsert(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    """Writes whole rows, over those of the same key."""
    _execute_each(connection, table, _over_those_there(connection, table), rows)


def upsert_where(connection: Connection, table: Table, row: Row, *, where: ColumnElement[bool]) -> bool:
    """Writes a row, but over one of the same key only if that matches `where`. False: it did not."""
    counted = {"preserve_rowcount": True}  # SQLAlchemy forgets it after an INSERT otherwise
    statement = _over_those_there(connection, table, where)
    return connection.execute(statement, row, execution_options=counted).rowcount == 1


def insert_unless_there(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    statement = _insert(connection, table).on_conflict_do_nothing(index_elements=_key(table))
    _execute_each(connection, table, statement, rows)


def _over_those_there(connection: Connection, table: Table, where: ColumnElement[bool] | None = None) -> Any:
    statement = _insert(connection, table)
    others = {name: column for name, column in statement.excluded.items() if name not in _key(table)}
    return statement.on_conflict_do_update(index_elements=_key(table), set_=others, where=where)


def _insert(connection: Connection, table: Table) -> Any:
    return (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)


def _key(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _execute_each(connection: Connection, table: Table, statement: Any, rows: Iterable[Row]) -> None:
    ordered = sorted(rows, key=lambda row: [str(row[name]) for name in _key(table)])
    if ordered:
        connection.execute(statement, ordered)
