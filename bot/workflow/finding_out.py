"""A call whose answer was lost: the same bytes once more, else the target is read back.

Nothing is concluded before the call's deadline + 1 s, and the read-back judges the goal, not its cause. What must never
be repeated is not: there, only the read-back tells.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from bot.errors import CloudError, CloudLost, CloudRefused, CloudThrottled, CloudUnreachable
from bot.model import OPEN_STATES, Counts, JobState, Outcome, OutcomeCode, Receipt, Step, StepKind, TaskState
from bot.operations import Repeat
from bot.ports import Purpose
from bot.proposals import Call, Ended, Proposal
from bot.workflow import reports
from bot.workflow.calling import attempt, refused, stay_unknown
from bot.workflow.ending import finish
from bot.workflow.looking import count
from bot.workflow.means import Elapsed, Means, steps_of
from bot.workflow.stepping import accept, accepted_jobs, called_part, is_several
from bot.workflow.verdicts import still_moving, strategy_stands

ATTEMPTS = 3
"""At most so many attempts at a step whose answer was lost."""

READ_BACK_PAUSE_SECONDS = 5.0
SECOND_LOOK_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 15.0
_NONCE_USED = "signaturenonceused"
_OURS = "otabrake."
"""How codes begin that are not the cloud's: nothing was sent then."""


async def find_out(means: Means, proposal: Proposal) -> None:
    """unknown → calling, following or finished: send the same bytes once more, else read the target back."""
    call = proposal.current_call
    assert call is not None  # noqa: S101 (an unknown outcome is that of a call)
    refusal: CloudRefused | None = None
    has_arrived = False
    fresh_until = call.intent.date + timedelta(seconds=means.timings.nonce_seconds)
    if _may_repeat(means, proposal) and means.clock() < fresh_until:
        answer = await _send_again(means, call)
        if isinstance(answer, Receipt):
            await accept(means, proposal, answer.request_id)
            return
        has_arrived = answer is not None and answer.code.casefold().endswith(_NONCE_USED)
        refusal = None if has_arrived else answer
    if has_arrived and await _is_seen(means, proposal, call.intent.step):
        await accept(means, proposal, None, reports.arrived_unanswered())
    elif _may_not_wait(means, proposal):
        await stay_unknown(means, proposal, "others must not wait for it; what its devices do is told at the end")
    else:
        await _judge_by_reading(means, proposal, call, refusal, has_arrived=has_arrived)


def _may_not_wait(means: Means, proposal: Proposal) -> bool:
    """A stop of several batches does not wait for one: its devices tell at the end what became of it."""
    is_stop = means.operations[proposal.operation].is_stop
    return is_stop and is_several(means, proposal) and proposal.steps_done + 1 < len(steps_of(means, proposal))


async def _is_seen(means: Means, proposal: Proposal, step: Step) -> bool:
    """Whether what arrived shows: its goal is reached, or tasks were cancelled since. A used nonce alone says that a
    copy arrived, not that it was obeyed: a throttled or refused one may use it up as well."""
    try:
        is_reached, counts = await _GOALS[step.kind](means, proposal, step)
    except CloudError:
        return False
    part = called_part(proposal, step)
    was = part.counts.by_state.get(TaskState.CANCELED) if part is not None else None
    now = counts.by_state.get(TaskState.CANCELED)
    return bool(is_reached) or (was is not None and now is not None and now > was)


def _may_repeat(means: Means, proposal: Proposal) -> bool:
    return means.operations[proposal.operation].repeat is Repeat.AFTER_READ_BACK


async def _send_again(means: Means, call: Call) -> Receipt | CloudRefused | None:
    """The cloud's word on a second copy of the same bytes; None if it had none that tells anything of the first."""
    try:
        return await means.changes.send(call.intent, is_held=means.is_held)
    except (CloudThrottled, CloudUnreachable, CloudLost):
        return None
    except CloudRefused as error:
        return None if error.code.startswith(_OURS) else error


async def _judge_by_reading(
    means: Means, proposal: Proposal, call: Call, refusal: CloudRefused | None, *, has_arrived: bool
) -> None:
    wait = (call.intent.deadline - means.clock()).total_seconds() + 1
    if wait > 0:
        await means.sleep(min(wait, LONGEST_WAIT_SECONDS))  # a clock that was set back must not make it a day
    read = await _read_back(means, proposal, call.intent.step)
    if isinstance(read, Counts) and has_arrived:
        await accept(means, proposal, None, reports.arrived_unanswered())
    elif isinstance(read, Counts):
        await _goal_reached(means, proposal, call.intent.step, read)
    elif refusal is not None:
        await refused(means, proposal, refusal)
    elif read is None and call.attempt < ATTEMPTS and await _may_try_again(means, proposal):
        await attempt(means, proposal)
    elif has_arrived:
        await accept(means, proposal, None, reports.arrived_unanswered())
    else:
        await stay_unknown(means, proposal, read if isinstance(read, str) else "the goal is not reached")


async def _goal_reached(means: Means, proposal: Proposal, step: Step, counts: Counts) -> None:
    is_last = proposal.steps_done + 1 == len(steps_of(means, proposal))
    if not is_last or accepted_jobs(proposal) or is_several(means, proposal):
        await accept(means, proposal, None, reports.step_reached_unanswered(step.kind))
        return
    parts = proposal.called.parts if proposal.called is not None else ()
    standing = [part.job.job_id for part in parts if strategy_stands(proposal, part)]
    if standing:
        notice = reports.strategy_unconfirmed(standing, counts)
        await finish(means, proposal, Ended(Outcome(OutcomeCode.UNKNOWN_OUTCOME, notice)))
        return
    notice = reports.goal_reached_unconfirmed(step.kind, counts)
    await finish(means, proposal, Ended(Outcome(OutcomeCode.GOAL_REACHED_UNCONFIRMED, notice)))


async def _read_back(means: Means, proposal: Proposal, step: Step) -> Counts | str | None:
    """The counts if the step's goal is reached, None if it is not, or why that could not be read."""
    elapsed, seconds = Elapsed(means.clock), means.timings.retry_seconds - READ_BACK_PAUSE_SECONDS
    while True:
        try:
            is_reached, counts = await _GOALS[step.kind](means, proposal, step)
            if is_reached and step.kind is StepKind.CANCEL_TASKS:
                await means.sleep(SECOND_LOOK_SECONDS)  # devices move: one look at zero is not enough
                is_reached, counts = await _GOALS[step.kind](means, proposal, step)
            if is_reached is not None:
                return counts if is_reached else None
            why = "not every number could be read"
        except CloudError as error:
            why = means.words.explain(error, step.target).text
        if elapsed() >= seconds:
            return why
        await means.sleep(READ_BACK_PAUSE_SECONDS)


Goal = tuple[bool | None, Counts]
"""Whether a step's goal is reached (None: not known), and what was counted."""


async def _no_tasks_left(means: Means, proposal: Proposal, step: Step) -> Goal:
    counts = await means.reads.fetch_counts(step.target, tuple(TaskState), purpose=Purpose.STOP, in_order=True)
    part = called_part(proposal, step)
    left = still_moving(part, counts) if part is not None else None
    return (None if left is None else left == 0), counts


async def _no_strategy_left(means: Means, proposal: Proposal, step: Step) -> Goal:
    job = await means.reads.fetch_job(step.target, purpose=Purpose.STOP)
    return job.state is JobState.CANCELED, Counts({}, means.clock())


async def _no_devices_left(means: Means, proposal: Proposal, step: Step) -> Goal:
    tasks = await means.reads.fetch_tasks_of(step.target, step.devices, purpose=Purpose.STOP)
    is_over = not any(task.state in OPEN_STATES for task in tasks) if tasks else None
    return is_over, count(tasks, means)


async def _tasks_run_again(means: Means, proposal: Proposal, step: Step) -> Goal:
    states = means.operations[proposal.operation].retries(proposal.params)
    tasks = await means.reads.fetch_tasks_of(step.target, step.devices, purpose=Purpose.STOP)
    waiting = {task.task_id for task in tasks if task.state in states}
    return bool(tasks) and waiting.isdisjoint(step.tasks), count(tasks, means)


async def _rate_is_set(means: Means, proposal: Proposal, step: Step) -> Goal:
    job = await means.reads.fetch_job(step.target, purpose=Purpose.STOP)
    wanted = step.settings.per_minute if step.settings is not None else None
    is_set = job.settings.per_minute == wanted if job.settings is not None else None
    return is_set, Counts({}, means.clock())


_GOALS: dict[StepKind, Callable[[Means, Proposal, Step], Awaitable[Goal]]] = {
    StepKind.CANCEL_TASKS: _no_tasks_left,
    StepKind.CANCEL_STRATEGY: _no_strategy_left,
    StepKind.CANCEL_DEVICES: _no_devices_left,
    StepKind.RETRY_TASKS: _tasks_run_again,
    StepKind.SET_RATE: _rate_is_set,
}


async def _may_try_again(means: Means, proposal: Proposal) -> bool:
    """A new attempt needs an offer that stands, and no newer proposal on the same batch."""
    stands = proposal.offer is not None and means.clock() < proposal.offer.expires_at
    if not (stands and _may_repeat(means, proposal)):
        return False
    step = steps_of(means, proposal)[proposal.steps_done]
    others = await means.store.fetch_on_jobs(proposal.target.instance, [step.target.job])
    newer = [each for each in others if each.approved_at and each.approved_at > (proposal.approved_at or means.clock())]
    return not newer
