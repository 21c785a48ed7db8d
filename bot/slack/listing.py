"""The tasks of a batch, read page by page from the cloud into a CSV file: as much memory as one page takes.

States are listed in the order in which devices move, so a device that moves meanwhile may stand twice, each time with
the time at which it was seen there, but is not lost between two states. A page that cannot be read after a few attempts
ends the list: there is no half one.

The cloud lists the first 100,000 tasks of one question only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from bot.errors import CloudError, CloudRefused, CloudThrottled
from bot.model import Target, TaskPage, TaskState
from bot.ports import MOST_LISTED, TASKS_A_PAGE, CloudReads, Purpose
from bot.workflow.rows import BEGINNING, HEADER, csv_lines, task_row

PAGE_ATTEMPTS = 5
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list holds: so many rows of so many tasks (None: the cloud did not say), read in this time.

    `listable` are those of them that the cloud lists.
    """

    rows: int
    total: int | None
    listable: int | None
    began_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Lister:
    """Writes lists. `sleep` is what pauses between two attempts at a page."""

    reads: CloudReads
    clock: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]

    async def write(self, target: Target, states: Sequence[TaskState], into: BinaryIO) -> Listed:
        """Writes the tasks in `states` (none: all of them). Raises `CloudError`; `OSError` if there is no room."""
        began_at, rows = self.clock(), 0
        totals: list[int | None] = []
        await asyncio.to_thread(into.write, BEGINNING + csv_lines([HEADER]))
        asked: Sequence[TaskState | None] = [state for state in TaskState if state in states] or [None]
        for state in asked:
            written, total = await self._write_state(target, state, into)
            rows += written
            totals.append(total)
        known = [total for total in totals if total is not None]
        is_known = len(known) == len(totals)
        listable = sum(min(total, MOST_LISTED) for total in known)
        return Listed(rows, sum(known) if is_known else None, listable if is_known else None, began_at, self.clock())

    async def _write_state(self, target: Target, state: TaskState | None, into: BinaryIO) -> tuple[int, int | None]:
        """How many rows were written, and of how many tasks as the cloud last said."""
        rows, total = 0, None
        for number in range(1, MOST_LISTED // TASKS_A_PAGE + 1):
            page = await self._page(target, number, state)
            seen_at = self.clock()
            lines = csv_lines(task_row(task, seen_at) for task in page.tasks)
            await asyncio.to_thread(into.write, lines)
            rows += len(page.tasks)
            total = page.total if page.total is not None else total
            if (not page.tasks) if total is None else number * TASKS_A_PAGE >= total:
                break
        return rows, total

    async def _page(self, target: Target, number: int, state: TaskState | None) -> TaskPage:
        for attempt in range(1, PAGE_ATTEMPTS):
            try:
                return await self.reads.fetch_task_page(target, number, state=state, purpose=Purpose.EXPORT)
            except CloudThrottled as error:
                pause = error.retry_after_seconds or 2.0**attempt
            except CloudRefused:
                raise
            except CloudError:
                pause = 2.0**attempt
            await self.sleep(min(pause, LONGEST_PAUSE_SECONDS))
        return await self.reads.fetch_task_page(target, number, state=state, purpose=Purpose.EXPORT)
