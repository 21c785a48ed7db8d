"""The store: what is written is read back whole, and a compare-and-set is won once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from bot.audit import Entry, EntryName
from bot.exchange import Post, PostKind
from bot.model import Notice, Outcome, OutcomeCode
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
from bot.storage.database import Database
from bot.storage.store import SqlStore
from tests.conftest import Clock
from tests.values import AT, PLACE, counts, decision, delivery, intent, offer, preview, proposal


@pytest.fixture
def store(database: Database, clock: Clock) -> SqlStore:
    return SqlStore(database, clock=clock)


def entry(name: EntryName = EntryName.OFFERED) -> Entry:
    return Entry(name, AT, "U0ONCALLA1", "p1", {"counts": {"QUEUED": 3, "CONFIRM": None}})


async def saved(store: SqlStore, before: Proposal | None, after: Proposal) -> bool:
    return await store.save(Transition(before, after, (entry(),)))


async def walk(store: SqlStore, *answers: Answer) -> Proposal:
    """A proposal that took these answers, each saved."""
    now = proposal()
    assert await saved(store, None, now)
    for answer in answers:
        after = advance(now, answer, AT)
        assert await saved(store, now, after)
        now = after
    return now


async def test_a_delivery_is_written_once_and_read_back_whole(store: SqlStore) -> None:
    assert await store.receive(delivery())
    assert not await store.receive(delivery(delivery_id="another copy"))
    assert await store.fetch_open_deliveries() == (delivery(),)


async def test_copies_of_a_delivery_at_the_same_moment_are_written_once(store: SqlStore) -> None:
    copies = [store.receive(delivery(delivery_id=f"d{n}")) for n in range(20)]
    assert sorted(await asyncio.gather(*copies)) == [False] * 19 + [True]


async def test_a_handled_delivery_is_no_longer_open(store: SqlStore) -> None:
    await store.receive(delivery())
    await store.record(entries=(entry(EntryName.REFUSED),), handled=delivery().delivery_id)
    assert await store.fetch_open_deliveries() == ()


async def test_a_proposal_is_read_back_as_it_was_at_every_state(store: SqlStore) -> None:
    last = await walk(
        store,
        Offered(offer()),
        Confirmed("0" * 32, "U0ONCALLB2", decision(), PLACE),
        Called(intent("n1"), counts(QUEUED=7, CONFIRM=None)),
        Deferred(CallAnswer.THROTTLED, "slow down", "RID0"),
        Called(intent("n2")),
        Accepted("RID", True, AT + timedelta(minutes=15)),
        Progress(counts(CANCELED=7)),
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
    assert sorted(await asyncio.gather(*attempts)) == [False] * 19 + [True]
    confirmed = "SELECT count(*) FROM entries WHERE name = 'proposal:confirmed'"
    assert await database.read(lambda connection: connection.scalar(text(confirmed))) == 1
    assert [owed.post for owed in await store.fetch_owed()] == [post]


async def test_a_second_pending_proposal_of_the_same_kind_is_refused(store: SqlStore) -> None:
    first = await walk(store, Offered(offer()))
    second = replace(proposal(), proposal_id="p2")
    assert await saved(store, None, second)
    assert not await saved(store, second, advance(second, Offered(offer(offer_id="1" * 32)), AT))
    assert await store.fetch_pending("job.cancel", first.target, frozenset()) == first
    assert await store.fetch_pending("job.cancel", first.target, frozenset({"queued"})) is None


async def test_a_nonce_is_never_kept_twice(store: SqlStore) -> None:
    await walk(store, Offered(offer()), Confirmed("0" * 32, "U1", decision(), PLACE), Called(intent("n1")))
    other = replace(proposal(), proposal_id="p2", params=frozenset({"queued"}))
    assert await saved(store, None, other)
    offered = advance(other, Offered(offer(offer_id="1" * 32)), AT)
    approved = advance(offered, Confirmed("1" * 32, "U1", decision(), PLACE), AT)
    assert await saved(store, other, offered)
    assert await saved(store, offered, approved)
    assert not await saved(store, approved, advance(approved, Called(intent("n1")), AT))


async def test_only_what_has_something_to_do_is_work(store: SqlStore) -> None:
    waiting = await walk(store, Offered(offer()))
    assert await store.fetch_work(AT) == ()
    assert await store.fetch_work(offer().expires_at) == ("p1",)
    approved = advance(waiting, Confirmed("0" * 32, "U1", decision(), PLACE), AT)
    assert await saved(store, waiting, approved)
    assert await store.fetch_work(AT) == ("p1",)
    ended = advance(approved, Ended(Outcome(OutcomeCode.NOT_DONE, Notice("over"))), AT)
    assert ended.state is State.FINISHED
    assert await saved(store, approved, ended)
    assert await store.fetch_work(offer().expires_at) == ()


async def test_posts_are_owed_in_order_until_they_are_settled(store: SqlStore) -> None:
    first = Post(PostKind.LINE, "p1", Notice("first", ("<!channel>",), "aliyun iot", "RID"))
    second = Post(PostKind.REPLY, "d1", Notice("second"), delivery().reply_to, preview())
    await store.record(posts=(first, second))
    owed = await store.fetch_owed()
    assert [each.post for each in owed] == [first, second]
    await store.count_attempt(owed[0].post_id)
    assert [each.attempts for each in await store.fetch_owed()] == [1, 0]
    await store.settle([owed[0].post_id], failure="channel_not_found")
    assert [each.post for each in await store.fetch_owed()] == [second]


async def test_where_a_proposal_shows_is_kept(store: SqlStore) -> None:
    await walk(store)
    assert await store.fetch_surface("p1") == Surface()
    await store.save_surface("p1", Surface("C1", "1.1"))
    await store.save_surface("p1", Surface("C1", "1.1", "1.2"))
    assert await store.fetch_surface("p1") == Surface("C1", "1.1", "1.2")


async def test_an_audit_entry_is_kept_in_its_canonical_bytes(store: SqlStore, database: Database) -> None:
    await store.record(entries=(entry(),))

    def body(connection: Connection) -> bytes:
        found: bytes = connection.scalar(text("SELECT body FROM entries"))
        return bytes(found)

    assert await database.read(body) == (
        b'{"actor":"U0ONCALLA1","at":"2026-03-01T03:12:00.000000+00:00","facts":{"counts":{"CONFIRM":null,"QUEUED":3}},'
        b'"name":"proposal:offered","proposal":"p1"}'
    )
