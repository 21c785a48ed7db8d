"""Numbers and states in words: lines that cards, replies and sentences share.

Devices move while they are counted, so counts are shown with ≈; a number that is not known is called unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bot.model import OPEN_STATES, Counts, Job, JobKind, JobState, Part, Preview, StepKind, Task, TaskState, Touch
from bot.operations import Direction, Operation, Params
from bot.proposals import Proposal

NAMES_SHOWN = 5
PARTS_SHOWN = 8
REASONS_SHOWN = 3
OVER = (JobState.COMPLETED, JobState.CANCELED)

_WORDS = {
    TaskState.CONFIRM: "waiting for a confirmation in the app",
    TaskState.QUEUED: "queued",
    TaskState.NOTIFIED: "notified",
    TaskState.IN_PROGRESS: "in progress",
    TaskState.SUCCEEDED: "on the new version",
    TaskState.FAILED: "failed",
    TaskState.CANCELED: "cancelled",
}


def number(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def preview_lines(preview: Preview, operation: Operation, params: Params) -> tuple[str, ...]:
    """Everything that is to be known before a yes, for any operation."""
    if len(preview.parts) > 1:
        lines = _together(preview) + [line for part in preview.parts[:PARTS_SHOWN] for line in _brief(part)]
        if len(preview.parts) > PARTS_SHOWN:
            lines.append(f"… and {len(preview.parts) - PARTS_SHOWN} more rollouts")
    else:
        lines = [line for part in preview.parts for line in _whole(preview, part, operation, params)]
    if preview.left_out:
        lines.append(f"Left out: {preview.left_out:,} more than this one names.")
    second = strategy_line(preview, operation, params)
    return (*lines, second) if second else tuple(lines)


def _whole(preview: Preview, part: Part, operation: Operation, params: Params) -> list[str]:
    lines = [job_line(part.job)]
    if operation.direction is Direction.TUNE:
        return [*lines, *_rate_lines(preview, operation, params), progress_line(part.counts)]
    if operation.direction is Direction.RESTART:
        return [*lines, f"Flashed again: {names(task.device for task in part.tasks)}"]
    if part.tasks:
        lines.append(f"Named: {names(task.device for task in part.tasks)}")
    else:
        lines.append(progress_line(part.counts))
    return [*lines, *effect_lines(part), *failure_lines(part.counts)]


def _together(preview: Preview) -> list[str]:
    """What a call on several batches does in all."""
    devices = preview.devices
    said = "an unknown number of devices" if devices is None else f"≈{devices:,} devices"
    jobs = [part.job for part in preview.parts]
    firmware = {(job.firmware, job.dest_version, job.product) for job in jobs}
    which = [job_line(replace(jobs[0], src_versions=()), is_kind_told=False)] if len(firmware) == 1 else []
    return [*which, f"{len(jobs)} rollouts, {said} asked to stop:"]


def _brief(part: Part) -> list[str]:
    """One batch of several in two lines."""
    job = part.job
    head = f"{job.job_id} · {job.kind} · {state_words(job.state)}"
    named = f" · {names(task.device for task in part.tasks)}" if part.tasks else ""
    return [f"• {head}{named}", f"    {'; '.join(effect_lines(part))}"]


def _rate_lines(preview: Preview, operation: Operation, params: Params) -> list[str]:
    old, new = rates(preview, operation, params)
    lines = [f"Devices told per minute: {number(old)} → {number(new)}"]
    settings = preview.job.settings
    if settings is not None:
        kept = [f"time-out {settings.timeout_minutes} min"] if settings.timeout_minutes else []
        kept += [f"{len(settings.tags)} tag{'s' if len(settings.tags) != 1 else ''}"]
        lines.append(f"Sent again as it is: {', '.join(kept)}, and all other settings.")
    return lines


def rates(preview: Preview, operation: Operation, params: Params) -> tuple[int | None, int | None]:
    """How many devices were told per minute when it was read, and how many shall be."""
    wanted = [step.settings for step in operation.steps(preview, params) if step.settings is not None]
    settings = preview.job.settings
    return settings.per_minute if settings else None, wanted[0].per_minute if wanted else None


def names(devices: Iterable[str]) -> str:
    """``5 devices: a, b, c, d, e``, cut after a few."""
    listed = list(dict.fromkeys(devices))
    shown = ", ".join(listed[:NAMES_SHOWN])
    more = f" and {len(listed) - NAMES_SHOWN:,} more" if len(listed) > NAMES_SHOWN else ""
    return f"{len(listed):,} device{'s' if len(listed) != 1 else ''}: {shown}{more}"


def strategy_line(preview: Preview, operation: Operation, params: Params = frozenset()) -> str | None:
    """What is said of the strategies of dynamic rollouts: that they end first, or that they go on."""
    dynamic = [part.job for part in preview.parts if part.job.kind is JobKind.DYNAMIC and part.job.state not in OVER]
    if not dynamic or not operation.is_stop:
        return None
    if any(step.kind is StepKind.CANCEL_STRATEGY for step in operation.steps(preview, params)):
        return "No new devices will be matched: the strategy is cancelled first."
    if len(dynamic) == 1:
        return f"Needs a second step: it keeps matching new devices until it is halted: /ota halt {dynamic[0].job_id}"
    return f"Needs a second step: {len(dynamic)} of them keep matching new devices until they are halted."


def job_line(job: Job, *, is_kind_told: bool = True) -> str:
    """One line that says which rollout this is, or only which firmware."""
    versions = " → ".join(part for part in (", ".join(job.src_versions), job.dest_version) if part)
    kind = f"{job.kind} rollout"
    if job.planned_for is not None and job.state is JobState.PLANNED:
        kind += f" planned for {job.planned_for:%Y-%m-%d %H:%M} UTC"
    parts = [job.firmware, versions, f"product {job.product}" if job.product else "", kind if is_kind_told else ""]
    return " · ".join(part for part in parts if part)


def state_words(state: JobState) -> str:
    return state.replace("_", " ").lower()


def progress_line(counts: Counts) -> str:
    """How far a rollout is: how many devices are through, of all that it has."""
    total = counts.total
    over = counts.of((TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELED))
    if total is None or over is None:
        return "Progress: unknown (not every number could be read)"
    share = f" ({100 * over // total} %)" if total else ""
    return f"Progress: ≈{over:,} of {total:,} devices are through{share}"


def failure_lines(counts: Counts) -> tuple[str, ...]:
    """The most frequent reasons of failures, among those that were looked at."""
    top = sorted(counts.failures.items(), key=lambda pair: (-pair[1], pair[0]))[:REASONS_SHOWN]
    if not top:
        return ()
    looked_at, failed = sum(counts.failures.values()), counts.by_state.get(TaskState.FAILED)
    of = "" if failed is not None and looked_at >= failed else f" (of {looked_at:,} that were looked at)"
    return (f"Failed because{of}: " + ", ".join(f"{reason} ({count:,}×)" for reason, count in top),)


def effect_lines(part: Part) -> tuple[str, ...]:
    """What this call will and will not stop, in three parts, and what it cannot reach."""
    touched = part.touched_states
    counts = part.counts
    lines = []
    not_told = [state for state in (TaskState.CONFIRM, TaskState.QUEUED) if state in touched]
    if not_told:
        lines.append(f"Will not start: {_each(counts, not_told)}")
    if TaskState.NOTIFIED in touched:
        lines.append(f"Probably stops: {_each(counts, [TaskState.NOTIFIED])} (told; may be flashing unreported)")
    if TaskState.IN_PROGRESS in touched:
        lines.append(f"May finish anyway: {_each(counts, [TaskState.IN_PROGRESS])} (asked to stop mid-way)")
    left = [state for state in OPEN_STATES if state not in touched and counts.by_state.get(state) != 0]
    if left:
        starting = [state for state in left if state is not TaskState.IN_PROGRESS]
        warning = " – these still start, for only what is named is stopped" if starting else ""
        lines.append(f"Not asked to stop: {_each(counts, left)}{warning}")
    if not part.tasks:
        lines.append(f"Out of reach: {_each(counts, (TaskState.SUCCEEDED, TaskState.FAILED))}")
    return tuple(lines)


def count_lines(counts: Counts, *, is_brief: bool = False) -> tuple[str, ...]:
    """A line a state; if brief, without those in which there is nothing."""
    numbers = [(state, counts.by_state.get(state)) for state in TaskState]
    return tuple(
        f"{_WORDS[state].capitalize()}: {number(count)}" for state, count in numbers if count != 0 or not is_brief
    )


def task_line(task: Task) -> str:
    """One device's task, in the words of the others."""
    versions = " → ".join(part for part in (task.src_version, task.dest_version) if part)
    parts = [task.device, _WORDS[task.state], versions, f"rollout {task.job_id}" if task.job_id else "", task.detail]
    return " · ".join(part for part in parts if part)


def moved_lines(proposal: Proposal) -> tuple[str, ...]:
    """How the devices moved since just before the call, a line a rollout; none before the first reading."""
    pairs = [
        (job, before, proposal.progress[job]) for job, before in proposal.baseline.items() if job in proposal.progress
    ]
    if len(proposal.baseline) == 1:
        return tuple(movement_line(before, now) for _, before, now in pairs)
    return tuple(f"• {job}: {_movement(before, now)}" for job, before, now in pairs)


def movement_line(before: Counts, now: Counts) -> str:
    """From the counts just before the call to the last ones, without the states in which there was and is nothing."""
    return f"Before the call → now: {_movement(before, now)}"


def _movement(before: Counts, now: Counts) -> str:
    pairs = [(state, before.by_state.get(state), now.by_state.get(state)) for state in TaskState]
    moved = [
        f"{_WORDS[state]} {number(was)} → {number(is_now)}" for state, was, is_now in pairs if (was, is_now) != (0, 0)
    ]
    return " · ".join(moved) or "nothing"


def _each(counts: Counts, states: Sequence[TaskState]) -> str:
    """The numbers in words; ≈ because devices move while they are read. Zeros are left out beside other numbers."""
    told = [state for state in states if counts.by_state.get(state) != 0] or list(states[-1:])
    parts = []
    for state in told:
        count = counts.by_state.get(state)
        parts.append(f"unknown number {_WORDS[state]}" if count is None else f"≈{count:,} {_WORDS[state]}")
    return ", ".join(parts)


_TOUCH_WORDS = {
    Touch.SCHEDULED: "scheduled",
    Touch.CONFIRM: "unconfirmed",
    Touch.QUEUED: "queued",
    Touch.NOTIFIED: "notified",
    Touch.IN_PROGRESS: "in progress",
}


def touches_words(touches: frozenset[Touch]) -> str:
    """What a call names, in the order in which devices move."""
    words = [word for touch, word in _TOUCH_WORDS.items() if touch in touches]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
