"""Units of work on SQLite: one writer thread commits the units that wait together, a SAVEPOINT each.

WAL mode with `synchronous=FULL`: what was acknowledged survives a power cut, and all that wait share one fsync. What it
does not do: retry a unit.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from bot.errors import StoreUnavailable
from bot.storage.units import Database, Unit, Waiting, first_line, translated

T = TypeVar("T")

BUSY_SECONDS = 5
"""How long another process may keep the file locked."""

READERS = 2
GATHERING_SECONDS = 0.001
MANY = 4
"""After a commit of so many units more are on their way: those that come within a millisecond share the next one."""

BATCH = 100
"""At most so many units share one commit."""

_WRITING = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")


class SqliteDatabase(Database):
    """A file of SQLite, by SQLAlchemy's URL."""

    def __init__(self, url: str) -> None:
        engine, reader = (
            create_engine(
                url,
                poolclass=QueuePool,
                pool_size=READERS,
                max_overflow=0,
                isolation_level="AUTOCOMMIT",
                connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
            )
            for _ in range(2)
        )
        event.listen(engine, "connect", partial(_prepare, pragmas=_WRITING))
        event.listen(reader, "connect", partial(_prepare, pragmas=(*_WRITING, "query_only=ON")))
        super().__init__(engine, threads=READERS, reader=reader)
        self._waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._connection: Connection | None = None

    async def run(self, unit: Unit[T], *, within_seconds: float | None = None) -> T:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="database-writer", daemon=True)
            self._writer.start()
        waiting = Waiting(unit)
        self._waiting.put(waiting)
        result: T = await waiting.outcome(within_seconds)
        return result

    async def close(self) -> None:
        if self._writer is not None:
            self._waiting.put(None)
            await asyncio.to_thread(self._writer.join)
        if self._connection is not None:
            self._connection.close()
        await super().close()

    def _read(self, unit: Unit[T]) -> T:
        with translated(), _fresh_after_trouble(self._reader.connect()) as connection:
            return unit(connection)

    def _write_all(self) -> None:
        batch: list[Waiting] = []
        while (first := self._waiting.get()) is not None:
            if len(batch) >= MANY:
                time.sleep(GATHERING_SECONDS)
            batch = [first]
            is_last = False
            while len(batch) < BATCH and not self._waiting.empty():
                if (waiting := self._waiting.get()) is None:
                    is_last = True
                    break
                batch.append(waiting)
            self._commit(batch)
            _tell(batch)
            time.sleep(0)  # who waited goes on first: this thread would keep the interpreter to itself
            if is_last:
                return

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        """The writer's own connection, opened once; after trouble with it, a new one."""
        if self._connection is None:
            self._connection = self.engine.connect()
        try:
            yield self._connection
        except BaseException:
            connection, self._connection = self._connection, None
            _throw_away(connection)
            raise

    def _commit(self, batch: list[Waiting]) -> None:
        """One transaction for all of `batch`; what fails alone is undone alone, what fails at the end fails for all."""
        try:
            with translated(), self._writing() as connection:
                driver = _driver(connection)
                driver.execute("BEGIN IMMEDIATE")
                for waiting in batch:
                    _carry_out(connection, driver, waiting)
                _end(driver)
        except Exception as error:  # every waiting unit must hear of it, whatever it was
            for waiting in batch:
                waiting.error = waiting.error or error


def _driver(connection: Connection) -> sqlite3.Connection:
    """The driver's own connection: what frames a unit needs no statement building, which costs more."""
    driver: sqlite3.Connection | None = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 (a connection that was checked out has one)
    return driver


def _carry_out(connection: Connection, driver: sqlite3.Connection, waiting: Waiting) -> None:
    driver.execute("SAVEPOINT unit")
    try:
        with translated():
            waiting.begin_commit()
            waiting.result = waiting.unit(connection)
    except Exception as error:  # a unit's own failure is its caller's, not its neighbours'
        waiting.error = error
        if not driver.in_transaction:  # a full disk undoes the whole transaction by itself
            raise
        driver.execute("ROLLBACK TO unit")
    driver.execute("RELEASE unit")


def _end(driver: sqlite3.Connection) -> None:
    try:
        driver.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreUnavailable(
            f"the database did not confirm a commit ({first_line(error)})", may_have_written=_may_be_on_disk(error)
        ) from error


def _may_be_on_disk(error: sqlite3.Error) -> bool:
    """Whether a commit that failed may yet be found in the log: written out, but not known to have reached the disk."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_IOERR and code != sqlite3.SQLITE_IOERR_WRITE


@contextlib.contextmanager
def _fresh_after_trouble(connection: Connection) -> Iterator[Connection]:
    """A connection that met trouble is not used again: it may hold on to a file or a log that is not there any more."""
    try:
        yield connection
    except (DBAPIError, sqlite3.Error):
        _throw_away(connection)
        raise
    finally:
        connection.close()


def _throw_away(connection: Connection) -> None:
    """Closes the file too, which undoes what was not committed."""
    with contextlib.suppress(Exception):
        connection.invalidate()
    connection.close()


def _tell(batch: list[Waiting]) -> None:
    """Hands results over, one wake-up per loop; a loop that is gone has nobody waiting."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
    for waiting in batch:
        by_loop.setdefault(waiting.loop, []).append(waiting)
    for loop, those in by_loop.items():
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_tell_all, those)


def _tell_all(batch: list[Waiting]) -> None:
    for waiting in batch:
        waiting.tell()


def _prepare(connection: sqlite3.Connection, record: object, *, pragmas: Iterable[str]) -> None:
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
