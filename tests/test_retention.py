"""What is over goes by age, as a whole and a little at a time; what is not over stays, and so does the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, insert, select, text

from bot.audit import Entry, EntryName
from bot.exchange import Post, PostKind
from bot.model import Notice, Outcome, OutcomeCode
from bot.ports.retention import Keeping, Pruned
from bot.proposals import State
from bot.storage.database import Database, open_database
from bot.storage.leases import SqlLeases
from bot.storage.retention import PROPOSALS, ROWS, SqlRetention
from bot.storage.tables import (
    calls,
    entries,
    inbox,
    leases,
    metadata,
    offers,
    outbox,
    proposals,
    surfaces,
    touched_jobs,
)
from tests.conftest import Clock
from tests.values import proposal
from tests.world import living_world

NOW = datetime(2020, 6, 1, tzinfo=UTC)
"""Long ago by every database's clock."""

OF_PROPOSALS = (proposals, offers, calls, surfaces, touched_jobs)


@pytest.fixture
def clock() -> Clock:
    standing = Clock()
    standing.at = NOW
    return standing


@pytest.fixture
def retention(database: Database, clock: Clock) -> SqlRetention:
    return kept_by(database, clock)


def kept_by(database: Database, clock: Clock, **spans: float) -> SqlRetention:
    async def no_pause(seconds: float) -> None:
        await asyncio.sleep(0)

    return SqlRetention(database, clock=clock, keeping=Keeping(**spans), sleep=no_pause)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def add_proposal(connection: Connection, name: str, *, created_at: datetime, state: State = State.FINISHED) -> None:
    """A proposal with a row of everything that refers to it, its only post settled when it was made."""
    connection.execute(
        insert(proposals).values(
            proposal_id=name,
            version=1,
            state=state.value,
            operation="job.cancel",
            instance="prod",
            target=name,
            params="",
            created_at=created_at,
            body="{}",
        )
    )
    connection.execute(insert(offers).values(offer_id=f"o{name}", proposal_id=name))
    of_call = {"step": 0, "attempt": 1, "nonce": f"n{name}", "deadline": created_at, "body": "{}"}
    connection.execute(insert(calls).values(proposal_id=name, **of_call))
    connection.execute(insert(surfaces).values(proposal_id=name, channel="C"))
    connection.execute(insert(touched_jobs).values(proposal_id=name, job=f"j{name}"))
    connection.execute(
        insert(entries).values(at=created_at, name="proposal:ended", actor="a", proposal_id=name, body=b"x")
    )
    add_post(connection, name, settled_at=created_at)


def add_post(connection: Connection, lane: str, *, settled_at: datetime | None) -> None:
    connection.execute(insert(outbox).values(lane=lane, created_at=NOW, settled_at=settled_at, body="{}"))


def add_delivery(connection: Connection, name: str, *, handled_at: datetime | None) -> None:
    row = {"delivery_id": name, "key": f"k{name}", "received_at": ago(days=400), "handled_at": handled_at, "body": "{}"}
    connection.execute(insert(inbox).values(row))


async def names(database: Database, column: Any) -> set[Any]:
    return set(await database.read(lambda connection: connection.scalars(select(column)).all()))


async def count(database: Database, table: Any) -> int:
    found = await database.read(lambda connection: connection.scalar(select(func.count()).select_from(table)))
    assert found is not None
    return found


async def test_a_finished_proposal_goes_after_ninety_days_with_all_that_refers_to_it(
    database: Database, retention: SqlRetention
) -> None:
    def rows(connection: Connection) -> None:
        add_proposal(connection, "old", created_at=ago(days=91))
        add_proposal(connection, "young", created_at=ago(days=89))

    await database.run(rows)
    assert await retention.prune() == Pruned(proposals=1)
    for table in OF_PROPOSALS:
        assert await names(database, table.c.proposal_id) == {"young"}, table.name
    assert await names(database, outbox.c.lane) == {"young"}


@pytest.mark.parametrize("state", [state for state in State if state is not State.FINISHED])
async def test_what_is_not_over_stays_however_old_it_is(
    database: Database, retention: SqlRetention, state: State
) -> None:
    await database.run(lambda connection: add_proposal(connection, "p", created_at=ago(days=4000), state=state))
    assert (await retention.prune()).proposals == 0
    for table in OF_PROPOSALS:
        assert await names(database, table.c.proposal_id) == {"p"}, table.name


async def test_the_audit_stays_for_ever(database: Database, retention: SqlRetention) -> None:
    await database.run(lambda connection: add_proposal(connection, "old", created_at=ago(days=4000)))
    before = await database.read(lambda connection: connection.execute(select(entries)).all())
    assert (await retention.prune()).proposals == 1
    assert await database.read(lambda connection: connection.execute(select(entries)).all()) == before
    assert [row.proposal_id for row in before] == ["old"]


async def test_a_post_that_is_owed_stays_and_so_does_its_proposal(
    database: Database, retention: SqlRetention, clock: Clock
) -> None:
    def rows(connection: Connection) -> None:
        add_proposal(connection, "owing", created_at=ago(days=400))
        add_post(connection, "owing", settled_at=None)
        add_post(connection, "a delivery", settled_at=None)

    await database.run(rows)
    assert await retention.prune() == Pruned()
    assert (await count(database, outbox), await names(database, proposals.c.proposal_id)) == (3, {"owing"})


async def test_a_proposal_that_was_told_of_lately_stays(database: Database, retention: SqlRetention) -> None:
    """It was found after months: its last line was delivered just now."""

    def rows(connection: Connection) -> None:
        add_proposal(connection, "found late", created_at=ago(days=400))
        add_post(connection, "found late", settled_at=ago(minutes=1))

    await database.run(rows)
    assert await retention.prune() == Pruned()
    assert await names(database, proposals.c.proposal_id) == {"found late"}


async def test_a_delivery_goes_a_week_after_it_was_answered(database: Database, retention: SqlRetention) -> None:
    def rows(connection: Connection) -> None:
        add_delivery(connection, "old", handled_at=ago(days=8))
        add_delivery(connection, "young", handled_at=ago(days=6))
        add_delivery(connection, "open", handled_at=None)

    await database.run(rows)
    assert await retention.prune() == Pruned(deliveries=1)
    assert await names(database, inbox.c.delivery_id) == {"young", "open"}


async def test_no_delivery_is_forgotten_within_ten_minutes_whatever_is_set(database: Database, clock: Clock) -> None:
    def rows(connection: Connection) -> None:
        add_delivery(connection, "eleven minutes", handled_at=ago(minutes=11))
        add_delivery(connection, "nine minutes", handled_at=ago(minutes=9))

    await database.run(rows)
    assert await kept_by(database, clock, delivery_seconds=0).prune() == Pruned(deliveries=1)
    assert await names(database, inbox.c.delivery_id) == {"nine minutes"}


async def test_posts_of_deliveries_and_of_what_is_not_over_go_after_a_week(
    database: Database, retention: SqlRetention
) -> None:
    def rows(connection: Connection) -> None:
        add_proposal(connection, "offered", created_at=ago(days=8), state=State.OFFERED)
        add_proposal(connection, "finished", created_at=ago(days=8))
        add_post(connection, "an old answer", settled_at=ago(days=8))
        add_post(connection, "a young answer", settled_at=ago(days=6))

    await database.run(rows)
    assert await retention.prune() == Pruned(posts=2)
    assert await names(database, outbox.c.lane) == {"finished", "a young answer"}


async def test_what_was_looked_at_is_not_looked_at_again(
    database: Database, retention: SqlRetention, clock: Clock
) -> None:
    def rows(connection: Connection) -> None:
        add_proposal(connection, "finished", created_at=ago(days=10))
        for _ in range(3 * ROWS):
            add_post(connection, "finished", settled_at=ago(days=9))

    await database.run(rows)
    units = counted_units(database)
    await retention.prune()
    first = units()
    await retention.prune()
    assert (first, units() - first) == (3 + 4, 3)  # three kinds; the posts in pages, and then none
    clock.at += timedelta(days=100)
    assert await retention.prune() == Pruned(proposals=1)
    assert await count(database, outbox) == 0


def counted_units(database: Database) -> Callable[[], int]:
    run, made = database.run, []

    async def counted(unit: Any, **options: Any) -> Any:
        made.append(unit)
        return await run(unit, **options)

    database.run = counted  # type: ignore[method-assign]
    return lambda: len(made)


async def test_no_unit_deletes_more_than_a_page(database: Database, clock: Clock) -> None:
    """What is left to be done never makes a unit longer: others write in between."""

    def rows(connection: Connection) -> None:
        for number in range(3 * ROWS):
            add_delivery(connection, f"d{number:04}", handled_at=ago(days=8))
            add_post(connection, f"d{number:04}", settled_at=ago(days=8))
        for number in range(3 * PROPOSALS):
            add_proposal(connection, f"p{number:04}", created_at=ago(days=100))

    await database.run(rows)
    there = [await sizes(database)]

    async def look(seconds: float) -> None:
        there.append(await sizes(database))

    pruned = await SqlRetention(database, clock=clock, sleep=look).prune()
    assert pruned == Pruned(3 * PROPOSALS, 3 * ROWS, 3 * ROWS)
    assert there[-1] == {"inbox": 0, "outbox": 0, "proposals": 0}
    for before, after in pairwise(there):
        gone = {name: before[name] - after[name] for name in before}
        assert gone["inbox"] <= ROWS
        assert gone["outbox"] <= ROWS
        assert gone["proposals"] <= PROPOSALS


async def sizes(database: Database) -> dict[str, int]:
    return {table.name: await count(database, table) for table in (inbox, outbox, proposals)}


async def test_a_pass_that_is_cancelled_leaves_each_proposal_whole_or_gone(database: Database, clock: Clock) -> None:
    def rows(connection: Connection) -> None:
        for number in range(5 * PROPOSALS):
            add_proposal(connection, f"p{number:04}", created_at=ago(days=100))

    await database.run(rows)

    async def sleep(seconds: float) -> None:
        if await count(database, proposals) <= 3 * PROPOSALS:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await SqlRetention(database, clock=clock, sleep=sleep).prune()
    left = await names(database, proposals.c.proposal_id)
    assert len(left) == 3 * PROPOSALS
    for table in OF_PROPOSALS:
        assert await names(database, table.c.proposal_id) == left, table.name
    assert await kept_by(database, clock).prune() == Pruned(proposals=3 * PROPOSALS)


@pytest.mark.parametrize("at", ["2100-01-01", "2020-06-01"])
async def test_a_clock_that_is_ahead_takes_nothing_too_soon(database: Database, at: str) -> None:
    """The earlier of two clocks counts: ours may have jumped ahead."""
    ours = Clock()
    ours.at = datetime.fromisoformat(at).replace(tzinfo=UTC)

    def rows(connection: Connection) -> None:
        add_delivery(connection, "old by both clocks", handled_at=ago(days=10))
        add_delivery(connection, "old by ours alone", handled_at=datetime(2099, 1, 1, tzinfo=UTC))

    await database.run(rows)
    assert await kept_by(database, ours).prune() == Pruned(deliveries=1)
    assert await names(database, inbox.c.delivery_id) == {"old by ours alone"}


async def test_leases_of_what_is_gone_go_with_it(database: Database, retention: SqlRetention) -> None:
    def rows(connection: Connection) -> None:
        add_proposal(connection, "old", created_at=ago(days=100))
        add_delivery(connection, "old", handled_at=ago(days=100))

    await database.run(rows)
    await SqlLeases(database, owner="a process that died").claim(["proposal:old", "delivery:old", "proposal:other"])
    await retention.prune()
    assert await names(database, leases.c.name) == {"proposal:other"}


async def test_two_processes_that_prune_at_once_share_the_work(any_database_url: str, clock: Clock) -> None:
    one, other = open_database(any_database_url), open_database(any_database_url)

    def rows(connection: Connection) -> None:
        for number in range(20 * PROPOSALS):
            add_proposal(connection, f"p{number:04}", created_at=ago(days=100))
            add_delivery(connection, f"d{number:04}", handled_at=ago(days=10))
            add_post(connection, f"d{number:04}", settled_at=ago(days=10))

    await one.run(rows)
    done = await asyncio.gather(*(kept_by(database, clock).prune() for database in (one, other) for _ in range(2)))
    total = {kind: sum(getattr(each, kind) for each in done) for kind in ("proposals", "deliveries", "posts")}
    assert total == dict.fromkeys(total, 20 * PROPOSALS)
    assert await sizes(one) == {"inbox": 0, "outbox": 0, "proposals": 0}
    await one.close()
    await other.close()


@pytest.mark.postgres
async def test_what_somebody_else_works_on_is_passed_over(postgres_url: str, clock: Clock) -> None:
    database = open_database(postgres_url)

    def rows(connection: Connection) -> None:
        add_proposal(connection, "held", created_at=ago(days=100))
        add_proposal(connection, "free", created_at=ago(days=99))

    await database.run(rows)
    with database.engine.connect() as somebody:
        somebody.execute(text("SELECT 1 FROM proposals WHERE proposal_id = 'held' FOR UPDATE"))
        async with asyncio.timeout(5):
            assert await kept_by(database, clock).prune() == Pruned(proposals=1)
    assert await names(database, proposals.c.proposal_id) == {"held"}
    assert await kept_by(database, clock).prune() == Pruned(proposals=1)
    await database.close()


async def test_no_statement_looks_through_a_whole_table(database: Database, retention: SqlRetention) -> None:
    """So a unit costs the same with a million rows: the databases are asked how they would carry out each statement."""

    def rows(connection: Connection) -> None:
        add_proposal(connection, "old", created_at=ago(days=100))
        add_proposal(connection, "young", created_at=ago(days=10))
        add_delivery(connection, "old", handled_at=ago(days=10))
        add_post(connection, "old answer", settled_at=ago(days=10))

    await database.run(rows)
    made: dict[str, Any] = {}

    @event.listens_for(database.engine, "before_cursor_execute")
    def keep(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "DELETE")) and any(table in statement for table in metadata.tables):
            made[statement] = parameters

    await retention.prune()
    event.remove(database.engine, "before_cursor_execute", keep)
    assert len(made) >= 14
    for statement, parameters in made.items():
        plan = await database.read(lambda connection, of=(statement, parameters): explained(connection, *of))
        assert "Seq Scan" not in plan, (statement, plan)
        assert "SCAN" not in plan.replace("SCAN CONSTANT ROW", ""), (statement, plan)


def explained(connection: Connection, statement: str, parameters: Any) -> str:
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    else:
        connection.execute(text("SET LOCAL enable_seqscan = off"))  # a handful of rows is quicker read through
        rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
    return "\n".join(str(row[-1]) for row in rows)


async def test_a_proposal_that_resumes_a_pruned_one_goes_on(any_database_url: str) -> None:
    now = Clock()
    async with living_world(now, any_database_url) as world:
        over = Outcome(OutcomeCode.PARTLY_STOPPED, Notice("half"))
        first = proposal(proposal_id="first", state=State.FINISHED, outcome=over, created_at=now())
        await world.keep(replace(first, created_at=now() - timedelta(days=100)))
        await world.keep(proposal(proposal_id="second", resumes="first", created_at=now()))
        retention = SqlRetention(world.database, clock=lambda: min(now(), datetime.now(UTC)))
        pruned = await retention.prune()
        assert await world.store.fetch_proposal("first") is None
        assert pruned.proposals == 1
        assert (await world.go_on()).state is State.OFFERED


async def test_what_is_pruned_is_what_the_store_wrote(any_database_url: str, clock: Clock) -> None:
    """A whole flow, and a long while later: only its audit is left, byte for byte."""
    async with living_world(clock, any_database_url) as world:
        await world.ask()
        ended = await world.click()
        assert ended.state is State.FINISHED
        audit = await world.database.read(lambda connection: connection.execute(select(entries)).all())
        await world.store.record(
            entries=(Entry(EntryName.ASKED, clock(), "a", None, {}),), posts=(Post(PostKind.CARD, "elsewhere"),)
        )
        settle = text("UPDATE outbox SET settled_at = created_at WHERE lane <> 'elsewhere'")
        await world.database.run(lambda connection: connection.execute(settle) and None)
        clock.at += timedelta(days=100)
        pruned = await kept_by(world.database, clock).prune()
        assert (pruned.proposals, pruned.deliveries) == (1, 2)
        for table in (*OF_PROPOSALS, inbox):
            assert await count(world.database, table) == 0, table.name
        assert await names(world.database, outbox.c.lane) == {"elsewhere"}
        left = await world.database.read(lambda connection: connection.execute(select(entries)).all())
        assert left[: len(audit)] == audit
        assert len(left) == len(audit) + 1
