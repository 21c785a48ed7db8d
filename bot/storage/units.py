"""Units of work: plain functions of a SQLAlchemy connection, carried out in threads while their callers wait on a loop.

What both databases share: who waits for what and for how long, and what a driver's errors mean. A unit whose caller
has stopped waiting is not written any more, unless its commit had begun. What it does not do: know either database.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from bot.errors import StoreUnavailable

T = TypeVar("T")
Unit = Callable[[Connection], T]


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Whatever a driver says of an unusable database becomes `StoreUnavailable`; a broken constraint stays one."""
    try:
        yield
    except (IntegrityError, DataError, StoreUnavailable):
        raise  # what does not fit fails again each time: that is no trouble of the database
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"the database cannot be used now ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """What the driver said, without the statement and its values."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]


class Waiting:
    """A unit, and its caller who waits for it."""

    __slots__ = ("_decided", "error", "future", "loop", "result", "unit")

    def __init__(self, unit: Unit[Any]) -> None:
        self.unit = unit
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self._decided = threading.Lock()

    @property
    def is_dropped(self) -> bool:
        """Nobody waits for it any more, and it was not begun."""
        return self._decided.locked()

    def begin_commit(self) -> None:
        """To be called before this unit is committed. Raises `StoreUnavailable` if nobody waits for it any more."""
        if not self._is_first():
            raise StoreUnavailable("nobody waits for it any more: nothing was written")

    def _is_first(self) -> bool:
        """Whether a commit begins or the caller goes is decided once: by whoever comes first."""
        return self._decided.acquire(blocking=False)

    async def outcome(self, within_seconds: float | None) -> Any:
        """What the unit returned. Raises what it raised, and `StoreUnavailable` when the time is over."""
        timer = None if within_seconds is None else self.loop.call_later(within_seconds, self._give_up)
        try:
            return await self.future
        except asyncio.CancelledError:
            self._is_first()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _give_up(self) -> None:
        if self.future.done():
            return
        if self._is_first():
            self.future.set_exception(StoreUnavailable("the database did not answer in time: nothing was written"))
        else:
            late = StoreUnavailable("the database did not confirm a commit in time", may_have_written=True)
            self.future.set_exception(late)

    def tell(self) -> None:
        """Hands the outcome over, on the caller's loop."""
        if self.future.done():  # the caller has gone
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """What both databases share: an engine and a pool of threads."""

    def __init__(self, engine: Engine, *, threads: int, reader: Engine | None = None) -> None:
        self.engine = engine
        self._reader = reader or engine
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="database")

    async def run(self, unit: Unit[T], *, within_seconds: float | None = None) -> T:
        """Carries out `unit` in one transaction and returns what it returned; an exception in it undoes it alone.

        Raises `StoreUnavailable` if that could not be done, or not `within_seconds`: then nothing was written, and
        nothing will be, unless it says `may_have_written`.
        """
        raise NotImplementedError

    async def read(self, unit: Unit[T]) -> T:
        """Carries out `unit` on a connection of its own; whatever it writes is undone."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, unit)

    def _read(self, unit: Unit[T]) -> T:
        with translated(), self._reader.connect() as connection:
            return unit(connection)

    def expect_short_units(self) -> None:
        """From now on a unit that takes seconds waits for a server that is silent. (Migrations may take longer.)"""

    async def close(self) -> None:
        """Ends when the units under way have ended."""
        await asyncio.to_thread(self._threads.shutdown)
        self.engine.dispose()
        self._reader.dispose()
