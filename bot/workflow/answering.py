"""From a click to an approval: the person, the policy and the offer are checked anew; then one compare-and-set decides.

A click that does not count is answered to the clicker alone, and leaves the card as it is for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bot.audit import EntryName, Fact
from bot.errors import OutOfTurn, PeopleUnavailable, Unidentified
from bot.exchange import Choice, Click, Delivery
from bot.model import Actor, Notice, Offer, Outcome, OutcomeCode, Place, is_from_terminal
from bot.policy.load import Policy
from bot.ports import Lease, Transition
from bot.proposals import Confirmed, Ended, Proposal, State
from bot.workflow import refusals, sentences
from bot.workflow.ahead import LookAhead
from bot.workflow.asking import command_for
from bot.workflow.means import GoOn, Means, TurnedDown, decide_at_card, has_passed, move, save, showing, transition
from bot.workflow.superseding import fetch_touching, superseded_by

SUPERSEDING_TRIES = 4
"""So often a yes is tried anew because what it supersedes has moved on meanwhile."""


async def handle_click(means: Means, delivery: Delivery, click: Click, ahead: LookAhead | None = None) -> GoOn | None:
    """Answers a click; the proposal that it approved, if it did. Raises `TurnedDown`.

    `ahead` is what was begun for it already.
    """
    ahead = ahead or LookAhead(means, click)
    try:
        return await _answer(means, delivery, click, ahead)
    except BaseException:
        await ahead.drop()
        raise


async def _answer(means: Means, delivery: Delivery, click: Click, ahead: LookAhead) -> GoOn | None:
    proposal = await ahead.proposal()
    if proposal is None:
        raise TurnedDown(refusals.unknown_card(), why="unknown offer")
    if has_passed(means, delivery.received_at, means.timings.click_counts_seconds):
        raise _no(proposal, refusals.too_late(), why="too late")
    policy = means.policy()
    if policy is None:
        raise _no(proposal, refusals.no_policy(command_for(means, proposal)), why="no policy")
    actor = await _identify(means, delivery, proposal)
    offer = await _standing(means, proposal, click)
    if click.choice is Choice.DISMISS:
        await _dismiss(means, delivery, proposal, offer, policy, actor)
        return None
    return await _confirm(means, delivery, proposal, offer, policy, actor, ahead)


def _no(proposal: Proposal, notice: Notice, *, why: str) -> TurnedDown:
    target = proposal.target
    facts: dict[str, Fact] = {"operation": proposal.operation, "instance": target.instance}
    if target.job:
        facts["job"] = target.job
    return TurnedDown(notice, why=why, proposal_id=proposal.proposal_id, facts=facts)


async def _identify(means: Means, delivery: Delivery, proposal: Proposal) -> Actor:
    max_age = means.timings.identity_at_click_seconds
    try:
        person = await means.people.identify(delivery.reply_to.user_id, max_age_seconds=max_age)
    except Unidentified as error:
        raise _no(proposal, refusals.not_let_in(str(error)), why="not let in") from error
    except PeopleUnavailable as error:
        notice = refusals.people_unavailable(command_for(means, proposal))
        raise _no(proposal, notice, why="people unavailable") from error
    return person.actor


async def _standing(means: Means, proposal: Proposal, click: Click) -> Offer:
    """The offer that was clicked, if it still stands."""
    if proposal.state is not State.OFFERED or proposal.offer is None:
        raise _no(proposal, refusals.no_longer_waiting(proposal), why="not waiting")
    if proposal.offer.offer_id != click.offer_id:
        raise _no(proposal, refusals.out_of_date(), why="out of date")
    if proposal.offer.has_expired(means.clock()):
        await expire(means, proposal)
        now = await means.store.fetch_proposal(proposal.proposal_id) or proposal
        if now.outcome is not None and now.outcome.code is OutcomeCode.EXPIRED:
            raise _no(proposal, refusals.expired(), why="expired")
        raise await _was_slower(means, proposal)
    return proposal.offer


async def _confirm(
    means: Means,
    delivery: Delivery,
    proposal: Proposal,
    offer: Offer,
    policy: Policy,
    actor: Actor,
    ahead: LookAhead,
) -> GoOn:
    channel = delivery.reply_to.place.channel
    decision = decide_at_card(policy, proposal, actor, offer.preview, channel=channel)
    if not decision.is_allowed:
        raise _no(proposal, refusals.click_denied(decision), why="denied")
    if decision.requirements.reason and not proposal.reason:
        raise _no(proposal, refusals.confirmation_needs_reason(), why="no reason")
    facts: dict[str, Fact] = {
        "offer": offer.offer_id,
        "policy": decision.policy,
        "rules": list(decision.rules),
        "for": proposal.requester,
    }
    # The last look is made while the yes is written down: reading changes nothing, and seconds count.
    looking = ahead.go()
    try:
        confirmed = transition(
            means,
            proposal,
            Confirmed(offer.offer_id, actor.user_id, decision, _place_of(proposal, actor, channel)),
            name=EntryName.CONFIRMED,
            actor=actor.user_id,
            facts=facts,
            posts=showing(proposal.proposal_id),
            handled=delivery.delivery_id,
        )
    except OutOfTurn as error:
        raise _no(proposal, refusals.expired(), why="expired") from error
    lease = await _approve(means, confirmed, await ahead.others(), actor)
    if lease is None:
        raise await _was_slower(means, proposal)
    return GoOn(confirmed.after, lease, looking)


def _place_of(proposal: Proposal, actor: Actor, channel: str | None) -> Place:
    """Where the card stands that was clicked. A yes at a terminal, which is nowhere, leaves it where it is."""
    return proposal.place if is_from_terminal(actor.user_id) else Place(channel)


async def _approve(means: Means, confirmed: Transition, others: Sequence[Proposal], actor: Actor) -> Lease | None:
    """Writes the yes, and with it the end of what it makes pointless. One of those may move on meanwhile: then they
    are looked at once more."""
    for _ in range(SUPERSEDING_TRIES):
        also = superseded_by(means, confirmed.after, others, actor=actor.user_id)
        saved = await save(means, replace(confirmed, also=also))
        if saved is not None:
            return saved.lease
        if not also:
            return None
        others = await fetch_touching(means, confirmed.after)
    return None


async def _dismiss(
    means: Means, delivery: Delivery, proposal: Proposal, offer: Offer, policy: Policy, actor: Actor
) -> None:
    """The requester may, and whoever could say yes."""
    channel = delivery.reply_to.place.channel
    decision = decide_at_card(policy, proposal, actor, offer.preview, channel=channel)
    if actor.user_id != proposal.requester and not decision.is_allowed:
        raise _no(proposal, refusals.dismissal_denied(), why="denied")
    ended = await move(
        means,
        proposal,
        Ended(Outcome(OutcomeCode.DISMISSED, sentences.dismissed()), dismissed_by=actor.user_id),
        name=EntryName.ENDED,
        actor=actor.user_id,
        facts={"outcome": OutcomeCode.DISMISSED.value, "offer": offer.offer_id},
        posts=showing(proposal.proposal_id),
        handled=delivery.delivery_id,
    )
    if ended is None:
        raise await _was_slower(means, proposal)


async def _was_slower(means: Means, proposal: Proposal) -> TurnedDown:
    now = await means.store.fetch_proposal(proposal.proposal_id) or proposal
    notice = refusals.out_of_date() if now.state is State.OFFERED else refusals.no_longer_waiting(now)
    return _no(proposal, notice, why="somebody was faster")


async def expire(means: Means, proposal: Proposal) -> None:
    """offered → finished: nobody said yes in time. The card loses its buttons."""
    await move(
        means,
        proposal,
        Ended(Outcome(OutcomeCode.EXPIRED, sentences.ended_expired())),
        name=EntryName.ENDED,
        facts={"outcome": OutcomeCode.EXPIRED.value},
        posts=showing(proposal.proposal_id),
    )
