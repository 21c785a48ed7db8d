"""A proposal, a change asked for and not finished, and its state machine: the table first, the code second.

Rules that the table and `advance` keep between them:

* nothing reaches `calling` but through `approved`, and nothing reaches `approved` but by a yes to the standing offer;
* a yes counts only for the offer that stands, and only before it expires;
* `finished` is the end: no answer is taken there;
* within `calling`, one answer ends a step and the next begins the following one; `following` takes progress.

Pure: no clock, no I/O. The store carries each new value out as one compare-and-set on `version`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from bot.errors import OutOfTurn
from bot.exchange import ReplyTo
from bot.model import Counts, Decision, Intent, Offer, Outcome, OutcomeCode, Place, Target


class State(StrEnum):
    RECEIVED = "received"
    OFFERED = "offered"
    APPROVED = "approved"
    CALLING = "calling"
    UNKNOWN = "unknown"
    FOLLOWING = "following"
    FINISHED = "finished"


PENDING = frozenset({State.OFFERED, State.APPROVED})
"""States in which a proposal waits to be carried out: one of a kind for one target."""


class CallAnswer(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    THROTTLED = "throttled"
    NOT_SENT = "not_sent"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at one step: the intent as written down before it was sent, and what came of it (None: nothing)."""

    step: int
    attempt: int
    intent: Intent
    answer: CallAnswer | None = None
    request_id: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """One change asked for.

    `place` is where its card stands. `requester` is the person whose yes counts as the confirmation; another entitled
    person who confirms becomes it. `reply_to` is where the asker is told what nobody else needs to see. `baseline` are
    the counts of the re-check, `progress` the last ones of the follow.
    """

    proposal_id: str
    operation: str
    params: frozenset[str]
    target: Target
    place: Place
    requester: str
    reason: str | None
    created_at: datetime
    reply_to: ReplyTo
    state: State = State.RECEIVED
    version: int = 0
    changed_at: datetime | None = None
    offer: Offer | None = None
    confirmed_by: str | None = None
    dismissed_by: str | None = None
    approved_at: datetime | None = None
    baseline: Counts | None = None
    calls: tuple[Call, ...] = ()
    steps_done: int = 0
    follow_until: datetime | None = None
    progress: Counts | None = None
    outcome: Outcome | None = None

    @property
    def current_call(self) -> Call | None:
        """The last attempt at the step that is not done yet."""
        last = self.calls[-1] if self.calls else None
        return last if last and last.step == self.steps_done else None

    @property
    def request_ids(self) -> tuple[str, ...]:
        return tuple(call.request_id for call in self.calls if call.request_id)


# Answers: what the world said to a proposal.


@dataclass(frozen=True, slots=True)
class Offered:
    """A preview was made and the policy allows the call: it is put before people."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An entitled person's yes to the offer `offer_id`, as decided anew at the click, in the place of the click."""

    offer_id: str
    by: str
    decision: Decision
    place: Place


@dataclass(frozen=True, slots=True)
class Called:
    """An attempt is about to be sent; the first one keeps the counts of the re-check as baseline."""

    intent: Intent
    baseline: Counts | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The cloud accepted the step under way; after the last one the devices are followed until `follow_until`."""

    request_id: str | None
    is_last: bool
    follow_until: datetime
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """The attempt changed nothing (not sent, or throttled): another one may follow."""

    answer: CallAnswer
    detail: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt's answer was lost: it may have arrived."""

    detail: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What the devices did since."""

    counts: Counts


@dataclass(frozen=True, slots=True)
class Ended:
    """The end, with what the last attempt came to if there was one."""

    outcome: Outcome
    answer: CallAnswer | None = None
    request_id: str | None = None
    detail: str | None = None
    dismissed_by: str | None = None


Answer = Offered | Confirmed | Called | Accepted | Deferred | Lost | Progress | Ended
ANSWERS: tuple[type[Answer], ...] = (
    Offered,
    Confirmed,
    Called,
    Accepted,
    Deferred,
    Lost,
    Progress,
    Ended,
)

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
    (State.CALLING, Ended): frozenset({State.FINISHED}),
    (State.UNKNOWN, Called): frozenset({State.CALLING}),
    (State.UNKNOWN, Accepted): frozenset({State.CALLING, State.FOLLOWING}),
    (State.UNKNOWN, Ended): frozenset({State.FINISHED}),
    (State.FOLLOWING, Progress): frozenset({State.FOLLOWING}),
    (State.FOLLOWING, Ended): frozenset({State.FINISHED}),
}

_CODES = OutcomeCode
ENDS: Mapping[State, frozenset[OutcomeCode]] = {
    State.RECEIVED: frozenset({_CODES.DENIED, _CODES.NOTHING_TO_STOP, _CODES.NOT_DONE}),
    State.OFFERED: frozenset({_CODES.DENIED, _CODES.DISMISSED, _CODES.EXPIRED, _CODES.SUPERSEDED, _CODES.NOT_DONE}),
    State.APPROVED: frozenset({_CODES.DENIED, _CODES.NOTHING_TO_STOP, _CODES.SUPERSEDED, _CODES.NOT_DONE}),
    State.CALLING: frozenset({_CODES.REFUSED_BY_CLOUD, _CODES.NOT_DONE, _CODES.UNKNOWN_OUTCOME}),
    State.UNKNOWN: frozenset(
        {_CODES.GOAL_REACHED_UNCONFIRMED, _CODES.UNKNOWN_OUTCOME, _CODES.NOT_DONE, _CODES.REFUSED_BY_CLOUD}
    ),
    State.FOLLOWING: frozenset({_CODES.STOPPED, _CODES.PARTLY_STOPPED, _CODES.NOT_STOPPED, _CODES.UNKNOWN_OUTCOME}),
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
    if now >= offer.expires_at:
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
        baseline=proposal.baseline or answer.baseline,
    )


def _answered(proposal: Proposal, answer: CallAnswer, request_id: str | None, detail: str | None) -> tuple[Call, ...]:
    call = proposal.current_call
    if call is None:
        raise OutOfTurn("no attempt is under way")
    return (*proposal.calls[:-1], replace(call, answer=answer, request_id=request_id, detail=detail))


def _accepted(proposal: Proposal, answer: Accepted, now: datetime) -> Proposal:
    return replace(
        proposal,
        state=State.FOLLOWING if answer.is_last else State.CALLING,
        calls=_answered(proposal, CallAnswer.ACCEPTED, answer.request_id, answer.detail),
        steps_done=proposal.steps_done + 1,
        follow_until=answer.follow_until if answer.is_last else None,
    )


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
    Progress: _progress,
    Ended: _ended,
}


def diagram() -> str:
    """The table as a Mermaid state diagram; `bot/README.md` shows exactly this."""
    lines = ["stateDiagram-v2", "    [*] --> received"]
    for (state, answer), states in TABLE.items():
        lines += [f"    {state} --> {after}: {answer.__name__.lower()}" for after in sorted(states)]
    return "\n".join([*lines, "    finished --> [*]"])
