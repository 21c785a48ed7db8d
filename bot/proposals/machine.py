"""A proposal, a change asked for and not finished, and its state machine: the table first, the code second.

Rules that the table and `advance` keep between them:

* nothing reaches `calling` but through `approved`, and nothing reaches `approved` but by a yes to the standing offer;
* a yes counts only for the offer that stands, and only before it expires;
* `finished` is the end: no answer is taken there;
* within `calling`, one answer ends a step and the next begins the following one; `following` takes progress;
* the steps are fixed with the first call, and only added to; a step that came to nothing may be given up for the next.

Pure: no clock, no I/O. The store carries each new value out as one compare-and-set on `version`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from bot.errors import OutOfTurn
from bot.model import OutcomeCode
from bot.proposals.answers import (
    Accepted,
    Answer,
    Called,
    Confirmed,
    Deferred,
    Ended,
    GivenUp,
    Lost,
    Offered,
    Progress,
)
from bot.proposals.values import Call, CallAnswer, Proposal, State

TABLE: Mapping[tuple[State, type[Answer]], frozenset[State]] = {
    (State.RECEIVED, Offered): frozenset({State.OFFERED}),
    (State.RECEIVED, Ended): frozenset({State.FINISHED}),
    (State.OFFERED, Offered): frozenset({State.OFFERED}),
    (State.OFFERED, Confirmed): frozenset({State.APPROVED}),
    (State.OFFERED, Ended): frozenset({State.FINISHED}),
    (State.APPROVED, Offered): frozenset({State.OFFERED}),
    (State.APPROVED, Called): frozenset({State.CALLING}),
    (State.APPROVED, Ended): frozenset({State.FINISHED}),
    (State.CALLING, Called): frozenset({State.CALLING}),
    (State.CALLING, Accepted): frozenset({State.CALLING, State.FOLLOWING}),
    (State.CALLING, Deferred): frozenset({State.CALLING}),
    (State.CALLING, Lost): frozenset({State.UNKNOWN}),
    (State.CALLING, GivenUp): frozenset({State.CALLING, State.FOLLOWING}),
    (State.CALLING, Ended): frozenset({State.FINISHED}),
    (State.UNKNOWN, Called): frozenset({State.CALLING}),
    (State.UNKNOWN, Accepted): frozenset({State.CALLING, State.FOLLOWING}),
    (State.UNKNOWN, GivenUp): frozenset({State.CALLING, State.FOLLOWING}),
    (State.UNKNOWN, Ended): frozenset({State.FINISHED}),
    (State.FOLLOWING, Progress): frozenset({State.FOLLOWING}),
    (State.FOLLOWING, Ended): frozenset({State.FINISHED}),
}

_CODES = OutcomeCode
ENDS: Mapping[State, frozenset[OutcomeCode]] = {
    State.RECEIVED: frozenset({_CODES.DENIED, _CODES.NOTHING_TO_STOP, _CODES.NOT_DONE}),
    State.OFFERED: frozenset({_CODES.DENIED, _CODES.DISMISSED, _CODES.EXPIRED, _CODES.SUPERSEDED, _CODES.NOT_DONE}),
    State.APPROVED: frozenset({_CODES.DENIED, _CODES.NOTHING_TO_STOP, _CODES.SUPERSEDED, _CODES.NOT_DONE}),
    State.CALLING: frozenset({_CODES.REFUSED_BY_CLOUD, _CODES.NOT_DONE, _CODES.UNKNOWN_OUTCOME, _CODES.SUPERSEDED}),
    State.UNKNOWN: frozenset(
        {_CODES.GOAL_REACHED_UNCONFIRMED, _CODES.UNKNOWN_OUTCOME, _CODES.NOT_DONE, _CODES.REFUSED_BY_CLOUD}
    ),
    State.FOLLOWING: frozenset(
        {
            _CODES.STOPPED,
            _CODES.PARTLY_STOPPED,
            _CODES.NOT_STOPPED,
            _CODES.DONE,
            _CODES.NOT_DONE,
            _CODES.REFUSED_BY_CLOUD,
            _CODES.UNKNOWN_OUTCOME,
        }
    ),
}
"""With which codes a proposal may end from each state."""


def advance(proposal: Proposal, answer: Answer, now: datetime) -> Proposal:
    """The proposal after `answer`. Raises `OutOfTurn` if its state does not admit that answer."""
    allowed = TABLE.get((proposal.state, type(answer)))
    if allowed is None:
        raise OutOfTurn(f"{type(answer).__name__.lower()} has no meaning while a proposal is {proposal.state}")
    step: Callable[[Proposal, Any, datetime], Proposal] = _STEPS[type(answer)]
    after = step(proposal, answer, now)
    if after.state not in allowed:
        raise OutOfTurn(f"{type(answer).__name__.lower()} may not lead from {proposal.state} to {after.state}")
    return replace(after, version=proposal.version + 1, changed_at=now)


def _offered(proposal: Proposal, answer: Offered, now: datetime) -> Proposal:
    return replace(proposal, state=State.OFFERED, offer=answer.offer, confirmed_by=None, approved_at=None)


def _confirmed(proposal: Proposal, answer: Confirmed, now: datetime) -> Proposal:
    offer = proposal.offer
    if offer is None or offer.offer_id != answer.offer_id:
        raise OutOfTurn("that offer is out of date")
    if offer.has_expired(now):
        raise OutOfTurn("that offer has expired")
    if not answer.decision.is_allowed:
        raise OutOfTurn("the policy does not allow it")
    if answer.decision.requirements.reason and not proposal.reason:
        raise OutOfTurn("the policy requires a reason")
    return replace(
        proposal, state=State.APPROVED, place=answer.place, confirmed_by=answer.by, requester=answer.by, approved_at=now
    )


def _called(proposal: Proposal, answer: Called, now: datetime) -> Proposal:
    if proposal.confirmed_by is None:
        raise OutOfTurn("nobody confirmed it")
    under_way = proposal.current_call
    if under_way is not None and under_way.answer is None:
        raise OutOfTurn("an attempt is under way")
    attempt = sum(call.step == proposal.steps_done for call in proposal.calls) + 1
    call = Call(step=proposal.steps_done, attempt=attempt, intent=answer.intent)
    return replace(
        proposal,
        state=State.CALLING,
        calls=(*proposal.calls, call),
        called=proposal.called or answer.preview,
        steps=proposal.steps or answer.steps,
    )


def _answered(proposal: Proposal, answer: CallAnswer, request_id: str | None, detail: str | None) -> tuple[Call, ...]:
    call = proposal.current_call
    if call is None:
        raise OutOfTurn("no attempt is under way")
    return (*proposal.calls[:-1], replace(call, answer=answer, request_id=request_id, detail=detail))


def _accepted(proposal: Proposal, answer: Accepted, now: datetime) -> Proposal:
    answered = replace(proposal, calls=_answered(proposal, CallAnswer.ACCEPTED, answer.request_id, answer.detail))
    return _next_step(answered, is_last=answer.is_last, follow_until=answer.follow_until, now=now)


def _next_step(proposal: Proposal, *, is_last: bool, follow_until: datetime, now: datetime) -> Proposal:
    return replace(
        proposal,
        state=State.FOLLOWING if is_last else State.CALLING,
        steps_done=proposal.steps_done + 1,
        followed_from=now if is_last else None,
        follow_until=follow_until if is_last else None,
    )


def _given_up(proposal: Proposal, answer: GivenUp, now: datetime) -> Proposal:
    after = proposal
    if proposal.current_call is not None:
        request_id = answer.request_id or proposal.current_call.request_id
        after = replace(proposal, calls=_answered(proposal, answer.answer, request_id, answer.detail))
    if answer.instead:
        done = proposal.steps_done + 1
        after = replace(after, steps=(*proposal.steps[:done], *answer.instead, *proposal.steps[done:]))
    return _next_step(after, is_last=answer.is_last, follow_until=answer.follow_until, now=now)


def _deferred(proposal: Proposal, answer: Deferred, now: datetime) -> Proposal:
    return replace(proposal, calls=_answered(proposal, answer.answer, answer.request_id, answer.detail))


def _lost(proposal: Proposal, answer: Lost, now: datetime) -> Proposal:
    return replace(
        proposal, state=State.UNKNOWN, calls=_answered(proposal, CallAnswer.LOST, answer.request_id, answer.detail)
    )


def _progress(proposal: Proposal, answer: Progress, now: datetime) -> Proposal:
    return replace(proposal, progress=answer.counts)


def _ended(proposal: Proposal, answer: Ended, now: datetime) -> Proposal:
    if answer.outcome.code not in ENDS[proposal.state]:
        raise OutOfTurn(f"a proposal that is {proposal.state} cannot end as {answer.outcome.code}")
    calls = proposal.calls
    if answer.answer is not None:
        calls = _answered(proposal, answer.answer, answer.request_id, answer.detail)
    return replace(
        proposal, state=State.FINISHED, calls=calls, outcome=answer.outcome, dismissed_by=answer.dismissed_by
    )


_STEPS: Mapping[type[Answer], Callable[[Proposal, Any, datetime], Proposal]] = {
    Offered: _offered,
    Confirmed: _confirmed,
    Called: _called,
    Accepted: _accepted,
    Deferred: _deferred,
    Lost: _lost,
    GivenUp: _given_up,
    Progress: _progress,
    Ended: _ended,
}


def diagram() -> str:
    """The table as a Mermaid state diagram; `bot/README.md` shows exactly this."""
    lines = ["stateDiagram-v2", "    [*] --> received"]
    for (state, answer), states in TABLE.items():
        lines += [f"    {state} --> {after}: {answer.__name__.lower()}" for after in sorted(states)]
    return "\n".join([*lines, "    finished --> [*]"])
