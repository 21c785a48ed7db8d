"""What is kept: deliveries, proposals, entries, posts, and where a proposal shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from bot.audit import Entry
from bot.exchange import Delivery, Post
from bot.model import Target
from bot.ports.leases import Lease
from bot.proposals import Proposal


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of one proposal, as it is written: all of it or nothing.

    `before` is None for a new proposal. `handled` names the delivery that this step answers; where the proposal has
    work to do then, its lease is taken with it. `lease` is the one under which this is written: if it was lost,
    nothing is. `also` are steps of other proposals that happen with this one or not at all.
    """

    before: Proposal | None
    after: Proposal
    entries: tuple[Entry, ...]
    posts: tuple[Post, ...] = ()
    handled: str | None = None
    lease: Lease | None = None
    also: tuple[Transition, ...] = ()


@dataclass(frozen=True, slots=True)
class Saved:
    """A step was written; `lease` is that of the proposal, if it was taken for what comes next."""

    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class Surface:
    """Where a proposal shows: its root card, and in the card's thread the button message and the one that tells how the
    devices move (None: not posted yet)."""

    channel: str | None = None
    card: str | None = None
    buttons: str | None = None
    progress: str | None = None


@dataclass(frozen=True, slots=True)
class Owed:
    """A post that has not been delivered yet, and how often that was tried."""

    post_id: int
    post: Post
    attempts: int


@dataclass(frozen=True, slots=True)
class OwedLane:
    """What one lane owes, in order, and the lease under which it is delivered."""

    lease: Lease
    posts: tuple[Owed, ...]


class Store(Protocol):
    """What is kept. Every method may raise `StoreUnavailable`; then nothing was written."""

    async def receive(self, delivery: Delivery) -> Lease | None:
        """Writes a delivery down, and takes it to be answered. None: its key was seen before; nothing was written."""
        ...

    async def save(self, transition: Transition) -> Saved | None:
        """A compare-and-set with its entries and posts. None: somebody was faster, and nothing was written."""
        ...

    async def record(
        self,
        *,
        entries: Sequence[Entry] = (),
        posts: Sequence[Post] = (),
        handled: str | None = None,
        lease: Lease | None = None,
    ) -> bool:
        """Writes what concerns no proposal's state: refusals, reads, lines in a thread.

        False: `handled` was answered already, or `lease` was lost, and nothing was written.
        """
        ...

    async def claim_deliveries(self) -> tuple[tuple[Lease, Delivery], ...]:
        """Takes deliveries that nobody answers, oldest first (at most 100)."""
        ...

    async def claim_work(self, now: datetime) -> tuple[Lease, ...]:
        """Takes proposals that have something to do without anybody's click, and nobody to do it (at most 100)."""
        ...

    async def claim_lanes(self) -> tuple[OwedLane, ...]:
        """Takes what is owed to people and nobody delivers, in the order of writing (from the first 500 posts)."""
        ...

    async def fetch_delivery(self, delivery_id: str) -> Delivery | None: ...

    async def fetch_proposal(self, proposal_id: str) -> Proposal | None: ...

    async def fetch_proposal_of(self, offer_id: str) -> Proposal | None:
        """The proposal that this offer was made for, also when a newer offer stands."""
        ...

    async def fetch_pending(self, operation: str, target: Target, params: frozenset[str]) -> Proposal | None:
        """The one proposal of this kind that waits to be carried out."""
        ...

    async def fetch_on_jobs(self, instance: str, jobs: Collection[str]) -> tuple[Proposal, ...]:
        """The proposals that are not finished and whose offer names one of these jobs, oldest first."""
        ...

    async def fetch_beginning(self, proposal_id: str) -> tuple[Proposal, ...]:
        """The proposals whose id begins so (at most two: more than one is too few characters)."""
        ...

    async def fetch_owed(self) -> tuple[Owed, ...]:
        """Posts not delivered yet, in the order of writing (at most 500)."""
        ...

    async def settle(self, owed: Owed, *, failure: str | None = None, lease: Lease, is_last: bool = False) -> bool:
        """Marks a post as delivered, or as given up with a reason; with the last one, the lane is free again.

        False: the lease was lost, and nothing was written.
        """
        ...

    async def count_attempt(self, post_id: int) -> None: ...

    async def fetch_surface(self, proposal_id: str) -> Surface: ...

    async def save_surface(self, proposal_id: str, surface: Surface, *, was: Surface) -> bool:
        """A compare-and-set on where the proposal showed. False: somebody else has shown it meanwhile."""
        ...
