"""A proposal, a change asked for and not finished, and the attempts that were made at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from bot.exchange import ReplyTo
from bot.model import Counts, Intent, Offer, Outcome, Place, Preview, Step, Target


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
    person who confirms becomes it. `reply_to` is where the asker is told what nobody else needs to see. `called` is
    the target as the re-check saw it, whose counts are the baseline; `progress` are the last counts of the follow, by
    job. `steps` are all that were planned,
    `steps_done` those that are over, whatever came of them. `resumes` is the proposal whose left-over this one does.
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
    called: Preview | None = None
    steps: tuple[Step, ...] = ()
    calls: tuple[Call, ...] = ()
    steps_done: int = 0
    followed_from: datetime | None = None
    follow_until: datetime | None = None
    progress: Mapping[str, Counts] = field(default_factory=dict)
    outcome: Outcome | None = None
    resumes: str | None = None

    @property
    def baseline(self) -> Mapping[str, Counts]:
        """The counts just before the first call, by job."""
        return {part.job.job_id: part.counts for part in self.called.parts} if self.called is not None else {}

    @property
    def current_call(self) -> Call | None:
        """The last attempt at the step that is not done yet."""
        last = self.calls[-1] if self.calls else None
        return last if last and last.step == self.steps_done else None

    def last_call_of(self, step: int) -> Call | None:
        """The last attempt at a step."""
        return next((call for call in reversed(self.calls) if call.step == step), None)

    @property
    def request_ids(self) -> tuple[str, ...]:
        return tuple(call.request_id for call in self.calls if call.request_id)
