"""The store of a process at a terminal: `SqlStore`, but whatever others began is left to `otabrake serve`.

It keeps in mind how what was asked for in this process was answered, and reads what is said in a proposal's thread,
whoever writes it. What it does not do: deliver anything to Slack.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, and_, func, or_, select, update

from bot.audit import Entry
from bot.exchange import Delivery, Post
from bot.ports import Lease, Owed, OwedLane, Saved, Transition, of_delivery, of_proposal
from bot.ports.own import Answered
from bot.proposals import Proposal, State
from bot.storage.codec import from_json
from bot.storage.database import Database
from bot.storage.leases import claim, is_free
from bot.storage.store import SqlStore
from bot.storage.sweeping import owed_of
from bot.storage.tables import inbox, offers, outbox, proposals

_WAITING = (State.OFFERED.value, State.FINISHED.value)


class SqlOwnWork(SqlStore):
    """`ports.own.OwnWork` on a `Database`, for one process, `owner`."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime], owner: str) -> None:
        super().__init__(database, clock=clock, owner=owner)
        self._open: set[str] = set()
        self._answers: dict[str, Answered] = {}
        self._proposals: set[str] = set()

    async def receive(self, delivery: Delivery) -> Lease | None:
        lease = await super().receive(delivery)
        if lease is not None:
            self._open.add(delivery.delivery_id)
        return lease

    async def save(self, transition: Transition) -> Saved | None:
        saved = await super().save(transition)
        if saved is not None and transition.handled in self._open:
            self._proposals.add(transition.after.proposal_id)
            self._keep(transition.handled, transition.entries[0], transition.after.proposal_id)
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
        if is_written and handled in self._open:
            self._keep(handled, entries[0], entries[0].proposal_id)
        return is_written

    def _keep(self, delivery_id: str, entry: Entry, proposal_id: str | None) -> None:
        self._open.discard(delivery_id)
        self._answers[delivery_id] = Answered(entry, proposal_id)

    def answer_to(self, delivery_id: str) -> Answered | None:
        return self._answers.get(delivery_id)

    async def claim_deliveries(self) -> tuple[tuple[Lease, Delivery], ...]:
        """Those of this process which failed, or were given back."""
        found = select(inbox.c.delivery_id, inbox.c.body).where(
            inbox.c.delivery_id.in_(self._open),
            inbox.c.handled_at.is_(None),
            is_free(of_delivery(""), inbox.c.delivery_id),
        )
        rows = await self._read_if(bool(self._open), found)
        by_name = {of_delivery(row.delivery_id): from_json(Delivery, row.body) for row in rows}
        return tuple((lease, by_name[lease.name]) for lease in await self._claim(by_name))

    async def claim_work(self, now: datetime) -> tuple[Lease, ...]:
        is_expired = and_(proposals.c.state == State.OFFERED.value, proposals.c.expires_at <= now)
        found = select(proposals.c.proposal_id).where(
            proposals.c.proposal_id.in_(self._proposals),
            or_(proposals.c.state.not_in(_WAITING), is_expired),
            is_free(of_proposal(""), proposals.c.proposal_id),
        )
        rows = await self._read_if(bool(self._proposals), found)
        return await self._claim([of_proposal(row.proposal_id) for row in rows])

    async def claim_lanes(self) -> tuple[OwedLane, ...]:
        return ()

    async def _read_if(self, is_any: bool, statement: Select[Any]) -> Sequence[Row[Any]]:
        return await self._database.read(lambda connection: connection.execute(statement).all()) if is_any else ()

    async def _claim(self, names: Collection[str]) -> tuple[Lease, ...]:
        return await self._database.run(lambda connection: claim(connection, names, self._owner)) if names else ()

    async def fetch_is_answered(self, delivery_id: str) -> bool:
        statement = select(inbox.c.handled_at).where(inbox.c.delivery_id == delivery_id)
        return await self._database.read(lambda connection: connection.scalar(statement)) is not None

    async def fetch_last_post(self) -> int:
        statement = select(func.max(outbox.c.post_id))
        return await self._database.read(lambda connection: connection.scalar(statement)) or 0

    async def fetch_said(self, lanes: Collection[str], *, after: int) -> tuple[Owed, ...]:
        which = (outbox.c.post_id > after, outbox.c.lane.in_(lanes))
        return await self._database.read(lambda connection: owed_of(connection, *which))

    async def settle_said(self, post_ids: Sequence[int]) -> None:
        owed = update(outbox).where(outbox.c.post_id.in_(post_ids), outbox.c.settled_at.is_(None))
        statement = owed.values(settled_at=self._clock())
        await self._database.run(lambda connection: connection.execute(statement) and None)

    async def fetch_offered(self, beginning: str) -> tuple[Proposal, ...]:
        # A range for the index (ids are hex: g is after them), then the exact comparison, however a database sorts.
        in_range = (offers.c.offer_id >= beginning, offers.c.offer_id <= f"{beginning}g")
        begins = func.substr(offers.c.offer_id, 1, len(beginning)) == beginning
        statement = select(offers.c.offer_id).where(*in_range, begins).order_by(offers.c.offer_id).limit(2)
        found = await self._database.read(lambda connection: connection.scalars(statement).all())
        read = [await self.fetch_proposal_of(offer_id) for offer_id in found]
        return tuple(proposal for proposal in read if proposal is not None)
