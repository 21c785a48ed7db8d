"""The `Readings` port: the looks at batches that are followed, one poll for all who follow the same.

Whose turn it is to look is one compare-and-set on a row of `looks`. Times are the callers' own clocks: where those
differ, a turn comes early or late, and what was seen is shared all the same. What it does not do: look, or wait.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select

from bot.ports import LONGEST_HOLD_SECONDS, Reading, Watched
from bot.storage.codec import readable, to_json
from bot.storage.database import Database
from bot.storage.tables import looks, readings
from bot.storage.upserts import upsert, upsert_where

MOST_READINGS = 1_000
"""The most that are read at once, the newest ones: more than a follow of 15 minutes makes."""

KEPT = timedelta(days=7)
_PRUNED_AT_ONCE = 20


class SqlReadings:
    """`ports.Readings` on a `Database`; `clock` tells the time that turns are reckoned by."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def may_read(self, watched: Watched, *, hold_seconds: float) -> float:
        return await self._database.run(lambda connection: _take_turn(connection, watched, self._clock(), hold_seconds))

    async def save_reading(self, watched: Watched, reading: Reading, *, pause_seconds: float) -> None:
        def unit(connection: Connection) -> None:
            row = {**_key(watched), "began_at": reading.began_at, "body": to_json(reading)}
            connection.execute(insert(readings).values(row))
            _put_off(connection, watched, self._clock(), pause_seconds)
            _prune(connection, self._clock() - KEPT)

        await self._database.run(unit)

    async def put_off(self, watched: Watched, *, pause_seconds: float) -> None:
        await self._database.run(lambda connection: _put_off(connection, watched, self._clock(), pause_seconds))

    async def fetch_readings(
        self, watched: Watched, *, since: datetime, most: int | None = None
    ) -> tuple[Reading, ...]:
        def unit(connection: Connection) -> tuple[Reading, ...]:
            newest = (
                select(readings.c.reading_id, readings.c.body)
                .where(readings.c.instance == watched.target.instance, readings.c.target == watched.key)
                .where(readings.c.began_at >= since)
                .order_by(readings.c.began_at.desc(), readings.c.reading_id.desc())
                .limit(min(most if most is not None else MOST_READINGS, MOST_READINGS))
            )
            rows = connection.execute(newest).all()
            read = (readable(Reading, row.reading_id, row.body) for row in reversed(rows))
            return tuple(reading for reading in read if reading is not None)

        return await self._database.read(unit)


def _key(watched: Watched) -> dict[str, object]:
    return {"instance": watched.target.instance, "target": watched.key}


def _take_turn(connection: Connection, watched: Watched, now: datetime, hold_seconds: float) -> float:
    row = {**_key(watched), "due_at": _due(now, hold_seconds)}
    if upsert_where(connection, looks, row, where=_is_due(now)):
        return 0.0
    is_this = and_(looks.c.instance == watched.target.instance, looks.c.target == watched.key)
    due_at: datetime = connection.execute(select(looks.c.due_at).where(is_this)).scalar_one()
    return max(0.001, (due_at - now).total_seconds())


def _is_due(now: datetime) -> ColumnElement[bool]:
    """A turn further ahead than any may be was written by a clock that jumped: nobody waits for it."""
    return or_(looks.c.due_at <= now, looks.c.due_at > _due(now, LONGEST_HOLD_SECONDS))


def _put_off(connection: Connection, watched: Watched, now: datetime, pause_seconds: float) -> None:
    upsert(connection, looks, [{**_key(watched), "due_at": _due(now, pause_seconds)}])


def _due(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=min(seconds, LONGEST_HOLD_SECONDS))


def _prune(connection: Connection, before: datetime) -> None:
    """Looks only at the few oldest rows, so each new one costs the same however many there are."""
    oldest = select(readings.c.reading_id).order_by(readings.c.reading_id).limit(_PRUNED_AT_ONCE)
    free = oldest.with_for_update(skip_locked=True)  # two processes must not wait for each other here
    connection.execute(delete(readings).where(readings.c.began_at < before, readings.c.reading_id.in_(free)))
