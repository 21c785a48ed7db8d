"""Numbers and states in words: lines that cards, replies and sentences share.

Devices move while they are counted, so counts are shown with ≈; a number that is not known is called unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

from bot.model import OPEN_STATES, Counts, Job, Preview, TaskState, Touch

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


def job_line(job: Job) -> str:
    """One line that says which rollout this is."""
    versions = " → ".join(part for part in (", ".join(job.src_versions), job.dest_version) if part)
    parts = [job.firmware, versions, f"product {job.product}" if job.product else "", f"{job.kind} rollout"]
    return " · ".join(part for part in parts if part)


def effect_lines(preview: Preview) -> tuple[str, ...]:
    """What this call will and will not stop, in three parts, and what it cannot reach."""
    touched = preview.touched_states
    counts = preview.counts
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
        lines.append(f"Not asked to stop: {_each(counts, left)}")
    lines.append(f"Out of reach: {_each(counts, (TaskState.SUCCEEDED, TaskState.FAILED))}")
    return tuple(lines)


def count_lines(counts: Counts, *, is_brief: bool = False) -> tuple[str, ...]:
    """A line a state; if brief, without those in which there is nothing."""
    numbers = [(state, counts.by_state.get(state)) for state in TaskState]
    return tuple(
        f"{_WORDS[state].capitalize()}: {number(count)}" for state, count in numbers if count != 0 or not is_brief
    )


def movement_line(before: Counts, now: Counts) -> str:
    """From the counts just before the call to the last ones, without the states in which there was and is nothing."""
    pairs = [(state, before.by_state.get(state), now.by_state.get(state)) for state in TaskState]
    moved = [
        f"{_WORDS[state]} {number(was)} → {number(is_now)}" for state, was, is_now in pairs if (was, is_now) != (0, 0)
    ]
    return f"Before the call → now: {' · '.join(moved) or 'nothing'}"


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
