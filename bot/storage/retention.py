"""The `Retention` port: what is over is deleted by age, a little at a time.

Each unit looks at a few rows in the order of an index, from where the last one stopped, and deletes those that may go:
it costs the same however much there is. A proposal goes as a whole, with all that refers to it, and only if nothing is
owed in its lane and nothing was delivered there of late; so a proposal that was found after months is not deleted while
its last line is on its way. Audit entries refer to proposals by id alone, and stay. What it does not do: touch what is
not over, give room on the disk back (new rows take it), or decide when.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    tuple_,
)

from bot.ports.leases import of_delivery, of_proposal
from bot.ports.retention import LEAST_DELIVERY_SECONDS, Keeping, Pruned
from bot.proposals import State
from bot.storage.database import Database
from bot.storage.statements import DatabaseNow
from bot.storage.tables import calls, inbox, leases, offers, outbox, proposals, surfaces, touched_jobs

T = TypeVar("T")

ROWS = 100
"""The most deliveries or posts that one unit looks at: in SQLite each changes pages all over a large file."""

PROPOSALS = 10
"""The most proposals that one unit looks at: each has some thirty rows."""

_NOW = select(DatabaseNow())
# The conditions of the partial indices stand in the statements as they stand in the indices, not as parameters: a
# database proves only then that an index holds all that is asked for.
_DELIVERIES = select(inbox.c.handled_at, inbox.c.delivery_id).where(
    inbox.c.handled_at.is_not(None), inbox.c.handled_at < bindparam("before")
)
_POSTS = select(outbox.c.settled_at, outbox.c.post_id, outbox.c.lane).where(
    outbox.c.settled_at.is_not(None), outbox.c.settled_at < bindparam("before")
)
_PROPOSALS = select(proposals.c.created_at, proposals.c.proposal_id).where(
    proposals.c.state == literal_column("'finished'"), proposals.c.created_at < bindparam("before")
)
# These two ask by the key alone and leave the rest to us: so no statistics can lead a database to another way.
_STATES = select(proposals.c.proposal_id, proposals.c.state).where(
    proposals.c.proposal_id.in_(bindparam("lanes", expanding=True))
)
_LANES = (
    select(
        outbox.c.lane,
        func.count(outbox.c.post_id) - func.count(outbox.c.settled_at),
        func.max(outbox.c.settled_at, type_=outbox.c.settled_at.type),
    )
    .where(outbox.c.lane.in_(bindparam("lanes", expanding=True)))
    .group_by(outbox.c.lane)
)
_OF_PROPOSALS = tuple(table.c.proposal_id for table in (touched_jobs, surfaces, calls, offers))
"""What goes before the proposals do, since it refers to them."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """How many rows of its kind a unit deleted, and the last that it looked at (None: there are no more)."""

    pruned: int
    last: tuple[Any, ...] | None


class _Unit(Protocol):
    def __call__(self, connection: Connection, *, before: datetime, after: tuple[Any, ...] | None) -> _Looked: ...


class SqlRetention:
    """`Retention` on a `Database`. What is old is reckoned by the earlier of `clock` and the database's: if one of them
    is ahead, nothing goes too soon."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        keeping: Keeping | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._clock = clock
        self._keeping = keeping or Keeping()
        self._sleep = sleep
        self._monotonic = monotonic
        self._last_post: tuple[Any, ...] | None = None

    async def prune(self) -> Pruned:
        keeping = self._keeping
        now = min(self._clock(), await self._database.read(_database_now))
        delivery_seconds = max(keeping.delivery_seconds, LEAST_DELIVERY_SECONDS)
        deliveries, _ = await self._walk(_prune_deliveries, now - timedelta(seconds=delivery_seconds))
        # Up to the last post that was looked at, all that is left goes with its finished proposal.
        posts, self._last_post = await self._walk(
            _prune_posts, now - timedelta(seconds=keeping.post_seconds), after=self._last_post
        )
        finished, _ = await self._walk(_prune_proposals, now - timedelta(seconds=keeping.proposal_seconds))
        return Pruned(finished, deliveries, posts)

    async def _walk(
        self, unit: _Unit, before: datetime, *, after: tuple[Any, ...] | None = None
    ) -> tuple[int, tuple[Any, ...] | None]:
        """Unit by unit, with a pause after each that is as long as it took: whoever else writes comes first."""
        pruned = 0
        while True:
            began_at = self._monotonic()
            looked = await self._database.run(partial(unit, before=before, after=after))
            pruned += looked.pruned
            if looked.last is None:
                return pruned, after
            after = looked.last
            await self._sleep(self._monotonic() - began_at)


def _database_now(connection: Connection) -> datetime:
    return datetime.fromtimestamp(connection.execute(_NOW).scalar_one(), UTC)


def _prune_deliveries(connection: Connection, *, before: datetime, after: tuple[Any, ...] | None) -> _Looked:
    rows = _page(connection, _DELIVERIES, before=before, after=after, most=ROWS)
    ids = _unlocked(connection, inbox.c.delivery_id, [row.delivery_id for row in rows])
    _drop_leases(connection, [of_delivery(delivery_id) for delivery_id in ids])
    _delete(connection, inbox.c.delivery_id, ids)
    return _Looked(len(ids), _end(rows))


def _prune_posts(connection: Connection, *, before: datetime, after: tuple[Any, ...] | None) -> _Looked:
    rows = _page(connection, _POSTS, before=before, after=after, most=ROWS)
    stays = _of_finished(connection, {row.lane for row in rows})
    ids = _unlocked(connection, outbox.c.post_id, [row.post_id for row in rows if row.lane not in stays])
    _delete(connection, outbox.c.post_id, ids)
    return _Looked(len(ids), _end(rows))


def _prune_proposals(connection: Connection, *, before: datetime, after: tuple[Any, ...] | None) -> _Looked:
    rows = _page(connection, _PROPOSALS, before=before, after=after, most=PROPOSALS)
    found = _unlocked(connection, proposals.c.proposal_id, [row.proposal_id for row in rows])
    in_use = _in_use(connection, found, before)
    ids = [proposal_id for proposal_id in found if proposal_id not in in_use]
    _drop_leases(connection, [of_proposal(proposal_id) for proposal_id in ids])
    for column in _OF_PROPOSALS:
        _delete(connection, column, ids)
    _delete(connection, outbox.c.lane, ids, outbox.c.settled_at.is_not(None))
    _delete(connection, proposals.c.proposal_id, ids)
    return _Looked(len(ids), _end(rows))


def _of_finished(connection: Connection, lanes: Collection[str]) -> set[str]:
    """The lanes whose posts go with their proposal."""
    rows = connection.execute(_STATES, {"lanes": list(lanes)}) if lanes else ()
    return {proposal_id for proposal_id, state in rows if state == State.FINISHED.value}


def _in_use(connection: Connection, lanes: Collection[str], before: datetime) -> set[str]:
    """The lanes that owe something, or did since `before`."""
    rows = connection.execute(_LANES, {"lanes": list(lanes)}) if lanes else ()
    return {lane for lane, owed, last in rows if owed or (last is not None and last >= before)}


def _page(
    connection: Connection, statement: Select[Any], *, before: datetime, after: tuple[Any, ...] | None, most: int
) -> Sequence[Row[Any]]:
    """The next rows in the order of their first two columns. They are not locked yet: most may be there to stay."""
    at, key = statement.selected_columns[0], statement.selected_columns[1]
    if after is not None:
        statement = statement.where(tuple_(at, key) > tuple_(*after, types=(at.type, key.type)))
    return connection.execute(statement.order_by(at, key).limit(most), {"before": before}).all()


def _end(rows: Sequence[Row[Any]]) -> tuple[Any, ...] | None:
    return tuple(rows[-1][:2]) if rows else None


def _unlocked(connection: Connection, key: Column[T], values: Sequence[T]) -> Sequence[T]:
    """Those that are still there and that nobody else works on, now locked: two processes never wait for each other."""
    if not values:
        return ()
    return connection.scalars(select(key).where(key.in_(values)).with_for_update(skip_locked=True)).all()


def _delete(connection: Connection, column: Column[T], values: Sequence[T], *only: ColumnElement[bool]) -> None:
    if values:
        connection.execute(delete(column.table).where(column.in_(values), *only))


def _drop_leases(connection: Connection, names: Sequence[str]) -> None:
    """What a process that died held on what was over: nobody looks for it any more."""
    _delete(connection, leases.c.name, _unlocked(connection, leases.c.name, names))
