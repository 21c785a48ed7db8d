"""What the road works with, and its one way to write: a `transition`, saved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from bot.audit import Entry, EntryName, Fact
from bot.errors import OtabrakeError
from bot.exchange import Post, PostKind, ReplyTo
from bot.model import CLOCKS_DIFFER, UNKNOWN, Actor, Decision, Job, Notice, Preview, Question, Step, Target
from bot.operations import Operations
from bot.policy.decide import decide
from bot.policy.load import Policy
from bot.ports import (
    CloudChanges,
    CloudReads,
    CloudWords,
    Found,
    Lease,
    Leases,
    Notifier,
    People,
    Readings,
    Saved,
    Store,
    Transition,
)
from bot.proposals import Answer, Proposal, advance

BOT = "otabrake"
"""The actor of what nobody did by hand."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Spans in seconds; the defaults are those that people are promised (README, "How long")."""

    offer_seconds: float = 900
    follow_seconds: float = 900
    identity_at_ask_seconds: float = 600
    identity_at_click_seconds: float = 60
    click_counts_seconds: float = 60
    first_call_seconds: float = 60
    retry_seconds: float = 120
    nonce_seconds: float = 840
    poll_seconds: float = 1
    poll_most_seconds: float = 10
    progress_seconds: float = 5
    rate_seconds: float = 30
    restart_seconds: float = 120
    sweep_seconds: float = 1


class Log(Protocol):
    """The part of a structlog logger that the road needs."""

    def info(self, event: str, **facts: object) -> object: ...

    def error(self, event: str, **facts: object) -> object: ...


@dataclass(frozen=True, slots=True)
class Means:
    """The ports and the rest of what the road needs; `wiring` makes it, tests make their own.

    `lease` is that of the work for which these means are used, and `is_held` whether certainly nobody else is at it.
    """

    store: Store
    leases: Leases
    readings: Readings
    found: Found
    reads: CloudReads
    changes: CloudChanges
    words: CloudWords
    people: People
    notifier: Notifier
    operations: Operations
    policy: Callable[[], Policy | None]
    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    sleep: Callable[[float], Awaitable[None]]
    log: Log
    timings: Timings = field(default_factory=Timings)
    lease: Lease | None = None
    is_held: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class GoOn:
    """A proposal to carry on with at once, under its lease; `looking` is the read of its job, if that is under way."""

    proposal: Proposal
    lease: Lease
    looking: asyncio.Future[Job] | None = None


def has_passed(means: Means, since: datetime, seconds: float) -> bool:
    """Whether a span is over that began at `since`; so is one that began before the clock was set back."""
    now = means.clock()
    return now >= since + timedelta(seconds=seconds) or now < since - CLOCKS_DIFFER


class Elapsed:
    """How many seconds have passed since it was made, by a clock that may be set back meanwhile."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._at = clock()
        self._seconds = 0.0

    def __call__(self) -> float:
        before, self._at = self._at, self._clock()
        self._seconds += max(0.0, (self._at - before).total_seconds())
        return self._seconds


async def drop(reading: asyncio.Future[Any] | None) -> None:
    """Gives up a read that nobody needs any more, whatever it would have said."""
    if reading is not None:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class TurnedDown(OtabrakeError):
    """A delivery that is answered with a no: what the person is told, and one word on why for the audit.

    `facts` say what was turned down, `picks` are the instances of which one must be picked first, `pending` is
    the proposal whose card is shown instead.
    """

    def __init__(
        self,
        notice: Notice,
        *,
        why: str,
        proposal_id: str | None = None,
        facts: Mapping[str, Fact] | None = None,
        picks: Sequence[str] = (),
        pending: Proposal | None = None,
    ) -> None:
        super().__init__(why)
        self.pending = pending
        self.facts = facts or {}
        self.picks = tuple(picks)
        self.notice = notice
        self.why = why
        self.proposal_id = proposal_id


async def move(
    means: Means,
    before: Proposal,
    answer: Answer,
    *,
    name: EntryName,
    actor: str = BOT,
    facts: Mapping[str, Fact] | None = None,
    posts: Sequence[Post] = (),
    handled: str | None = None,
) -> Proposal | None:
    """A change of state with its audit entry and what it owes, written; None if somebody was faster."""
    written = transition(means, before, answer, name=name, actor=actor, facts=facts, posts=posts, handled=handled)
    return written.after if await save(means, written) is not None else None


def transition(
    means: Means,
    before: Proposal,
    answer: Answer,
    *,
    name: EntryName,
    actor: str = BOT,
    facts: Mapping[str, Fact] | None = None,
    posts: Sequence[Post] = (),
    handled: str | None = None,
) -> Transition:
    """A change of state, not written yet."""
    now = means.clock()
    after = advance(before, answer, now)
    entry = Entry(name, now, actor, before.proposal_id, facts or {})
    return Transition(before, after, (entry,), tuple(posts), handled, means.lease)


async def save(means: Means, written: Transition) -> Saved | None:
    """Writes a transition; None if somebody was faster."""
    saved = await means.store.save(written)
    if saved is not None:
        means.notifier.wake()
    return saved


async def keep(means: Means, before: Proposal, answer: Answer, *, posts: Sequence[Post] = ()) -> Proposal | None:
    """Keeps what was read meanwhile, with no audit entry: nothing was done. None if somebody was faster."""
    after = advance(before, answer, means.clock())
    if await means.store.save(Transition(before, after, (), tuple(posts), lease=means.lease)) is None:
        return None
    if posts:
        means.notifier.wake()
    return after


async def reply(
    means: Means,
    *,
    lane: str,
    to: ReplyTo,
    notice: Notice,
    entry: Entry,
    preview: Preview | None = None,
    posts: Sequence[Post] = (),
    picks: Sequence[str] = (),
    pointing_to: str | None = None,
) -> None:
    """Answers the delivery `lane` for one person alone, with its audit entry; `posts` follow."""
    post = Post(PostKind.REPLY, lane, notice, to, preview, picks=tuple(picks), pointing_to=pointing_to)
    if await means.store.record(entries=(entry,), posts=(post, *posts), handled=lane, lease=means.lease):
        means.notifier.wake()  # else another process has answered it


def steps_of(means: Means, proposal: Proposal) -> tuple[Step, ...]:
    """The steps that carry a proposal out: as planned at its first call, before that as its offer would."""
    if proposal.steps or proposal.offer is None:
        return proposal.steps
    return means.operations[proposal.operation].steps(proposal.offer.preview, proposal.params)


def showing(proposal_id: str) -> tuple[Post, Post]:
    """The proposal's card and buttons are to be made true."""
    return Post(PostKind.CARD, proposal_id), Post(PostKind.BUTTONS, proposal_id)


def private(proposal: Proposal, notice: Notice, *, pending: Proposal | None = None) -> Post:
    """A word to the asker alone, and the card of the proposal that is `pending` instead."""
    preview = pending.offer.preview if pending is not None and pending.offer is not None else None
    pointing_to = pending.proposal_id if pending is not None else None
    lane = proposal.proposal_id
    return Post(PostKind.REPLY, lane, notice, proposal.reply_to, preview, pointing_to=pointing_to)


def decide_on(policy: Policy, proposal: Proposal, actor: Actor, preview: Preview) -> Decision:
    """What the policy says of this proposal: both where it was typed and where its card stands must be allowed."""
    typed_in = decide(policy, question_of(proposal, actor, preview, channel=proposal.reply_to.place.channel))
    if not typed_in.is_allowed or proposal.reply_to.place.channel == proposal.place.channel:
        return typed_in
    return decide(policy, question_of(proposal, actor, preview, channel=proposal.place.channel))


def decide_at_card(
    policy: Policy, proposal: Proposal, actor: Actor, preview: Preview, *, channel: str | None
) -> Decision:
    """What the policy says of an answer given in `channel`, where the card really stands."""
    return decide(policy, question_of(proposal, actor, preview, channel=channel))


def question_of(proposal: Proposal, actor: Actor, preview: Preview, *, channel: str | None) -> Question:
    return ask_policy(actor, proposal.operation, channel, proposal.target, preview)


def ask_policy(actor: Actor, operation: str, channel: str | None, target: Target, preview: Preview) -> Question:
    """The question whose facts a preview tells. What the operation does not touch is no fact of it."""
    products = {part.job.product for part in preview.parts} or {target.product}
    product = products.pop() if len(products) == 1 else ""
    devices = preview.devices
    has_devices = any(part.touches or part.tasks for part in preview.parts)
    return Question(
        actor=actor,
        operation=operation,
        channel=channel,
        instance=target.instance,
        product=product or UNKNOWN,
        touches=preview.touches or None,
        devices=(UNKNOWN if devices is None else devices) if has_devices else None,
    )
