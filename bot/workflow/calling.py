"""From the last look to the cloud's answer: the intent on disk, then on the wire, then what came of it.

Why repeating is safe: an intent carries its own nonce, so a second copy of it is refused by the cloud if the first one
arrived. A new attempt (a new nonce) is made only when the one before is known to have changed nothing, or when a
read-back shows that the goal is not reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from bot.audit import EntryName, Fact
from bot.errors import (
    CloudError,
    CloudLost,
    CloudRefused,
    CloudThrottled,
    CloudUnreachable,
)
from bot.exchange import Post, PostKind
from bot.model import Counts, JobState, Notice, Outcome, OutcomeCode, Receipt, Step, StepKind, TaskState
from bot.operations import Repeat
from bot.ports import Purpose
from bot.proposals import (
    Accepted,
    Call,
    CallAnswer,
    Called,
    Deferred,
    Ended,
    Lost,
    Proposal,
    State,
)
from bot.workflow import reports
from bot.workflow.asking import command_for
from bot.workflow.means import Means, move, showing

ATTEMPTS = 3
"""At most so many attempts at a step whose answer was lost."""

_NONCE_USED = "signaturenonceused"
_OURS = "otabrake."
"""How codes begin that are not the cloud's: nothing was sent then."""


async def go_on_calling(means: Means, proposal: Proposal) -> None:
    """calling, found by the sweep: an intent without an answer was under way in a process that is gone."""
    call = proposal.current_call
    if call is not None and call.answer is None:
        await _lose(means, proposal, call, CloudLost("the process that sent it ended"))
    elif call is None and proposal.steps_done > 0:
        await attempt(means, proposal)  # the step before it was accepted: what is left must not wait
    elif _is_over(means, proposal, _span(means, call.answer if call is not None else None)):
        await _give_up(means, proposal, None)
    else:
        await attempt(means, proposal)


def _span(means: Means, answer: CallAnswer | None) -> float:
    """For how long after the yes an attempt may follow one that changed nothing."""
    is_throttled = answer is CallAnswer.THROTTLED
    return means.timings.retry_seconds if is_throttled else means.timings.first_call_seconds


async def attempt(
    means: Means, proposal: Proposal, *, baseline: Counts | None = None, posts: Sequence[Post] = ()
) -> None:
    """One attempt at the next step: the intent on disk, then on the wire. `posts` go with it."""
    if proposal.state is State.APPROVED and _is_over(means, proposal, means.timings.first_call_seconds):
        await _give_up(means, proposal, None)
        return
    step = _steps(means, proposal)[proposal.steps_done]
    try:
        intent = means.changes.prepare(step)
    except CloudRefused as error:
        await _cannot_prepare(means, proposal, means.words.explain(error, proposal.target))
        return
    facts: dict[str, Fact] = {
        "step": step.kind.value,
        "nonce": intent.nonce,
        "key_id": intent.key_id,
        "touches": sorted(touch.value for touch in step.touches),
    }
    calling = await move(means, proposal, Called(intent, baseline), name=EntryName.CALLED, facts=facts, posts=posts)
    if calling is not None:
        await _send(means, calling)


async def _cannot_prepare(means: Means, proposal: Proposal, explained: Notice) -> None:
    """No key for this instance (any more): this attempt is not made, and no other will be."""
    if proposal.state is State.UNKNOWN or was_lost(proposal):
        await _stay_unknown(means, proposal, explained.text)
    else:
        notice = reports.never_sent(explained, _done(means, proposal), command_for(means, proposal))
        await end(means, proposal, OutcomeCode.NOT_DONE, notice)


def was_lost(proposal: Proposal) -> bool:
    """Whether an earlier attempt at the step under way may have arrived: then no later refusal says what happened."""
    return any(call.step == proposal.steps_done and call.answer is CallAnswer.LOST for call in proposal.calls)


async def _stay_unknown(means: Means, proposal: Proposal, why: str) -> None:
    notice = reports.unknown_outcome(why, command_for(means, proposal))
    await end(means, proposal, OutcomeCode.UNKNOWN_OUTCOME, notice)


async def _send(means: Means, proposal: Proposal) -> None:
    call = proposal.current_call
    assert call is not None  # noqa: S101 (a proposal that is calling has one)
    try:
        receipt = await means.changes.send(call.intent)
    except CloudThrottled as error:
        await _defer(means, proposal, CallAnswer.THROTTLED, error, pause=error.retry_after_seconds or 1.0)
    except CloudRefused as error:
        await _refused(means, proposal, error)
    except CloudUnreachable as error:
        await _defer(means, proposal, CallAnswer.NOT_SENT, error, pause=2.0)
    except CloudLost as error:
        await _lose(means, proposal, call, error)
    else:
        await _accept(means, proposal, receipt.request_id)


async def _accept(means: Means, proposal: Proposal, request_id: str | None, detail: str | None = None) -> None:
    steps = _steps(means, proposal)
    step, is_last = steps[proposal.steps_done], proposal.steps_done + 1 == len(steps)
    now = means.clock()
    notice = reports.accepted(step.kind, is_last=is_last, request_id=request_id, detail=detail, at=now)
    kind = PostKind.BROADCAST if is_last else PostKind.LINE
    follow_until = now + timedelta(seconds=means.timings.follow_seconds)
    facts: dict[str, Fact] = {"step": step.kind.value, "request_id": request_id, "detail": detail}
    after = await move(
        means,
        proposal,
        Accepted(request_id, is_last, follow_until, detail),
        name=EntryName.ACCEPTED,
        facts=facts,
        posts=(Post(kind, proposal.proposal_id, notice), Post(PostKind.CARD, proposal.proposal_id)),
    )
    if after is not None and after.state is State.CALLING:
        await attempt(means, after)


async def _defer(means: Means, proposal: Proposal, answer: CallAnswer, error: CloudError, *, pause: float) -> None:
    """The attempt changed nothing: another one follows while there is time, else that is the end."""
    span = _span(means, answer)
    explained = means.words.explain(error, proposal.target)
    request_id = error.request_id if isinstance(error, CloudThrottled) else None
    deferred = await move(
        means,
        proposal,
        Deferred(answer, explained.text, request_id),
        name=EntryName.DEFERRED,
        facts={"answer": answer.value, "request_id": request_id},
    )
    if deferred is None:
        return
    if _is_over(means, deferred, span - pause):
        await _give_up(means, deferred, explained)
        return
    await means.sleep(pause)
    await attempt(means, deferred)


async def _give_up(means: Means, proposal: Proposal, explained: Notice | None) -> None:
    call = proposal.current_call
    done, command = _done(means, proposal), command_for(means, proposal)
    if explained is None and call is not None and call.detail is not None:
        explained = Notice(call.detail)
    if was_lost(proposal):
        await _stay_unknown(means, proposal, explained.text if explained is not None else "no answer came")
    elif call is not None and call.answer is CallAnswer.THROTTLED and explained is not None:
        step = _steps(means, proposal)[proposal.steps_done].kind
        await end(means, proposal, OutcomeCode.REFUSED_BY_CLOUD, reports.refused(step, explained, done, command))
    else:
        await end(means, proposal, OutcomeCode.NOT_DONE, reports.never_sent(explained, done, command))


async def _refused(means: Means, proposal: Proposal, error: CloudRefused) -> None:
    step = _steps(means, proposal)[proposal.steps_done].kind
    explained = means.words.explain(error, proposal.target)
    command = command_for(means, proposal)
    if proposal.state is State.UNKNOWN or was_lost(proposal):
        outcome = Outcome(OutcomeCode.UNKNOWN_OUTCOME, reports.unknown_outcome(explained.text, command))
    else:
        notice = reports.refused(step, explained, _done(means, proposal), command)
        outcome = Outcome(OutcomeCode.REFUSED_BY_CLOUD, notice)
    await _finish(means, proposal, Ended(outcome, CallAnswer.REFUSED, error.request_id, error.code))


async def _lose(means: Means, proposal: Proposal, call: Call, error: CloudLost) -> None:
    step = _steps(means, proposal)[proposal.steps_done].kind
    line = Post(PostKind.LINE, proposal.proposal_id, reports.lost(step, error.why))
    unknown = await move(
        means,
        proposal,
        Lost(error.why, error.request_id),
        name=EntryName.LOST,
        facts={"step": step.value, "nonce": call.intent.nonce, "why": error.why},
        posts=(line, Post(PostKind.CARD, proposal.proposal_id)),
    )
    if unknown is not None:
        await find_out(means, unknown)


async def find_out(means: Means, proposal: Proposal) -> None:
    """unknown → calling, following or finished: send the same bytes once more, else read the target back."""
    call = proposal.current_call
    assert call is not None  # noqa: S101 (an unknown outcome is that of a call)
    refusal: CloudRefused | None = None
    if _may_repeat(means, proposal) and means.clock() < call.intent.date + timedelta(
        seconds=means.timings.nonce_seconds
    ):
        answer = await _send_again(means, call)
        if isinstance(answer, Receipt):
            await _accept(means, proposal, answer.request_id)
            return
        if answer is not None and answer.code.casefold().endswith(_NONCE_USED):
            await _accept(means, proposal, None, reports.arrived_unanswered())
            return
        refusal = answer
    await _judge_by_reading(means, proposal, call, refusal)


def _may_repeat(means: Means, proposal: Proposal) -> bool:
    return means.operations[proposal.operation].repeat is Repeat.AFTER_READ_BACK


async def _send_again(means: Means, call: Call) -> Receipt | CloudRefused | None:
    """The cloud's word on a second copy of the same bytes; None if it had none that tells anything of the first."""
    try:
        return await means.changes.send(call.intent)
    except (CloudThrottled, CloudUnreachable, CloudLost):
        return None
    except CloudRefused as error:
        return None if error.code.startswith(_OURS) else error


async def _judge_by_reading(means: Means, proposal: Proposal, call: Call, refusal: CloudRefused | None) -> None:
    """Nothing is concluded before the call's deadline + 1 s; then the goal is judged, not the cause."""
    wait = (call.intent.deadline - means.clock()).total_seconds() + 1
    if wait > 0:
        await means.sleep(wait)
    read = await _read_back(means, proposal, call.intent.step)
    if isinstance(read, Counts) and proposal.steps_done + 1 < len(_steps(means, proposal)):
        await _accept(means, proposal, None, reports.step_reached_unanswered(call.intent.step.kind))
    elif isinstance(read, Counts):
        outcome = Outcome(OutcomeCode.GOAL_REACHED_UNCONFIRMED, reports.goal_reached_unconfirmed(read))
        await _finish(means, proposal, Ended(outcome))
    elif refusal is not None:
        await _refused(means, proposal, refusal)
    elif read is None and call.attempt < ATTEMPTS and _may_try_again(means, proposal):
        await attempt(means, proposal)
    else:
        await _stay_unknown(means, proposal, read if isinstance(read, str) else "the goal is not reached")


async def _read_back(means: Means, proposal: Proposal, step: Step) -> Counts | str | None:
    """The counts if the step's goal is reached, None if it is not, or why that could not be read."""
    until = max(means.clock(), proposal.approved_at or means.clock()) + timedelta(seconds=means.timings.retry_seconds)
    while True:
        try:
            counts = await means.reads.fetch_counts(
                proposal.target, tuple(TaskState), purpose=Purpose.STOP, in_order=True
            )
            if step.kind is StepKind.CANCEL_STRATEGY:
                job = await means.reads.fetch_job(proposal.target, purpose=Purpose.STOP)
                return counts if job.state is JobState.CANCELED else None
            assert proposal.offer is not None  # noqa: S101 (what was called was offered)
            left = counts.of(proposal.offer.preview.touched_states)
            if left is not None:
                return counts if left == 0 else None
            why = "not every number could be read"
        except CloudError as error:
            why = means.words.explain(error, proposal.target).text
        if means.clock() + timedelta(seconds=5) >= until:
            return why
        await means.sleep(5)


def _may_try_again(means: Means, proposal: Proposal) -> bool:
    stands = proposal.offer is not None and means.clock() < proposal.offer.expires_at
    return stands and _may_repeat(means, proposal)


def _steps(means: Means, proposal: Proposal) -> tuple[Step, ...]:
    assert proposal.offer is not None  # noqa: S101 (what is called was offered)
    return means.operations[proposal.operation].steps(proposal.offer.preview)


def _done(means: Means, proposal: Proposal) -> tuple[StepKind, ...]:
    return tuple(step.kind for step in _steps(means, proposal)[: proposal.steps_done])


def _is_over(means: Means, proposal: Proposal, seconds: float) -> bool:
    approved: datetime | None = proposal.approved_at
    return approved is None or means.clock() >= approved + timedelta(seconds=seconds)


async def end(means: Means, proposal: Proposal, code: OutcomeCode, notice: Notice) -> None:
    """The end, said in the channel."""
    await _finish(means, proposal, Ended(Outcome(code, notice)))


async def _finish(means: Means, proposal: Proposal, ended: Ended) -> None:
    facts: dict[str, Fact] = {"outcome": ended.outcome.code.value, "request_id": ended.request_id}
    final = Post(PostKind.BROADCAST, proposal.proposal_id, ended.outcome.notice)
    posts = (final, *showing(proposal.proposal_id))
    await move(means, proposal, ended, name=EntryName.ENDED, facts=facts, posts=posts)
