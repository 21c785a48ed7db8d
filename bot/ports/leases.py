"""Leases: which process works on what. Replicas never do the same, and what a dead one did goes on elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

LEASE_SECONDS = 3.0
"""So long after it was last renewed a lease is still its owner's; then anybody may claim it."""

RENEW_SECONDS = 1.0
"""How often the leases of work that is alive are renewed."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on `name`. Each claim raises `token`, so what was written under an older one is refused.

    `attempts` is how often the work failed, or its owner died, since it last went on.
    """

    name: str
    owner: str
    token: int
    attempts: int = 0

    @property
    def subject(self) -> str:
        """The id of what is worked on."""
        return self.name.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Renewal:
    """Which leases could not be renewed: somebody else has claimed them (`taken`), or nobody holds them (`gone`)."""

    taken: tuple[Lease, ...] = ()
    gone: tuple[Lease, ...] = ()


def of_proposal(proposal_id: str) -> str:
    return f"proposal:{proposal_id}"


def of_delivery(delivery_id: str) -> str:
    return f"delivery:{delivery_id}"


def of_lane(lane: str) -> str:
    return f"lane:{lane}"


class Leases(Protocol):
    """The leases of all processes on one database, by its clock. Every method may raise `StoreUnavailable`."""

    async def claim(self, names: Collection[str]) -> tuple[Lease, ...]:
        """Those of `names` that nobody holds; never waits for anybody's work."""
        ...

    async def renew(self, leases: Collection[Lease]) -> Renewal:
        """Holds them for `LEASE_SECONDS` from now."""
        ...

    async def release(self, leases: Sequence[Lease]) -> None:
        """Gives them back: the work is done, or anybody may go on with it at once."""
        ...

    async def fail(self, lease: Lease) -> None:
        """Gives it back and counts a failed attempt."""
        ...
