"""After the call: watch the devices until nothing that was named still moves, or the stated time has passed.

*Stopped* needs two readings in a row, each in the order in which devices move, in which nothing named is open: a device
cannot hide from both. Readings are shared by all proposals on the same batch, in whatever process, and are kept; so a
follow that is taken up again counts on from them. How it ended is judged in `verdicts`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from bot.audit import Fact
from bot.errors import CloudError, StoreUnavailable
from bot.exchange import File, FileKind, Post, PostKind
from bot.model import OPEN_STATES, Counts, Outcome, Part, Target, Task, TaskState
from bot.operations import Direction
from bot.ports import Purpose, Reading, Watched
from bot.proposals import CallAnswer, Ended, Progress, Proposal
from bot.workflow.ending import finish
from bot.workflow.looking import count
from bot.workflow.means import Elapsed, Means, has_passed, keep
from bot.workflow.stepping import accepted_jobs
from bot.workflow.verdicts import judge_rate, judge_retry, judge_stop, still_moving

HOLD_SECONDS = 4.0
"""So long nobody else looks at a batch while one look is under way; a longer look says that it still is. If the process
dies, others look after so long."""

FRESH_SECONDS = 60.0
"""Counts that are older are not said to be those of now."""

AT_ONCE = 3
"""So many batches are looked at at a time: more would only wait for the call budget until they time out."""

FILES_MOST = 3
_RISING = (TaskState.CANCELED, TaskState.SUCCEEDED, TaskState.FAILED)
_ORDER = (TaskState.CONFIRM, TaskState.QUEUED, TaskState.NOTIFIED, TaskState.IN_PROGRESS, *_RISING)


async def follow(means: Means, proposal: Proposal) -> None:
    """following → finished."""
    direction = means.operations[proposal.operation].direction
    if direction is Direction.TUNE:
        await _follow_rate(means, proposal)
    elif direction is Direction.RESTART:
        await _follow_retry(means, proposal)
    else:
        await _follow_stop(means, proposal)


async def _follow_stop(means: Means, proposal: Proposal) -> None:
    parts = followed_parts(proposal)
    pause, shown_at = means.timings.poll_seconds, None
    until, turns = _until(means, proposal, means.timings.follow_seconds), asyncio.Semaphore(AT_ONCE)
    elapsed = Elapsed(means.clock)
    while True:
        waits = await asyncio.gather(*(_look_if_due(means, proposal, part, pause, turns) for part in parts))
        latest = [await _latest(means, proposal, part) for part in parts]
        now = {part.job.job_id: seen[-1].counts for part, seen in zip(parts, latest, strict=True) if seen}
        if _by_state(now) != _by_state(proposal.progress):
            pause = means.timings.poll_seconds
            is_due = shown_at is None or has_passed(means, shown_at, means.timings.progress_seconds)
            shown_at = means.clock() if is_due else shown_at
            moved = await _keep_progress(means, proposal, now, is_shown=is_due)
            if moved is None:
                return
            proposal = moved
        is_still = all(_is_still(part, seen) for part, seen in zip(parts, latest, strict=True))
        if is_still or means.clock() >= until or elapsed() >= means.timings.follow_seconds:
            fresh_since = means.clock() - timedelta(seconds=FRESH_SECONDS)
            seen_now = [
                part.job.job_id
                for part, seen in zip(parts, latest, strict=True)
                if seen and seen[-1].counts.read_at >= fresh_since
            ]
            await _end_stop(means, proposal, parts, seen_now)
            return
        seconds = max(0.05, min([pause, *(wait for wait in waits if wait > 0)]))
        await means.sleep(seconds)
        pause = min(pause * 1.5, means.timings.poll_most_seconds)


def _until(means: Means, proposal: Proposal, seconds: float) -> datetime:
    """When to stop watching; an end further ahead than its whole span was written before the clock was set back."""
    latest = means.clock() + timedelta(seconds=seconds)
    return min(proposal.follow_until or latest, latest)


def followed_parts(proposal: Proposal) -> tuple[Part, ...]:
    """The batches that have accepted a call, or may have: where no answer came, the devices tell."""
    followed = accepted_jobs(proposal) | {
        call.intent.step.target.job for call in proposal.calls if call.answer is CallAnswer.LOST
    }
    parts = proposal.called.parts if proposal.called is not None else ()
    return tuple(part for part in parts if part.job.job_id in followed)


def _watched(proposal: Proposal, part: Part) -> Watched:
    devices = tuple(dict.fromkeys(task.device for task in part.tasks))
    return Watched(Target(proposal.target.instance, part.job.job_id, devices=devices))


async def _look_if_due(means: Means, proposal: Proposal, part: Part, pause: float, turns: asyncio.Semaphore) -> float:
    """Looks at a batch if it is time and nobody else does; else how many seconds until it is."""
    watched = _watched(proposal, part)
    async with turns:
        wait = await means.readings.may_read(watched, hold_seconds=HOLD_SECONDS)
        if wait > 0:
            return wait
        began_at = means.clock()
        try:
            async with _held(means, watched):
                counts = await _count(means, watched, part)
        except CloudError:
            await means.readings.put_off(watched, pause_seconds=pause)
        else:
            await means.readings.save_reading(watched, Reading(counts, began_at), pause_seconds=pause)
    return 0


@contextlib.asynccontextmanager
async def _held(means: Means, watched: Watched) -> AsyncIterator[None]:
    """As long as this look takes, nobody else looks."""

    async def hold() -> None:
        while True:
            await asyncio.sleep(HOLD_SECONDS / 2)
            with contextlib.suppress(StoreUnavailable):
                await means.readings.put_off(watched, pause_seconds=HOLD_SECONDS)

    holding = asyncio.create_task(hold(), name="hold a look")
    try:
        yield
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def _count(means: Means, watched: Watched, part: Part) -> Counts:
    target = watched.target
    if target.devices:
        found = await means.reads.fetch_tasks_of(target, target.devices, purpose=Purpose.FOLLOW)
        named = {task.task_id for task in part.tasks}
        # A device may have older tasks in the same batch: what is over of those is not of this call.
        ours = [task for task in found if task.task_id in named or task.state in OPEN_STATES]
        return count(ours, means)
    return await means.reads.fetch_counts(target, _ORDER, purpose=Purpose.FOLLOW, in_order=True)


async def _latest(means: Means, proposal: Proposal, part: Part) -> tuple[Reading, ...]:
    """The last two readings that began after the call was accepted."""
    since = proposal.followed_from or proposal.created_at
    return await means.readings.fetch_readings(_watched(proposal, part), since=since, most=2)


def _by_state(counts: object) -> object:
    return {job: each.by_state for job, each in counts.items()} if isinstance(counts, dict) else counts


def _is_still(part: Part, seen: tuple[Reading, ...]) -> bool:
    return len(seen) == 2 and all(still_moving(part, each.counts) == 0 for each in seen)


async def _keep_progress(
    means: Means, proposal: Proposal, now: dict[str, Counts], *, is_shown: bool
) -> Proposal | None:
    """Keeps what was read, so that cards show it; the message in the thread follows at a calm rate."""
    posts = (Post(PostKind.PROGRESS, proposal.proposal_id),) if is_shown else ()
    return await keep(means, proposal, Progress(now), posts=posts)


async def _end_stop(means: Means, proposal: Proposal, parts: tuple[Part, ...], seen: list[str]) -> None:
    outcome = judge_stop(proposal, seen=seen, follow_seconds=means.timings.follow_seconds)
    await _end(means, proposal, outcome, files=_files(proposal, parts, seen))


def _files(proposal: Proposal, parts: tuple[Part, ...], seen: list[str]) -> tuple[Post, ...]:
    """The devices that still move, and the curve of each batch."""
    posts = []
    for part in [part for part in parts if not part.tasks][:FILES_MOST]:
        job, target = part.job.job_id, Target(proposal.target.instance, part.job.job_id)
        if job in seen and still_moving(part, proposal.progress.get(job)):
            states = tuple(dict.fromkeys((*part.touched_states, TaskState.IN_PROGRESS)))
            file = File(FileKind.MOVING, target, states)
            posts.append(Post(PostKind.FILE, proposal.proposal_id, file=file))
        file = File(FileKind.CURVE, target, since=_begin(proposal, part))
        posts.append(Post(PostKind.FILE, proposal.proposal_id, file=file))
    return tuple(posts)


def _begin(proposal: Proposal, part: Part) -> datetime:
    return min(part.counts.read_at, proposal.followed_from or part.counts.read_at)


async def _end(means: Means, proposal: Proposal, outcome: Outcome, *, files: tuple[Post, ...] = ()) -> None:
    facts: dict[str, Fact] = {
        "stopped": outcome.stopped,
        "finished_anyway": outcome.finished_anyway,
        "failed": outcome.failed,
        "still_moving": outcome.still_moving,
    }
    progress = (Post(PostKind.PROGRESS, proposal.proposal_id),) if proposal.progress else ()
    await finish(means, proposal, Ended(outcome), facts=facts, posts=(*progress, *files))


async def _follow_rate(means: Means, proposal: Proposal) -> None:
    """A rate is read back until it is what was asked for."""
    until = _until(means, proposal, means.timings.rate_seconds)
    [wanted] = [step.settings.per_minute for step in proposal.steps if step.settings is not None]
    pause, rate, is_seen = means.timings.poll_seconds, None, False
    elapsed = Elapsed(means.clock)
    while True:
        try:
            job = await means.reads.fetch_job(proposal.target, purpose=Purpose.FOLLOW)
            rate, is_seen = job.settings.per_minute if job.settings else None, job.settings is not None
        except CloudError:
            is_seen = False
        if (is_seen and rate == wanted) or means.clock() >= until or elapsed() >= means.timings.rate_seconds:
            await _end(means, proposal, judge_rate(proposal, now=rate, is_seen=is_seen))
            return
        await means.sleep(pause)
        pause = min(pause * 1.5, means.timings.poll_most_seconds)


async def _follow_retry(means: Means, proposal: Proposal) -> None:
    """The tasks of the accepted batches are read until all of them have left the state that they were in."""
    until = _until(means, proposal, means.timings.restart_seconds)
    before = _accepted_tasks(proposal)
    pause, elapsed = means.timings.poll_seconds, Elapsed(means.clock)
    while True:
        now = await _read_named(means, proposal, before)
        running = _running(before, now) if now is not None else None
        is_over = means.clock() >= until or elapsed() >= means.timings.restart_seconds
        if running == len(before) or is_over or not before:
            counts = count(now, means) if now is not None else None
            await _end(means, proposal, judge_retry(proposal, running=running, asked=len(before), now=counts))
            return
        await means.sleep(pause)
        pause = min(pause * 1.5, means.timings.poll_most_seconds)


def _accepted_tasks(proposal: Proposal) -> dict[str, Task]:
    accepted = {
        task for call in proposal.calls if call.answer is CallAnswer.ACCEPTED for task in call.intent.step.tasks
    }
    parts = proposal.called.parts if proposal.called is not None else ()
    return {task.task_id: task for part in parts for task in part.tasks if task.task_id in accepted}


async def _read_named(means: Means, proposal: Proposal, before: dict[str, Task]) -> tuple[Task, ...] | None:
    devices = list(dict.fromkeys(task.device for task in before.values()))
    try:
        found = await means.reads.fetch_tasks_of(proposal.target, devices, purpose=Purpose.FOLLOW)
    except CloudError:
        return None
    return found


def _running(before: dict[str, Task], now: tuple[Task, ...]) -> int:
    """How many of the tasks run again. Whether one keeps its id is not documented: its device's other task counts."""
    by_id = {task.task_id: task for task in now}
    others = {task.device for task in now if task.task_id not in before}
    return sum(
        _has_moved(task, by_id[task.task_id]) if task.task_id in by_id else task.device in others
        for task in before.values()
    )


def _has_moved(before: Task, now: Task) -> bool:
    """It is open again or on the new version, or it was, and failed a second time within seconds."""
    if now.state in (TaskState.FAILED, TaskState.CANCELED):
        has_changed = now.changed_at is not None and now.changed_at != before.changed_at
        return now.state is TaskState.FAILED and (before.state is not TaskState.FAILED or has_changed)
    return True
