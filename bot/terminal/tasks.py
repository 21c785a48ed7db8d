"""The tasks of a batch on a terminal, a line a device, as the cloud lists them page by page.

States are listed in the order in which devices move, as in the file that Slack gets. The cloud lists the first 100,000
tasks of one question only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from bot.errors import CloudError, CloudRefused, CloudThrottled
from bot.exchange import File
from bot.model import Target, Task, TaskPage, TaskState
from bot.ports import MOST_LISTED, TASKS_A_PAGE, CloudReads, Purpose
from bot.terminal.pages import task_facts
from bot.terminal.screen import Screen
from bot.workflow.figures import task_line

PAGE_ATTEMPTS = 5
LONGEST_PAUSE_SECONDS = 30.0

Sleep = Callable[[float], Awaitable[None]]


async def show_tasks(screen: Screen, file: File, reads: CloudReads, *, sleep: Sleep) -> int:
    """Shows what the file would hold; how many tasks that were. Raises `CloudError`."""
    shown = 0
    async for task in _listed(reads, file.target, file.states, sleep):
        screen.row("task", task_line(task), **task_facts(task))
        shown += 1
    return shown


async def _listed(reads: CloudReads, target: Target, states: Sequence[TaskState], sleep: Sleep) -> AsyncIterator[Task]:
    asked: Sequence[TaskState | None] = [state for state in TaskState if state in states] or [None]
    for state in asked:
        for number in range(1, MOST_LISTED // TASKS_A_PAGE + 1):
            page = await _page(reads, target, number, state, sleep)
            for task in page.tasks:
                yield task
            if not page.tasks or (page.total is not None and number * TASKS_A_PAGE >= page.total):
                break


async def _page(reads: CloudReads, target: Target, number: int, state: TaskState | None, sleep: Sleep) -> TaskPage:
    """Reading changes nothing, so what may have been a passing trouble is tried again."""
    for attempt in range(1, PAGE_ATTEMPTS):
        try:
            return await reads.fetch_task_page(target, number, state=state, purpose=Purpose.EXPORT)
        except CloudThrottled as error:
            pause = error.retry_after_seconds or 2.0**attempt
        except CloudRefused:
            raise
        except CloudError:
            pause = 2.0**attempt
        await sleep(min(pause, LONGEST_PAUSE_SECONDS))
    return await reads.fetch_task_page(target, number, state=state, purpose=Purpose.EXPORT)
