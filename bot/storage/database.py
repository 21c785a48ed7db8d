"""Units of work on SQLite or PostgreSQL.

A unit is a plain function of a SQLAlchemy connection; `await database.run(unit)` carries it out in one transaction, and
`await database.read(unit)` on a connection of its own. On SQLite one writer thread commits the units that wait together
in one transaction, a SAVEPOINT each (one fsync for all of them); on PostgreSQL a small pool of threads and connections
carries them out side by side. What it does not do: know any table, or retry a unit.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from bot.errors import ConfigurationError, StoreUnavailable

T = TypeVar("T")
Unit = Callable[[Connection], T]

BUSY_TIMEOUT_SECONDS = 5
POOL_SIZE = 8
_LIVELY = {
    "connect_timeout": BUSY_TIMEOUT_SECONDS,
    "options": "-c statement_timeout=5000",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
}
"""A server that has gone silent is noticed within seconds, not when the kernel gives up."""

OLDEST_SQLITE = (3, 35)
"""The first one with RETURNING."""

READERS = 2
_WRITING = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
GATHERING_SECONDS = 0.001
MANY = 4
"""After a commit of so many units more are on their way: those that come within a millisecond share the next one."""

BATCH = 100
"""At most so many units share one commit."""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Whatever a driver says of an unusable database becomes `StoreUnavailable`; a broken constraint stays one."""
    try:
        yield
    except (IntegrityError, StoreUnavailable):
        raise
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        raise StoreUnavailable(f"the database cannot be used now ({_first_line(cause)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def open_database(url: str) -> Database:
    """A database by URL. Nothing is opened before the first unit."""
    if not url.startswith("sqlite"):
        return PostgresDatabase(url)
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise ConfigurationError([f"Python has SQLite {sqlite3.sqlite_version}: take one with {oldest} or newer"])
    return SqliteDatabase(url)


class Database:
    """What both databases share: an engine and a pool of threads."""

    def __init__(self, engine: Engine, *, threads: int, reader: Engine | None = None) -> None:
        self.engine = engine
        self._reader = reader or engine
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="database")

    async def run(self, unit: Unit[T]) -> T:
        """Carries out `unit` in one transaction and returns what it returned; an exception in it undoes it alone."""
        raise NotImplementedError

    async def read(self, unit: Unit[T]) -> T:
        """Carries out `unit` on a connection of its own; whatever it writes is undone."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, unit)

    def _read(self, unit: Unit[T]) -> T:
        with _translated(), self._reader.connect() as connection:
            return unit(connection)

    async def close(self) -> None:
        self._threads.shutdown(wait=True)
        self.engine.dispose()
        self._reader.dispose()


class PostgresDatabase(Database):
    """PostgreSQL through a pool; a connection that has died meanwhile is noticed before it is used."""

    def __init__(self, url: str) -> None:
        engine = create_engine(
            url,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_SECONDS,
            pool_pre_ping=True,
            connect_args=_LIVELY,
        )
        super().__init__(engine, threads=POOL_SIZE)

    async def run(self, unit: Unit[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._write, unit)

    def _write(self, unit: Unit[T]) -> T:
        with _translated(), self.engine.connect() as connection:
            result = unit(connection)
            try:
                connection.commit()
            except (SQLAlchemyError, OSError) as error:
                raise StoreUnavailable(
                    f"the database did not confirm a commit ({_first_line(error)})", may_have_written=True
                ) from error
            return result


@dataclass(slots=True)
class _Waiting:
    unit: Unit[Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class SqliteDatabase(Database):
    """SQLite in WAL mode with `synchronous=FULL`: what was acknowledged survives a power cut."""

    def __init__(self, url: str) -> None:
        engine, reader = (
            create_engine(
                url,
                poolclass=QueuePool,
                pool_size=READERS,
                max_overflow=0,
                isolation_level="AUTOCOMMIT",
                connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            for _ in range(2)
        )
        event.listen(engine, "connect", partial(_prepare_sqlite, pragmas=_WRITING))
        event.listen(reader, "connect", partial(_prepare_sqlite, pragmas=(*_WRITING, "query_only=ON")))
        super().__init__(engine, threads=READERS, reader=reader)
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._connection: Connection | None = None

    async def run(self, unit: Unit[T]) -> T:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="database-writer", daemon=True)
            self._writer.start()
        loop = asyncio.get_running_loop()
        waiting = _Waiting(unit, loop.create_future(), loop)
        self._waiting.put(waiting)
        result: T = await waiting.future
        return result

    async def close(self) -> None:
        if self._writer is not None:
            self._waiting.put(None)
            await asyncio.get_running_loop().run_in_executor(self._threads, self._writer.join)
        if self._connection is not None:
            self._connection.close()
        await super().close()

    def _write_all(self) -> None:
        batch: list[_Waiting] = []
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
            connection.close()
            raise

    def _commit(self, batch: list[_Waiting]) -> None:
        """One transaction for all of `batch`; what fails alone is undone alone, what fails at the end fails for all."""
        try:
            with _translated(), self._writing() as connection:
                driver = _driver(connection)
                driver.execute("BEGIN IMMEDIATE")
                try:
                    for waiting in batch:
                        _carry_out(connection, driver, waiting)
                    driver.execute("COMMIT")
                except BaseException:
                    driver.execute("ROLLBACK")
                    raise
        except Exception as error:  # every waiting unit must hear of it, whatever it was
            for waiting in batch:
                waiting.error = waiting.error or error


def _driver(connection: Connection) -> sqlite3.Connection:
    """The driver's own connection: what frames a unit needs no statement building, which costs more."""
    driver: sqlite3.Connection | None = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 (a connection that was checked out has one)
    return driver


def _carry_out(connection: Connection, driver: sqlite3.Connection, waiting: _Waiting) -> None:
    driver.execute("SAVEPOINT unit")
    try:
        with _translated():
            waiting.result = waiting.unit(connection)
    except Exception as error:  # a unit's own failure is its caller's, not its neighbours'
        waiting.error = error
        driver.execute("ROLLBACK TO unit")
    driver.execute("RELEASE unit")


def _tell(batch: list[_Waiting]) -> None:
    """Hands results over, one wake-up per loop; a loop that is gone has nobody waiting."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Waiting]] = {}
    for waiting in batch:
        by_loop.setdefault(waiting.loop, []).append(waiting)
    for loop, those in by_loop.items():
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_tell_all, those)


def _tell_all(batch: list[_Waiting]) -> None:
    for waiting in batch:
        waiting.tell()


def _prepare_sqlite(connection: sqlite3.Connection, record: object, *, pragmas: Iterable[str]) -> None:
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
