"""Between the yes and the call: the target, the person and the policy are looked at once more.

In the stop direction growth alone changes nothing; another job state, kind or firmware makes a new offer.
"""

from __future__ import annotations

import asyncio

from bot.audit import EntryName
from bot.errors import (
    CloudError,
    CloudLost,
    CloudThrottled,
    CloudUnreachable,
    PeopleUnavailable,
    Unidentified,
)
from bot.exchange import Post, PostKind
from bot.model import Decision, Job, Notice, Offer, OutcomeCode, Preview
from bot.operations import Direction, Operation
from bot.policy.load import Policy
from bot.ports import Person, Purpose
from bot.proposals import Offered, Proposal
from bot.workflow import refusals, reports
from bot.workflow.asking import command_for, in_the_way
from bot.workflow.calling import attempt
from bot.workflow.ending import end
from bot.workflow.looking import Looked, Sight, look
from bot.workflow.means import Means, decide_at_card, has_passed, move, showing
from bot.workflow.offering import new_offer, offer_facts, why_idle


async def call_approved(means: Means, proposal: Proposal, looking: asyncio.Future[Job] | None = None) -> None:
    """approved → calling, after a last look at target, person and policy; or back to offered; or the end.

    `looking` is a read of the job that began after the click was checked.
    """
    if proposal.offer is None or proposal.approved_at is None:
        return
    policy = means.policy()
    if policy is None or proposal.target.instance not in policy.instances:
        await end(means, proposal, OutcomeCode.NOT_DONE, refusals.no_policy(command_for(means, proposal)))
        return
    operation = means.operations[proposal.operation]
    first = await in_the_way(means, operation, proposal.target, but=proposal)
    if first is not None:
        await end(means, proposal, OutcomeCode.SUPERSEDED, reports.superseded(first))
        return
    looked = await _look_again(means, proposal, proposal.offer, looking)
    if isinstance(looked, Notice):
        await end(means, proposal, OutcomeCode.NOT_DONE, looked)
        return
    person = await _identify(means, proposal)
    if person is not None:
        await _decide(means, proposal, proposal.offer, policy, person, looked)


async def _identify(means: Means, proposal: Proposal) -> Person | None:
    """The requester as of now; None if that was the end."""
    max_age = means.timings.identity_at_click_seconds
    try:
        return await means.people.identify(proposal.requester, max_age_seconds=max_age)
    except Unidentified as error:
        await end(means, proposal, OutcomeCode.DENIED, refusals.not_let_in(str(error)))
    except PeopleUnavailable:
        await end(means, proposal, OutcomeCode.NOT_DONE, refusals.people_unavailable(command_for(means, proposal)))
    return None


async def _decide(
    means: Means, proposal: Proposal, offered: Offer, policy: Policy, person: Person, looked: Looked
) -> None:
    operation, preview = means.operations[proposal.operation], looked.preview
    decision = decide_at_card(policy, proposal, person.actor, preview, channel=proposal.place.channel)
    idle = why_idle(preview, operation, proposal.params)
    if not decision.is_allowed:
        await end(means, proposal, OutcomeCode.DENIED, reports.denied_now(decision))
    elif idle is not None:
        await end(means, proposal, idle.code, idle.notice)
    elif decision.requirements.reason and not proposal.reason:
        await end(means, proposal, OutcomeCode.NOT_DONE, refusals.needs_reason(operation, proposal, decision))
    elif is_another_target(operation, offered.preview, preview):
        await _offer_anew(means, proposal, offered, preview, decision)
    else:
        read_at = min(part.counts.read_at for part in offered.preview.parts)
        stand_in = Post(PostKind.LINE, proposal.proposal_id, reports.not_every_number(read_at))
        await attempt(means, proposal, preview=preview, posts=(stand_in,) if looked.is_patched else ())


async def _offer_anew(means: Means, proposal: Proposal, offered: Offer, preview: Preview, decision: Decision) -> None:
    offer = new_offer(means, preview, decision)
    line = Post(PostKind.LINE, proposal.proposal_id, reports.changed(offered.preview, preview))
    posts = (line, *showing(proposal.proposal_id))
    facts = offer_facts(offer)
    await move(means, proposal, Offered(offer), name=EntryName.REOFFERED, facts=facts, posts=posts)


async def _look_again(
    means: Means, proposal: Proposal, offered: Offer, looking: asyncio.Future[Job] | None
) -> Looked | Notice:
    """The target as it is now. A count that cannot be read keeps the offer's value; the rest must be read."""
    approved_at, seconds = proposal.approved_at or means.clock(), means.timings.first_call_seconds
    operation = means.operations[proposal.operation]
    sight = Sight(Purpose.STOP, known=offered.preview)
    pause = 1.0
    while True:
        if has_passed(means, approved_at, seconds):
            return reports.never_sent(None)
        try:
            return await look(means, operation, proposal.params, proposal.target, sight=sight, reading=looking)
        except CloudError as error:
            is_worth_waiting = isinstance(error, CloudThrottled | CloudUnreachable | CloudLost)
            if not is_worth_waiting or has_passed(means, approved_at, seconds - pause):
                explained = means.words.explain(error, proposal.target)
                return reports.not_read_again(explained, command_for(means, proposal))
        looking = None
        await means.sleep(pause)
        pause = min(pause * 2, 8)


def is_another_target(operation: Operation, before: Preview, after: Preview) -> bool:
    """A batch with another state, kind, firmware or set of named tasks is; in the stop direction, more of them is not.

    A batch that is over meanwhile is none of several any more, and no reason to ask again. For a change of rate, the
    settings that are sent again count as well.
    """
    seen = {part.job.job_id: part for part in before.parts}
    for part in after.parts:
        was = seen.get(part.job.job_id)
        if was is None:
            if not operation.is_stop:
                return True
            continue
        if (was.job.state, was.job.kind, was.job.firmware_id, was.touches) != (
            part.job.state,
            part.job.kind,
            part.job.firmware_id,
            part.touches,
        ):
            return True
        if operation.direction is Direction.TUNE and was.job.settings != part.job.settings:
            return True
    return False
