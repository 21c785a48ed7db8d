"""From one step of a change to the next: what was accepted, what is given up, and what takes its place.

A stop goes on with its other steps whatever came of one: each device that does not start counts. What restarts devices
goes on only after the cloud's verdict on one batch of tasks, which says nothing of the others.
"""

from __future__ import annotations

from datetime import timedelta

from bot.audit import EntryName, Fact
from bot.errors import CloudError, CloudRefused
from bot.exchange import Post, PostKind
from bot.model import Notice, Part, Step, StepKind, Touch
from bot.operations import Direction
from bot.proposals import Accepted, CallAnswer, GivenUp, Proposal
from bot.workflow import reports
from bot.workflow.looking import open_tasks_of
from bot.workflow.means import Means, move, steps_of

LINES_SHOWN = 6
"""Up to so many steps, each is told in the thread; more are told together at the end."""

MOST_BY_DEVICE = 10_000
"""As many devices as are cancelled by name in place of a refused cancel; what is left can be resumed."""

CANCELLED_ALREADY = ("iot.ota.jobcanceled", "iot.ota.jobhascanceled")
OVER_ALREADY = (*CANCELLED_ALREADY, "iot.ota.jobhasfinished")
_ON_ONE_BATCH = ("iot.ota.", "iot.device.", "iot.firmware.")
GOALS = frozenset({StepKind.CANCEL_TASKS, StepKind.CANCEL_DEVICES, StepKind.RETRY_TASKS, StepKind.SET_RATE})
"""The steps whose effect is followed; the others only prepare them."""


def accepted_jobs(proposal: Proposal) -> frozenset[str]:
    """The batches for which at least one step was accepted whose effect is followed."""
    return frozenset(
        call.intent.step.target.job
        for call in proposal.calls
        if call.answer is CallAnswer.ACCEPTED and call.intent.step.kind in GOALS
    )


def done_before(means: Means, proposal: Proposal) -> tuple[StepKind, ...]:
    """The kinds of steps that the cloud has accepted."""
    steps = steps_of(means, proposal)[: proposal.steps_done]
    answers = (proposal.last_call_of(number) for number in range(len(steps)))
    accepted = (
        step.kind
        for step, call in zip(steps, answers, strict=True)
        if call is not None and call.answer is CallAnswer.ACCEPTED
    )
    return tuple(dict.fromkeys(accepted))


def is_several(means: Means, proposal: Proposal) -> bool:
    """Whether the change is about several batches of devices or tasks, which each come to an end of their own."""
    return sum(step.kind in GOALS for step in steps_of(means, proposal)) > 1


def may_go_on(means: Means, proposal: Proposal, answer: CallAnswer, *, code: str = "") -> bool:
    """Whether the change goes on although the step under way came to this: to the next one, or to what was accepted."""
    has_more_to_tell = proposal.steps_done > 0 and is_several(means, proposal)
    return _has_next(means, proposal, answer, code) or bool(accepted_jobs(proposal)) or has_more_to_tell


def _has_next(means: Means, proposal: Proposal, answer: CallAnswer, code: str) -> bool:
    has_more = proposal.steps_done + 1 < len(steps_of(means, proposal))
    is_verdict = answer is CallAnswer.REFUSED and code.casefold().startswith(_ON_ONE_BATCH)
    return has_more and (means.operations[proposal.operation].is_stop or is_verdict)


async def accept(means: Means, proposal: Proposal, request_id: str | None, detail: str | None = None) -> None:
    """The cloud accepted the step under way: the next one follows, or the devices are followed."""
    steps = steps_of(means, proposal)
    step, is_last = steps[proposal.steps_done], proposal.steps_done + 1 == len(steps)
    direction, now = means.operations[proposal.operation].direction, means.clock()
    notice = reports.accepted(
        step, direction, is_last=is_last, request_id=request_id, detail=detail, at=now, of=len(steps)
    )
    kind = PostKind.BROADCAST if is_last else PostKind.LINE
    is_told = is_last or len(steps) <= LINES_SHOWN
    posts = (Post(kind, proposal.proposal_id, notice),) if is_told else ()
    facts: dict[str, Fact] = {
        "step": step.kind.value,
        "job": step.target.job,
        "request_id": request_id,
        "detail": detail,
    }
    await move(
        means,
        proposal,
        Accepted(request_id, is_last, now + timedelta(seconds=_follow_seconds(means, direction)), detail),
        name=EntryName.ACCEPTED,
        facts=facts,
        posts=(*posts, Post(PostKind.CARD, proposal.proposal_id)),
    )


async def give_up_step(
    means: Means,
    proposal: Proposal,
    answer: CallAnswer,
    explained: Notice,
    *,
    code: str = "",
    request_id: str | None = None,
    instead: tuple[Step, ...] = (),
    is_last: bool = False,
) -> None:
    """The step under way came to nothing that can be relied on, and the change goes on without it."""
    step = steps_of(means, proposal)[proposal.steps_done]
    is_last = is_last or not (instead or _has_next(means, proposal, answer, code))
    direction, now = means.operations[proposal.operation].direction, means.clock()
    until = now + timedelta(seconds=_follow_seconds(means, direction))
    notice = reports.given_up(step, answer, explained, code, instead=len(instead), is_last=is_last)
    facts: dict[str, Fact] = {
        "step": step.kind.value,
        "job": step.target.job,
        "answer": answer.value,
        "code": code or None,
        "request_id": request_id,
    }
    await move(
        means,
        proposal,
        GivenUp(answer, is_last, until, code or explained.text, request_id, instead),
        name=EntryName.GIVEN_UP,
        facts=facts,
        posts=(Post(PostKind.LINE, proposal.proposal_id, notice), Post(PostKind.CARD, proposal.proposal_id)),
    )


def _follow_seconds(means: Means, direction: Direction) -> float:
    timings = means.timings
    if direction is Direction.TUNE:
        return timings.rate_seconds
    return timings.restart_seconds if direction is Direction.RESTART else timings.follow_seconds


async def instead_of(means: Means, proposal: Proposal, step: Step, error: CloudRefused) -> tuple[Step, ...]:
    """The cancels by name that reach what a refused cancel could not: a batch whose strategy was cancelled may refuse
    it. By name the cloud spares no device in progress, so only where those were to be stopped."""
    by_device = means.operations[proposal.operation].by_device
    is_case = step.kind is StepKind.CANCEL_TASKS and error.code.casefold() in CANCELLED_ALREADY
    part = called_part(proposal, step)
    if by_device is None or part is None or not is_case or Touch.IN_PROGRESS not in step.touches:
        return ()
    try:
        tasks = await open_tasks_of(means, step.target, part.touched_states, most=MOST_BY_DEVICE)
    except CloudError:
        return ()
    assert proposal.called is not None  # noqa: S101 (it has a part)
    return by_device(proposal.called, part, tasks)


def called_part(proposal: Proposal, step: Step) -> Part | None:
    """What the last look saw of the batch that a step is about."""
    parts = proposal.called.parts if proposal.called is not None else ()
    return next((part for part in parts if part.job.job_id == step.target.job), None)
