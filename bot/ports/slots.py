"""The call budget: which calls all processes on one database may make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

LONGEST_HOLD_SECONDS = 60.0
"""No slot is held and no lane is paused for longer."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One operation of one account at the cloud, and how many of its calls the account may make in a second."""

    account: str
    action: str
    limit: int

    @property
    def background_limit(self) -> int:
        """How many of the slots what runs in the background may hold: those with the lowest numbers."""
        return max(1, self.limit // 2)


@dataclass(frozen=True, slots=True)
class Slot:
    """One call that may be made from `opens_at` on, by this process's monotonic clock.

    `token` counts how often its row was claimed.
    """

    lane: Lane
    number: int
    token: int
    opens_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim gave; those who got none need not ask again before `again_at` (the same clock)."""

    slots: tuple[Slot, ...]
    again_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Freed:
    """A slot that is given back and is free again at `at`, by this process's monotonic clock."""

    slot: Slot
    at: float


class Slots(Protocol):
    """The calls that all processes on one database may make, by the database's clock.

    Every method may raise `StoreUnavailable`. What is not released is free by itself after `hold_seconds`.
    """

    async def claim(self, lane: Lane, *, foreground: int, background: int, hold_seconds: float) -> Claim:
        """Takes as many slots as are wanted of those free now or in a moment, for the foreground first; never waits.

        A slot that was claimed for the background has a number below `Lane.background_limit`.
        """
        ...

    async def release(self, freed: Sequence[Freed]) -> None:
        """Gives slots back. One that was claimed by somebody else meanwhile is left alone."""
        ...

    async def pause(self, lane: Lane, *, until: float) -> None:
        """Nobody gets a slot of `lane` before `until` (this process's monotonic clock); a longer pause stays."""
        ...
