"""The look at a database from outside: what is counted, at what price, and what a silent one is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.dialects import postgresql, sqlite

from bot.errors import StoreUnavailable
from bot.exchange import Post, PostKind
from bot.model import Notice, Outcome, OutcomeCode
from bot.ports import Transition, of_lane
from bot.proposals import State
from bot.storage.census import _OWED, _UNFINISHED, Census, DatabaseWatch
from bot.storage.database import Database, open_database
from bot.storage.leases import SqlLeases
from bot.storage.store import SqlStore
from bot.storage.tables import SCHEMA
from tests.conftest import Clock
from tests.values import delivery, proposal

SHORT = 1.6
"""An answer, or the end of waiting for one, with what a busy machine adds."""


@pytest.fixture
async def watch(database: Database) -> AsyncIterator[DatabaseWatch]:
    made = DatabaseWatch(database, owner="me", schema=SCHEMA)
    yield made
    await made.close()


async def test_what_waits_is_owed_and_is_leased_is_counted(
    database: Database, watch: DatabaseWatch, clock: Clock
) -> None:
    store = SqlStore(database, clock=clock, owner="me")
    over = Outcome(OutcomeCode.STOPPED, Notice("Stopped."))
    for number, state in enumerate((State.RECEIVED, State.FOLLOWING, State.FOLLOWING, State.FINISHED)):
        bent = proposal(proposal_id=f"p{number}", state=state, outcome=over if state is State.FINISHED else None)
        assert await store.save(Transition(None, bent, ()))
    await store.record(posts=(Post(PostKind.LINE, "p1", Notice("first")),))
    began = clock()
    clock.pass_by(5)
    await store.record(posts=(Post(PostKind.LINE, "p1", Notice("second")),))
    await store.receive(delivery())
    await SqlLeases(database, owner="me").claim([of_lane("p1"), of_lane("p2")])
    await SqlLeases(database, owner="somebody else").claim([of_lane("p3")])
    assert await watch.census() == Census(
        SCHEMA,
        proposals={"received": 1, "following": 2},
        owed=2,
        owed_since=began,
        leases={"proposal": 0, "delivery": 1, "lane": 2},
    )


async def test_an_empty_database_and_one_of_another_version_are_told_apart(
    database: Database, watch: DatabaseWatch
) -> None:
    census = await watch.census()
    assert (census, await watch.can_write()) == (
        Census(SCHEMA, leases={"proposal": 0, "delivery": 0, "lane": 0}),
        True,
    )
    await database.run(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '0001'")))
    try:
        assert await DatabaseWatch(database, owner="me", schema=SCHEMA).census() == Census("0001")
    finally:
        restored = text(f"UPDATE alembic_version SET version_num = '{SCHEMA}'")
        await database.run(lambda connection: connection.execute(restored))


async def test_a_database_without_a_schema_has_no_revision(empty_database_url: str) -> None:
    database = open_database(empty_database_url)
    watch = DatabaseWatch(database, owner="me", schema=SCHEMA)
    assert await watch.census() == Census(None)
    await watch.close()
    await database.close()


async def test_writing_is_tried_and_leaves_nothing_behind(database: Database, watch: DatabaseWatch) -> None:
    assert await watch.can_write()
    count = text("SELECT count(*) FROM leases")
    assert await database.read(lambda connection: connection.scalar(count)) == 0


async def test_a_file_that_somebody_else_is_writing_all_the_time_cannot_be_written(sqlite_url: str) -> None:
    database, other = open_database(sqlite_url), open_database(sqlite_url)
    watch = DatabaseWatch(database, owner="me", schema=SCHEMA)
    with other.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert not await watch.can_write()
        assert time.monotonic() - began < SHORT
        assert await watch.census() is not None
        connection.exec_driver_sql("ROLLBACK")
    await watch.close()
    await database.close()
    await other.close()


@pytest.mark.postgres
async def test_a_server_that_takes_no_writes_cannot_be_written(empty_postgres_url: str) -> None:
    from bot.storage.migrations import upgrade

    first = open_database(empty_postgres_url)
    await upgrade(first)
    name = empty_postgres_url.rpartition("/")[2]
    await first.run(
        lambda connection: connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    )
    await first.close()
    database = open_database(empty_postgres_url)
    watch = DatabaseWatch(database, owner="me", schema=SCHEMA)
    assert (await watch.census()) is not None
    assert not await watch.can_write()
    await watch.close()
    await database.close()


@pytest.mark.parametrize("url", ["postgresql+psycopg://postgres@127.0.0.1:1/none", "sqlite:////no/such/folder/x.db"])
async def test_a_database_that_is_away_has_no_census(url: str) -> None:
    database = open_database(url)
    watch = DatabaseWatch(database, owner="me", schema=SCHEMA)
    assert await watch.census() is None
    assert not await watch.can_write()
    await watch.close()
    await database.close()


# One answer for many who ask.


class Slow:
    """A database that answers when it is let; `asked` counts the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.error: Exception | None = None

    async def read(self, unit: object) -> Census:
        self.asked += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return Census(SCHEMA, owed=self.asked)

    async def run(self, unit: object, *, within_seconds: float) -> None:
        self.asked += 1
        await self.may_answer.wait()


class Seconds:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def watching(slow: Slow, seconds: Seconds) -> DatabaseWatch:
    return DatabaseWatch(slow, owner="me", schema=SCHEMA, seconds=seconds)  # type: ignore[arg-type]


async def test_a_silent_database_is_asked_once_and_everybody_is_answered_in_time() -> None:
    slow, seconds = Slow(), Seconds()
    watch = watching(slow, seconds)
    began = time.monotonic()
    assert await asyncio.gather(*(watch.census() for _ in range(50))) == [None] * 50
    assert time.monotonic() - began < SHORT
    seconds.at += 3600
    assert await watch.census() is None
    assert slow.asked == 1
    slow.may_answer.set()
    assert await watch.census() == Census(SCHEMA, owed=1)
    await watch.close()


async def test_an_answer_serves_for_two_seconds() -> None:
    slow, seconds = Slow(), Seconds()
    slow.may_answer.set()
    watch = watching(slow, seconds)
    assert [await watch.census() for _ in range(3)] == [Census(SCHEMA, owed=1)] * 3
    seconds.at += 1.9
    assert await watch.census() == Census(SCHEMA, owed=1)
    seconds.at += 0.1
    assert await watch.census() == Census(SCHEMA, owed=2)
    assert await watch.can_write()
    assert slow.asked == 3
    await watch.close()


async def test_one_who_stops_waiting_does_not_end_the_question_of_the_others() -> None:
    slow = Slow()
    watch = watching(slow, Seconds())
    asking = [asyncio.create_task(watch.census()) for _ in range(2)]
    await asyncio.sleep(0)
    asking[0].cancel()
    slow.may_answer.set()
    assert await asking[1] == Census(SCHEMA, owed=1)
    await watch.close()


async def test_a_database_that_came_back_is_seen_again() -> None:
    slow, seconds = Slow(), Seconds()
    slow.may_answer.set()
    slow.error = StoreUnavailable("gone")
    watch = watching(slow, seconds)
    assert await watch.census() is None
    slow.error = None
    seconds.at += 2
    assert await watch.census() == Census(SCHEMA, owed=2)
    await watch.close()


# Its price: by indexes that hold only what is not over.


@pytest.mark.parametrize(("statement", "index"), [(_UNFINISHED, "unfinished"), (_OWED, "outbox_owed")])
async def test_counting_reads_only_what_is_not_over(database: Database, statement: object, index: str) -> None:
    def plan(connection: Connection) -> str:
        is_sqlite = connection.dialect.name == "sqlite"
        dialect = sqlite.dialect() if is_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
        spelt = str(statement.compile(dialect=dialect))  # type: ignore[attr-defined]
        if is_sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {spelt}").all()
        else:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            rows = connection.exec_driver_sql(f"EXPLAIN {spelt}").all()
        return "\n".join(str(row) for row in rows)

    assert index in await database.read(plan)


async def test_an_age_is_counted_from_the_oldest_that_is_owed(
    database: Database, watch: DatabaseWatch, clock: Clock
) -> None:
    store = SqlStore(database, clock=clock, owner="me")
    await store.record(posts=tuple(Post(PostKind.LINE, f"p{number}", Notice("x")) for number in range(2)))
    [first, _] = await store.claim_lanes()
    began = clock()
    assert await store.settle(first.posts[0], lease=first.lease, is_last=True)
    clock.pass_by(60)
    await store.record(posts=(Post(PostKind.LINE, "p9", Notice("x")),))
    census = await watch.census()
    assert census is not None
    assert (census.owed, census.owed_since) == (2, began)
    assert clock() - began == timedelta(seconds=60)
