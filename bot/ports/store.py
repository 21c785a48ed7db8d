"""What is kept: deliveries, proposals, entries, posts, and where a proposal shows."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from bot.audit import Entry
from bot.exchange import Delivery, Post
from bot.model import (
    Target,
)
from bot.proposals import Proposal


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of one proposal, as it is written: all of it or nothing.

    `before` is None for a new proposal. `handled` names the delivery that this step answers.
    """

    before: Proposal | None
    after: Proposal
    entries: tuple[Entry, ...]
    posts: tuple[Post, ...] = ()
    handled: str | None = None


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


class Store(Protocol):
    """What is kept. Every method may raise `StoreUnavailable`; then nothing was written."""

    async def receive(self, delivery: Delivery) -> bool:
        """Writes a delivery down. False: its key was seen before, and nothing was written."""
        ...

    async def save(self, transition: Transition) -> bool:
        """A compare-and-set with its entries and posts. False: somebody was faster, and nothing was written."""
        ...

    async def record(
        self, *, entries: Sequence[Entry] = (), posts: Sequence[Post] = (), handled: str | None = None
    ) -> None:
        """Writes what concerns no proposal's state: refusals, reads, lines in a thread."""
        ...

    async def fetch_open_deliveries(self, *, but: Container[str] = ()) -> tuple[Delivery, ...]:
        """Deliveries that nothing has answered yet, oldest first, from the first 500; `but` are ids to leave out."""
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

    async def fetch_work(self, now: datetime) -> tuple[str, ...]:
        """The ids of proposals that have something to do without anybody's click (at most 500)."""
        ...

    async def fetch_owed(self, *, but: Collection[str] = ()) -> tuple[Owed, ...]:
        """Posts not delivered yet, in the order of writing (at most 500); `but` are lanes to leave out."""
        ...

    async def settle(self, post_ids: Sequence[int], *, failure: str | None = None) -> None:
        """Marks posts as delivered, or as given up with a reason."""
        ...

    async def count_attempt(self, post_id: int) -> None: ...

    async def fetch_surface(self, proposal_id: str) -> Surface: ...

    async def save_surface(self, proposal_id: str, surface: Surface) -> None: ...
