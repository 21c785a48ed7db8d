"""received → offered: the target is looked at, the policy asked, and a card put before people; or the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from bot.audit import EntryName, Fact
from bot.errors import CloudError, CloudRefused, OtabrakeError, PeopleUnavailable, Unidentified
from bot.model import Actor, Decision, Notice, Offer, Outcome, OutcomeCode, Preview, StepKind
from bot.operations import Direction, Operation, Params
from bot.proposals import CallAnswer, Ended, Offered, Proposal
from bot.workflow import refusals
from bot.workflow.asking import command_for
from bot.workflow.figures import OVER, rates
from bot.workflow.finding import NO_SUCH_JOB
from bot.workflow.looking import Looked, Sight, look
from bot.workflow.means import Means, decide_on, move, private, showing
from bot.workflow.stepping import accepted_jobs


class _EndsAs(OtabrakeError):
    """A proposal that ends before anything was offered."""

    def __init__(self, code: OutcomeCode, notice: Notice, decision: Decision | None = None) -> None:
        super().__init__(code.value)
        self.outcome = Outcome(code, notice)
        self.decision = decision


async def offer(means: Means, proposal: Proposal) -> None:
    """received → offered, or finished with a word to the asker alone."""
    try:
        made = await _make_offer(means, proposal)
    except _EndsAs as end:
        await _end(means, proposal, end.outcome, end.decision)
        return
    saved = await move(
        means,
        proposal,
        Offered(made),
        name=EntryName.OFFERED,
        actor=proposal.requester,
        facts=offer_facts(made),
        posts=showing(proposal.proposal_id),
    )
    if saved is None:
        await _yield_to_pending(means, proposal)


async def _make_offer(means: Means, proposal: Proposal) -> Offer:
    """Looks at person and target at once, and asks the policy. Raises `_EndsAs`."""
    operation = means.operations[proposal.operation]
    policy = means.policy()
    if policy is None:
        raise _EndsAs(OutcomeCode.NOT_DONE, refusals.no_policy(None))
    if proposal.target.instance not in policy.instances:
        notice = refusals.unknown_instance(proposal.target.instance, policy.instances)
        raise _EndsAs(OutcomeCode.NOT_DONE, notice)
    actor, preview = await _person_and_target(means, proposal)
    decision = decide_on(policy, proposal, actor, preview)
    if not decision.is_allowed:
        raise _EndsAs(OutcomeCode.DENIED, refusals.denied(operation.name, decision), decision)
    if (idle := why_idle(preview, operation, proposal.params)) is not None:
        raise _EndsAs(idle.code, idle.notice, decision)
    if decision.requirements.reason and not proposal.reason:
        raise _EndsAs(OutcomeCode.NOT_DONE, refusals.needs_reason(operation, proposal, decision), decision)
    return new_offer(means, preview, decision)


async def _person_and_target(means: Means, proposal: Proposal) -> tuple[Actor, Preview]:
    max_age = means.timings.identity_at_ask_seconds
    looking = asyncio.ensure_future(_look_without_done(means, proposal))
    try:
        person = await means.people.identify(proposal.requester, max_age_seconds=max_age)
        return person.actor, (await looking).preview
    except Unidentified as error:
        raise _EndsAs(OutcomeCode.DENIED, refusals.not_let_in(str(error))) from error
    except PeopleUnavailable as error:
        notice = refusals.people_unavailable(command_for(means, proposal))
        raise _EndsAs(OutcomeCode.NOT_DONE, notice) from error
    except CloudError as error:
        explained = means.words.explain(error, proposal.target)
        is_unknown_job = isinstance(error, CloudRefused) and error.code.casefold() == NO_SUCH_JOB
        notice = refusals.not_read(explained, None if is_unknown_job else command_for(means, proposal))
        raise _EndsAs(OutcomeCode.NOT_DONE, notice) from error
    finally:
        looking.cancel()


async def _look_without_done(means: Means, proposal: Proposal) -> Looked:
    """The target, without the tasks that the proposal which is resumed has named already, whatever came of them."""
    done: frozenset[str] = frozenset()
    jobs_done: frozenset[str] = frozenset()
    before = proposal
    while before.resumes is not None:
        found = await means.store.fetch_proposal(before.resumes)
        if found is None:
            break
        done, before = done | tasks_named(found), found
        jobs_done |= accepted_jobs(found)
    operation = means.operations[proposal.operation]
    return await look(means, operation, proposal.params, proposal.target, sight=Sight(done=done, jobs_done=jobs_done))


def tasks_named(proposal: Proposal) -> frozenset[str]:
    """The tasks that were run again, or may have been. (A stop that is repeated does no harm: it leaves none out.)"""
    sent = [call for call in proposal.calls if call.answer in (CallAnswer.ACCEPTED, CallAnswer.LOST, None)]
    return frozenset(task for call in sent for task in call.intent.step.tasks)


async def _yield_to_pending(means: Means, proposal: Proposal) -> None:
    """Another proposal of the same kind was offered first: this one ends, and says so."""
    pending = await means.store.fetch_pending(proposal.operation, proposal.target, proposal.params)
    if pending is not None and pending.proposal_id != proposal.proposal_id:
        notice = refusals.already_waiting(pending, means.operations[pending.operation])
        await _end(means, proposal, Outcome(OutcomeCode.NOT_DONE, notice), None, pending)


async def _end(
    means: Means,
    proposal: Proposal,
    outcome: Outcome,
    decision: Decision | None,
    pending: Proposal | None = None,
) -> None:
    facts: dict[str, Fact] = {"outcome": outcome.code.value}
    if decision is not None:
        facts |= {"policy": decision.policy, "rules": list(decision.rules)}
    await move(
        means,
        proposal,
        Ended(outcome),
        name=EntryName.ENDED,
        facts=facts,
        posts=(private(proposal, outcome.notice, pending=pending),),
    )


def why_idle(preview: Preview, operation: Operation, params: Params) -> Outcome | None:
    """The end if a call would do nothing, and that is known: every number was read."""
    if operation.direction is Direction.TUNE:
        return _why_no_new_rate(preview, operation, params)
    if operation.direction is Direction.RESTART:
        nothing = Outcome(OutcomeCode.NOT_DONE, refusals.nothing_to_retry(preview))
        return nothing if not any(part.tasks for part in preview.parts) else None
    is_over = all(part.job.state in OVER for part in preview.parts)
    kinds = {step.kind for step in operation.steps(preview, params)}
    is_idle = preview.devices == 0 and not preview.left_out and (is_over or StepKind.CANCEL_STRATEGY not in kinds)
    return Outcome(OutcomeCode.NOTHING_TO_STOP, refusals.nothing_to_stop(preview)) if is_idle else None


def _why_no_new_rate(preview: Preview, operation: Operation, params: Params) -> Outcome | None:
    old, new = rates(preview, operation, params)
    if preview.job.state in OVER:
        return Outcome(OutcomeCode.NOT_DONE, refusals.over_already(preview))
    if new is None:
        return Outcome(OutcomeCode.NOT_DONE, refusals.settings_unknown(preview))
    return Outcome(OutcomeCode.NOT_DONE, refusals.same_rate(preview, new)) if old == new else None


def new_offer(means: Means, preview: Preview, decision: Decision) -> Offer:
    now = means.clock()
    return Offer(means.new_id(), preview, decision, now, now + timedelta(seconds=means.timings.offer_seconds))


def offer_facts(offer: Offer) -> dict[str, Fact]:
    preview = offer.preview
    facts: dict[str, Fact] = {
        "offer": offer.offer_id,
        "policy": offer.decision.policy,
        "rules": list(offer.decision.rules),
        "touches": sorted(touch.value for touch in preview.touches),
        "devices": preview.devices,
        "jobs": [part.job.job_id for part in preview.parts],
    }
    if len(preview.parts) == 1:
        facts["counts"] = {state.value: count for state, count in preview.counts.by_state.items()}
    return facts
