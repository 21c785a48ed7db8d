"""Units of work on PostgreSQL: a small pool of threads and connections carries them out side by side.

A connection that died meanwhile is noticed before it is used, and one whose server has gone silent is cut: a thread
that waits for it would wait for ever, and there are few. What it does not do: retry a unit.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Any, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, SQLAlchemyError

from bot.errors import StoreUnavailable
from bot.storage.units import Database, Unit, Waiting, first_line, translated

T = TypeVar("T")

POOL_SIZE = 8
CONNECT_SECONDS = 2
"""For each address of the server; the driver takes no less."""

SILENT_SECONDS = 3.0
"""A unit takes a tenth of a second. One that takes so long, in a serving process, waits for a server that is silent."""

CLOSING_SECONDS = 1.0
LOOK_SECONDS = 0.25
IDLE_SECONDS = 0.1
"""A connection that was used within this time is not asked whether it is still there: a round trip less a unit."""

_LIVELY = {
    "application_name": "otabrake",
    "connect_timeout": CONNECT_SECONDS,
    "options": "-c statement_timeout=5000",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,
}
"""A server that is gone is noticed within seconds, not when the kernel gives up."""


class PostgresDatabase(Database):
    """PostgreSQL, by the URL of SQLAlchemy and psycopg."""

    def __init__(self, url: str) -> None:
        engine = create_engine(url, pool_size=POOL_SIZE, max_overflow=0, pool_use_lifo=True, connect_args=_LIVELY)
        super().__init__(engine, threads=POOL_SIZE)
        self._watch = _Watch()
        self._closes_at = float("inf")
        event.listen(engine, "checkout", self._check_out)
        event.listen(engine, "checkin", self._check_in)

    async def run(self, unit: Unit[T], *, within_seconds: float | None = None) -> T:
        waiting = Waiting(unit)
        self._threads.submit(self._carry_out, waiting)
        result: T = await waiting.outcome(within_seconds)
        return result

    def expect_short_units(self) -> None:
        self._watch.begin(SILENT_SECONDS)

    async def close(self) -> None:
        """Ends within seconds, also where the server is silent."""
        self._closes_at = time.monotonic() + CLOSING_SECONDS
        self._watch.begin(CLOSING_SECONDS)
        await super().close()
        self._watch.end()

    def _carry_out(self, waiting: Waiting) -> None:
        if waiting.is_dropped:
            return
        try:
            waiting.result = self._write(waiting.unit, waiting)
        except BaseException as error:  # its caller must hear of it, whatever it was
            waiting.error = error
        with contextlib.suppress(RuntimeError):  # a loop that is gone has nobody waiting
            waiting.loop.call_soon_threadsafe(waiting.tell)

    def _read(self, unit: Unit[T]) -> T:
        self._refuse_if_closed()
        return super()._read(unit)

    def _refuse_if_closed(self) -> None:
        if time.monotonic() > self._closes_at:
            raise StoreUnavailable("the database is being closed: nothing was written")

    def _write(self, unit: Unit[T], waiting: Waiting) -> T:
        self._refuse_if_closed()
        with translated(), self.engine.connect() as connection:
            result = unit(connection)
            waiting.begin_commit()
            try:
                connection.commit()
            except (SQLAlchemyError, OSError) as error:
                raise _unconfirmed(error) from error
            return result

    def _check_out(self, connection: Any, record: Any, proxy: object) -> None:
        """Before each use. SQLAlchemy takes another connection if this one is said to be invalid, and tries it too."""
        self._watch.watch(connection)
        if time.monotonic() - record.info.get("used_at", time.monotonic()) < IDLE_SECONDS:
            return
        try:
            self.engine.dialect.do_ping(connection)
        except (self.engine.dialect.loaded_dbapi.Error, OSError) as error:
            raise InvalidatePoolError("it has died") from error

    def _check_in(self, connection: Any, record: Any) -> None:
        self._watch.leave()
        record.info["used_at"] = time.monotonic()


def _unconfirmed(error: SQLAlchemyError | OSError) -> StoreUnavailable:
    """A server that answers a commit with an error has undone it; one that goes without an answer may have done it."""
    is_answered = isinstance(error, DBAPIError) and not error.connection_invalidated
    return StoreUnavailable(
        f"the database did not confirm a commit ({first_line(error)})", may_have_written=not is_answered
    )


class _Watch:
    """Cuts the connections of units that take too long, so that their threads are free again."""

    def __init__(self) -> None:
        self._busy: dict[int, tuple[float, Any]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._seconds = SILENT_SECONDS
        self._thread: threading.Thread | None = None

    def begin(self, seconds: float) -> None:
        self._seconds = seconds
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="database-watch", daemon=True)
            self._thread.start()

    def end(self) -> None:
        self._ended.set()

    def watch(self, connection: Any) -> None:
        with self._lock:
            self._busy[threading.get_ident()] = time.monotonic(), connection

    def leave(self) -> None:
        with self._lock:
            self._busy.pop(threading.get_ident(), None)

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            with self._lock:
                for since, connection in self._busy.values():
                    if time.monotonic() - since > self._seconds:
                        _cut(connection)


def _cut(connection: Any) -> None:
    """Ends a connection under whoever waits for it: to them, the server has closed it."""
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)
