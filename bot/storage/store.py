"""The store: what the road keeps, on SQLAlchemy Core.

Each method is one unit of work; `writing` holds what they write. Rows of a newer version (after a step back) are left
for it. What it does not do: the looks at devices (`readings`), and what discovery learns (`found`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from bot.audit import Entry
from bot.exchange import Delivery, Post
from bot.model import Target
from bot.ports import Owed, Surface, Transition
from bot.proposals import PENDING, Call, Proposal, State
from bot.storage.codec import from_json, readable
from bot.storage.database import Database
from bot.storage.tables import calls, inbox, offers, outbox, proposals, surfaces, touched_jobs
from bot.storage.writing import append, insert_new, spelt, write_surface, write_transition

ROWS = 500
"""The most rows that one unit reads, so that it stays short."""

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
_AT_WORK = (State.RECEIVED, State.APPROVED, State.CALLING, State.UNKNOWN, State.FOLLOWING)


class SqlStore:
    """`ports.Store` on a `Database`; `clock` tells the time that is written."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._offered: dict[str, Proposal] = {}

    async def receive(self, delivery: Delivery) -> bool:
        return await self._database.run(lambda connection: insert_new(connection, delivery))

    async def save(self, transition: Transition) -> bool:
        now, before, after = self._clock(), transition.before, transition.after
        if before is not None and before.offer is not None:
            self._offered.pop(before.offer.offer_id, None)
        try:
            is_written = await self._database.run(lambda connection: write_transition(connection, transition, now))
        except IntegrityError:
            return False
        if is_written and after.state is State.OFFERED and after.offer is not None:
            self._offered[after.offer.offer_id] = after
            if len(self._offered) > ROWS:
                del self._offered[next(iter(self._offered))]
        return is_written

    async def record(
        self, *, entries: Sequence[Entry] = (), posts: Sequence[Post] = (), handled: str | None = None
    ) -> None:
        now = self._clock()
        await self._database.run(lambda connection: append(connection, entries, posts, handled, now))

    async def fetch_open_deliveries(self, *, but: Container[str] = ()) -> tuple[Delivery, ...]:
        statement = (
            select(inbox.c.delivery_id, inbox.c.body)
            .where(inbox.c.handled_at.is_(None))
            .order_by(inbox.c.received_at)
            .limit(ROWS)
        )
        rows = await self._database.read(lambda connection: connection.execute(statement).all())
        wanted = ((delivery_id, body) for delivery_id, body in rows if delivery_id not in but)
        return tuple(delivery for row_id, body in wanted if (delivery := readable(Delivery, row_id, body)) is not None)

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
            proposals.c.state.in_([state.value for state in PENDING]),
            proposals.c.operation == operation,
            proposals.c.instance == target.instance,
            proposals.c.target == target.key,
            proposals.c.params == spelt(params),
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
        statement = (
            select(proposals.c.proposal_id, proposals.c.body).where(begins).order_by(proposals.c.proposal_id).limit(2)
        )
        return await self._database.read(lambda connection: _readable_proposals(connection, statement))

    async def fetch_work(self, now: datetime) -> tuple[str, ...]:
        statement = (
            select(proposals.c.proposal_id)
            .where(
                proposals.c.state != State.FINISHED.value,
                or_(
                    proposals.c.state.in_([state.value for state in _AT_WORK]),
                    and_(proposals.c.state == State.OFFERED.value, proposals.c.expires_at <= now),
                ),
            )
            .order_by(proposals.c.created_at)
            .limit(ROWS)
        )
        rows = await self._database.read(lambda connection: connection.scalars(statement).all())
        return tuple(rows)

    async def fetch_owed(self, *, but: Collection[str] = ()) -> tuple[Owed, ...]:
        statement = (
            select(outbox.c.post_id, outbox.c.body, outbox.c.attempts)
            .where(outbox.c.settled_at.is_(None), outbox.c.lane.not_in(list(but)))
            .order_by(outbox.c.post_id)
            .limit(ROWS)
        )
        rows = await self._database.read(lambda connection: connection.execute(statement).all())
        return tuple(
            Owed(post_id, post, attempts)
            for post_id, body, attempts in rows
            if (post := readable(Post, post_id, body)) is not None
        )

    async def settle(self, post_ids: Sequence[int], *, failure: str | None = None) -> None:
        statement = (
            update(outbox).where(outbox.c.post_id.in_(post_ids)).values(settled_at=self._clock(), failure=failure)
        )
        await self._database.run(lambda connection: connection.execute(statement) and None)

    async def count_attempt(self, post_id: int) -> None:
        statement = update(outbox).where(outbox.c.post_id == post_id).values(attempts=outbox.c.attempts + 1)
        await self._database.run(lambda connection: connection.execute(statement) and None)

    async def fetch_surface(self, proposal_id: str) -> Surface:
        statement = select(surfaces.c.channel, surfaces.c.card, surfaces.c.buttons, surfaces.c.progress).where(
            surfaces.c.proposal_id == proposal_id
        )
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        return Surface(*row) if row is not None else Surface()

    async def save_surface(self, proposal_id: str, surface: Surface) -> None:
        await self._database.run(lambda connection: write_surface(connection, proposal_id, surface))


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
