"""The `Slots` port on the database: a row a slot, claimed and given back in short transactions.

All times in the rows are the database's, so processes on machines whose clocks differ agree. A clock that was set back
cannot lock a slot away: a row that was taken in the future, or reaches further ahead than anything may, starts its span
anew. What it does not do: wait, or know who goes first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult

from bot.ports import LONGEST_HOLD_SECONDS, Claim, Freed, Lane, Slot
from bot.storage.database import Database
from bot.storage.statements import spelt

AHEAD_SECONDS = 0.03
"""A slot may be claimed so long before it is free: what the claim takes is not added to every wait."""

_LOOK_AHEAD_SECONDS = 0.025
"""So long before a slot is free it is looked at; those which come free right after it are claimed with it."""

_SHORTEST_SECONDS = 1.0
"""A slot whose call is under way is not free sooner than this after it was taken."""

_UNDER_WAY_SECONDS = 0.05
"""How old a release may be when it is written: a call that seems under way may have completed so long ago."""

_CONTESTED_SECONDS = 0.1
"""A slot that looks free and could not be had is being claimed by somebody; if that fails, so soon is it looked at."""

_TAKE = """
WITH found AS (
  SELECT slots.number FROM slots
  WHERE slots.account = :account AND slots.action = :action AND slots.number < :below
    AND slots.free_at <= {now} + :ahead
    AND NOT EXISTS (
      SELECT 1 FROM slots AS first WHERE first.account = :account AND first.action = :action AND first.number = 0
        AND first.paused_until > {now} AND first.paused_until <= {now} + :longest
    )
  ORDER BY CASE WHEN slots.free_at <= {now} THEN 0 ELSE slots.free_at END, slots.number DESC LIMIT :wanted {skip_locked}
)
UPDATE slots SET token = token + 1, is_held = true,
  taken_at = CASE WHEN free_at > {now} THEN free_at ELSE {now} END,
  free_at = CASE WHEN free_at > {now} THEN free_at ELSE {now} END + :hold_seconds
WHERE account = :account AND action = :action AND number IN (SELECT number FROM found)
RETURNING number, token, taken_at - {now} AS opens_in
"""
_LOOK = """
SELECT number, is_held, taken_at, free_at, paused_until, {now} AS now FROM slots
WHERE account = :account AND action = :action AND number < :limit ORDER BY number
"""
_MAKE = """
INSERT INTO slots (account, action, number, token, is_held, taken_at, free_at, paused_until)
VALUES (:account, :action, :number, 0, false, 0, 0, 0) ON CONFLICT DO NOTHING
"""
_MEND = """
UPDATE slots SET taken_at = :now, free_at = :now + :span
WHERE account = :account AND action = :action AND number = :number AND taken_at = :taken_at AND free_at = :free_at
"""
_FREE = """
UPDATE slots SET is_held = false, free_at = {now} + :seconds
WHERE account = :account AND action = :action AND number = :number AND token = :token AND is_held
"""
_PAUSE = """
UPDATE slots SET paused_until = {now} + :seconds
WHERE account = :account AND action = :action AND number = 0
  AND (paused_until < {now} + :seconds OR paused_until > {now} + :longest)
"""


class SqlSlots:
    """`Slots` for all processes on `database`. `seconds` is this process's monotonic clock."""

    def __init__(self, database: Database, *, seconds: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._seconds = seconds

    async def claim(self, lane: Lane, *, foreground: int, background: int, hold_seconds: float) -> Claim:
        def unit(connection: Connection) -> Claim:
            return _Claiming(connection, lane, hold_seconds, self._seconds).claim(foreground, background)

        return await self._database.run(unit)

    async def release(self, freed: Sequence[Freed]) -> None:
        def unit(connection: Connection) -> None:
            now = self._seconds()  # asked as late as can be: what the way here took is not waited for again
            rows = [
                {
                    **_key(each.slot.lane),
                    "number": each.slot.number,
                    "token": each.slot.token,
                    "seconds": max(0.0, each.at - now),
                }
                for each in sorted(freed, key=_place)
            ]
            if rows:
                connection.exec_driver_sql(spelt(_FREE, connection.dialect.name), rows)

        await self._database.run(unit)

    async def pause(self, lane: Lane, *, until: float) -> None:
        def unit(connection: Connection) -> None:
            seconds = min(max(0.0, until - self._seconds()), LONGEST_HOLD_SECONDS)
            row = {**_key(lane), "seconds": seconds, "longest": LONGEST_HOLD_SECONDS}
            connection.exec_driver_sql(spelt(_PAUSE, connection.dialect.name), row)

        await self._database.run(unit)


def _place(freed: Freed) -> tuple[str, str, int]:
    """One order for everybody who changes several rows, so that no two of them wait for each other."""
    return freed.slot.lane.account, freed.slot.lane.action, freed.slot.number


def _key(lane: Lane) -> dict[str, object]:
    return {"account": lane.account, "action": lane.action}


@dataclass(frozen=True, slots=True)
class _Seen:
    """A row as a look found it, and the database's clock at that moment."""

    number: int
    is_held: bool
    taken_at: float
    free_at: float
    paused_until: float
    now: float

    @property
    def is_left_behind(self) -> bool:
        """Whether the clock was set back since this row was written."""
        return self.taken_at > self.now + _SHORTEST_SECONDS or self.free_at > self.now + LONGEST_HOLD_SECONDS

    @property
    def look_at(self) -> float:
        """The earliest moment at which a look at this row is worth it, as far as can be told now.

        Nobody knows yet when a call that is under way completes, so a look because of it comes later than that of a
        process which knows when its slot is free: who has just been served must not look first.
        """
        soon = self.free_at - _LOOK_AHEAD_SECONDS
        if self.is_held:
            return min(soon, max(self.taken_at, self.now - _UNDER_WAY_SECONDS) + _SHORTEST_SECONDS)
        return soon


class _Claiming:
    """One claim, inside its transaction."""

    def __init__(self, connection: Connection, lane: Lane, hold_seconds: float, seconds: Callable[[], float]) -> None:
        self._connection = connection
        self._lane = lane
        self._hold_seconds = hold_seconds
        self._seconds = seconds

    def claim(self, foreground: int, background: int) -> Claim:
        """At most two tries: what was missing, left behind or came free before the look is worth a second one."""
        taken: list[Slot] = []
        for _ in range(2):
            for_foreground = self._take(foreground, below=self._lane.limit)
            for_background = self._take(background, below=self._lane.background_limit)
            foreground -= len(for_foreground)
            background -= len(for_background)
            taken += for_foreground + for_background
            if foreground <= 0 and background <= 0:
                return Claim(tuple(taken))
            looked_at, rows = self._seconds(), self._look()
            if not self._mend(rows) and all(row.free_at > row.now + AHEAD_SECONDS for row in rows):
                break
        below = self._lane.limit if foreground > 0 else self._lane.background_limit
        return Claim(tuple(taken), looked_at + _wait(rows, below))

    def _take(self, wanted: int, *, below: int) -> list[Slot]:
        if wanted <= 0:
            return []
        spans = {"longest": LONGEST_HOLD_SECONDS, "ahead": AHEAD_SECONDS, "hold_seconds": self._hold_seconds}
        rows = self._run(_TAKE, below=below, wanted=wanted, **spans).all()
        taken_at = self._seconds()
        taken = (
            Slot(self._lane, number, token, opens_at=taken_at + opens_in if opens_in > 0 else 0.0)
            for number, token, opens_in in rows
        )
        return sorted(taken, key=lambda slot: (slot.opens_at, -slot.number))

    def _look(self) -> list[_Seen]:
        return [_Seen(*row) for row in self._run(_LOOK, limit=self._lane.limit)]

    def _mend(self, rows: Sequence[_Seen]) -> bool:
        """Makes the rows that are missing, and lets those that the clock has left behind begin their span anew."""
        missing = sorted(set(range(self._lane.limit)) - {row.number for row in rows})
        for number in missing:
            self._run(_MAKE, number=number)
        left_behind = [row for row in rows if row.is_left_behind]
        for row in left_behind:
            span = min(max(0.0, row.free_at - row.taken_at), LONGEST_HOLD_SECONDS)
            old = {"number": row.number, "taken_at": row.taken_at, "free_at": row.free_at}
            self._run(_MEND, now=row.now, span=span, **old)
        return bool(missing or left_behind)

    def _run(self, template: str, **values: object) -> CursorResult[*tuple[Any, ...]]:
        statement = spelt(template, self._connection.dialect.name)
        return self._connection.exec_driver_sql(statement, {**_key(self._lane), **values})


def _wait(rows: Sequence[_Seen], below: int) -> float:
    """How long none of the rows can come free for somebody who may take those below a number."""
    now = rows[0].now
    wait = min(row.look_at for row in rows if row.number < below) - now
    paused_seconds = rows[0].paused_until - now
    if 0 < paused_seconds <= LONGEST_HOLD_SECONDS:
        return max(paused_seconds, wait)
    return wait if wait > 0 else _CONTESTED_SECONDS
