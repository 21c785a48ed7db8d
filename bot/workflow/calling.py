"""From the last look to the cloud's answer: the intent on disk, then on the wire, then what came of it.

Why repeating is safe: an intent carries its own nonce, so a second copy of it is refused by the cloud if the first one
arrived. A new attempt (a new nonce) is made only when the one before is known to have changed nothing, or when a
read-back shows that the goal is not reached (`finding_out`). Each function makes one move; the road goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from bot.audit import EntryName, Fact
from bot.errors import CloudError, CloudLost, CloudRefused, CloudThrottled, CloudUnreachable
from bot.exchange import Post, PostKind
from bot.model import Notice, Outcome, OutcomeCode, Preview
from bot.operations import Repeat
from bot.proposals import Call, CallAnswer, Called, Deferred, Ended, Lost, Proposal, State
from bot.workflow import reports
from bot.workflow.asking import command_for, in_the_way
from bot.workflow.ending import end, finish
from bot.workflow.means import Means, has_passed, move, steps_of
from bot.workflow.stepping import (
    OVER_ALREADY,
    accept,
    done_before,
    give_up_step,
    instead_of,
    is_several,
    may_go_on,
)

_NONCE_USED = "signaturenonceused"
_INCOMPLETE = "otabrake.IncompleteAnswer"
"""The cloud did not tell something of this one batch that a call about it needs."""


async def go_on_calling(means: Means, proposal: Proposal) -> None:
    """calling → the next move: the step that is under way, or the next one."""
    call = proposal.current_call
    if call is not None and call.answer is None:
        await _lose(means, proposal, call, CloudLost("the process that sent it ended"))
    elif call is None and proposal.steps_done > 0:
        await _next(means, proposal)
    elif is_over(means, proposal, _span(means, call.answer if call is not None else None)):
        await _give_up(means, proposal, None)
    else:
        await attempt(means, proposal)


async def _next(means: Means, proposal: Proposal) -> None:
    """What is left of a change that has begun must not wait."""
    await attempt(means, proposal)


def _span(means: Means, answer: CallAnswer | None) -> float:
    """For how long after the yes an attempt may follow one that changed nothing."""
    is_throttled = answer is CallAnswer.THROTTLED
    return means.timings.retry_seconds if is_throttled else means.timings.first_call_seconds


async def attempt(
    means: Means, proposal: Proposal, *, preview: Preview | None = None, posts: Sequence[Post] = ()
) -> None:
    """One attempt at the next step: the intent on disk, then on the wire.

    The first one keeps what the last look saw (`preview`), and the steps that follow from it. `posts` go with it.
    """
    if proposal.state is State.APPROVED and is_over(means, proposal, means.timings.first_call_seconds):
        await _give_up(means, proposal, None)
        return
    first = await in_the_way(means, means.operations[proposal.operation], proposal.target, but=proposal)
    if first is not None:
        await _give_way(means, proposal, reports.superseded(first))
        return
    steps = steps_of(means, proposal)
    if preview is not None:
        steps = means.operations[proposal.operation].steps(preview, proposal.params)
    step = steps[proposal.steps_done]
    try:
        intent = means.changes.prepare(step)
    except CloudRefused as error:
        await _cannot_prepare(means, proposal, means.words.explain(error, step.target), error.code)
        return
    facts: dict[str, Fact] = {
        "step": step.kind.value,
        "job": step.target.job,
        "nonce": intent.nonce,
        "key_id": intent.key_id,
        "touches": sorted(touch.value for touch in step.touches),
        "devices": list(step.devices),
        "tasks": list(step.tasks),
    }
    called = Called(intent, preview, steps)
    calling = await move(means, proposal, called, name=EntryName.CALLED, facts=facts, posts=posts)
    if calling is not None:
        await _send(means, calling)


async def _give_way(means: Means, proposal: Proposal, notice: Notice) -> None:
    """Nothing is restarted that is being stopped: what was not sent yet is not sent any more."""
    if was_lost(proposal):
        await stay_unknown(means, proposal, notice.text)
    elif proposal.steps_done > 0:
        await give_up_step(means, proposal, CallAnswer.NOT_SENT, notice, is_last=True)
    else:
        await end(means, proposal, OutcomeCode.SUPERSEDED, notice)


async def _cannot_prepare(means: Means, proposal: Proposal, explained: Notice, code: str) -> None:
    """No key for this instance (any more), or facts of this batch are missing: the attempt is not made."""
    if proposal.state is State.UNKNOWN or was_lost(proposal):
        await stay_unknown(means, proposal, explained.text)
    elif proposal.steps_done > 0:
        await give_up_step(means, proposal, CallAnswer.NOT_SENT, explained, is_last=code != _INCOMPLETE)
    elif is_several(means, proposal) and code == _INCOMPLETE and proposal.state is State.CALLING:
        await give_up_step(means, proposal, CallAnswer.NOT_SENT, explained)
    else:
        notice = reports.never_sent(explained, (), command_for(means, proposal))
        await end(means, proposal, OutcomeCode.NOT_DONE, notice)


def was_lost(proposal: Proposal) -> bool:
    """Whether an earlier attempt at the step under way may have arrived: then no later refusal says what happened."""
    return any(call.step == proposal.steps_done and call.answer is CallAnswer.LOST for call in proposal.calls)


async def stay_unknown(means: Means, proposal: Proposal, why: str) -> None:
    """What the step under way did stays unknown; what else was asked for goes on."""
    may_repeat = means.operations[proposal.operation].repeat is Repeat.AFTER_READ_BACK
    notice = reports.unknown_outcome(why, command_for(means, proposal) if may_repeat else None)
    if may_go_on(means, proposal, CallAnswer.LOST):
        await give_up_step(means, proposal, CallAnswer.LOST, notice)
    else:
        await end(means, proposal, OutcomeCode.UNKNOWN_OUTCOME, notice)


async def _send(means: Means, proposal: Proposal) -> None:
    call = proposal.current_call
    assert call is not None  # noqa: S101 (a proposal that is calling has one)
    try:
        receipt = await means.changes.send(call.intent, is_held=means.is_held)
    except CloudThrottled as error:
        await _defer(means, proposal, CallAnswer.THROTTLED, error, pause=error.retry_after_seconds or 1.0)
    except CloudRefused as error:
        if error.code.casefold().endswith(_NONCE_USED):
            # Sent once by us and yet seen before: something between us and the cloud has repeated it.
            await _lose(means, proposal, call, CloudLost("a copy of it came first", request_id=error.request_id))
        else:
            await refused(means, proposal, error)
    except CloudUnreachable as error:
        await _defer(means, proposal, CallAnswer.NOT_SENT, error, pause=2.0)
    except CloudLost as error:
        await _lose(means, proposal, call, error)
    else:
        await accept(means, proposal, receipt.request_id)


async def _defer(means: Means, proposal: Proposal, answer: CallAnswer, error: CloudError, *, pause: float) -> None:
    """The attempt changed nothing: another one follows while there is time, else that is the end."""
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
    if is_over(means, deferred, _span(means, answer) - pause):
        await _give_up(means, deferred, explained)
        return
    await means.sleep(pause + _jitter(deferred))


def _jitter(proposal: Proposal) -> float:
    """Up to a second, so that those who were throttled together do not come again together."""
    nonce = proposal.calls[-1].intent.nonce
    return int(sha256(nonce.encode()).hexdigest()[:4], 16) / 0xFFFF


async def _give_up(means: Means, proposal: Proposal, explained: Notice | None) -> None:
    """There is no time for another attempt at this step."""
    call = proposal.current_call
    done, command = done_before(means, proposal), command_for(means, proposal)
    if explained is None and call is not None and call.detail is not None:
        explained = Notice(call.detail)
    if was_lost(proposal):
        await stay_unknown(means, proposal, explained.text if explained is not None else "no answer came")
        return
    is_throttled = call is not None and call.answer is CallAnswer.THROTTLED and explained is not None
    if any(each.answer is CallAnswer.LOST for each in proposal.calls) and not is_several(means, proposal):
        await stay_unknown(means, proposal, explained.text if explained is not None else "no answer came")
    elif explained is not None and may_go_on(means, proposal, CallAnswer.THROTTLED):
        answer = CallAnswer.THROTTLED if is_throttled else CallAnswer.NOT_SENT
        await give_up_step(means, proposal, answer, explained)
    elif is_throttled and explained is not None:
        step = steps_of(means, proposal)[proposal.steps_done].kind
        await end(means, proposal, OutcomeCode.REFUSED_BY_CLOUD, reports.refused(step, explained, done, command))
    else:
        await end(means, proposal, OutcomeCode.NOT_DONE, reports.never_sent(explained, done, command))


async def refused(means: Means, proposal: Proposal, error: CloudRefused) -> None:
    """The cloud said no to the step under way: another way to the same goal, the next step, or the end."""
    step = steps_of(means, proposal)[proposal.steps_done]
    explained = means.words.explain(error, step.target)
    if proposal.state is State.UNKNOWN or was_lost(proposal):
        await stay_unknown(means, proposal, explained.text)
        return
    instead = await instead_of(means, proposal, step, error)
    if instead or may_go_on(means, proposal, CallAnswer.REFUSED, code=error.code):
        await give_up_step(
            means,
            proposal,
            CallAnswer.REFUSED,
            explained,
            code=error.code,
            request_id=error.request_id,
            instead=instead,
        )
        return
    done = done_before(means, proposal)
    command = None if error.code.casefold() in OVER_ALREADY else command_for(means, proposal)
    notice = reports.refused(step.kind, explained, done, command, next_step=reports.after_refusal(step, error.code))
    outcome = Outcome(OutcomeCode.REFUSED_BY_CLOUD, notice)
    await finish(means, proposal, Ended(outcome, CallAnswer.REFUSED, error.request_id, error.code))


async def _lose(means: Means, proposal: Proposal, call: Call, error: CloudLost) -> None:
    step = call.intent.step
    line = Post(PostKind.LINE, proposal.proposal_id, reports.lost(step.kind, error.why, error.request_id))
    await move(
        means,
        proposal,
        Lost(error.why, error.request_id),
        name=EntryName.LOST,
        facts={
            "step": step.kind.value,
            "nonce": call.intent.nonce,
            "why": error.why,
            "request_id": error.request_id,
        },
        posts=(line, Post(PostKind.CARD, proposal.proposal_id)),
    )


def is_over(means: Means, proposal: Proposal, seconds: float) -> bool:
    return proposal.approved_at is None or has_passed(means, proposal.approved_at, seconds)
