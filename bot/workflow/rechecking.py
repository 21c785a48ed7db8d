"""Between the yes and the call: the target, the person and the policy are looked at once more.

In the stop direction growth alone changes nothing; another job state, kind or firmware makes a new offer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

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
from bot.model import Counts, Job, Notice, OutcomeCode, Preview, TaskState
from bot.ports import Purpose
from bot.proposals import (
    Offered,
    Proposal,
)
from bot.workflow import reports, sentences
from bot.workflow.asking import command_for, is_nothing_to_stop, new_offer, offer_facts
from bot.workflow.calling import attempt, end
from bot.workflow.means import Means, decide_at_card, move, showing


@dataclass(frozen=True, slots=True)
class _Looked:
    """The target as it is now; `is_patched` if numbers of the offer stand in for some that could not be read."""

    preview: Preview
    is_patched: bool


async def call_approved(means: Means, proposal: Proposal, looking: asyncio.Future[Job] | None = None) -> None:
    """approved → calling, after a last look at target, person and policy; or back to offered; or the end.

    `looking` is a read of the job that began after the click was checked.
    """
    if proposal.offer is None or proposal.approved_at is None:
        return
    operation = means.operations[proposal.operation]
    policy = means.policy()
    if policy is None or proposal.target.instance not in policy.instances:
        await end(means, proposal, OutcomeCode.NOT_DONE, sentences.no_policy(command_for(means, proposal)))
        return
    found = await _look_again(means, proposal, looking)
    if isinstance(found, Notice):
        await end(means, proposal, OutcomeCode.NOT_DONE, found)
        return
    looked, is_patched = found.preview, found.is_patched
    try:
        person = await means.people.identify(
            proposal.requester, max_age_seconds=means.timings.identity_at_click_seconds
        )
    except Unidentified as error:
        await end(means, proposal, OutcomeCode.DENIED, sentences.not_let_in(str(error)))
        return
    except PeopleUnavailable:
        await end(means, proposal, OutcomeCode.NOT_DONE, sentences.people_unavailable(command_for(means, proposal)))
        return
    decision = decide_at_card(policy, proposal, person.actor, looked, channel=proposal.place.channel)
    if not decision.is_allowed:
        await end(means, proposal, OutcomeCode.DENIED, reports.denied_now(decision))
    elif is_nothing_to_stop(looked, operation):
        await end(means, proposal, OutcomeCode.NOTHING_TO_STOP, sentences.nothing_to_stop(looked))
    elif decision.requirements.reason and not proposal.reason:
        await end(means, proposal, OutcomeCode.NOT_DONE, sentences.needs_reason(operation, proposal, decision))
    elif _is_another_target(proposal.offer.preview, looked):
        offer = new_offer(means, looked, decision)
        line = Post(PostKind.LINE, proposal.proposal_id, reports.changed(proposal.offer.preview, looked))
        facts = offer_facts(offer)
        posts = (line, *showing(proposal.proposal_id))
        await move(means, proposal, Offered(offer), name=EntryName.REOFFERED, facts=facts, posts=posts)
    else:
        stand_in = Post(PostKind.LINE, proposal.proposal_id, reports.not_every_number(proposal.offer.preview.counts))
        await attempt(means, proposal, baseline=looked.counts, posts=(stand_in,) if is_patched else ())


async def _look_again(means: Means, proposal: Proposal, looking: asyncio.Future[Job] | None) -> _Looked | Notice:
    """The target as it is now. A count that cannot be read keeps the offer's value; the job itself must be read."""
    assert proposal.offer is not None and proposal.approved_at is not None  # noqa: S101, PT018 (an approved one has both)
    until = proposal.approved_at + timedelta(seconds=means.timings.first_call_seconds)
    operation = means.operations[proposal.operation]
    pause = 1.0
    while True:
        if means.clock() >= until:
            return reports.never_sent(None)
        job, counts = await asyncio.gather(
            looking or means.reads.fetch_job(proposal.target, purpose=Purpose.STOP),
            means.reads.fetch_counts(proposal.target, tuple(TaskState), purpose=Purpose.STOP),
            return_exceptions=True,
        )
        looking = None
        if isinstance(job, CloudError):
            is_worth_waiting = isinstance(job, CloudThrottled | CloudUnreachable | CloudLost)
            if not is_worth_waiting or means.clock() + timedelta(seconds=pause) >= until:
                explained = means.words.explain(job, proposal.target)
                return reports.not_read_again(explained, command_for(means, proposal))
            await means.sleep(pause)
            pause = min(pause * 2, 8)
            continue
        if isinstance(job, BaseException):
            raise job
        if isinstance(counts, BaseException) and not isinstance(counts, CloudError):
            raise counts
        fresh = counts if isinstance(counts, Counts) else None
        merged = _merged(proposal.offer.preview.counts, fresh)
        preview = Preview(proposal.target, job, merged, operation.touches(proposal.params, job))
        return _Looked(preview, is_patched=fresh is None or None in fresh.by_state.values())


def _merged(old: Counts, new: Counts | None) -> Counts:
    if new is None:
        return old
    by_state = {state: old.by_state.get(state) if count is None else count for state, count in new.by_state.items()}
    return Counts(by_state, new.read_at)


def _is_another_target(before: Preview, after: Preview) -> bool:
    """Growth alone is none; another job state, kind, firmware or set of named tasks is."""
    return (before.job.state, before.job.kind, before.job.firmware_id, before.touches) != (
        after.job.state,
        after.job.kind,
        after.job.firmware_id,
        after.touches,
    )
