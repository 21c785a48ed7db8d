"""From an ask to a proposal: who is it, may they ask, what is meant. Reads are answered in `reading`.

What is refused here is told to the asker alone.
"""

from __future__ import annotations

from dataclasses import replace

from bot.audit import Entry, EntryName
from bot.errors import PeopleUnavailable, Unidentified
from bot.exchange import Ask, Delivery, Pick, Resume
from bot.model import Actor, Place, Step, StepKind, Target, Touch, is_from_terminal
from bot.operations import Kind, Operation, Subject
from bot.policy.decide import may_ask
from bot.policy.load import Policy
from bot.ports import Transition
from bot.proposals import Proposal, State
from bot.workflow import refusals
from bot.workflow.finding import asked_as, denied, find_target, standing_in
from bot.workflow.means import GoOn, Means, TurnedDown, save, steps_of
from bot.workflow.reading import facts_of, show, show_list

_STOPPABLE = frozenset(Touch) - {Touch.IN_PROGRESS, Touch.SCHEDULED}
LINES_BY_HAND = 5


async def handle_ask(means: Means, delivery: Delivery, ask: Ask) -> GoOn | None:
    """Answers an ask; the proposal that it became, if it became one. Raises `TurnedDown`."""
    operation = means.operations[ask.operation]
    place = delivery.reply_to.place
    policy = means.policy()
    if policy is None:
        raise TurnedDown(refusals.no_policy(None), why="no policy")
    actor = await _identify(means, delivery, _by_hand(means, policy, ask, place))
    if operation.subject is Subject.CATALOG:
        await show_list(means, delivery, ask, policy, actor)
        return None
    name = asked_as(means, ask)
    target = await find_target(means, policy, actor, ask, place)
    if not may_ask(policy, actor=actor, operation=name, channel=place.channel, instance=target.instance):
        raise denied(policy, actor, name, place, target.instance)
    if operation.kind is Kind.READ or ask.is_dry_run:
        await show(means, delivery, ask, policy, actor, target)
        return None
    return await _propose(means, delivery, ask, policy, target)


async def handle_pick(means: Means, delivery: Delivery, pick: Pick) -> GoOn | None:
    """The ask that was asked back, now with its instance. Only who asked may pick. Raises `TurnedDown`."""
    asked = await means.store.fetch_delivery(pick.delivery_id)
    if asked is None or not isinstance(asked.content, Ask) or asked.reply_to.user_id != delivery.reply_to.user_id:
        raise TurnedDown(refusals.unknown_card(), why="unknown pick")
    place = asked.reply_to.place
    delivery = replace(delivery, reply_to=replace(delivery.reply_to, place=place))
    return await handle_ask(means, delivery, replace(asked.content, instance=pick.instance))


async def handle_resume(means: Means, delivery: Delivery, resume: Resume) -> GoOn | None:
    """The same change once more, for what the first one left. Raises `TurnedDown`."""
    found = await means.store.fetch_beginning(resume.proposal_id)
    if len(found) != 1:
        raise TurnedDown(refusals.no_such_proposal(resume.proposal_id, len(found)), why="no such proposal")
    [before] = found
    if before.state is not State.FINISHED:
        raise TurnedDown(refusals.not_over_yet(before), why="not over yet")
    target = before.target
    ask = Ask(
        operation=before.operation,
        job=target.job,
        instance=target.instance,
        params=before.params,
        reason=resume.reason or (before.reason if before.requester == delivery.reply_to.user_id else None),
        firmware=target.firmware,
        product=target.product,
        devices=target.devices,
        resumes=before.proposal_id,
    )
    return await handle_ask(means, delivery, ask)


async def _identify(means: Means, delivery: Delivery, by_hand: str | None) -> Actor:
    max_age = means.timings.identity_at_ask_seconds
    try:
        person = await means.people.identify(delivery.reply_to.user_id, max_age_seconds=max_age)
    except Unidentified as error:
        raise TurnedDown(refusals.not_let_in(str(error)), why="not let in") from error
    except PeopleUnavailable as error:
        raise TurnedDown(refusals.people_unavailable(by_hand), why="people unavailable") from error
    return person.actor


def _by_hand(means: Means, policy: Policy, ask: Ask, place: Place) -> str | None:
    """The line that makes the change without us, if it is clear which instance is meant."""
    names = [ask.instance] if ask.instance in policy.instances else standing_in(policy, place)
    if len(names) != 1 or names[0] is None:
        return None
    return _stop_line(means, means.operations[ask.operation], ask.params, ask.on(names[0]))


def _stop_line(means: Means, operation: Operation, params: frozenset[str], target: Target) -> str | None:
    """The line that stops a batch before anything of it was read; None for what cannot be said yet."""
    if not operation.is_stop or not target.job:
        return None
    given = frozenset(param.touch for param in operation.params if param.name in params and param.touch)
    return means.words.command_line(Step(StepKind.CANCEL_TASKS, target, given or _STOPPABLE))


def command_for(means: Means, proposal: Proposal) -> str | None:
    """The lines that make what is left of this proposal without us; the most telling one where there is no offer."""
    operation = means.operations[proposal.operation]
    if proposal.offer is None:
        return _stop_line(means, operation, proposal.params, proposal.target)
    left = steps_of(means, proposal)[proposal.steps_done :]
    return "\n".join(means.words.command_line(step) for step in left[:LINES_BY_HAND]) or None


async def _propose(means: Means, delivery: Delivery, ask: Ask, policy: Policy, target: Target) -> GoOn | None:
    """Writes the proposal down; from then on it goes on from its row."""
    place = delivery.reply_to.place
    if place.channel is None:
        place = Place(policy.instances[target.instance].channel)
    if place.channel is None and not is_from_terminal(delivery.reply_to.user_id):
        raise TurnedDown(refusals.no_channel(target.instance), why="no channel")
    pending = await means.store.fetch_pending(ask.operation, target, ask.params)
    if pending is not None:
        notice = refusals.already_waiting(pending, means.operations[pending.operation])
        raise TurnedDown(notice, why="already waiting", proposal_id=pending.proposal_id, pending=pending)
    first = await in_the_way(means, means.operations[ask.operation], target)
    if first is not None:
        is_stop = means.operations[first.operation].is_stop
        notice = refusals.stop_under_way(first) if is_stop else refusals.already_under_way(first)
        raise TurnedDown(notice, why="another change is under way", proposal_id=first.proposal_id)
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
        resumes=ask.resumes,
    )
    facts = facts_of(ask, target) | {"reason": ask.reason, "channel": place.channel}
    entry = Entry(EntryName.ASKED, proposal.created_at, proposal.requester, proposal.proposal_id, facts)
    saved = await save(means, Transition(None, proposal, (entry,), handled=delivery.delivery_id, lease=means.lease))
    return GoOn(proposal, saved.lease) if saved is not None and saved.lease is not None else None


async def in_the_way(
    means: Means, operation: Operation, target: Target, *, but: Proposal | None = None
) -> Proposal | None:
    """The change that this one must give way to: stops never wait, and nothing restarts what is being stopped, or is
    being restarted by somebody else. Of two that restart, the one that was asked for first goes on."""
    if operation.is_stop or not target.job:
        return None
    for each in await means.store.fetch_on_jobs(target.instance, [target.job]):
        other = means.operations[each.operation]
        if but is not None and each.proposal_id == but.proposal_id:
            continue
        is_earlier = but is None or (each.created_at, each.proposal_id) < (but.created_at, but.proposal_id)
        if other.is_stop or (other.direction is operation.direction and is_earlier):
            return each
    return None
