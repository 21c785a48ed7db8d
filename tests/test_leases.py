"""Leases: one holder at a time, a dead one's are taken over, and nothing is written on one that was lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text

from bot.audit import Entry, EntryName
from bot.errors import StoreUnavailable
from bot.exchange import Post, PostKind
from bot.model import Notice
from bot.ports import Lease, Saved, Transition, of_delivery, of_lane, of_proposal
from bot.proposals import Confirmed, Offered, advance
from bot.storage.database import Database, open_database
from bot.storage.leases import SqlLeases
from bot.storage.store import SqlStore
from bot.workflow.tasks import LeasedTasks
from tests.conftest import Clock, lapse
from tests.values import AT, PLACE, decision, delivery, offer, proposal
from tests.world import SilentLog

LINE = Post(PostKind.LINE, "p1", Notice("said"))


@pytest.fixture
def mine(database: Database) -> SqlLeases:
    return SqlLeases(database, owner="mine")


@pytest.fixture
def other(database: Database) -> SqlLeases:
    return SqlLeases(database, owner="other")


@pytest.fixture
def store(database: Database, clock: Clock) -> SqlStore:
    return SqlStore(database, clock=clock, owner="mine")


def entry() -> Entry:
    return Entry(EntryName.OFFERED, AT, "U0ONCALLA1", "p1", {})


async def count(database: Database, table: str) -> int:
    return await database.read(lambda connection: connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


async def move_clock(database: Database, seconds: float) -> None:
    """As if the database's clock had been set back by so much."""
    moved = text("UPDATE leases SET until = until + :seconds")
    await database.run(lambda connection: connection.execute(moved, {"seconds": seconds}) and None)


async def test_what_somebody_holds_nobody_else_gets(mine: SqlLeases, other: SqlLeases) -> None:
    assert await mine.claim(["a", "b"]) == (Lease("a", "mine", 1), Lease("b", "mine", 1))
    assert await other.claim(["b", "c"]) == (Lease("c", "other", 1),)


async def test_what_was_given_back_is_anybodys_at_once(mine: SqlLeases, other: SqlLeases) -> None:
    await mine.release(await mine.claim(["a"]))
    assert await other.claim(["a"]) == (Lease("a", "other", 1),)


async def test_what_lapsed_is_taken_over_with_a_higher_token_and_counts_as_an_attempt(
    mine: SqlLeases, other: SqlLeases, database: Database
) -> None:
    [held] = await mine.claim(["a"])
    await lapse(database)
    assert await other.claim(["a"]) == (Lease("a", "other", 2, attempts=1),)
    assert (await mine.renew([held])).taken == (held,)
    await mine.release([held])  # too late: it is no longer ours to give back
    assert await mine.claim(["a"]) == ()


async def test_a_lapsed_lease_that_nobody_took_is_still_its_owners(mine: SqlLeases, database: Database) -> None:
    [held] = await mine.claim(["a"])
    await lapse(database)
    assert (await mine.renew([held])).taken == ()
    assert await mine.claim(["a"]) == ()


async def test_a_lease_that_is_gone_is_not_said_to_be_somebody_elses(mine: SqlLeases) -> None:
    [held] = await mine.claim(["a"])
    await mine.release([held])
    assert (await mine.renew([held])).taken == ()


async def test_failures_are_counted_until_the_work_goes_on(mine: SqlLeases, store: SqlStore) -> None:
    [held] = await mine.claim([of_proposal("p1")])
    await mine.fail(held)
    [held] = await mine.claim([of_proposal("p1")])
    assert held.attempts == 1
    await mine.fail(held)
    [held] = await mine.claim([of_proposal("p1")])
    assert held.attempts == 2
    assert await store.record(posts=(LINE,), lease=held)
    await mine.fail(held)
    assert (await mine.claim([of_proposal("p1")]))[0].attempts == 1


@pytest.mark.parametrize("seconds", [3600, 86400])
async def test_a_lease_of_before_the_clock_was_set_back_is_anybodys(
    mine: SqlLeases, other: SqlLeases, database: Database, seconds: float
) -> None:
    [held] = await mine.claim(["a"])
    await move_clock(database, seconds)
    assert (await mine.renew([held])).taken == ()  # whoever is alive keeps it
    assert await other.claim(["a"]) == ()
    await move_clock(database, seconds)
    assert await other.claim(["a"]) == (Lease("a", "other", 2, attempts=1),)


async def test_of_many_processes_that_claim_at_once_one_gets_each(any_database_url: str) -> None:
    opened = [open_database(any_database_url) for _ in range(4)]
    names = [f"n{number}" for number in range(20)]
    claims = (
        SqlLeases(database, owner=f"o{number}").claim(names[number % 3 :]) for number, database in enumerate(opened * 4)
    )
    claimed = [lease.name for leases in await asyncio.gather(*claims) for lease in leases]
    assert sorted(claimed) == sorted(names)
    await asyncio.gather(*(database.close() for database in opened))


async def test_nothing_is_written_on_a_lost_lease(
    store: SqlStore, mine: SqlLeases, other: SqlLeases, database: Database
) -> None:
    before = proposal()
    assert await store.save(Transition(None, before, (entry(),)))
    [held] = await mine.claim([of_proposal("p1")])
    await lapse(database)
    [theirs] = await other.claim([of_proposal("p1")])
    after = advance(before, Offered(offer()), AT)
    assert await store.save(Transition(before, after, (entry(),), (LINE,), lease=held)) is None
    assert not await store.record(entries=(entry(),), posts=(LINE,), lease=held)
    assert await store.fetch_proposal("p1") == before
    assert (await count(database, "entries"), await count(database, "outbox")) == (1, 0)
    assert await store.save(Transition(before, after, (entry(),), (LINE,), lease=theirs)) == Saved()
    assert await other.claim([of_proposal("p1")]) == (Lease(of_proposal("p1"), "other", 1),)  # it waits for a click


async def test_a_yes_takes_the_work_from_whoever_holds_it(
    store: SqlStore, other: SqlLeases, database: Database
) -> None:
    received = await store.receive(delivery())
    before = proposal()
    offered = advance(before, Offered(offer()), AT)
    await store.save(Transition(None, before, (entry(),)))
    await store.save(Transition(before, offered, (entry(),)))
    [expiring] = await other.claim([of_proposal("p1")])
    confirmed = advance(offered, Confirmed("0" * 32, "U1", decision(), PLACE), AT)
    handled = delivery().delivery_id
    saved = await store.save(Transition(offered, confirmed, (entry(),), (), handled, received))
    assert saved == Saved(Lease(of_proposal("p1"), "mine", 2))
    assert (await other.renew([expiring])).taken == (expiring,)
    assert await other.claim([of_delivery(handled)]) == (Lease(of_delivery(handled), "other", 1),)  # it is answered


async def test_a_delivery_is_answered_once_whoever_answers_it(store: SqlStore, database: Database) -> None:
    received = await store.receive(delivery())
    assert received is not None
    await lapse(database)
    [(again, _)] = await store.claim_deliveries()
    assert await store.record(posts=(LINE,), handled=received.subject, lease=again)
    assert not await store.record(posts=(LINE,), handled=received.subject, lease=received)
    assert not await store.record(posts=(LINE,), handled=received.subject)
    assert await count(database, "outbox") == 1


async def test_a_lane_is_delivered_by_one_process_and_nothing_is_settled_on_a_lost_lease(
    store: SqlStore, database: Database, clock: Clock
) -> None:
    another = SqlStore(database, clock=clock, owner="other")
    await store.record(posts=(LINE, LINE))
    [lane] = await store.claim_lanes()
    assert await another.claim_lanes() == ()
    await lapse(database)
    [theirs] = await another.claim_lanes()
    assert theirs.posts == lane.posts
    assert not await store.settle(lane.posts[0], lease=lane.lease)
    assert await another.settle(theirs.posts[0], lease=theirs.lease)
    assert await another.settle(theirs.posts[1], lease=theirs.lease, is_last=True)
    await store.record(posts=(LINE,))
    assert [len(lane.posts) for lane in await store.claim_lanes()] == [1]
    assert await count(database, "leases") == 1


async def test_a_lane_that_another_process_has_just_emptied_is_given_back(store: SqlStore, mine: SqlLeases) -> None:
    await store.record(posts=(LINE,))
    [lane] = await store.claim_lanes()
    await store.settle(lane.posts[0], lease=lane.lease, is_last=True)
    assert await store.claim_lanes() == ()
    assert len(await mine.claim([of_lane("p1")])) == 1


async def test_a_task_is_ended_when_its_lease_is_lost(mine: SqlLeases, other: SqlLeases, database: Database) -> None:
    [held] = await mine.claim(["a"])
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with LeasedTasks(mine, SilentLog()) as tasks:
        assert tasks.start(held, work())
        assert not tasks.start(held, work())
        await asyncio.sleep(0)
        await lapse(database)
        await other.claim(["a"])
        await tasks.renew()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_after_a_pause_it_is_not_certain_that_nobody_else_works_on_it(mine: SqlLeases) -> None:
    now = [100.0]
    [held] = await mine.claim(["a"])
    async with LeasedTasks(mine, SilentLog(), seconds=lambda: now[0]) as tasks:
        tasks.start(held, asyncio.Event().wait())  # type: ignore[arg-type]
        assert tasks.is_held("a")
        now[0] += 8
        assert not tasks.is_held("a")
        await tasks.renew()
        assert tasks.is_held("a")
        assert not tasks.is_held("b")


async def test_what_ends_while_the_database_is_away_lapses(mine: SqlLeases, other: SqlLeases) -> None:
    [held] = await mine.claim(["a"])

    async def work() -> None:
        raise StoreUnavailable("away")

    async def away(leases: object) -> None:
        raise StoreUnavailable("away")

    mine.release = away  # type: ignore[method-assign]
    async with LeasedTasks(mine, SilentLog()) as tasks:
        tasks.start(held, work())
        await tasks.drain()
    assert await other.claim(["a"]) == ()


async def test_a_proposal_of_a_newer_version_is_left_for_it(store: SqlStore, database: Database) -> None:
    await store.save(Transition(None, proposal(), (entry(),)))
    newer = text("UPDATE proposals SET body = replace(body, 'received', 'a state of tomorrow')")
    await database.run(lambda connection: connection.execute(newer) and None)
    assert await store.claim_work(AT) == ()
    assert await count(database, "leases") == 0


async def test_a_second_step_that_is_too_late_undoes_the_first(store: SqlStore, database: Database) -> None:
    first, second = proposal(), replace(proposal(), proposal_id="p2", params=frozenset({"queued"}))
    for each in (first, second):
        await store.save(Transition(None, each, ()))
    stale = replace(second, version=7)
    also = Transition(stale, advance(stale, Offered(offer(offer_id="2" * 32)), AT), ())
    step = Transition(first, advance(first, Offered(offer()), AT), (entry(),), (LINE,), also=(also,))
    assert await store.save(step) is None
    assert await store.fetch_proposal("p1") == first
    assert (await count(database, "entries"), await count(database, "outbox")) == (0, 0)


async def test_what_another_process_has_finished_meanwhile_is_not_held_any_more(
    mine: SqlLeases, other: SqlLeases, database: Database
) -> None:
    """It took the work over, ended it and gave the lease back: whoever wakes up now must not send anything."""
    now = [100.0]
    [held] = await mine.claim(["a"])
    async with LeasedTasks(mine, SilentLog(), seconds=lambda: now[0]) as tasks:
        tasks.start(held, asyncio.Event().wait())  # type: ignore[arg-type]
        await lapse(database)
        await other.release(await other.claim(["a"]))
        now[0] += 20
        await tasks.renew()
        assert not tasks.is_held("a")


async def test_a_lease_that_could_not_be_given_back_is_given_back_when_the_database_is_there_again(
    mine: SqlLeases,
) -> None:
    [held] = await mine.claim(["a"])
    release, away = mine.release, [True]

    async def flaky(leases: list[Lease]) -> None:
        if away.pop() if away else False:
            raise StoreUnavailable("away")
        await release(leases)

    async def work() -> None:
        raise StoreUnavailable("away")

    mine.release = flaky  # type: ignore[method-assign]
    async with LeasedTasks(mine, SilentLog()) as tasks:
        tasks.start(held, work())
        await tasks.drain()
        async with asyncio.timeout(10):
            claimed: tuple[Lease, ...] = ()
            while not claimed:
                claimed = await mine.claim(["a"])
    assert claimed[0].attempts == 0


async def test_a_click_that_comes_before_the_last_task_has_ended_is_gone_on_with(mine: SqlLeases) -> None:
    [first] = await mine.claim(["a"])
    done = []

    async def second_work() -> None:
        done.append("second")

    async with LeasedTasks(mine, SilentLog()) as tasks:
        assert tasks.start(first, asyncio.Event().wait())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await mine.release([first])
        [second] = await mine.claim(["a"])
        assert tasks.start(second, second_work())
        await tasks.drain()
    assert done == ["second"]
