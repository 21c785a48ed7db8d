"""What the road needs of the cloud: reads, changes, and words for what it answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Protocol

from bot.model import (
    Counts,
    Firmware,
    Intent,
    Job,
    Notice,
    Receipt,
    Step,
    Target,
    Task,
    TaskPage,
    TaskState,
)


class Purpose(StrEnum):
    """What a read is for. When calls are short, they go in this order, and the last three share half of them."""

    STOP = "stop"
    PREVIEW = "preview"
    FOLLOW = "follow"
    EXPORT = "export"
    DISCOVERY = "discovery"


class CloudReads(Protocol):
    """Reads of the cloud; safe to repeat. Every method may raise a `CloudError`."""

    async def fetch_job(
        self, target: Target, *, purpose: Purpose = Purpose.PREVIEW, after: Awaitable[None] | None = None
    ) -> Job:
        """The job as the cloud describes it now.

        Nothing is sent before `after` is done; a place in the call budget is asked for meanwhile.
        """
        ...

    async def fetch_counts(
        self,
        target: Target,
        states: Sequence[TaskState],
        *,
        purpose: Purpose = Purpose.PREVIEW,
        in_order: bool = False,
    ) -> Counts:
        """How many tasks are in each of `states`, all asked at once, or one after the other if `in_order`.

        In order, only the open states are: a device cannot hide between them; the others are asked after them, at once.
        A state whose number could not be read is None in the answer; raises only if none could be read. For a preview,
        the reasons of the failed tasks on the first page are in it as well.
        """
        ...

    async def fetch_tasks_of(
        self, target: Target, devices: Sequence[str], *, purpose: Purpose = Purpose.PREVIEW
    ) -> tuple[Task, ...]:
        """The tasks of these devices in the batch `target.job`, as they are now; a device without one is left out."""
        ...

    async def fetch_task_page(
        self, target: Target, page: int, *, state: TaskState | None = None, purpose: Purpose = Purpose.EXPORT
    ) -> TaskPage:
        """The tasks of the batch, `TASKS_A_PAGE` at a time, from page 1; the cloud lists the first 100,000 only."""
        ...

    async def fetch_open_tasks(
        self, instance: str, product: str, device: str, *, purpose: Purpose = Purpose.PREVIEW
    ) -> tuple[Task, ...]:
        """The tasks of one device that are not finished, over all batches."""
        ...

    async def fetch_firmware(
        self,
        instance: str,
        *,
        firmware_id: str | None = None,
        product: str | None = None,
        version: str | None = None,
        purpose: Purpose = Purpose.PREVIEW,
    ) -> tuple[Firmware, ...]:
        """The packages of an instance, the newest first: the one of this id, or those of this product and version."""
        ...

    async def fetch_jobs_of(
        self, instance: str, firmware_id: str, *, purpose: Purpose = Purpose.PREVIEW
    ) -> tuple[Job, ...]:
        """All batches of a package, as a list tells them (no settings, no versions)."""
        ...


TASKS_A_PAGE = 100


MOST_LISTED = 100_000
"""As many tasks as the cloud lists for one question."""


class CloudChanges(Protocol):
    """Changes at the cloud. Only the road holds one."""

    def prepare(self, step: Step) -> Intent:
        """A new attempt at `step`: a fresh nonce and date, nothing sent. Raises `CloudRefused` without a key for it.

        A place in the call budget is asked for from here on, so that it is there when the intent is on disk.
        """
        ...

    async def send(self, intent: Intent, *, is_held: Callable[[], bool] = lambda: True) -> Receipt:
        """Sends an intent, byte for byte the same each time; `is_held` is asked once more just before.

        Raises `CloudRefused` (the answer was no), `CloudUnreachable` (it was not sent), `CloudLost` (it may have
        arrived), `LeaseLost` (not sent: `is_held` said no).
        """
        ...


class CloudWords(Protocol):
    """The cloud's answers and calls, put for people."""

    def explain(self, error: Exception, target: Target) -> Notice:
        """What happened, what to do and who can do it, for a `CloudError`; the RequestId stands in `reference`."""
        ...

    def command_line(self, step: Step) -> str:
        """The `aliyun iot …` line that makes the same change by hand."""
        ...
