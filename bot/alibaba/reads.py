"""What the road reads of the cloud (`CloudReads`), for every instance of the policy.

Lists are read to their end as far as the bounds here go; where there is more, both ends are read, because the cloud
does not say in which order it lists. Nothing here can change anything at the cloud.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from typing import TypeVar

from bot.alibaba.access import ATTEMPT_SECONDS, Access
from bot.alibaba.iot import Iot
from bot.alibaba.records import OtaFirmware, OtaJob, OtaTask, Page, Row
from bot.alibaba.translation import firmware_of, job_of, listed_jobs_of, reasons_of, tasks_of
from bot.errors import CloudError, CloudLost, CloudRefused
from bot.model import OPEN_STATES, Counts, Firmware, Job, Target, Task, TaskPage, TaskState
from bot.ports import MOST_LISTED, TASKS_A_PAGE, Purpose

MOST_PAGES = 20
"""Of packages (100 a page), and of the batches of one (200 a page)."""

NAMES_A_CALL = 50
_JOBS_A_PAGE = 200
_FIRMWARE_A_PAGE = 100
_CERTAIN_SIZE = 10
"""The page size of the documents' own examples."""

_BAD_PAGE = "iot.common.invalidpageparams"
_NO_FIRMWARE = frozenset(("iot.ota.firmwarenotfound", "iot.ota.invalidfirmwareuid"))

_Answer = TypeVar("_Answer")


class Reads:
    """`CloudReads` over `access`."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._counting_size = 1

    async def fetch_job(
        self, target: Target, *, purpose: Purpose = Purpose.PREVIEW, after: Awaitable[None] | None = None
    ) -> Job:
        async def query(iot: Iot) -> OtaJob:
            return await iot.query_ota_job(job_id=target.job, timeout_seconds=ATTEMPT_SECONDS)

        return job_of(await self._access.read(target.instance, "QueryOTAJob", purpose, query, after=after))

    async def fetch_counts(
        self,
        target: Target,
        states: Sequence[TaskState],
        *,
        purpose: Purpose = Purpose.PREVIEW,
        in_order: bool = False,
    ) -> Counts:
        """For a preview the failed tasks are counted by their first page, which says as well why they failed."""
        found: dict[TaskState, Page[OtaTask] | CloudError] = {}
        first = [state for state in OPEN_STATES if state in states] if in_order else []
        for state in first:
            found[state] = await self._count_or_error(target, state, purpose)
        rest = [state for state in states if state not in first]
        together = await asyncio.gather(*(self._count_or_error(target, state, purpose) for state in rest))
        found |= zip(rest, together, strict=True)
        errors = [each for each in found.values() if isinstance(each, CloudError)]
        if errors and len(errors) == len(found):
            raise errors[0]
        pages = {state: each for state, each in found.items() if isinstance(each, Page)}
        failed = pages.get(TaskState.FAILED) if purpose is Purpose.PREVIEW else None
        return Counts(
            {state: pages[state].total if state in pages else None for state in states},
            self._access.now(),
            reasons_of(failed.rows) if failed is not None else {},
        )

    async def fetch_tasks_of(
        self, target: Target, devices: Sequence[str], *, purpose: Purpose = Purpose.PREVIEW
    ) -> tuple[Task, ...]:
        """In the order of `devices`."""
        places = {name: place for place, name in enumerate(dict.fromkeys(devices))}
        names = list(places)
        batches = [names[at : at + NAMES_A_CALL] for at in range(0, len(names), NAMES_A_CALL)]
        pages = await _all(self._tasks(target, purpose, device_names=batch) for batch in batches)
        tasks = tasks_of(chain.from_iterable(page.rows for page in pages))
        return tuple(sorted((task for task in tasks if task.device in places), key=lambda task: places[task.device]))

    async def fetch_task_page(
        self, target: Target, page: int, *, state: TaskState | None = None, purpose: Purpose = Purpose.EXPORT
    ) -> TaskPage:
        """A task in a state that is not known is in `total`, but not in the list: a short page need not be the last."""
        if not 1 <= page <= MOST_LISTED // TASKS_A_PAGE:
            raise ValueError(f"the cloud lists pages 1 to {MOST_LISTED // TASKS_A_PAGE}, not {page}")
        found = await self._tasks(target, purpose, state=state, page=page)
        return TaskPage(tasks_of(found.rows), found.total)

    async def fetch_open_tasks(
        self, instance: str, product: str, device: str, *, purpose: Purpose = Purpose.PREVIEW
    ) -> tuple[Task, ...]:
        async def unfinished(iot: Iot) -> tuple[OtaTask, ...]:
            return await iot.list_ota_unfinished_task_by_device(
                product_key=product, device_name=device, timeout_seconds=ATTEMPT_SECONDS
            )

        return tasks_of(await self._access.read(instance, "ListOTAUnfinishedTaskByDevice", purpose, unfinished))

    async def fetch_firmware(
        self,
        instance: str,
        *,
        firmware_id: str | None = None,
        product: str | None = None,
        version: str | None = None,
        purpose: Purpose = Purpose.PREVIEW,
    ) -> tuple[Firmware, ...]:
        """Of an id that the cloud does not know there is none. A version is the whole of it, never its beginning."""
        if firmware_id is not None:
            return await self._one_firmware(instance, firmware_id, purpose)

        async def page(number: int) -> Page[OtaFirmware]:
            async def listed(iot: Iot) -> Page[OtaFirmware]:
                return await iot.list_ota_firmware(
                    product_key=product,
                    dest_version=version,
                    page_size=_FIRMWARE_A_PAGE,
                    current_page=number,
                    timeout_seconds=ATTEMPT_SECONDS,
                )

            return await self._access.read(instance, "ListOTAFirmware", purpose, listed)

        return tuple(
            each
            for each in firmware_of(await _whole_list(page, size=_FIRMWARE_A_PAGE))
            if version in (None, each.dest_version) and product in (None, each.product)
        )

    async def fetch_jobs_of(
        self, instance: str, firmware_id: str, *, purpose: Purpose = Purpose.PREVIEW
    ) -> tuple[Job, ...]:
        """Raises `CloudLost` for a batch in a state that is not known: to stop a firmware, none may be missing.

        Only discovery, on which nothing depends, gets the list without it.
        """

        async def page(number: int) -> Page[OtaJob]:
            async def listed(iot: Iot) -> Page[OtaJob]:
                return await iot.list_ota_job_by_firmware(
                    firmware_id=firmware_id,
                    page_size=_JOBS_A_PAGE,
                    current_page=number,
                    timeout_seconds=ATTEMPT_SECONDS,
                )

            return await self._access.read(instance, "ListOTAJobByFirmware", purpose, listed)

        records = await _whole_list(page, size=_JOBS_A_PAGE)
        return listed_jobs_of(records, is_leaving_out_unknown=purpose is Purpose.DISCOVERY)

    async def _one_firmware(self, instance: str, firmware_id: str, purpose: Purpose) -> tuple[Firmware, ...]:
        async def query(iot: Iot) -> OtaFirmware:
            return await iot.query_ota_firmware(firmware_id=firmware_id, timeout_seconds=ATTEMPT_SECONDS)

        try:
            return firmware_of([await self._access.read(instance, "QueryOTAFirmware", purpose, query)])
        except CloudRefused as error:
            if error.code.casefold() not in _NO_FIRMWARE:
                raise
            return ()

    async def _count_or_error(self, target: Target, state: TaskState, purpose: Purpose) -> Page[OtaTask] | CloudError:
        is_explained = state is TaskState.FAILED and purpose is Purpose.PREVIEW
        size = TASKS_A_PAGE if is_explained else self._counting_size
        try:
            return await self._tasks(target, purpose, state=state, size=size, must_count=True)
        except CloudError as error:
            if size >= _CERTAIN_SIZE or not isinstance(error, CloudRefused) or error.code.casefold() != _BAD_PAGE:
                return error
        # The documents name no smallest page, and the first answer to the smallest one is not always yes.
        self._counting_size = _CERTAIN_SIZE
        return await self._count_or_error(target, state, purpose)

    async def _tasks(
        self,
        target: Target,
        purpose: Purpose,
        *,
        state: TaskState | None = None,
        device_names: Sequence[str] = (),
        size: int = TASKS_A_PAGE,
        page: int = 1,
        must_count: bool = False,
    ) -> Page[OtaTask]:
        async def listed(iot: Iot) -> Page[OtaTask]:
            found = await iot.list_ota_task_by_job(
                job_id=target.job,
                status=state.value if state is not None else None,
                device_names=device_names,
                page_size=size,
                current_page=page,
                timeout_seconds=ATTEMPT_SECONDS,
            )
            if must_count and found.total is None:
                raise CloudLost("the answer holds no total")
            return found

        return await self._access.read(target.instance, "ListOTATaskByJob", purpose, listed)


async def _whole_list(page: Callable[[int], Awaitable[Page[Row]]], *, size: int) -> tuple[Row, ...]:
    """The rows of all pages, or of as many from both ends as the bound allows."""
    first = await page(1)
    if first.total is None and len(first.rows) >= size:
        raise CloudLost("the answer holds no total, so the end of the list is not known")
    last = -(-(first.total or 0) // size)
    numbers = list(range(2, last + 1))
    if last > MOST_PAGES:
        numbers = [*numbers[: MOST_PAGES // 2 - 1], *numbers[-MOST_PAGES // 2 :]]
    pages = [first, *await _all(page(number) for number in numbers)]
    return tuple(chain.from_iterable(page.rows for page in pages))


async def _all(calls: Iterable[Awaitable[_Answer]]) -> list[_Answer]:
    """All at once. Raises only when the last one has ended, so that none goes on unseen."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[_Answer] = []
    for each in found:
        if isinstance(each, BaseException):
            raise each
        answers.append(each)
    return answers
