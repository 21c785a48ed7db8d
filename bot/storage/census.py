"""How the database is and how much is in it: what waits, what is owed, what is leased. For those who watch it from
outside; the road needs none of it.

Only what is not over is counted, and an index holds that: a count costs the same beside a million finished proposals.
Whoever asks often gets the last answer, and a database that is silent is asked once at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, and_, case, func, select, text

from bot.errors import StoreUnavailable
from bot.ports import of_delivery, of_lane, of_proposal
from bot.storage.leases import drop, take
from bot.storage.migrations import revision
from bot.storage.statements import DatabaseNow
from bot.storage.tables import leases, outbox, proposals
from bot.storage.units import Database

FRESH_SECONDS = 2.0
ANSWER_SECONDS = 1.0
"""Who asks is answered within this time, whatever the database does."""

LEASE_KINDS = {"proposal": of_proposal(""), "delivery": of_delivery(""), "lane": of_lane("")}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Census:
    """`revision` is that of the schema (None: there is none). The rest is left out where the schema is another one.

    `proposals` are the unfinished ones by state, `owed` the posts not delivered yet and `owed_since` when the oldest
    was written, `leases` those that this process holds, by kind.
    """

    revision: str | None
    proposals: Mapping[str, int] = field(default_factory=dict)
    owed: int = 0
    owed_since: datetime | None = None
    leases: Mapping[str, int] = field(default_factory=dict)


class DatabaseWatch:
    """Looks at a database for this process, the `owner` of its leases; `schema` is the revision that it knows."""

    def __init__(
        self, database: Database, *, owner: str, schema: str, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._owner = owner
        self._schema = schema
        self._census = _Kept(self._count, seconds)
        self._writable = _Kept(self._write, seconds)

    async def census(self) -> Census | None:
        """As it was at most two seconds ago; None: the database does not answer."""
        return await self._census.get()

    async def can_write(self) -> bool:
        """Whether it could be written at most two seconds ago: not if it is full, read-only or away."""
        return await self._writable.get() or False

    async def close(self) -> None:
        await self._census.close()
        await self._writable.close()

    async def _count(self) -> Census | None:
        try:
            return await self._database.read(self._counted)
        except StoreUnavailable:
            return None

    def _counted(self, connection: Connection) -> Census:
        found = revision(connection)
        if found != self._schema:
            return Census(found)
        owed = connection.execute(_OWED).one()
        return Census(
            found,
            proposals={row.state: row.number for row in connection.execute(_UNFINISHED)},
            owed=owed.number,
            owed_since=owed.since,
            leases=dict(connection.execute(_held(self._owner)).one()._mapping),
        )

    async def _write(self) -> bool:
        """A row of our own, and away with it: no other process waits for that, as it would for a row that all share."""

        def unit(connection: Connection) -> None:
            name = f"probe:{self._owner}"
            take(connection, name, self._owner)
            drop(connection, name)

        try:
            await self._database.run(unit, within_seconds=ANSWER_SECONDS)
        except StoreUnavailable:
            return False
        return True


# The conditions are spelt as the partial indexes are: SQLite uses those only then.
_UNFINISHED = (
    select(proposals.c.state, func.count().label("number"))
    .where(text("proposals.state <> 'finished'"))
    .group_by(proposals.c.state)
)
_OWED = select(func.count().label("number"), func.min(outbox.c.created_at).label("since")).where(
    outbox.c.settled_at.is_(None)
)


def _held(owner: str) -> Any:
    is_mine = and_(leases.c.owner == owner, leases.c.until > DatabaseNow())
    columns = (
        func.coalesce(func.sum(case((leases.c.name.startswith(prefix, autoescape=True), 1), else_=0)), 0).label(kind)
        for kind, prefix in LEASE_KINDS.items()
    )
    return select(*columns).where(is_mine)


class _Kept(Generic[T]):
    """The last answer of `fetch`, asked for anew when it is old; one question at a time, however many wait for it."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], seconds: Callable[[], float]) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._asking: asyncio.Future[T] | None = None
        self._asked_at = float("-inf")

    async def get(self) -> T | None:
        """None: there is no answer in time; the question stays, and the next who asks waits for the same one."""
        now = self._seconds()
        is_old = now - self._asked_at >= FRESH_SECONDS
        if self._asking is None or (is_old and self._asking.done()):
            self._asking, self._asked_at = asyncio.ensure_future(self._fetch()), now
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.shield(self._asking)
        except TimeoutError:
            return None

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
