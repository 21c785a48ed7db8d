"""Time that stands until it is moved, for the budget of calls: a timer, and a database whose clock shows the same."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from bot.errors import StoreUnavailable
from bot.storage.tables import metadata, slots

T = TypeVar("T")


@dataclass(order=True)
class Alarm:
    when: float
    order: int
    callback: Callable[[], object] = field(compare=False)
    is_cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.is_cancelled = True


class Hours:
    """A timer that fires only when its time is moved."""

    def __init__(self) -> None:
        self.now = 100.0
        self._due: list[Alarm] = []
        self._order = count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> Alarm:
        alarm = Alarm(self.now + delay, next(self._order), callback)
        heapq.heappush(self._due, alarm)
        return alarm

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self.call_later(seconds, over.set)
        await over.wait()

    async def pass_by(self, seconds: float) -> None:
        until = self.now + seconds
        await settle()
        while self._due and self._due[0].when <= until:
            alarm = heapq.heappop(self._due)
            if not alarm.is_cancelled:
                self.now = max(self.now, alarm.when)
                alarm.callback()
                await settle()
        self.now = until
        await settle()


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


class StandingDatabase:
    """SQLite in memory with the table of slots; its clock is `hours`, set on by `ahead_seconds`."""

    def __init__(self, hours: Hours) -> None:
        self.ahead_seconds = 0.0
        self.is_away = False
        self.units = 0
        self._engine = create_engine("sqlite://", poolclass=StaticPool)

        def julianday(_: str) -> float:
            return 2440587.5 + (1_772_000_000 + self.ahead_seconds + hours.now) / 86400

        event.listen(self._engine, "connect", lambda driver, _: driver.create_function("julianday", 1, julianday))
        metadata.create_all(self._engine, tables=[slots])

    async def run(self, unit: Callable[[Connection], T]) -> T:
        if self.is_away:
            raise StoreUnavailable("the database cannot be used now")
        self.units += 1
        with self._engine.begin() as connection:
            return unit(connection)

    def close(self) -> None:
        self._engine.dispose()
