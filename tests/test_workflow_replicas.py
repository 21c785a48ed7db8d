"""Several processes on one database: what a dead one did goes on, a paused one does no harm, and a stop wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from bot.errors import LeaseLost
from bot.exchange import Choice, Click, PostKind
from bot.model import Intent, JobKind, OutcomeCode, Receipt, TaskState
from bot.ports import Renewal
from bot.proposals import CallAnswer, Proposal, State
from bot.storage.leases import SqlLeases
from bot.storage.store import SqlStore
from bot.workflow.means import Means
from bot.workflow.road import Road
from tests.conftest import Clock, lapse
from tests.test_workflow_operations import numbers, task
from tests.values import TARGET, delivery
from tests.world import World, living_world, outcome


@pytest.fixture
async def world(clock: Clock, any_database_url: str) -> AsyncIterator[World]:
    async with living_world(clock, any_database_url) as made:
        yield made


def replica(world: World, name: str) -> Means:
    """What another process on the same database works with."""
    store = SqlStore(world.database, clock=world.clock, owner=name)
    return replace(world.means, store=store, leases=SqlLeases(world.database, owner=name))


def click(world: World, offer_id: str, number: int = 1, user: str = "U0ONCALLA1") -> Any:
    content, reply_to = Click(Choice.CONFIRM, offer_id), replace(delivery().reply_to, user_id=user)
    key = f"click{offer_id}{number}"
    return delivery(key, content=content, reply_to=reply_to, received_at=world.clock(), delivery_id=key[-60:])


async def entries(world: World, name: str) -> int:
    counted = text("SELECT count(*) FROM entries WHERE name = :name")
    return await world.database.read(lambda connection: connection.scalar(counted, {"name": name}) or 0)


async def offered(world: World, verb: str = "job.cancel", **bent: Any) -> Proposal:
    made = await world.ask(verb, **bent)
    assert made is not None
    assert made.state is State.OFFERED
    assert made.offer is not None
    world.clock.pass_by(1)
    return made


async def now(world: World, which: Proposal) -> Proposal:
    found = await world.store.fetch_proposal(which.proposal_id)
    assert found is not None
    return found


def offer_id(which: Proposal) -> str:
    assert which.offer is not None
    return which.offer.offer_id


class Killed(BaseException):
    """A process that dies writes nothing more, and gives nothing back."""


async def leave_behind(world: World, at: Callable[[], None] | None = None) -> None:
    """A process answers a click and dies in the middle of its call."""
    waiting = await world.last()
    assert waiting is not None
    means = replica(world, "dead")

    async def dies(intent: Intent, **_: Any) -> Receipt:
        world.cloud.sent.append(intent)
        if at is not None:
            at()
        await asyncio.Event().wait()
        raise AssertionError

    async def gives_nothing_back(leases: object) -> None:
        return None

    means.leases.release = gives_nothing_back  # type: ignore[method-assign]
    async with Road(replace(means, changes=Changes(world, dies))) as road:
        await road.receive(click(world, offer_id(waiting)))
        async with asyncio.timeout(10):
            while not world.cloud.sent:
                await world.database.read(lambda connection: None)


class Changes:
    """The cloud's changes with a `send` of the test's own."""

    def __init__(self, world: World, send: Callable[..., Any]) -> None:
        self.prepare = world.cloud.prepare
        self.send = send


async def test_what_a_dead_process_did_is_taken_over_when_its_lease_has_lapsed(world: World) -> None:
    await offered(world)
    await leave_behind(world)
    async with Road(replica(world, "alive")) as road:
        await road.sweep_once()
        await road.drain()
        assert (await world.last()).state is State.CALLING  # type: ignore[union-attr]
        await lapse(world.database)
        await road.sweep_once()
        await road.drain()
    after = await world.last()
    assert outcome(after) is OutcomeCode.STOPPED
    assert len({intent.nonce for intent in world.cloud.sent}) == 1


async def test_a_process_that_was_paused_in_its_call_writes_nothing_when_it_wakes_up(world: World) -> None:
    waiting = await offered(world)
    means = replica(world, "paused")
    others = replica(world, "awake")

    async def is_paused_too(leases: object) -> Renewal:
        return Renewal()

    means.leases.renew = is_paused_too  # type: ignore[method-assign]

    async def pauses(intent: Intent, **_: Any) -> Receipt:
        receipt = await world.cloud.send(intent)
        await lapse(world.database)
        async with Road(others) as other:
            await other.sweep_once()
            await other.drain()
        return receipt

    async with Road(replace(means, changes=Changes(world, pauses))) as road:
        await road.receive(click(world, offer_id(waiting)))
        await road.drain()
    assert outcome(await now(world, waiting)) is OutcomeCode.STOPPED
    assert await entries(world, "call:accepted") == 1
    assert await entries(world, "proposal:ended") == 1
    assert len({intent.nonce for intent in world.cloud.sent}) == 1


async def test_a_process_that_was_paused_before_its_call_does_not_send_it_any_more(world: World) -> None:
    waiting = await offered(world)

    async def was_paused(intent: Intent, *, is_held: Callable[[], bool]) -> Receipt:
        assert is_held()
        raise LeaseLost("paused")

    async with Road(replace(replica(world, "paused"), changes=Changes(world, was_paused))) as road:
        await road.receive(click(world, offer_id(waiting)))
        await road.drain()
    assert (await now(world, waiting)).state is State.CALLING
    await lapse(world.database)
    assert outcome(await world.go_on()) is OutcomeCode.STOPPED


async def test_a_hundred_clicks_of_ten_people_over_four_processes_are_one_yes(world: World) -> None:
    waiting = await offered(world)
    roads = [Road(replica(world, f"r{number}")) for number in range(4)]
    people = ("U0ONCALLA1", "U0ONCALLB2")
    for road in roads:
        await road.__aenter__()
    clicks = [
        roads[number % 4].receive(click(world, offer_id(waiting), number, people[number % 2])) for number in range(100)
    ]
    assert all(await asyncio.gather(*clicks))
    for road in roads:
        await road.drain()
        await road.__aexit__()
    assert outcome(await now(world, waiting)) is OutcomeCode.STOPPED
    assert len(world.cloud.sent) == 1
    assert await entries(world, "proposal:confirmed") == 1
    assert await entries(world, "click:refused") == 99


async def test_work_is_handed_over_at_once_when_a_process_stops(world: World) -> None:
    waiting = await offered(world)
    world.cloud.is_obeyed = False
    async with Road(replace(replica(world, "stops"), sleep=asyncio.sleep)) as road:
        await road.receive(click(world, offer_id(waiting)))
        async with asyncio.timeout(10):
            while (await now(world, waiting)).state is not State.FOLLOWING:
                await world.database.read(lambda connection: None)
        road.stop_taking_work()
        await road.finish(5)
        later = click(world, offer_id(waiting), 2)
        assert await road.receive(later)  # written down for another process
    world.cloud.is_obeyed = True
    world.cloud.counts = numbers(CANCELED=9)
    async with Road(replica(world, "goes on")) as road:
        await road.sweep_once()
        await road.drain()
    assert outcome(await now(world, waiting)) is OutcomeCode.STOPPED
    assert await world.found_open() == []


async def test_an_expired_offer_is_ended_by_one_process(world: World) -> None:
    waiting = await offered(world)
    world.clock.pass_by(3600)
    async with Road(replica(world, "a")) as one, Road(replica(world, "b")) as two:
        await asyncio.gather(one.sweep_once(), two.sweep_once())
        await one.drain()
        await two.drain()
    assert outcome(await now(world, waiting)) is OutcomeCode.EXPIRED
    assert await entries(world, "proposal:ended") == 1


async def test_a_repeated_command_shows_the_pending_card(world: World) -> None:
    waiting = await offered(world)
    assert await world.ask() == waiting
    [reply] = [owed.post for owed in await world.store.fetch_owed() if owed.post.kind is PostKind.REPLY]
    assert waiting.offer is not None
    assert (reply.pointing_to, reply.preview) == (waiting.proposal_id, waiting.offer.preview)


async def test_of_the_same_command_at_two_processes_one_becomes_a_card_and_the_other_points_to_it(
    world: World,
) -> None:
    async with Road(replica(world, "a")) as one, Road(replica(world, "b")) as two:
        for number, road in enumerate((one, two)):
            assert await road.receive(delivery(f"ask{number}", received_at=world.clock()))
        await one.drain()
        await two.drain()
    [waiting] = await world.store.fetch_on_jobs("prod-shanghai", [TARGET.job])
    replies = [owed.post for owed in await world.store.fetch_owed() if owed.post.kind is PostKind.REPLY]
    assert [reply.pointing_to for reply in replies] == [waiting.proposal_id]


# A stop ends what it makes pointless, in the transaction that approves it.


async def test_a_confirmed_halt_ends_a_pending_cancel_that_it_covers(world: World) -> None:
    world.cloud.job = replace(world.cloud.job, kind=JobKind.DYNAMIC)
    cancel = await offered(world)
    halt = await offered(world, "job.halt")
    await world.click(offer_id=offer_id(halt))
    assert outcome(await now(world, halt)) is OutcomeCode.STOPPED
    assert outcome(await now(world, cancel)) is OutcomeCode.SUPERSEDED
    assert "job.halt of the same rollout was confirmed" in await world.said(PostKind.BROADCAST)
    assert len(world.cloud.sent) == 2  # the strategy and the tasks


async def test_a_cancel_that_stops_more_than_the_halt_goes_on_waiting(world: World) -> None:
    world.cloud.job = replace(world.cloud.job, kind=JobKind.DYNAMIC)
    cancel = await offered(world, params=frozenset({"in_progress", "queued"}))
    halt = await offered(world, "job.halt")
    await world.click(offer_id=offer_id(halt))
    assert (await now(world, cancel)).state is State.OFFERED


async def test_a_cancel_does_not_end_a_halt_of_a_dynamic_rollout(world: World) -> None:
    world.cloud.job = replace(world.cloud.job, kind=JobKind.DYNAMIC)
    halt = await offered(world, "job.halt")
    cancel = await offered(world)
    await world.click(offer_id=offer_id(cancel))
    assert (await now(world, halt)).state is State.OFFERED


async def test_a_confirmed_stop_ends_a_pending_retry(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(number) for number in range(3)]
    world.cloud.counts = numbers(FAILED=3, QUEUED=9)
    retry = await offered(world, "task.retry", params=frozenset({"failed"}))
    cancel = await offered(world)
    await world.click(offer_id=offer_id(cancel))
    assert outcome(await now(world, retry)) is OutcomeCode.SUPERSEDED
    assert outcome(await now(world, cancel)) is OutcomeCode.STOPPED


async def test_of_a_retry_and_a_stop_confirmed_at_once_the_retry_is_sent_before_or_never(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(number) for number in range(3)]
    world.cloud.counts = numbers(FAILED=3, QUEUED=9)
    retry = await offered(world, "task.retry", params=frozenset({"failed"}))
    cancel = await offered(world)
    async with Road(replica(world, "a")) as one, Road(replica(world, "b")) as two:
        await asyncio.gather(
            one.receive(click(world, offer_id(retry))), two.receive(click(world, offer_id(cancel), 2, "U0ONCALLB2"))
        )
        await one.drain()
        await two.drain()
    ended = await now(world, retry)
    was_sent = any(intent.step.tasks for intent in world.cloud.sent)
    assert outcome(await now(world, cancel)) is OutcomeCode.STOPPED
    assert was_sent == any(call.answer is CallAnswer.ACCEPTED for call in ended.calls)
    assert was_sent != (outcome(ended) is OutcomeCode.SUPERSEDED)


async def test_a_cancel_whose_call_has_begun_runs_to_its_own_last_line(world: World) -> None:
    world.cloud.job = replace(world.cloud.job, kind=JobKind.DYNAMIC)
    cancel = await offered(world)
    halt = await offered(world, "job.halt")
    world.cloud.is_obeyed = False

    async def halts_meanwhile(intent: Intent, **_: Any) -> Receipt:
        world.cloud.is_obeyed = True
        async with Road(replica(world, "halts")) as other:
            await other.receive(click(world, offer_id(halt), 2, "U0ONCALLB2"))
            await other.drain()
        return await world.cloud.send(intent)

    async with Road(replace(replica(world, "cancels"), changes=Changes(world, halts_meanwhile))) as road:
        await road.receive(click(world, offer_id(cancel)))
        await road.drain()
    assert outcome(await now(world, halt)) is OutcomeCode.STOPPED
    ended = await now(world, cancel)
    assert ended.state is State.FINISHED
    assert ended.outcome is not None
    assert ended.outcome.code is not OutcomeCode.SUPERSEDED
    assert world.cloud.counts[TaskState.QUEUED] == 0


async def test_a_stop_of_one_device_ends_no_stop_of_another(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(number, TaskState.QUEUED) for number in range(3)]
    device = {"job": "", "product": "a1Gateway01"}
    one = await offered(world, "device.cancel", devices=("gw-000",), **device)
    two = await offered(world, "device.cancel", devices=("gw-001",), **device)
    await world.click(offer_id=offer_id(one))
    assert (await now(world, two)).state is State.OFFERED


async def test_an_expired_offer_that_another_process_carried_out_is_not_said_to_have_sent_nothing(
    world: World,
) -> None:
    waiting = await offered(world)
    async with Road(replica(world, "other")) as road:
        await road.receive(click(world, offer_id(waiting)))
        await road.drain()
    world.clock.pass_by(3600)
    await world.click(offer_id=offer_id(waiting))  # this process still remembers the offer
    said = await world.said(PostKind.REPLY)
    assert "Nothing was sent" not in said
    assert said
