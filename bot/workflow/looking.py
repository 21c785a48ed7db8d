"""What the target looks like now: one batch, every running batch of a firmware, or tasks by name.

Everything that can be asked at once is asked at once. At the last look before a call (`known`), numbers that cannot be
read keep what the offer said; what the batch is must be read.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from bot.errors import CloudError
from bot.model import Counts, Job, JobKind, JobState, Part, Preview, Target, Task, TaskState
from bot.operations import Operation, Params, Subject
from bot.ports import MOST_LISTED, TASKS_A_PAGE, Purpose
from bot.workflow.means import Means

RUNNING = (JobState.IN_PROGRESS, JobState.PLANNED)
MOST_PARTS = 20
"""As many batches as one confirmation may halt: their last look must fit into the minute after the yes."""

_AT_ONCE = 3
"""So many batches are looked at at a time: more would only wait for the call budget until they time out."""


@dataclass(frozen=True, slots=True)
class Looked:
    """The target as it is now; `is_patched` if numbers of the offer stand in for some that could not be read."""

    preview: Preview
    is_patched: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """How to look: for which purpose, what the offer said, which tasks are not to be named again, and which batches
    (`jobs_done`) were stopped before and so come last."""

    purpose: Purpose = Purpose.PREVIEW
    known: Preview | None = None
    done: frozenset[str] = frozenset()
    jobs_done: frozenset[str] = frozenset()


async def look(
    means: Means,
    operation: Operation,
    params: Params,
    target: Target,
    *,
    sight: Sight | None = None,
    reading: asyncio.Future[Job] | None = None,
) -> Looked:
    """The target as it is now; `reading` is a read of its job that is under way already. Raises `CloudError`."""
    sight = sight or Sight()
    if operation.subject is Subject.FIRMWARE:
        return await _look_at_firmware(means, operation, params, target, sight)
    if operation.subject is Subject.DEVICES:
        return await _look_at_devices(means, operation, params, target, sight)
    if operation.retries(params):
        return await _look_at_tasks(means, operation, params, target, sight)
    known = _part_of(sight.known, target.job)
    part, is_patched = await _look_at_job(means, operation, params, target, sight, known=known, reading=reading)
    return Looked(Preview(target, (part,)), is_patched)


def _part_of(preview: Preview | None, job: str) -> Part | None:
    return next((part for part in preview.parts if part.job.job_id == job), None) if preview is not None else None


async def _look_at_job(
    means: Means,
    operation: Operation,
    params: Params,
    target: Target,
    sight: Sight,
    *,
    known: Part | None,
    reading: asyncio.Future[Job] | None = None,
) -> tuple[Part, bool]:
    """The batch and all its counts, asked at once. Without `known` both must be readable; for a stop, the batch."""
    job, counts = await asyncio.gather(
        reading or means.reads.fetch_job(target, purpose=sight.purpose),
        means.reads.fetch_counts(target, tuple(TaskState), purpose=sight.purpose),
        return_exceptions=True,
    )
    if isinstance(job, BaseException):
        raise job
    if isinstance(counts, CloudError) and known is None and operation.is_stop:
        # A stop of devices that nobody can count is still a stop: policy takes unknown numbers for the worst.
        counts = Counts(dict.fromkeys(TaskState), means.clock())
    if isinstance(counts, BaseException) and (known is None or not isinstance(counts, CloudError)):
        raise counts
    fresh = counts if isinstance(counts, Counts) else None
    is_patched = known is not None and (fresh is None or None in fresh.by_state.values())
    merged = _merged(known.counts, fresh) if known is not None else fresh
    assert merged is not None  # noqa: S101 (without `known`, fresh ones were required above)
    return Part(job, merged, operation.touches(params, job)), is_patched


def _merged(old: Counts, new: Counts | None) -> Counts:
    if new is None:
        return old
    by_state = {state: old.by_state.get(state) if count is None else count for state, count in new.by_state.items()}
    return Counts(by_state, new.read_at, new.failures or old.failures)


async def _look_at_firmware(means: Means, operation: Operation, params: Params, target: Target, sight: Sight) -> Looked:
    """Every running batch of the firmware, the one with the most devices at stake first."""
    listed = await means.reads.fetch_jobs_of(target.instance, target.firmware, purpose=sight.purpose)
    offered = {part.job.job_id: part.job for part in sight.known.parts} if sight.known is not None else {}
    now = {job.job_id: job for job in listed}
    # What was confirmed comes first, also if the list has lost it meanwhile; what is over shows by itself.
    running = [now.get(job_id, job) for job_id, job in offered.items()]
    fresh = [job for job in listed if job.state in RUNNING and job.job_id not in offered]
    running += sorted(fresh, key=lambda job: (job.job_id in sight.jobs_done, *_urgency(job)))
    turns = asyncio.Semaphore(_AT_ONCE)

    async def look_at(job: Job) -> tuple[Part, bool]:
        async with turns:
            return await _look_at_listed(means, operation, params, target, sight, job)

    seen = await asyncio.gather(*(look_at(job) for job in running[:MOST_PARTS]))
    parts = sorted((part for part, _ in seen if part.job.state in RUNNING), key=_stake)
    preview = Preview(target, tuple(parts), left_out=max(0, len(running) - MOST_PARTS))
    return Looked(preview, any(is_patched for _, is_patched in seen))


def _urgency(job: Job) -> tuple[bool, float]:
    """Before anything was counted: what runs before what is planned, and the newest first."""
    return job.state is JobState.PLANNED, -job.created_at.timestamp() if job.created_at is not None else 0.0


def _stake(part: Part) -> tuple[bool, int, str]:
    """Batches whose numbers are not known come first, then those with the most devices."""
    return (part.devices is not None, -(part.devices or 0), part.job.job_id)


async def _look_at_listed(
    means: Means, operation: Operation, params: Params, target: Target, sight: Sight, job: Job
) -> tuple[Part, bool]:
    """One batch of a list. That it cannot be read by itself keeps nobody from stopping it: its numbers are unknown."""
    known = _part_of(sight.known, job.job_id)
    named = Target(target.instance, job.job_id, target.firmware, target.product)
    try:
        return await _look_at_job(means, operation, params, named, sight, known=known)
    except CloudError:
        if known is not None:
            # A list tells neither settings nor schedule: what a batch is does not change, only its state.
            job = replace(known.job, state=job.state)
            return Part(job, known.counts, operation.touches(params, job)), True
        return Part(job, Counts(dict.fromkeys(TaskState), means.clock()), operation.touches(params, job)), True


async def _look_at_devices(means: Means, operation: Operation, params: Params, target: Target, sight: Sight) -> Looked:
    """The open tasks of the named devices, by batch."""
    found = await asyncio.gather(*(_open_tasks(means, target, device, sight) for device in target.devices))
    by_job: dict[str, list[Task]] = defaultdict(list)
    for task in (task for tasks in found for task in tasks if task.task_id not in sight.done):
        by_job[task.job_id].append(task)
    jobs = await asyncio.gather(*(_job_of(means, target, tasks[0], sight) for tasks in by_job.values()))
    parts = [
        Part(job, count(tasks, means), operation.touches(params, job), tuple(tasks))
        for job, tasks in zip(jobs, by_job.values(), strict=True)
    ]
    return Looked(Preview(target, tuple(sorted(parts, key=_stake))))


async def _open_tasks(means: Means, target: Target, device: str, sight: Sight) -> tuple[Task, ...]:
    try:
        return await means.reads.fetch_open_tasks(target.instance, target.product, device, purpose=sight.purpose)
    except CloudError as error:
        error.about = device
        raise


async def _job_of(means: Means, target: Target, task: Task, sight: Sight) -> Job:
    """The batch of a device's task; if it cannot be read, what the task says of it is enough to cancel by name."""
    try:
        return await means.reads.fetch_job(Target(target.instance, task.job_id), purpose=sight.purpose)
    except CloudError:
        product = task.product or target.product
        return Job(
            task.job_id,
            JobState.IN_PROGRESS,
            JobKind.STATIC,
            task.firmware_id,
            product=product,
            dest_version=task.dest_version,
        )


def count(tasks: Collection[Task], means: Means) -> Counts:
    """How many of these tasks are in each state."""
    by_state: dict[TaskState, int | None] = {state: sum(task.state is state for task in tasks) for state in TaskState}
    return Counts(by_state, means.clock())


async def _look_at_tasks(means: Means, operation: Operation, params: Params, target: Target, sight: Sight) -> Looked:
    """The tasks that would be run again; at the last look only those that were offered, as far as they still wait."""
    states = operation.retries(params)
    known = _part_of(sight.known, target.job)
    (part, is_patched), tasks = await asyncio.gather(
        _look_at_job(means, operation, params, target, sight, known=known),
        _tasks_in(means, target, states, sight, most=operation.most_tasks(params))
        if known is None
        else _still_waiting(means, target, states, known.tasks, sight),
    )
    in_all = part.counts.of(states)
    left_out = max(0, (in_all or 0) - len(tasks)) if known is None else (sight.known.left_out if sight.known else 0)
    return Looked(Preview(target, (replace(part, tasks=tasks),), left_out), is_patched)


async def _tasks_in(
    means: Means, target: Target, states: Sequence[TaskState], sight: Sight, *, most: int
) -> tuple[Task, ...]:
    """The first `most` tasks in these states that were not named before."""
    found: dict[str, Task] = {}
    for state in states:
        page, listed, total = 0, 0, 1
        while len(found) < most and listed < min(total, MOST_LISTED):
            page += 1
            answer = await means.reads.fetch_task_page(target, page, state=state, purpose=sight.purpose)
            if not answer.tasks:
                break
            listed += TASKS_A_PAGE
            total = answer.total or 0
            fresh = (task for task in answer.tasks if task.state is state and task.task_id not in sight.done)
            found |= {task.task_id: task for task in fresh}
    return tuple(found.values())[:most]


async def _still_waiting(
    means: Means, target: Target, states: Sequence[TaskState], offered: Sequence[Task], sight: Sight
) -> tuple[Task, ...]:
    now = await means.reads.fetch_tasks_of(target, [task.device for task in offered], purpose=sight.purpose)
    wanted = {task.task_id for task in offered}
    return tuple(task for task in now if task.task_id in wanted and task.state in states)


async def open_tasks_of(means: Means, target: Target, states: Sequence[TaskState], *, most: int) -> tuple[Task, ...]:
    """The tasks of a batch in these states, read for a stop (at most `most`). Raises `CloudError`."""
    return await _tasks_in(means, target, states, Sight(Purpose.STOP), most=most)
