"""Finding the work that nobody does, and taking it: deliveries, proposals, and what is owed to people.

Each look is a read first, which mostly finds nothing; only then a transaction claims leases. Rows of a newer version
(after a step back) are left for it. What it does not do: the work.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, and_, or_, select

from bot.exchange import Delivery, Post
from bot.model import CLOCKS_DIFFER
from bot.ports import Lease, Owed, OwedLane, of_delivery, of_lane, of_proposal
from bot.proposals import Proposal, State
from bot.storage.codec import readable
from bot.storage.database import Database
from bot.storage.leases import claim, is_free, release
from bot.storage.tables import IS_UNFINISHED, inbox, outbox, proposals

ROWS = 500
"""The most rows that one unit reads, so that it stays short."""

AT_ONCE = 100
"""The most pieces of work that a process takes at a time: others shall have some."""

LONGEST_OFFER = timedelta(minutes=15) + CLOCKS_DIFFER
"""No offer stands for longer: one that expires later was made before the clock was set back."""

PAGES = 20
"""So many pages of rows that cannot be read are passed over."""

T = TypeVar("T")
_AT_WORK = (State.RECEIVED, State.APPROVED, State.CALLING, State.UNKNOWN, State.FOLLOWING)
_OPEN = (
    select(inbox.c.delivery_id, inbox.c.body)
    .where(inbox.c.handled_at.is_(None), is_free(of_delivery(""), inbox.c.delivery_id))
    .order_by(inbox.c.received_at)
    .limit(AT_ONCE)
)
_OWING = (
    select(outbox.c.lane)
    .where(outbox.c.settled_at.is_(None), is_free(of_lane(""), outbox.c.lane, for_ever=True))
    .order_by(outbox.c.post_id)
    .limit(ROWS)
)


async def claim_deliveries(database: Database, owner: str) -> tuple[tuple[Lease, Delivery], ...]:
    def unit(connection: Connection) -> tuple[tuple[Lease, Delivery], ...]:
        found = {of_delivery(row_id): delivery for row_id, delivery in _readable(connection, _OPEN, Delivery)}
        return tuple((lease, found[lease.name]) for lease in claim(connection, found, owner))

    return await _if_any(database, _OPEN, unit) or ()


async def claim_work(database: Database, owner: str, now: datetime) -> tuple[Lease, ...]:
    ahead = now + LONGEST_OFFER
    is_expired = and_(
        proposals.c.state == State.OFFERED.value,
        or_(proposals.c.expires_at <= now, proposals.c.expires_at > ahead),
    )
    to_do = (
        select(proposals.c.proposal_id, proposals.c.body)
        .where(IS_UNFINISHED)
        .where(or_(proposals.c.state.in_([state.value for state in _AT_WORK]), is_expired))
        .where(is_free(of_proposal(""), proposals.c.proposal_id))
        .order_by(proposals.c.created_at)
        .limit(AT_ONCE)
    )

    def unit(connection: Connection) -> tuple[Lease, ...]:
        names = [of_proposal(row_id) for row_id, _ in _readable(connection, to_do, Proposal)]
        return claim(connection, names, owner)

    return await _if_any(database, to_do, unit) or ()


async def claim_lanes(database: Database, owner: str) -> tuple[OwedLane, ...]:
    def unit(connection: Connection) -> tuple[OwedLane, ...]:
        lanes = dict.fromkeys(connection.scalars(_OWING))
        leases = claim(connection, [of_lane(lane) for lane in lanes], owner)
        # Read after the claim: whoever had a lane before may have delivered some of it meanwhile.
        by_lane: dict[str, list[Owed]] = defaultdict(list)
        names = [lease.subject for lease in leases]
        for owed in owed_of(connection, outbox.c.settled_at.is_(None), outbox.c.lane.in_(names)):
            by_lane[owed.post.lane].append(owed)
        for lease in leases:
            if not by_lane[lease.subject]:
                release(connection, lease)
        claimed = [OwedLane(lease, tuple(posts)) for lease in leases if (posts := by_lane[lease.subject])]
        return tuple(sorted(claimed, key=lambda lane: lane.posts[0].post_id))

    return await _if_any(database, _OWING, unit) or ()


def _readable(connection: Connection, statement: Select[Any], kind: type[T]) -> list[tuple[str, T]]:
    """The first rows of a statement that this version can read: those of a newer one must not hide what comes after."""
    for page in range(PAGES):
        rows = connection.execute(statement.offset(page * AT_ONCE)).all()
        found = [(row_id, read) for row_id, body in rows if (read := readable(kind, row_id, body)) is not None]
        if found or len(rows) < AT_ONCE:
            return found
    return []


def owed_of(connection: Connection, *which: ColumnElement[bool]) -> tuple[Owed, ...]:
    """Posts in the order of writing, from the first 500."""
    statement = select(outbox.c.post_id, outbox.c.body, outbox.c.attempts).where(*which)
    rows = connection.execute(statement.order_by(outbox.c.post_id).limit(ROWS)).all()
    return tuple(
        Owed(post_id, post, attempts)
        for post_id, body, attempts in rows
        if (post := readable(Post, post_id, body)) is not None
    )


async def _if_any(database: Database, statement: Select[Any], unit: Callable[[Connection], Any]) -> Any:
    is_any = await database.read(lambda connection: connection.execute(statement.limit(1)).first() is not None)
    return await database.run(unit) if is_any else None
