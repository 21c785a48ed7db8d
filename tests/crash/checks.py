"""What must hold after a flow, whoever died when. Each check says in a sentence what is wrong; none of them repairs.

**Effects**, as DESIGN §4 counts them. A copy of a call is known by its nonce, which stands on disk before it is sent.
A step of an approved proposal has one effect if one of its nonces was carried out, and also if several were, provided
that each later one was allowed: the operation may be repeated, the attempt before had no answer until its deadline +
1 s (so the target was read back), and there are at most three. What must never be repeated is sent at most once,
whatever came of it. A step has no effect only if its last call, or the end, says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from bot.model import OutcomeCode
from bot.operations import Operation, Repeat
from bot.proposals import Call, CallAnswer, Proposal
from bot.wiring import OPERATIONS
from bot.workflow.finding_out import ATTEMPTS
from tests.crash.kept import Kept
from tests.crash.said import said_of, wrong_in_slack
from tests.crash.trail import wrong_in_the_trail
from tests.crash.world import World

_CLAIM_NOTHING = (
    OutcomeCode.DENIED,
    OutcomeCode.DISMISSED,
    OutcomeCode.EXPIRED,
    OutcomeCode.NOTHING_TO_STOP,
    OutcomeCode.SUPERSEDED,
)
_NO_EFFECT_SAID = (OutcomeCode.NOT_DONE, OutcomeCode.REFUSED_BY_CLOUD, OutcomeCode.NOT_STOPPED)
_MAY_BE_EITHER = (OutcomeCode.UNKNOWN_OUTCOME, OutcomeCode.GOAL_REACHED_UNCONFIRMED)


@dataclass(frozen=True, slots=True)
class Findings:
    """What came out. `steps` of approved proposals, those `with_effect`, steps that were tried anew after a read-back
    (`tried_anew`), and posts that stand in Slack more often than they were owed (`repeated`)."""

    complaints: tuple[str, ...]
    steps: int
    with_effect: int
    tried_anew: int
    repeated: int


def check(world: World, kept: Kept, *, kills: int) -> Findings:
    """Everything that must hold once nothing is under way any more."""
    said = said_of(world, kept)
    complaints = [
        *_unfinished(kept),
        *_foreign_effects(world, kept),
        *(wrong for each in kept.proposals for wrong in _wrong_effects(world, each)),
        *(wrong for each in kept.proposals for wrong in _untrue(world, kept, each)),
        *wrong_in_the_trail(kept),
        *wrong_in_slack(world, kept, said, kills=kills),
    ]
    approved = [(each, step) for each in kept.proposals if each.called for step in range(len(each.steps))]
    carried_out = [_carried_out(world, each, step) for each, step in approved]
    return Findings(
        tuple(complaints),
        steps=len(approved),
        with_effect=sum(bool(each) for each in carried_out),
        tried_anew=sum(len(each) > 1 for each in carried_out),
        repeated=sum(each.repeated for each in said.values()),
    )


def _unfinished(kept: Kept) -> Iterator[str]:
    """Everything that was received is answered, everything that was owed is delivered, everything ended."""
    for delivery, is_handled in kept.deliveries:
        if not is_handled:
            yield f"delivery {delivery.delivery_id} ({type(delivery.content).__name__}) was never handled"
    for each in kept.posts:
        if not each.is_settled:
            yield f"post {each.post_id} ({each.post.kind}) is still owed"
        elif each.failure is not None:
            yield f"post {each.post_id} ({each.post.kind}) was given up: {each.failure}"
    for proposal in kept.proposals:
        if proposal.outcome is None:
            yield f"proposal {proposal.proposal_id} never ended: it is {proposal.state}"


def _foreign_effects(world: World, kept: Kept) -> Iterator[str]:
    known = {call.intent.nonce for proposal in kept.proposals for call in proposal.calls}
    for nonce, effect in world.effects().items():
        if nonce not in known:
            yield f"{effect.action} on {effect.job_id} was carried out, and no intent on disk has its nonce {nonce}"
    if len(world.effects()) != len(world.fleet.history):
        yield f"{len(world.fleet.history)} changes were carried out by {len(world.effects())} nonces"


def _carried_out(world: World, proposal: Proposal, step: int) -> list[Call]:
    """The attempts at a step that had an effect."""
    effects = world.effects()
    return [call for call in proposal.calls if call.step == step and call.intent.nonce in effects]


def _wrong_effects(world: World, proposal: Proposal) -> Iterator[str]:
    operation = OPERATIONS[proposal.operation]
    for step in range(len(proposal.steps)):
        name = f"{proposal.operation} {proposal.proposal_id}, step {step} ({proposal.steps[step].kind})"
        attempts = [call for call in proposal.calls if call.step == step]
        carried_out = _carried_out(world, proposal, step)
        for wrong in _wrong_attempts(world, operation, attempts):
            yield f"{name}: {wrong}"
        last = attempts[-1] if attempts else None
        is_claimed = last is not None and last.answer is CallAnswer.ACCEPTED and last.detail is None
        if is_claimed and not carried_out:
            yield f"{name}: it is told as accepted, and the cloud carried nothing out"
        if carried_out and last is not None and last.answer in (CallAnswer.REFUSED, CallAnswer.NOT_SENT):
            yield f"{name}: it was carried out, and is told as {last.answer}"
    is_approved = any(call for call in proposal.calls)
    if proposal.confirmed_by is None and is_approved:
        yield f"{proposal.operation} {proposal.proposal_id}: calls were made, and nobody confirmed it"


def _wrong_attempts(world: World, operation: Operation, attempts: Sequence[Call]) -> Iterator[str]:
    copies = Counter(arrival.nonce for arrival in world.arrivals)
    sent = [call for call in attempts if copies[call.intent.nonce]]
    if operation.repeat is Repeat.NEVER:
        if any(copies[call.intent.nonce] > 1 for call in sent):
            yield "a second copy was sent of what must never be repeated"
        if sum(call.answer not in _CHANGED_NOTHING for call in sent) > 1:
            yield "it was tried again although it must never be repeated"
        return
    if len(attempts) > ATTEMPTS + sum(call.answer in _CHANGED_NOTHING for call in attempts):
        yield f"{len(attempts)} attempts were made"
    for before, after in pairwise(attempts):
        first = min((each.at for each in world.arrivals if each.nonce == after.intent.nonce), default=None)
        may_begin = (before.intent.deadline + timedelta(seconds=1)).timestamp()
        if first is not None and before.answer not in _CHANGED_NOTHING and first < may_begin:
            yield f"attempt {after.attempt} came {may_begin - first:.1f} s before the last one was certainly not done"


_CHANGED_NOTHING = (CallAnswer.THROTTLED, CallAnswer.NOT_SENT, CallAnswer.REFUSED)


def _accepted(proposal: Proposal) -> set[int]:
    return {call.step for call in proposal.calls if call.answer is CallAnswer.ACCEPTED}


def _untrue(world: World, kept: Kept, proposal: Proposal) -> Iterator[str]:
    """Whether the end says what the fleet did. Each rollout belongs to one flow, and had no cancelled task before."""
    outcome, name = proposal.outcome, f"{proposal.operation} {proposal.proposal_id}"
    if outcome is None or not proposal.target.job:
        return
    effects = [call for step in range(len(proposal.steps)) for call in _carried_out(world, proposal, step)]
    if effects and outcome.code in _CLAIM_NOTHING:
        yield f"{name} ended as {outcome.code}, and {len(effects)} of its calls were carried out"
    if proposal.called and not effects and outcome.code not in (*_MAY_BE_EITHER, *_NO_EFFECT_SAID):
        yield f"{name} ended as {outcome.code}, and none of its calls was carried out"
    if outcome.code is OutcomeCode.UNKNOWN_OUTCOME and len(_accepted(proposal)) == len(proposal.steps):
        yield f"{name} ended as {outcome.code}, although every call was accepted and the cloud told all along"
    others = [each for each in kept.proposals if each.target.job == proposal.target.job and each.calls]
    rollout = world.fleet.job(proposal.target.job)
    counts = rollout.counts(world.fleet.now())
    if outcome.stopped is not None and len(others) == 1 and outcome.stopped != counts["CANCELED"]:
        yield f"{name} says that {outcome.stopped} stopped; {counts['CANCELED']} are cancelled"
    if outcome.code is OutcomeCode.STOPPED:
        named = {state for step in proposal.steps for state in step.touches}
        moving = {state: count for state, count in counts.items() if state in named and count}
        if moving:
            yield f"{name} says that all stopped; still open are {moving}"
