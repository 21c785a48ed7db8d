"""Values of the core that many tests start from; each can be bent with keyword arguments."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from bot.exchange import Ask, Delivery, ReplyTo
from bot.model import (
    Actor,
    Counts,
    Decision,
    Effect,
    Intent,
    Job,
    JobKind,
    JobState,
    Offer,
    Part,
    Place,
    Preview,
    Step,
    StepKind,
    Target,
    TaskState,
    Touch,
)
from bot.proposals import Proposal

AT = datetime(2026, 3, 1, 3, 12, tzinfo=UTC)
TARGET = Target("prod-shanghai", "7glPHmaDYLAYMD1HHutT02")
STOPPABLE = frozenset({Touch.QUEUED, Touch.NOTIFIED, Touch.CONFIRM})
PLACE = Place("C0INCIDENT")
REPLY_TO = ReplyTo("U0ONCALLA1", Place("C0INCIDENT"), "https://hooks.slack.com/commands/T0/1/x")


def job(**bent: Any) -> Job:
    made = Job(
        TARGET.job, JobState.IN_PROGRESS, JobKind.STATIC, "fw-421", "gateway-fw", "a1Gateway01", "4.2.1", ("4.2.0",)
    )
    return replace(made, **bent)


def counts(*, at: datetime = AT, **numbers: int | None) -> Counts:
    """Counts by state name; what is not named is zero."""
    return Counts({state: numbers.get(state.name, 0) for state in TaskState}, at)


def part(**bent: Any) -> Part:
    """One batch; `bent` bends its job, counts, touches or tasks."""
    made = Part(job(), counts(QUEUED=212, NOTIFIED=30, IN_PROGRESS=12, SUCCEEDED=146), STOPPABLE)
    return replace(made, **bent)


def preview(*parts: Part, target: Target = TARGET, left_out: int = 0, **bent: Any) -> Preview:
    """A preview of these batches, or of one, bent."""
    return Preview(target, parts or (part(**bent),), left_out)


def decision(**bent: Any) -> Decision:
    return replace(Decision(Effect.ALLOW, ("on-call stops",), (), "digest"), **bent)


def offer(**bent: Any) -> Offer:
    return replace(Offer("0" * 32, preview(), decision(), AT, AT + timedelta(minutes=15)), **bent)


def proposal(**bent: Any) -> Proposal:
    made = Proposal(
        proposal_id="p1",
        operation="job.cancel",
        params=frozenset(),
        target=TARGET,
        place=Place("C0INCIDENT"),
        requester="U0ONCALLA1",
        reason="4.2.1 bricks gateways",
        created_at=AT,
        reply_to=REPLY_TO,
    )
    return replace(made, **bent)


def intent(nonce: str = "n1", **bent: Any) -> Intent:
    step = Step(StepKind.CANCEL_TASKS, Target("prod-shanghai", TARGET.job, "fw-421", "a1Gateway01"), STOPPABLE)
    return replace(Intent(step, nonce, AT, "testid", AT + timedelta(seconds=10)), **bent)


def delivery(key: str = "command:1", **bent: Any) -> Delivery:
    content = Ask("job.cancel", TARGET.job, reason="4.2.1 bricks gateways")
    return replace(Delivery(f"d-{key}", key, REPLY_TO, AT, content), **bent)


def actor(**bent: Any) -> Actor:
    return replace(Actor("U0ONCALLA1", frozenset({"S0614TZR7"}), AT), **bent)
