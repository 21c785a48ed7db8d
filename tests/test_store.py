"""The store: what is written is read back whole, and a compare-and-set is won once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from bot.audit import Entry, EntryName
from bot.exchange import Delivery, Post, PostKind
from bot.model import Notice, Outcome, OutcomeCode, Step, StepKind, Target
from bot.ports import Surface, Transition
from bot.proposals import (
    Accepted,
    Answer,
    CallAnswer,
    Called,
    Confirmed,
    Deferred,
    Ended,
    Offered,
    Progress,
    Proposal,
    State,
    advance,
)
from bot.storage.database import Database, open_database
from bot.storage.store import SqlStore
from tests.conftest import Clock, lapse
from tests.values import (
    AT,
    PLACE,
    STOPPABLE,
    TARGET,
    counts,
    decision,
    delivery,
    intent,
    job,
    offer,
    part,
    preview,
    proposal,
)


@pytest.fixture
def store(database: Database, clock: Clock) -> SqlStore:
    return SqlStore(database, clock=clock)


def entry(name: EntryName = EntryName.OFFERED) -> Entry:
    return Entry(name, AT, "U0ONCALLA1", "p1", {"counts": {"QUEUED": 3, "CONFIRM": None}})


async def saved(store: SqlStore, before: Proposal | None, after: Proposal) -> bool:
    return await store.save(Transition(before, after, (entry(),))) is not None


async def found_open(store: SqlStore, database: Database) -> list[Delivery]:
    """What a process finds to answer after all others are gone."""
    await lapse(database)
    return [found for _, found in await store.claim_deliveries()]


async def found_to_do(store: SqlStore, database: Database, now: datetime) -> list[str]:
    await lapse(database)
    return [lease.subject for lease in await store.claim_work(now)]


async def walk(store: SqlStore, *answers: Answer) -> Proposal:
    """A proposal that took these answers, each saved."""
    now = proposal()
    assert await saved(store, None, now)
    for answer in answers:
        after = advance(now, answer, AT)
        assert await saved(store, now, after)
        now = after
    return now


async def test_a_delivery_is_written_once_and_read_back_whole(store: SqlStore, database: Database) -> None:
    assert await store.receive(delivery())
    assert not await store.receive(delivery(delivery_id="another copy"))
    assert await store.claim_deliveries() == ()  # it is being answered
    assert await found_open(store, database) == [delivery()]


async def test_copies_of_a_delivery_at_the_same_moment_are_written_once(store: SqlStore) -> None:
    copies = [store.receive(delivery(delivery_id=f"d{n}")) for n in range(20)]
    assert sum(lease is not None for lease in await asyncio.gather(*copies)) == 1


async def test_a_handled_delivery_is_no_longer_open(store: SqlStore, database: Database) -> None:
    await store.receive(delivery())
    assert await store.record(entries=(entry(EntryName.REFUSED),), handled=delivery().delivery_id)
    assert await found_open(store, database) == []


async def test_a_proposal_is_read_back_as_it_was_at_every_state(store: SqlStore) -> None:
    last = await walk(
        store,
        Offered(offer()),
        Confirmed("0" * 32, "U0ONCALLB2", decision(), PLACE),
        Called(intent("n1"), preview(counts=counts(QUEUED=7, CONFIRM=None)), (intent("n1").step,)),
        Deferred(CallAnswer.THROTTLED, "slow down", "RID0"),
        Called(intent("n2")),
        Accepted("RID", True, AT + timedelta(minutes=15)),
        Progress({TARGET.job: counts(CANCELED=7)}),
    )
    assert await store.fetch_proposal("p1") == last
    assert await store.fetch_proposal_of("0" * 32) == last
    ended = advance(last, Ended(Outcome(OutcomeCode.STOPPED, Notice("over", ("a", "b")), 7, 0, 0, 0)), AT)
    assert await saved(store, last, ended)
    assert await store.fetch_proposal("p1") == ended


async def test_an_unknown_proposal_is_none(store: SqlStore) -> None:
    assert await store.fetch_proposal("p0") is None
    assert await store.fetch_proposal_of("f" * 32) is None


async def test_of_many_at_once_one_wins_and_its_entry_and_posts_alone_are_kept(
    store: SqlStore, database: Database
) -> None:
    before = await walk(store, Offered(offer()))
    after = advance(before, Confirmed("0" * 32, "U0ONCALLB2", decision(), PLACE), AT)
    post = Post(PostKind.CARD, "p1")
    attempts = [
        store.save(Transition(before, after, (replace(entry(EntryName.CONFIRMED), actor=f"U{n}"),), (post,)))
        for n in range(20)
    ]
    assert sum(written is not None for written in await asyncio.gather(*attempts)) == 1
    confirmed = "SELECT count(*) FROM entries WHERE name = 'proposal:confirmed'"
    assert await database.read(lambda connection: connection.scalar(text(confirmed))) == 1
    assert [owed.post for owed in await store.fetch_owed()] == [post]


async def test_an_offer_that_another_process_has_moved_on_cannot_be_confirmed(
    store: SqlStore, database: Database, clock: Clock
) -> None:
    offered = await walk(store, Offered(offer()))
    other = SqlStore(database, clock=clock)
    confirmed = advance(offered, Confirmed("0" * 32, "U0ONCALLB2", decision(), PLACE), AT)
    assert await saved(other, offered, confirmed)
    stale = await store.fetch_proposal_of("0" * 32)
    assert stale is not None
    assert not await saved(store, stale, advance(stale, Confirmed("0" * 32, "U0", decision(), PLACE), AT))
    assert await store.fetch_proposal_of("0" * 32) == confirmed


async def test_an_offer_is_found_by_its_id_while_it_waits_and_after(
    store: SqlStore, database: Database, clock: Clock
) -> None:
    offered = await walk(store, Offered(offer()))
    restarted = SqlStore(database, clock=clock)
    assert await store.fetch_proposal_of("0" * 32) == await restarted.fetch_proposal_of("0" * 32) == offered
    confirmed = advance(offered, Confirmed("0" * 32, "U0ONCALLB2", decision(), PLACE), AT)
    assert await saved(store, offered, confirmed)
    assert await store.fetch_proposal_of("0" * 32) == await restarted.fetch_proposal_of("0" * 32) == confirmed


async def test_a_second_pending_proposal_of_the_same_kind_is_refused(store: SqlStore) -> None:
    first = await walk(store, Offered(offer()))
    second = replace(proposal(), proposal_id="p2")
    assert await saved(store, None, second)
    assert not await saved(store, second, advance(second, Offered(offer(offer_id="1" * 32)), AT))
    assert await store.fetch_pending("job.cancel", first.target, frozenset()) == first
    assert await store.fetch_pending("job.cancel", first.target, frozenset({"queued"})) is None


async def test_targets_that_touch_the_same_are_one_kind_of_pending_proposal(store: SqlStore) -> None:
    devices = tuple(f"gateway-{n:03}" for n in range(40))
    target = Target("prod-shanghai", product="a1Gateway01", devices=devices)
    asked = proposal(target=target)
    offered = advance(asked, Offered(offer(preview=preview(target=target))), AT)
    assert await saved(store, None, asked)
    assert await saved(store, asked, offered)
    turned = Target("prod-shanghai", product="a1Gateway01", devices=devices[::-1])
    assert await store.fetch_pending("job.cancel", turned, frozenset()) == offered
    fewer = Target("prod-shanghai", product="a1Gateway01", devices=devices[1:])
    assert await store.fetch_pending("job.cancel", fewer, frozenset()) is None


async def offering(store: SqlStore, number: int, *jobs: str, target: Target = TARGET, minutes: float = 0) -> Proposal:
    """A proposal whose offer names these batches."""
    asked = proposal(
        proposal_id=f"p{number}",
        target=target,
        params=frozenset({f"{number}"}),
        created_at=AT - timedelta(minutes=minutes),
    )
    parts = [part(job=job(job_id=each)) for each in jobs]
    offered = advance(asked, Offered(offer(offer_id=f"{number:032x}", preview=preview(*parts, target=target))), AT)
    assert await saved(store, None, asked)
    assert await saved(store, asked, offered)
    return offered


async def test_what_is_not_finished_on_a_batch_is_found_oldest_first(store: SqlStore) -> None:
    firmware = Target("prod-shanghai", firmware="fw-421")
    late, early = await offering(store, 1, "a", "b", target=firmware), await offering(store, 2, "b", minutes=5)
    await offering(store, 3, "b", target=Target("prod-beijing", "b"))
    assert await store.fetch_on_jobs("prod-shanghai", ["b", "c"]) == (early, late)
    assert await store.fetch_on_jobs("prod-shanghai", ["a", "b"]) == (early, late)
    assert await store.fetch_on_jobs("prod-shanghai", ["c"]) == ()
    assert await store.fetch_on_jobs("prod-shanghai", []) == ()
    ended = advance(early, Ended(Outcome(OutcomeCode.DISMISSED, Notice("over"))), AT)
    assert await saved(store, early, ended)
    assert await store.fetch_on_jobs("prod-shanghai", ["b"]) == (late,)


async def test_a_batch_that_an_earlier_offer_named_stays_named(store: SqlStore) -> None:
    first = await offering(store, 1, "a", "b")
    second = advance(first, Offered(offer(offer_id="f" * 32, preview=preview(part(job=job(job_id="b"))))), AT)
    assert await saved(store, first, second)
    for name in ("a", "b"):
        assert await store.fetch_on_jobs("prod-shanghai", [name]) == (second,)


async def test_a_batch_that_joined_at_the_last_look_is_named_too_and_calls_are_read_with_it(store: SqlStore) -> None:
    offered = await offering(store, 1, "a")
    approved = advance(offered, Confirmed(f"{1:032x}", "U1", decision(), PLACE), AT)
    grown = tuple(Step(StepKind.CANCEL_TASKS, Target("prod-shanghai", name), STOPPABLE) for name in ("a", "b"))
    calling = advance(approved, Called(intent("n1"), preview(), grown), AT)
    assert await saved(store, offered, approved)
    assert await store.fetch_on_jobs("prod-shanghai", ["b"]) == ()
    assert await saved(store, approved, calling)
    assert await store.fetch_on_jobs("prod-shanghai", ["b"]) == (calling,)


async def test_an_offer_that_lost_the_race_names_nothing(store: SqlStore) -> None:
    before = proposal()
    assert await saved(store, None, before)
    assert await saved(store, before, advance(before, Offered(offer()), AT))
    slower = offer(offer_id="1" * 32, preview=preview(part(job=job(job_id="b"))))
    assert not await saved(store, before, advance(before, Offered(slower), AT))
    assert await store.fetch_on_jobs("prod-shanghai", ["b"]) == ()


async def test_a_proposal_is_found_by_how_its_id_begins_and_signs_mean_themselves(store: SqlStore) -> None:
    made = [proposal(proposal_id=each) for each in ("abc1", "abc2", "abd1", "a_c1", "a%c1")]
    for each in made:
        assert await saved(store, None, each)
    assert await store.fetch_beginning("abd") == (made[2],)
    assert await store.fetch_beginning("abc1") == (made[0],)
    assert await store.fetch_beginning("a_") == (made[3],)
    assert await store.fetch_beginning("a%") == (made[4],)
    assert len(await store.fetch_beginning("ab")) == 2
    assert len(await store.fetch_beginning("")) == 2
    for strange in ("abc11", "ABD", "%", "x", "\\"):
        assert await store.fetch_beginning(strange) == ()


async def test_a_nonce_is_never_kept_twice(store: SqlStore) -> None:
    await walk(store, Offered(offer()), Confirmed("0" * 32, "U1", decision(), PLACE), Called(intent("n1")))
    other = replace(proposal(), proposal_id="p2", params=frozenset({"queued"}))
    assert await saved(store, None, other)
    offered = advance(other, Offered(offer(offer_id="1" * 32)), AT)
    approved = advance(offered, Confirmed("1" * 32, "U1", decision(), PLACE), AT)
    assert await saved(store, other, offered)
    assert await saved(store, offered, approved)
    assert not await saved(store, approved, advance(approved, Called(intent("n1")), AT))


async def test_only_what_has_something_to_do_is_work(store: SqlStore, database: Database) -> None:
    waiting = await walk(store, Offered(offer()))
    assert await found_to_do(store, database, AT) == []
    assert await found_to_do(store, database, offer().expires_at) == ["p1"]
    approved = advance(waiting, Confirmed("0" * 32, "U1", decision(), PLACE), AT)
    assert await saved(store, waiting, approved)
    assert await found_to_do(store, database, AT) == ["p1"]
    ended = advance(approved, Ended(Outcome(OutcomeCode.NOT_DONE, Notice("over"))), AT)
    assert ended.state is State.FINISHED
    assert await saved(store, approved, ended)
    assert await found_to_do(store, database, offer().expires_at) == []


async def test_posts_are_owed_in_order_until_they_are_settled(store: SqlStore) -> None:
    first = Post(PostKind.LINE, "p1", Notice("first", ("<!channel>",), "aliyun iot", "RID"))
    second = Post(PostKind.REPLY, "d1", Notice("second"), delivery().reply_to, preview())
    await store.record(posts=(first, second))
    lane, other = await store.claim_lanes()
    assert [each.post for each in (*lane.posts, *other.posts)] == [first, second]
    [owed] = lane.posts
    await store.count_attempt(owed.post_id)
    assert [each.attempts for each in await store.fetch_owed()] == [1, 0]
    assert await store.settle(owed, failure="channel_not_found", lease=lane.lease)
    assert [each.post for each in await store.fetch_owed()] == [second]


async def test_where_a_proposal_shows_is_kept(store: SqlStore) -> None:
    await walk(store)
    assert await store.fetch_surface("p1") == Surface()
    assert await store.save_surface("p1", Surface("C1", "1.1"), was=Surface())
    assert await store.save_surface("p1", Surface("C1", "1.1", "1.2", "1.3"), was=Surface("C1", "1.1"))
    assert not await store.save_surface("p1", Surface("C1", "9.9"), was=Surface("C1", "1.1"))
    assert await store.fetch_surface("p1") == Surface("C1", "1.1", "1.2", "1.3")


async def test_an_audit_entry_is_kept_in_its_canonical_bytes(store: SqlStore, database: Database) -> None:
    await store.record(entries=(entry(),))

    def body(connection: Connection) -> bytes:
        found: bytes = connection.scalar(text("SELECT body FROM entries"))
        return bytes(found)

    assert await database.read(body) == (
        b'{"actor":"U0ONCALLA1","at":"2026-03-01T03:12:00.000000+00:00","facts":{"counts":{"CONFIRM":null,"QUEUED":3}},'
        b'"name":"proposal:offered","proposal":"p1"}'
    )


async def test_no_look_up_reads_a_whole_table(sqlite_url: str, clock: Clock) -> None:
    opened = open_database(sqlite_url)
    store, asked = SqlStore(opened, clock=clock), []

    def note(connection: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool) -> None:
        if statement.lstrip().upper().startswith("SELECT"):
            asked.append((statement, values))

    for engine in (opened.engine, opened._reader):
        event.listen(engine, "before_cursor_execute", note)
    await store.fetch_pending("job.cancel", TARGET, frozenset())
    await store.fetch_on_jobs("prod-shanghai", ["a job"])
    await store.fetch_beginning("p1")
    await store.fetch_proposal_of("0" * 32)
    await store.claim_work(AT)
    await store.claim_deliveries()
    await store.claim_lanes()
    steps = []
    for statement, values in tuple(asked):
        plan = f"EXPLAIN QUERY PLAN {statement}"
        steps += await opened.read(
            lambda connection, plan=plan, values=values: connection.exec_driver_sql(plan, values).all()
        )
    assert len(asked) >= 7
    told = [step[-1] for step in steps]
    assert [step for step in told if step.startswith("SCAN") and "USING INDEX" not in step] == []
    await opened.close()
