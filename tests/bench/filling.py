"""Fills a database with a million finished flows, as fast as it takes them: rows like those of one that really ran.

The rows of one flow are multiplied: everywhere the flow's own ids stand, in columns or in bodies, each copy has ids of
its own, random as they really are. Of tables that hold many rows a flow (entries, posts, deliveries) each copy has one,
of another kind each time. PostgreSQL is filled by COPY, SQLite by batches without a journal.
"""

from __future__ import annotations

import itertools
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, select

from bot.storage.tables import calls, entries, inbox, offers, outbox, proposals, surfaces, touched_jobs

BATCH = 20_000
_NUMBERED = ("entry_id", "post_id")
_FILLED = (proposals, offers, calls, touched_jobs, surfaces, entries, inbox, outbox)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """The rows of a table that one flow left, in the columns that are filled."""

    table: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def copies(self, count: int, ids: Sequence[str]) -> Iterator[Row]:
        """`count` rows with fresh ids in the place of `ids`. Ids that stand in several tables are the same there."""
        moulds = [_mould(row, ids) for row in self.rows]
        for number in range(count):
            yield moulds[number % len(moulds)](number)


def _mould(row: Row, ids: Sequence[str]) -> Callable[[int], Row]:
    """A row as a function of its number."""
    text: dict[str, str] = {}
    cast = [_template(value, ids) for value in row]
    names = [(str(place), place, len(old)) for place, old in enumerate(ids)]
    used = [each for each in names if any(f"%({each[0]})s" in str(template) for template, _ in cast)]

    def made(number: int) -> Row:
        for name, place, length in used:
            text[name] = _id(number, place, length)
        raw = {name.encode(): new.encode() for name, new in text.items()} if has_bytes else {}
        return tuple(
            (value % (raw if isinstance(value, bytes) else text)) if has_ids else value for value, has_ids in cast
        )

    has_bytes = any(isinstance(value, bytes) for value, _ in cast)
    return made


def _template(value: Any, ids: Sequence[str]) -> tuple[Any, bool]:
    """The value with a place for each id, and whether there is one."""
    if isinstance(value, bytes):
        text, has_ids = _template(value.decode(), ids)
        return text.encode(), has_ids
    if not isinstance(value, str) or not any(old in value for old in ids):
        return value, False
    value = value.replace("%", "%%")
    for place, old in enumerate(ids):
        value = value.replace(old, f"%({place})s")
    return value, True


_SALT = secrets.randbits(64) | 1


def _id(number: int, place: int, length: int) -> str:
    """As good as random, and the same each time for the same number and place."""
    mixed = ((number + 1) * 0x9E3779B97F4A7C15 * _SALT + place * 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF
    return f"{mixed:016x}{number:08x}{place:08x}"[:length].ljust(length, "0")


def ids_of(file: Path) -> list[str]:
    """What names the one flow in this database, and must be another text in each copy."""
    found: set[str] = set()
    with sqlite3.connect(file) as connection:
        for column, table in (
            ("proposal_id", "proposals"),
            ("offer_id", "offers"),
            ("nonce", "calls"),
            ("delivery_id", "inbox"),
            ("substr(key, instr(key, ':') + 1)", "inbox"),
            ("job", "touched_jobs"),
        ):
            found.update(row[0] for row in connection.execute(f"SELECT {column} FROM {table}"))
    return sorted(found)


def raw_patterns(file: Path) -> list[Pattern]:
    """The rows as SQLite keeps them."""
    patterns = []
    with sqlite3.connect(file) as connection:
        for table in _FILLED:
            columns = tuple(column.name for column in table.columns if column.name not in _NUMBERED)
            rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table.name}").fetchall()
            patterns.append(Pattern(table.name, columns, tuple(rows)))
    return patterns


def typed_patterns(file: Path) -> list[Pattern]:
    """The rows as Python's values."""
    engine, patterns = create_engine(f"sqlite:///{file}"), []
    with engine.connect() as connection:
        for table in _FILLED:
            columns = [column for column in table.columns if column.name not in _NUMBERED]
            rows = connection.execute(select(*columns)).all()
            names = tuple(column.name for column in columns)
            patterns.append(Pattern(table.name, names, tuple(tuple(row) for row in rows)))
    engine.dispose()
    return patterns


def fill_sqlite(file: Path, pattern: Path, *, count: int) -> None:
    """Fills a migrated, unused SQLite file with `count` rows a table."""
    ids = ids_of(pattern)
    connection = sqlite3.connect(file, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-2000000", "foreign_keys=OFF"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    for each in raw_patterns(pattern):
        marks = ", ".join("?" * len(each.columns))
        statement = f"INSERT INTO {each.table} ({', '.join(each.columns)}) VALUES ({marks})"
        rows = each.copies(count, ids)
        connection.execute("BEGIN")
        while batch := list(itertools.islice(rows, BATCH)):
            connection.executemany(statement, batch)
        connection.execute("COMMIT")
    connection.execute("ANALYZE")
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.close()


def fill_postgres(url: str, pattern: Path, *, count: int) -> None:
    """Fills a migrated, unused PostgreSQL database with `count` rows a table."""
    import psycopg

    ids = ids_of(pattern)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # no look-up of foreign keys, row by row
        for each in typed_patterns(pattern):
            statement = f"COPY {each.table} ({', '.join(each.columns)}) FROM STDIN"
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                for row in each.copies(count, ids):
                    copy.write_row(row)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
