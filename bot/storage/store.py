"""The store: what the road keeps, on SQLAlchemy Core.

Each method is one unit of work; `writing` holds what they write. Rows of a newer version (after a step back) are left
for it. What nobody works on is found by `sweeping`. What it does not do: the looks at devices (`readings`), and what
discovery learns (`found`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select, update
from sqlalchemy.exc import IntegrityError

from bot.audit import Entry
from bot.exchange import Delivery, Post
from bot.model import Target
from bot.ports import Lease, Owed, OwedLane, Saved, Surface, Transition
from bot.proposals import Call, Proposal, State
from bot.storage.codec import from_json, readable
from bot.storage.database import Database
from bot.storage.leases import hold, release
from bot.storage.sweeping import ROWS, claim_deliveries, claim_lanes, claim_work, owed_of
from bot.storage.tables import IS_PENDING, calls, inbox, offers, outbox, proposals, surfaces, touched_jobs
from bot.storage.writing import Slower, append, in_order, insert_new, write_surface, write_transition

RECEIVE_SECONDS = 1.5
"""A person waits for this: what is not written by then is not written at all, and can be told to be."""

_BEFORE_CALLS = (State.RECEIVED, State.OFFERED, State.APPROVED)
# Built once: a click waits for these.
_BY_ID = select(proposals.c.body).where(proposals.c.proposal_id == bindparam("proposal_id"))
_BY_OFFER = select(proposals.c.body).where(
    proposals.c.proposal_id
    == select(offers.c.proposal_id).where(offers.c.offer_id == bindparam("offer_id")).scalar_subquery()
)
_CALLS = (
    select(calls.c.proposal_id, calls.c.body)
    .where(calls.c.proposal_id.in_(bindparam("proposal_ids", expanding=True)))
    .order_by(calls.c.proposal_id, calls.c.step, calls.c.attempt)
)


class SqlStore:
    """`ports.Store` on a `Database`, for one process, `owner`; `clock` tells the time that is written."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime], owner: str = "this process") -> None:
        self._database = database
        self._clock = clock
        self._owner = owner
        self._offered: dict[str, Proposal] = {}

    async def receive(self, delivery: Delivery) -> Lease | None:
        return await self._database.run(
            lambda connection: insert_new(connection, delivery, self._owner), within_seconds=RECEIVE_SECONDS
        )

    async def save(self, transition: Transition) -> Saved | None:
        now, after = self._clock(), transition.after
        for each in (transition, *transition.also):
            if each.before is not None and each.before.offer is not None:
                self._offered.pop(each.before.offer.offer_id, None)
        try:
            saved = await self._database.run(
                lambda connection: write_transition(connection, transition, now, self._owner)
            )
        except (IntegrityError, Slower):
            return None
        if after.state is State.OFFERED and after.offer is not None:
            self._offered[after.offer.offer_id] = after
            if len(self._offered) > ROWS:
                del self._offered[next(iter(self._offered))]
        return saved

    async def record(
        self,
        *,
        entries: Sequence[Entry] = (),
        posts: Sequence[Post] = (),
        handled: str | None = None,
        lease: Lease | None = None,
    ) -> bool:
        now = self._clock()

        def unit(connection: Connection) -> None:
            if lease is not None and not (release if handled is not None else hold)(connection, lease):
                raise Slower
            append(connection, entries, posts, handled, now)

        try:
            await self._database.run(unit)
        except Slower:
            return False
        return True

    async def fetch_delivery(self, delivery_id: str) -> Delivery | None:
        statement = select(inbox.c.body).where(inbox.c.delivery_id == delivery_id)
        body = await self._database.read(lambda connection: connection.scalar(statement))
        return readable(Delivery, delivery_id, body) if body is not None else None

    async def fetch_proposal(self, proposal_id: str) -> Proposal | None:
        return await self._database.read(lambda connection: _proposal(connection, _BY_ID, proposal_id=proposal_id))

    async def fetch_proposal_of(self, offer_id: str) -> Proposal | None:
        """What this process offered is answered from memory: if that is stale, the click's compare-and-set fails."""
        if offer_id in self._offered:
            return self._offered[offer_id]
        return await self._database.read(lambda connection: _proposal(connection, _BY_OFFER, offer_id=offer_id))

    async def fetch_pending(self, operation: str, target: Target, params: frozenset[str]) -> Proposal | None:
        statement = select(proposals.c.body).where(
            IS_PENDING,
            proposals.c.operation == operation,
            proposals.c.instance == target.instance,
            proposals.c.target == target.key,
            proposals.c.params == in_order(params),
        )
        return await self._database.read(lambda connection: _proposal(connection, statement))

    async def fetch_on_jobs(self, instance: str, jobs: Collection[str]) -> tuple[Proposal, ...]:
        naming = select(touched_jobs.c.proposal_id).where(touched_jobs.c.job.in_(jobs))
        statement = (
            select(proposals.c.proposal_id, proposals.c.body)
            .where(
                proposals.c.state != State.FINISHED.value,
                proposals.c.instance == instance,
                proposals.c.proposal_id.in_(naming),
            )
            .order_by(proposals.c.created_at, proposals.c.proposal_id)
            .limit(ROWS)
        )
        return await self._database.read(lambda connection: _readable_proposals(connection, statement))

    async def fetch_beginning(self, proposal_id: str) -> tuple[Proposal, ...]:
        # LIKE would take signs in it as a pattern, and on SQLite does not tell capitals from small letters.
        begins = func.substr(proposals.c.proposal_id, 1, len(proposal_id)) == proposal_id
        is_near = proposals.c.proposal_id.between(proposal_id, f"{proposal_id}zzzz")  # this alone an index can answer
        statement = (
            select(proposals.c.proposal_id, proposals.c.body)
            .where(is_near, begins)
            .order_by(proposals.c.proposal_id)
            .limit(2)
        )
        return await self._database.read(lambda connection: _readable_proposals(connection, statement))

    async def fetch_owed(self) -> tuple[Owed, ...]:
        return await self._database.read(lambda connection: owed_of(connection, outbox.c.settled_at.is_(None)))

    async def settle(self, owed: Owed, *, failure: str | None = None, lease: Lease, is_last: bool = False) -> bool:
        settled = {"settled_at": self._clock(), "failure": failure}

        def unit(connection: Connection) -> bool:
            if not (release if is_last else hold)(connection, lease):
                return False
            connection.execute(update(outbox).where(outbox.c.post_id == owed.post_id).values(settled))
            return True

        return await self._database.run(unit)

    async def count_attempt(self, post_id: int) -> None:
        statement = update(outbox).where(outbox.c.post_id == post_id).values(attempts=outbox.c.attempts + 1)
        await self._database.run(lambda connection: connection.execute(statement) and None)

    async def fetch_surface(self, proposal_id: str) -> Surface:
        statement = select(surfaces.c.channel, surfaces.c.card, surfaces.c.buttons, surfaces.c.progress).where(
            surfaces.c.proposal_id == proposal_id
        )
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        return Surface(*row) if row is not None else Surface()

    async def save_surface(self, proposal_id: str, surface: Surface, *, was: Surface) -> bool:
        return await self._database.run(lambda connection: write_surface(connection, proposal_id, surface, was))

    async def claim_deliveries(self) -> tuple[tuple[Lease, Delivery], ...]:
        return await claim_deliveries(self._database, self._owner)

    async def claim_work(self, now: datetime) -> tuple[Lease, ...]:
        return await claim_work(self._database, self._owner, now)

    async def claim_lanes(self) -> tuple[OwedLane, ...]:
        return await claim_lanes(self._database, self._owner)


def _proposal(connection: Connection, statement: Select[Any], **of: str) -> Proposal | None:
    body = connection.scalars(statement, of).first()
    if body is None:
        return None
    return _with_calls(connection, [from_json(Proposal, body)])[0]


def _readable_proposals(connection: Connection, statement: Select[Any]) -> tuple[Proposal, ...]:
    rows = connection.execute(statement).all()
    read = (readable(Proposal, row.proposal_id, row.body) for row in rows)
    return _with_calls(connection, [proposal for proposal in read if proposal is not None])


def _with_calls(connection: Connection, found: Sequence[Proposal]) -> tuple[Proposal, ...]:
    """The proposals with the calls that stand in rows of their own."""
    called = [proposal.proposal_id for proposal in found if proposal.state not in _BEFORE_CALLS]
    made: dict[str, list[Call]] = defaultdict(list)
    if called:
        for proposal_id, body in connection.execute(_CALLS, {"proposal_ids": called}):
            made[proposal_id].append(from_json(Call, body))
    return tuple(replace(proposal, calls=tuple(made[proposal.proposal_id])) for proposal in found)
