"""From an ask to an offer: who is it, may they ask, what does the target look like, what does the policy say.

Reads end here with an answer; changes become a proposal, first `received`, then `offered`. What is refused before a
card stands is told to the asker alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from bot.audit import Entry, EntryName, Fact
from bot.errors import CloudError, CloudRefused, OtabrakeError, PeopleUnavailable, Unidentified
from bot.exchange import Ask, Delivery
from bot.model import (
    UNKNOWN,
    Actor,
    Decision,
    Notice,
    Offer,
    Outcome,
    OutcomeCode,
    Place,
    Preview,
    Question,
    Step,
    StepKind,
    Target,
    TaskState,
    Touch,
)
from bot.operations import Kind, Operation
from bot.policy.decide import allowed_instances, decide, may_ask
from bot.policy.load import Policy
from bot.ports import Transition
from bot.proposals import Ended, Offered, Proposal
from bot.workflow import sentences
from bot.workflow.means import GoOn, Means, TurnedDown, decide_on, move, private, reply, showing

_NO_SUCH_JOB = "iot.ota.invalidjobid"
_STOPPABLE = frozenset(Touch) - {Touch.IN_PROGRESS, Touch.SCHEDULED}


async def handle_ask(means: Means, delivery: Delivery, ask: Ask) -> GoOn | None:
    """Answers an ask; the proposal that it became, if it became one. Raises `TurnedDown`."""
    operation = means.operations[ask.operation]
    place = delivery.reply_to.place
    policy = means.policy()
    if policy is None:
        raise TurnedDown(sentences.no_policy(None), why="no policy")
    actor = await _identify(means, delivery, _by_hand(means, policy, ask, place))
    name = _asked_as(means, ask)
    target = await _find_target(means, policy, actor, ask, place)
    if not may_ask(policy, actor=actor, operation=name, channel=place.channel, instance=target.instance):
        raise _denied(policy, actor, name, place, target.instance)
    if operation.kind is Kind.READ or ask.is_dry_run:
        await _show(means, delivery, ask, policy, actor, target)
        return None
    return await _propose(means, delivery, ask, policy, target)


async def _identify(means: Means, delivery: Delivery, by_hand: str | None) -> Actor:
    max_age = means.timings.identity_at_ask_seconds
    try:
        person = await means.people.identify(delivery.reply_to.user_id, max_age_seconds=max_age)
    except Unidentified as error:
        raise TurnedDown(sentences.not_let_in(str(error)), why="not let in") from error
    except PeopleUnavailable as error:
        raise TurnedDown(sentences.people_unavailable(by_hand), why="people unavailable") from error
    return person.actor


def _asked_as(means: Means, ask: Ask) -> str:
    """The operation that the policy is asked about: a dry run is a read."""
    return means.operations.names(Kind.READ)[0] if ask.is_dry_run else ask.operation


def _denied(policy: Policy, actor: Actor, operation: str, place: Place, instance: str) -> TurnedDown:
    """The denial with its reasons, before anything of the job is known."""
    question = Question(actor, operation, place.channel, instance, UNKNOWN, UNKNOWN, UNKNOWN)
    return TurnedDown(sentences.denied(operation, decide(policy, question)), why="denied")


def _by_hand(means: Means, policy: Policy, ask: Ask, place: Place) -> str | None:
    """The line that makes the change without us, if it is a change and clear which instance is meant."""
    operation = means.operations[ask.operation]
    names = [ask.instance] if ask.instance in policy.instances else _standing_in(policy, place)
    if operation.kind is Kind.READ or len(names) != 1 or names[0] is None:
        return None
    given = frozenset(param.touch for param in operation.params if param.name in ask.params and param.touch)
    return means.words.command_line(Step(StepKind.CANCEL_TASKS, Target(names[0], ask.job), given or _STOPPABLE))


def _standing_in(policy: Policy, place: Place) -> list[str | None]:
    """The instances whose channel this is; with only one instance, that one."""
    if len(policy.instances) == 1:
        return list(policy.instances)
    return [name for name, instance in policy.instances.items() if place.channel and instance.channel == place.channel]


async def _find_target(means: Means, policy: Policy, actor: Actor, ask: Ask, place: Place) -> Target:
    """The instance that is meant: named, this channel's, the only one allowed, or the one that knows the job."""
    if ask.instance is not None:
        if ask.instance in policy.instances:
            return Target(ask.instance, ask.job)
        raise TurnedDown(sentences.unknown_instance(ask.instance, policy.instances), why="no such instance")
    name = _asked_as(means, ask)
    allowed = allowed_instances(policy, actor=actor, operation=name, channel=place.channel)
    here = [each for each in _standing_in(policy, place) if each is not None]
    likely = here if len(here) == 1 else list(allowed)
    if not likely:
        raise _denied(policy, actor, name, place, "")
    if len(policy.instances) == 1:
        return Target(likely[0], ask.job)
    knowing = await _knowing(means, ask.job, likely)
    if len(knowing) == 1:
        return Target(knowing[0], ask.job)
    verb = means.operations[ask.operation].verb
    if knowing:
        raise TurnedDown(sentences.which_instance(ask.job, verb, knowing), why="which instance")
    read = means.operations.names(Kind.READ)[0]
    readable = allowed_instances(policy, actor=actor, operation=read, channel=place.channel)
    elsewhere = await _knowing(means, ask.job, [each for each in readable if each not in likely])
    if elsewhere:
        raise TurnedDown(sentences.which_instance(ask.job, verb, elsewhere), why="another instance")
    raise TurnedDown(sentences.no_such_job(ask.job, sorted({*likely, *readable})), why="no such job")


async def _knowing(means: Means, job: str, names: Sequence[str]) -> list[str]:
    """Those of the instances that know the job, or do not answer: a guess that cannot be checked stands."""
    answers = await asyncio.gather(*(_knows(means, Target(name, job)) for name in names))
    return [name for name, knows in zip(names, answers, strict=True) if knows]


async def _knows(means: Means, target: Target) -> bool:
    try:
        await means.reads.fetch_job(target)
    except CloudError as error:
        return not (isinstance(error, CloudRefused) and error.code.casefold() == _NO_SUCH_JOB)
    return True


async def _look(means: Means, operation: Operation, params: frozenset[str], target: Target) -> Preview:
    """The job and all its counts, asked at once. Raises `CloudError`."""
    job, counts = await asyncio.gather(
        means.reads.fetch_job(target), means.reads.fetch_counts(target, tuple(TaskState)), return_exceptions=True
    )
    for answer in (job, counts):
        if isinstance(answer, BaseException):
            raise answer
    assert not isinstance(job, BaseException) and not isinstance(counts, BaseException)  # noqa: S101, PT018 (for mypy)
    return Preview(target, job, counts, operation.touches(params, job))


async def _show(means: Means, delivery: Delivery, ask: Ask, policy: Policy, actor: Actor, target: Target) -> None:
    """Answers a read, or a change's dry run, for which the policy for reads applies."""
    operation = means.operations[ask.operation]
    name = _asked_as(means, ask)
    channel = delivery.reply_to.place.channel
    try:
        preview = await _look(means, operation, ask.params, target)
    except CloudError as error:
        raise TurnedDown(means.words.explain(error, target), why="cloud") from error
    product = preview.job.product or UNKNOWN
    decision = decide(policy, Question(actor, name, channel, target.instance, product))
    if not decision.is_allowed:
        raise TurnedDown(sentences.denied(name, decision), why="denied")
    notice = sentences.shown(preview)
    if operation.kind is Kind.CHANGE:
        devices = UNKNOWN if preview.devices is None else preview.devices
        question = Question(actor, operation.name, channel, target.instance, product, preview.touches, devices)
        decision = decide(policy, question)
        notice = sentences.dry_run(preview, operation, decision)
    facts = _facts(ask, target) | {"policy": decision.policy, "effect": decision.effect.value}
    entry = Entry(EntryName.SHOWN, means.clock(), actor.user_id, None, facts)
    await reply(means, lane=delivery.delivery_id, to=delivery.reply_to, notice=notice, entry=entry, preview=preview)


def _facts(ask: Ask, target: Target) -> dict[str, Fact]:
    return {
        "operation": ask.operation,
        "instance": target.instance,
        "job": target.job,
        "params": sorted(ask.params),
        "dry_run": ask.is_dry_run,
    }


async def _propose(means: Means, delivery: Delivery, ask: Ask, policy: Policy, target: Target) -> GoOn:
    """Writes the proposal down; from then on it goes on from its row."""
    place = delivery.reply_to.place
    if place.channel is None:
        place = Place(policy.instances[target.instance].channel)
    if place.channel is None:
        raise TurnedDown(sentences.no_channel(target.instance), why="no channel")
    pending = await means.store.fetch_pending(ask.operation, target, ask.params)
    if pending is not None:
        notice = sentences.already_waiting(pending)
        raise TurnedDown(notice, why="already waiting", proposal_id=pending.proposal_id)
    proposal = Proposal(
        proposal_id=means.new_id(),
        operation=ask.operation,
        params=ask.params,
        target=target,
        place=place,
        requester=delivery.reply_to.user_id,
        reason=ask.reason,
        created_at=means.clock(),
        reply_to=delivery.reply_to,
    )
    facts = _facts(ask, target) | {"reason": ask.reason, "channel": place.channel}
    entry = Entry(EntryName.ASKED, proposal.created_at, proposal.requester, proposal.proposal_id, facts)
    await means.store.save(Transition(None, proposal, (entry,), handled=delivery.delivery_id))
    means.log.info(entry.name.value, actor=entry.actor, proposal=proposal.proposal_id, **facts)
    return GoOn(proposal)


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
        raise _EndsAs(OutcomeCode.NOT_DONE, sentences.no_policy(None))
    if proposal.target.instance not in policy.instances:
        notice = sentences.unknown_instance(proposal.target.instance, policy.instances)
        raise _EndsAs(OutcomeCode.NOT_DONE, notice)
    actor, preview = await _person_and_target(means, proposal)
    decision = decide_on(policy, proposal, actor, preview)
    if not decision.is_allowed:
        raise _EndsAs(OutcomeCode.DENIED, sentences.denied(operation.name, decision), decision)
    if is_nothing_to_stop(preview, operation):
        raise _EndsAs(OutcomeCode.NOTHING_TO_STOP, sentences.nothing_to_stop(preview), decision)
    if decision.requirements.reason and not proposal.reason:
        raise _EndsAs(OutcomeCode.NOT_DONE, sentences.needs_reason(operation, proposal, decision), decision)
    return new_offer(means, preview, decision)


async def _person_and_target(means: Means, proposal: Proposal) -> tuple[Actor, Preview]:
    operation = means.operations[proposal.operation]
    max_age = means.timings.identity_at_ask_seconds
    looking = asyncio.ensure_future(_look(means, operation, proposal.params, proposal.target))
    try:
        person = await means.people.identify(proposal.requester, max_age_seconds=max_age)
        return person.actor, await looking
    except Unidentified as error:
        raise _EndsAs(OutcomeCode.DENIED, sentences.not_let_in(str(error))) from error
    except PeopleUnavailable as error:
        notice = sentences.people_unavailable(command_for(means, proposal))
        raise _EndsAs(OutcomeCode.NOT_DONE, notice) from error
    except CloudError as error:
        explained = means.words.explain(error, proposal.target)
        is_unknown_job = isinstance(error, CloudRefused) and error.code.casefold() == _NO_SUCH_JOB
        notice = sentences.not_read(explained, None if is_unknown_job else command_for(means, proposal))
        raise _EndsAs(OutcomeCode.NOT_DONE, notice) from error
    finally:
        looking.cancel()


async def _yield_to_pending(means: Means, proposal: Proposal) -> None:
    """Another proposal of the same kind was offered first: this one ends, and says so."""
    pending = await means.store.fetch_pending(proposal.operation, proposal.target, proposal.params)
    if pending is not None and pending.proposal_id != proposal.proposal_id:
        await _end(means, proposal, Outcome(OutcomeCode.NOT_DONE, sentences.already_waiting(pending)), None)


async def _end(means: Means, proposal: Proposal, outcome: Outcome, decision: Decision | None) -> None:
    facts: dict[str, Fact] = {"outcome": outcome.code.value}
    if decision is not None:
        facts |= {"policy": decision.policy, "rules": list(decision.rules)}
    await move(
        means,
        proposal,
        Ended(outcome),
        name=EntryName.ENDED,
        facts=facts,
        posts=(private(proposal, outcome.notice),),
    )


def command_for(means: Means, proposal: Proposal) -> str:
    """The line that makes this proposal's last change without us."""
    operation = means.operations[proposal.operation]
    given = frozenset(param.touch for param in operation.params if param.name in proposal.params and param.touch)
    touches = proposal.offer.preview.touches if proposal.offer else given or _STOPPABLE
    return means.words.command_line(Step(StepKind.CANCEL_TASKS, proposal.target, touches))


def is_nothing_to_stop(preview: Preview, operation: Operation) -> bool:
    """True only if it is known: every number was read, they are all zero, and no strategy is to be cancelled."""
    is_over = preview.job.state in sentences.OVER
    kinds = {step.kind for step in operation.steps(preview)}
    return preview.devices == 0 and (is_over or StepKind.CANCEL_STRATEGY not in kinds)


def new_offer(means: Means, preview: Preview, decision: Decision) -> Offer:
    now = means.clock()
    return Offer(means.new_id(), preview, decision, now, now + timedelta(seconds=means.timings.offer_seconds))


def offer_facts(offer: Offer) -> dict[str, Fact]:
    return {
        "offer": offer.offer_id,
        "policy": offer.decision.policy,
        "rules": list(offer.decision.rules),
        "touches": sorted(touch.value for touch in offer.preview.touches),
        "devices": offer.preview.devices,
        "counts": {state.value: count for state, count in offer.preview.counts.by_state.items()},
    }
