"""Retention: how long what is over is kept, and who prunes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

DAY_SECONDS = 86_400.0
LEAST_DELIVERY_SECONDS = 600.0
"""A delivery is known at least so long after it was answered, whatever is set: Slack may send it again."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how long what is over is kept, in seconds.

    A finished proposal goes with its offers, calls and posts, a delivery when it was answered so long ago, a post that
    belongs to no finished proposal when it was delivered or given up so long ago. Audit entries are kept for ever, and
    so is what is not over.
    """

    proposal_seconds: float = 90 * DAY_SECONDS
    delivery_seconds: float = 7 * DAY_SECONDS
    post_seconds: float = 7 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows went; `posts` are those that went by themselves."""

    proposals: int = 0
    deliveries: int = 0
    posts: int = 0


class Retention(Protocol):
    async def prune(self) -> Pruned:
        """Deletes what has been kept long enough, in many short units with pauses between them.

        Several processes may do it at once, and it may be cancelled at any time. Raises `StoreUnavailable`.
        """
        ...
