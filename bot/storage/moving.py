"""Moving everything from one database to another, SQLite or PostgreSQL: `otabrake db move`.

Nobody may work on the source meanwhile: it is held so that nobody can. The rows are read in one snapshot, written in
one transaction of the target, read back there and compared; only then is it committed, so that a move that is killed
has moved nothing. Ids, times, bytes and booleans stay what they are. What it does not do: change the source, or move
what means nothing elsewhere:

- `slots`: calls under way and pauses, by the source's clock; nothing is under way, and a pause is a minute at most;
- `looks`: whose turn it is to look at a batch; the next to follow it takes the first turn;
- `leases`: who works on what; nobody does.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, insert, make_url, select, text
from sqlalchemy.exc import DataError, IntegrityError

from bot.storage.checking import file_of, looking
from bot.storage.database import open_database
from bot.storage.holding import MoveRefused, held, named
from bot.storage.migrations import is_known, lacking, revision, upgrade
from bot.storage.tables import leases, looks, metadata, slots
from bot.storage.units import first_line

MOVED = tuple(table for table in metadata.sorted_tables if table not in (slots, looks, leases))
"""What is moved, each table after those that it refers to."""

PAGE = 500
Told = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Moved:
    """How many rows each table had."""

    rows: Mapping[str, int]


@dataclass(slots=True)
class _Sum:
    """How many rows there are, and a digest of them that does not depend on their order: databases sort text in
    different ways."""

    rows: int = 0
    digest: int = field(default=0, repr=False)

    def add(self, rows: Sequence[Row[Any]]) -> None:
        self.rows += len(rows)
        for row in rows:
            canonical = json.dumps([_plain(cell) for cell in row], ensure_ascii=False).encode("utf-8", "surrogatepass")
            self.digest = (self.digest + int.from_bytes(sha256(canonical).digest())) % (1 << 256)


def _plain(cell: object) -> object:
    if isinstance(cell, datetime):
        return cell.isoformat()
    return cell.hex() if isinstance(cell, bytes) else cell


async def move(source_url: str, target_url: str, *, told: Told = lambda line: None) -> Moved:
    """Moves everything. `told` hears how far it is. Raises `MoveRefused` or `StoreUnavailable`: nothing was moved."""
    if _place(source_url) == _place(target_url):
        raise MoveRefused("both are the same database: name another one to move to.")
    await asyncio.to_thread(_check_target, target_url)
    is_given_up = threading.Event()
    with held(source_url) as source:
        target = open_database(target_url)
        try:
            with named("target"):
                await upgrade(target)
            return await target.run(partial(_move, source, told=told, is_given_up=is_given_up))
        finally:
            is_given_up.set()
            await target.close()


def _place(url: str) -> object:
    path = file_of(url)
    if path is not None:
        return path.resolve()
    named = make_url(url)
    return named.host, named.port or 5432, named.database, tuple(sorted(named.query.items()))


def _check_target(url: str) -> None:
    """Refuses a database with rows, and one that is not ours; what is not there yet will be made."""
    path = file_of(url)
    if path is not None and not path.exists():
        return
    with named("target"), looking(url) as connection:
        _refuse_rows(connection)


def _refuse_rows(connection: Connection) -> None:
    found = revision(connection)
    there = [table for table in metadata.sorted_tables if connection.dialect.has_table(connection, table.name)]
    if found is None and there:
        names = ", ".join(table.name for table in there)
        raise MoveRefused(f"the target has tables that otabrake did not make ({names}): name an empty database.")
    if found is not None and not is_known(found):
        raise MoveRefused(f"the target cannot be used: {lacking(found)}.")
    for table in there:
        if connection.execute(select(text("1")).select_from(table).limit(1)).first() is not None:
            raise MoveRefused(
                f"the target has rows already (in {table.name}): name an empty database. Rows are never mixed."
            )


def _move(source: Connection, target: Connection, *, told: Told, is_given_up: threading.Event) -> Moved:
    """The unit of work on the target; its commit is what moves."""
    if target.dialect.name == "postgresql":
        target.execute(text(f"LOCK TABLE {', '.join(metadata.tables)} IN ACCESS EXCLUSIVE MODE"))
        target.execute(text("SET LOCAL statement_timeout = 0"))
    _refuse_rows(target)
    read = {}
    for table in MOVED:
        read[table.name] = _copy(source, target, table, is_given_up)
        told(f"{table.name}: {read[table.name].rows:,} rows copied")
    for table in MOVED:
        _compare(target, table, read[table.name])
        _set_sequence(target, table)
    told("read back and compared: all rows are the same")
    return Moved({name: each.rows for name, each in read.items()})


def _copy(source: Connection, target: Connection, table: Table, is_given_up: threading.Event) -> _Sum:
    copied = _Sum()
    for rows in _pages(source, select(table).order_by(*table.primary_key)):
        if is_given_up.is_set():
            raise MoveRefused("it was given up: nothing was moved.")
        copied.add(rows)
        try:
            target.execute(insert(table), [dict(row._mapping) for row in rows])
        except (DataError, IntegrityError) as error:
            raise MoveRefused(
                f"the target does not take the rows of {table.name} ({first_line(error)}): nothing was moved."
            ) from error
    counted = source.scalar(select(func.count()).select_from(table))
    if counted != copied.rows:
        raise MoveRefused(f"{copied.rows} rows of {table.name} were read, but there are {counted}: nothing was moved.")
    return copied


def _compare(target: Connection, table: Table, read: _Sum) -> None:
    """What stands in the target is read back: it must be what was read at the source."""
    written = _Sum()
    for rows in _pages(target, select(table)):
        written.add(rows)
    if written != read:
        raise MoveRefused(
            f"{table.name} came out different ({read.rows} rows read, {written.rows} rows in the target): nothing was "
            "moved. Please report this."
        )


def _pages(connection: Connection, statement: Select[Any]) -> Iterator[Sequence[Row[Any]]]:
    """All rows, so many at a time in memory."""
    return connection.execute(statement, execution_options={"yield_per": PAGE}).partitions()


def _set_sequence(target: Connection, table: Table) -> None:
    """What the database numbers goes on after the highest number there is. (SQLite does so by itself.)"""
    column = table.autoincrement_column
    if column is None or target.dialect.name != "postgresql":
        return
    highest = target.scalar(select(func.max(column)))
    sequence = func.pg_get_serial_sequence(table.name, column.name)
    target.execute(select(func.setval(sequence, highest or 1, highest is not None)))
