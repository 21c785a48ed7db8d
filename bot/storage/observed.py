"""`SqlStore` and `SqlLeases` that tell what they have written, once it is committed.

So what logs and metrics say is in the database, and no caller can forget to tell. What it does not do: write anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from bot.audit import Entry
from bot.exchange import Delivery, Post
from bot.ports import Lease, Owed, OwedLane, Renewal, Saved, Transition
from bot.ports.telemetry import (
    Claimed,
    LeaseTaken,
    Posted,
    PostResult,
    Received,
    Telemetry,
    WorkFailed,
    Written,
)
from bot.storage.database import Database
from bot.storage.leases import SqlLeases
from bot.storage.store import SqlStore


class ObservedStore(SqlStore):
    """A `SqlStore` that tells `telemetry`."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime], owner: str, telemetry: Telemetry) -> None:
        super().__init__(database, clock=clock, owner=owner)
        self._telemetry = telemetry

    async def receive(self, delivery: Delivery) -> Lease | None:
        lease = await super().receive(delivery)
        self._telemetry.note(Received(delivery, is_new=lease is not None))
        return lease

    async def save(self, transition: Transition) -> Saved | None:
        saved = await super().save(transition)
        if saved is not None:
            self._telemetry.note(Written(transition.entries, transition, transition.handled))
            for other in transition.also:
                self._telemetry.note(Written(other.entries, other, other.handled))
        return saved

    async def record(
        self,
        *,
        entries: Sequence[Entry] = (),
        posts: Sequence[Post] = (),
        handled: str | None = None,
        lease: Lease | None = None,
    ) -> bool:
        is_written = await super().record(entries=entries, posts=posts, handled=handled, lease=lease)
        if is_written:
            self._telemetry.note(Written(tuple(entries), None, handled))
        return is_written

    async def settle(self, owed: Owed, *, failure: str | None = None, lease: Lease, is_last: bool = False) -> bool:
        is_settled = await super().settle(owed, failure=failure, lease=lease, is_last=is_last)
        if is_settled:
            self._telemetry.note(Posted(PostResult.DELIVERED if failure is None else PostResult.GIVEN_UP))
        return is_settled

    async def count_attempt(self, post_id: int) -> None:
        await super().count_attempt(post_id)
        self._telemetry.note(Posted(PostResult.PUT_OFF))

    async def claim_deliveries(self) -> tuple[tuple[Lease, Delivery], ...]:
        claimed = await super().claim_deliveries()
        for lease, delivery in claimed:
            self._telemetry.note(Claimed(lease, delivery))
        return claimed

    async def claim_work(self, now: datetime) -> tuple[Lease, ...]:
        claimed = await super().claim_work(now)
        for lease in claimed:
            self._telemetry.note(Claimed(lease))
        return claimed

    async def claim_lanes(self) -> tuple[OwedLane, ...]:
        claimed = await super().claim_lanes()
        for lane in claimed:
            self._telemetry.note(Claimed(lane.lease))
        return claimed


class ObservedLeases(SqlLeases):
    """`SqlLeases` that tell `telemetry`."""

    def __init__(self, database: Database, *, owner: str, telemetry: Telemetry) -> None:
        super().__init__(database, owner=owner)
        self._telemetry = telemetry

    async def renew(self, leases: Collection[Lease]) -> Renewal:
        renewal = await super().renew(leases)
        for lease in renewal.taken:
            self._telemetry.note(LeaseTaken(lease))
        return renewal

    async def fail(self, lease: Lease) -> None:
        self._telemetry.note(WorkFailed(lease))
        await super().fail(lease)
