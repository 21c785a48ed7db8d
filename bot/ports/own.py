"""What a process needs of the store that works on nothing but what was asked for in it: one at a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from bot.audit import Entry
from bot.ports.store import Owed, Store
from bot.proposals import Proposal


@dataclass(frozen=True, slots=True)
class Answered:
    """How a delivery was answered: the entry that says so, and the proposal that it was about, if it was about one."""

    entry: Entry
    proposal_id: str | None = None


class OwnWork(Store, Protocol):
    """A store that finds no other work than what was received or begun through it."""

    def answer_to(self, delivery_id: str) -> Answered | None:
        """How this process answered a delivery; None: it has not (yet)."""
        ...

    async def fetch_is_answered(self, delivery_id: str) -> bool:
        """Whether any process has answered it."""
        ...

    async def fetch_last_post(self) -> int:
        """The number of the newest post: what is said later has a higher one."""
        ...

    async def fetch_said(self, lanes: Collection[str], *, after: int) -> tuple[Owed, ...]:
        """The posts of these lanes after that one, also those that were delivered (at most 500)."""
        ...

    async def settle_said(self, post_ids: Sequence[int]) -> None:
        """Marks posts as delivered that were for the person at the terminal alone."""
        ...

    async def fetch_offered(self, beginning: str) -> tuple[Proposal, ...]:
        """The proposals of the offers whose id begins so (at most two: more than one is too few characters)."""
        ...
