"""After the call: watch the devices until nothing that was named still moves, or the stated time has passed.

*Stopped* needs two readings in a row, each in the order in which devices move, in which nothing named is open: a device
cannot hide from both. The numbers are differences to the baseline, the counts of the re-check.
"""

from __future__ import annotations

from datetime import timedelta

from bot.audit import EntryName, Fact
from bot.errors import CloudError
from bot.exchange import Post, PostKind
from bot.model import OPEN_STATES, Counts, Outcome, OutcomeCode, TaskState
from bot.ports import Purpose
from bot.proposals import Ended, Progress, Proposal
from bot.workflow import reports
from bot.workflow.means import Means, keep, move, showing

_RISING = (TaskState.CANCELED, TaskState.SUCCEEDED, TaskState.FAILED)
_ORDER = (TaskState.CONFIRM, TaskState.QUEUED, TaskState.NOTIFIED, TaskState.IN_PROGRESS, *_RISING)


async def follow(means: Means, proposal: Proposal) -> None:
    """following → finished."""
    assert proposal.offer is not None and proposal.follow_until is not None  # noqa: S101, PT018 (accepted ones have both)
    zeros, pause = 0, means.timings.poll_seconds
    shown_at = means.clock()
    while True:
        counts = await _read(means, proposal)
        left = still_moving(proposal, counts)
        zeros = zeros + 1 if left == 0 else 0
        is_late = means.clock() >= proposal.follow_until and left != 0
        if counts is not None and counts.by_state != (proposal.progress.by_state if proposal.progress else None):
            pause = means.timings.poll_seconds
            is_due = means.clock() >= shown_at + timedelta(seconds=means.timings.card_seconds)
            shown_at = means.clock() if is_due else shown_at
            moved = await _progress(means, proposal, counts, is_shown=is_due)
            if moved is None:
                return
            proposal = moved
        if zeros >= 2 or is_late:
            await _end(means, proposal, is_read=left is not None)
            return
        await means.sleep(pause)
        pause = min(pause * 1.5, means.timings.poll_most_seconds)


async def _read(means: Means, proposal: Proposal) -> Counts | None:
    try:
        return await means.reads.fetch_counts(proposal.target, _ORDER, purpose=Purpose.FOLLOW, in_order=True)
    except CloudError:
        return None


async def _progress(means: Means, proposal: Proposal, counts: Counts, *, is_shown: bool) -> Proposal | None:
    """Keeps what was read, so that another process goes on from there; the card follows at a calm rate."""
    posts = (Post(PostKind.CARD, proposal.proposal_id),) if is_shown else ()
    return await keep(means, proposal, Progress(counts), posts=posts)


async def _end(means: Means, proposal: Proposal, *, is_read: bool) -> None:
    outcome = judge(proposal, is_read=is_read, follow_seconds=means.timings.follow_seconds)
    facts: dict[str, Fact] = {
        "outcome": outcome.code.value,
        "stopped": outcome.stopped,
        "finished_anyway": outcome.finished_anyway,
        "failed": outcome.failed,
        "still_moving": outcome.still_moving,
    }
    posts = (Post(PostKind.BROADCAST, proposal.proposal_id, outcome.notice), *showing(proposal.proposal_id))
    await move(means, proposal, Ended(outcome), name=EntryName.ENDED, facts=facts, posts=posts)


def still_moving(proposal: Proposal, counts: Counts | None) -> int | None:
    """How many devices that were asked to stop still move, or None if that is not known.

    A device that had been told may begin to report progress although its task was to be cancelled. So where devices in
    progress were not asked to stop, those beyond the ones that were in progress before (less all that finished since)
    count as moving: rather one too many than one too few.
    """
    assert proposal.offer is not None  # noqa: S101 (what is followed was offered)
    named = proposal.offer.preview.touched_states
    left = counts.of(named) if counts is not None else None
    if left is None or TaskState.IN_PROGRESS in named:
        return left
    before = proposal.baseline.by_state.get(TaskState.IN_PROGRESS) if proposal.baseline is not None else None
    ended = [_rise(proposal.baseline, counts, state) for state in (TaskState.SUCCEEDED, TaskState.FAILED)]
    now = counts.by_state.get(TaskState.IN_PROGRESS) if counts is not None else None
    if before is None or now is None or None in ended:
        return left
    return left + max(0, now - max(0, before - sum(each or 0 for each in ended)))


def judge(proposal: Proposal, *, is_read: bool, follow_seconds: float) -> Outcome:
    """How it ended, from the baseline and the last counts; `is_read`: those are of now."""
    baseline, last = proposal.baseline, proposal.progress
    assert proposal.offer is not None  # noqa: S101 (what was followed was offered)
    named = proposal.offer.preview.touched_states
    rises = [_rise(baseline, last, state) for state in _RISING]
    moving = still_moving(proposal, last)
    if not is_read or baseline is None or last is None or moving is None or None in rises:
        return Outcome(OutcomeCode.UNKNOWN_OUTCOME, reports.never_seen(follow_seconds))
    stopped, finished, failed = (rise or 0 for rise in rises)
    spared = sum(baseline.by_state.get(state) or 0 for state in OPEN_STATES if state not in named)
    escaped = max(0, finished - spared)
    if not moving and not escaped:
        code = OutcomeCode.STOPPED
    else:
        code = OutcomeCode.PARTLY_STOPPED if stopped else OutcomeCode.NOT_STOPPED
    notice = reports.final(code, stopped=stopped, finished=finished, failed=failed, moving=moving, spared=spared)
    return Outcome(code, notice, stopped, finished, failed, moving)


def _rise(before: Counts | None, after: Counts | None, state: TaskState) -> int | None:
    was = before.by_state.get(state) if before is not None else None
    now = after.by_state.get(state) if after is not None else None
    return None if was is None or now is None else max(0, now - was)
