"""Discovery: rounds over a cloud that answers as the test says, kept in a database."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from bot.discovery import NEWEST, Discovery, Tools, Turns
from bot.errors import CloudError, CloudRefused, CloudUnreachable, StoreUnavailable
from bot.model import Firmware, Instance, Job, JobKind, JobState, Target
from bot.ports import Purpose, Watched
from bot.storage.database import Database, open_database
from bot.storage.found import SqlFound
from bot.storage.migrations import upgrade
from bot.storage.readings import SqlReadings
from tests.conftest import Clock
from tests.values import AT

HERE, THERE = "prod-shanghai", "prod-beijing"
LONG_AGO = AT - timedelta(days=9)
NO_KEY = CloudRefused("InvalidAccessKeyId.NotFound", "Specified access key is not found.", request_id="RID")


class Cloud:
    """Packages and batches by instance; answers with an error where one is set, and does not answer where it hangs."""

    def __init__(self) -> None:
        self.firmware: dict[str, list[Firmware]] = defaultdict(list)
        self.jobs: dict[str, list[Job]] = defaultdict(list)
        self.troubles: dict[str, Exception] = {}
        self.hanging: set[str] = set()
        self.asked: list[str] = []
        self.dropped: list[str] = []

    def upload(self, firmware_id: str, *jobs: Job, instance: str = HERE, days: float = 0) -> None:
        created_at = AT - timedelta(days=days)
        made = Firmware(firmware_id, "gateway-fw", "a1Gateway01", "4.2.1", "4.2.0", created_at)
        self.firmware[instance].append(made)
        self.jobs[firmware_id] = list(jobs)

    async def fetch_firmware(self, instance: str, *, purpose: Purpose) -> tuple[Firmware, ...]:
        await self._answer(instance, purpose)
        newest = sorted(self.firmware[instance], key=lambda each: each.created_at or AT, reverse=True)
        return tuple(newest)

    async def fetch_jobs_of(self, instance: str, firmware_id: str, *, purpose: Purpose) -> tuple[Job, ...]:
        await self._answer(firmware_id, purpose)
        return tuple(self.jobs[firmware_id])

    async def _answer(self, asked: str, purpose: Purpose) -> None:
        assert purpose is Purpose.DISCOVERY
        self.asked.append(asked)
        if asked in self.hanging:
            try:
                await asyncio.Event().wait()
            finally:
                self.dropped.append(asked)
        if asked in self.troubles:
            raise self.troubles[asked]

    def take_asked(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


@dataclass
class Lines:
    """A log that is a list."""

    infos: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    errors: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def info(self, event: str, **facts: object) -> None:
        self.infos.append((event, facts))

    def error(self, event: str, **facts: object) -> None:
        self.errors.append((event, facts))


@dataclass
class World:
    cloud: Cloud
    clock: Clock
    log: Lines
    found: SqlFound
    tools: Tools
    instances: dict[str, Instance]
    discovery: Discovery

    async def round(self, *, after: float = 60) -> list[str]:
        """Lets time pass, and every round that is due then go to its end; what the cloud was asked."""
        self.clock.pass_by(after)
        self.discovery.tick()
        await self.discovery.drain()
        return self.cloud.take_asked()

    async def states(self) -> dict[str, JobState]:
        return {each.job.job_id: each.job.state for each in await self.found.fetch_found_jobs(self.instances)}


async def asleep(seconds: float) -> None:
    await asyncio.Event().wait()


def world_on(database: Database, clock: Clock, cloud: Cloud | None = None) -> World:
    instances = {HERE: Instance(HERE, "cn-shanghai")}
    cloud, log, found = cloud or Cloud(), Lines(), SqlFound(database)
    tools = Tools(
        reads=cloud,  # type: ignore[arg-type]
        found=found,
        turns=SqlReadings(database, clock=clock),
        instances=lambda: instances,
        clock=clock,
        sleep=asleep,
        log=log,
    )
    return World(cloud, clock, log, found, tools, instances, Discovery(tools))


@pytest.fixture
async def sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    opened = open_database(sqlite_url)
    await upgrade(opened)
    yield opened
    await opened.close()


@pytest.fixture
def world(sqlite: Database, clock: Clock) -> World:
    return world_on(sqlite, clock)


def batch(job_id: str, state: JobState = JobState.IN_PROGRESS, **bent: object) -> Job:
    """A batch as a list tells it: without its package's name and version."""
    return Job(job_id, state, JobKind.STATIC, "", created_at=LONG_AGO, **bent)  # type: ignore[arg-type]


async def test_a_round_learns_packages_and_their_batches_the_newest_package_first(world: World) -> None:
    world.cloud.upload("fw-1", batch("j1"), days=2)
    world.cloud.upload("fw-2", batch("j2", JobState.COMPLETED), batch("j3"), days=1)
    assert await world.round() == [HERE, "fw-2", "fw-1"]
    found = {each.job.job_id: each for each in await world.found.fetch_found_jobs([HERE])}
    assert set(found) == {"j1", "j2", "j3"}
    named = replace(batch("j1"), firmware_id="fw-1", firmware="gateway-fw", product="a1Gateway01", dest_version="4.2.1")
    assert (found["j1"].job, found["j1"].seen_at) == (named, world.clock())
    assert [each.firmware.firmware_id for each in await world.found.fetch_found_firmware([HERE])] == ["fw-2", "fw-1"]


async def test_a_batch_that_ended_is_seen_as_ended_at_the_next_round(world: World) -> None:
    world.cloud.upload("fw-1", batch("j1"), days=9)
    await world.round()
    assert await world.states() == {"j1": JobState.IN_PROGRESS}
    world.cloud.jobs["fw-1"] = [batch("j1", JobState.CANCELED)]
    await world.round()
    assert await world.states() == {"j1": JobState.CANCELED}


async def test_a_round_begins_once_a_minute_at_most_also_after_a_restart(world: World) -> None:
    assert await world.round() == [HERE]
    assert await world.round(after=59) == []
    world.discovery = Discovery(world.tools)
    assert await world.round(after=0) == []
    assert await world.round(after=1) == [HERE]


async def test_a_package_on_which_all_is_over_since_long_is_looked_into_every_ten_minutes(world: World) -> None:
    world.cloud.upload("quiet", batch("j1", JobState.COMPLETED), days=9)
    world.cloud.upload("running", batch("j2"), days=8)
    world.cloud.upload("new", days=0.5)
    world.cloud.upload("unused", days=7)
    assert await world.round() == [HERE, "new", "unused", "running", "quiet"]
    for _ in range(9):
        assert await world.round() == [HERE, "new", "running"]
    assert await world.round() == [HERE, "new", "unused", "running", "quiet"]
    seen = {each.firmware.firmware_id: each.seen_at for each in await world.found.fetch_found_firmware([HERE])}
    await world.round()
    again = {each.firmware.firmware_id: each.seen_at for each in await world.found.fetch_found_firmware([HERE])}
    assert again == {name: at + timedelta(minutes=1) for name, at in seen.items()}


async def test_a_restart_begins_with_what_is_in_the_database(world: World) -> None:
    world.cloud.upload("quiet", batch("j1", JobState.COMPLETED), days=9)
    world.cloud.upload("running", batch("j2"), days=8)
    await world.round()
    world.discovery = Discovery(world.tools)
    assert set(await world.states()) == {"j1", "j2"}
    assert await world.round() == [HERE, "running"]


async def test_packages_beyond_the_newest_stay_as_they_were_seen_and_are_forgotten_after_a_month(world: World) -> None:
    world.cloud.upload("fw-old", batch("j-old"), days=9)
    await world.round()
    seen_at = world.clock()
    for n in range(NEWEST):
        world.cloud.upload(f"fw-{n}", days=5 + n / 100)
    assert "fw-old" not in await world.round()
    assert [each.seen_at for each in await world.found.fetch_found_jobs([HERE])] == [seen_at]
    await world.round(after=30 * 86_400 - 120)
    assert set(await world.states()) == {"j-old"}
    await world.round(after=121)
    assert await world.states() == {}
    assert "fw-old" not in {each.firmware.firmware_id for each in await world.found.fetch_found_firmware([HERE])}


async def test_a_wrong_key_is_told_once_and_asked_about_less_and_less_until_it_is_mended(world: World) -> None:
    world.cloud.troubles[HERE] = NO_KEY
    rounds = [(minute, await world.round()) for minute in range(1, 41)]
    begun = [minute for minute, asked in rounds if asked]
    assert begun == [1, 3, 7, 15, 25, 35]
    told = {"instance": HERE, "why": "InvalidAccessKeyId.NotFound", "next_seconds": 120}
    assert world.log.errors == [("discovery is behind", told)]
    del world.cloud.troubles[HERE]
    assert [bool(await world.round()) for _ in range(7)] == [False] * 4 + [True] * 3
    assert world.log.infos == [("discovery is well again", {"instance": HERE})]


async def test_a_new_trouble_is_told_beside_the_old_one(world: World) -> None:
    errors: list[CloudError] = [NO_KEY, CloudUnreachable("no"), NO_KEY, CloudUnreachable("no")]
    for error in errors:
        world.cloud.troubles[HERE] = error
        await world.round(after=600)
    assert [facts["why"] for _, facts in world.log.errors] == ["InvalidAccessKeyId.NotFound", "CloudUnreachable"]


async def test_an_instance_that_does_not_answer_holds_up_no_other(world: World) -> None:
    world.instances[THERE] = Instance(THERE, "cn-beijing")
    world.cloud.upload("fw-2", batch("j2"), instance=THERE)
    world.cloud.hanging.add(HERE)
    async with world.discovery:
        for _ in range(2):
            world.clock.pass_by(60)
            while [each.seen_at for each in await world.found.fetch_found_jobs([THERE])] != [world.clock()]:
                world.discovery.tick()
    assert world.cloud.asked.count(THERE) == 2
    assert world.cloud.dropped == [HERE]


async def test_one_package_that_cannot_be_read_hides_no_other_and_comes_last_next_time(world: World) -> None:
    world.cloud.upload("fw-1", batch("j1"), days=2)
    world.cloud.upload("fw-2", batch("j2"), days=1)
    world.cloud.troubles["fw-2"] = CloudRefused("iot.ota.FirmwareNotExist", "gone")
    assert await world.round() == [HERE, "fw-2", "fw-1"]
    assert await world.round() == [HERE, "fw-1", "fw-2"]
    assert set(await world.states()) == {"j1"}
    assert [facts["why"] for _, facts in world.log.errors] == ["iot.ota.FirmwareNotExist"]
    world.cloud.troubles.clear()
    await world.round()
    assert set(await world.states()) == {"j1", "j2"}
    assert await world.round() == [HERE, "fw-2", "fw-1"]


async def test_a_round_in_which_nothing_can_be_read_is_given_up_early(world: World) -> None:
    for n in range(9):
        world.cloud.upload(f"fw-{n}", batch(f"j{n}"), days=n)
        world.cloud.troubles[f"fw-{n}"] = CloudUnreachable("the account is at its limit")
    assert await world.round() == [HERE, "fw-0", "fw-1", "fw-2"]
    assert await world.round() == []
    assert await world.round() == [HERE, "fw-3", "fw-4", "fw-5"]
    assert len(world.log.errors) == 1


async def test_an_instance_that_left_the_policy_is_asked_no_more_and_one_that_joined_is(world: World) -> None:
    assert await world.round() == [HERE]
    del world.instances[HERE]
    world.instances[THERE] = Instance(THERE, "cn-beijing")
    assert await world.round() == [THERE]


async def test_of_two_processes_one_goes_round_at_a_time_and_the_other_takes_over(
    database: Database, any_database_url: str, clock: Clock
) -> None:
    second = open_database(any_database_url)
    worlds = [world_on(database, clock), world_on(second, clock)]
    for minute in range(3):
        assert [await world.round(after=60 if world is worlds[0] else 0) for world in worlds] == [[HERE], []], minute
    assert [await worlds[1].round(after=60) for _ in range(2)] == [[HERE], [HERE]]
    await second.close()


async def test_a_long_round_keeps_its_turn(sqlite: Database, clock: Clock) -> None:
    class SlowCloud(Cloud):
        async def _answer(self, asked: str, purpose: Purpose) -> None:
            await super()._answer(asked, purpose)
            clock.pass_by(25)
            seen.append(await SqlReadings(sqlite, clock=clock).may_read(turn, hold_seconds=0))

    seen: list[float] = []
    turn = Watched(Target(HERE))
    world = world_on(sqlite, clock, SlowCloud())
    for n in range(5):
        world.cloud.upload(f"fw-{n}", days=n / 10)
    assert len(await world.round()) == 6
    assert min(seen) > 0
    assert await world.round(after=0) == [HERE, *(f"fw-{n}" for n in range(5))]


async def test_it_stops_at_once_in_the_middle_of_a_round(world: World) -> None:
    world.cloud.upload("fw-1", batch("j1"))
    world.cloud.hanging.add("fw-1")
    async with world.discovery:
        while "fw-1" not in world.cloud.asked:
            assert await world.states() == {}
    assert world.cloud.dropped == ["fw-1"]
    assert await world.states() == {}


async def test_a_database_that_is_away_is_waited_for(world: World) -> None:
    class Away:
        """Turns that cannot be had the first time."""

        def __init__(self, turns: Turns) -> None:
            self.put_off = turns.put_off
            self._turns = turns
            self._is_away = True

        async def may_read(self, watched: Watched, *, hold_seconds: float) -> float:
            if self._is_away:
                self._is_away = False
                raise StoreUnavailable("away")
            return await self._turns.may_read(watched, hold_seconds=hold_seconds)

    world.discovery = Discovery(replace(world.tools, turns=Away(world.tools.turns)))
    assert await world.round() == []
    assert [facts["why"] for _, facts in world.log.errors] == ["the database cannot be used"]
    assert [bool(await world.round()) for _ in range(3)] == [False, True, True]


async def test_a_fault_of_our_own_is_logged_once_with_where_it_was_and_ends_nothing(world: World) -> None:
    world.cloud.troubles[HERE] = KeyError("ours")
    for _ in range(3):
        assert await world.round(after=600) == [HERE]
    assert [event for event, _ in world.log.errors] == ["discovery failed", "discovery is behind"]
    assert world.log.errors[0][1]["exc_info"] is world.cloud.troubles[HERE]


async def test_a_clock_that_is_set_back_stops_nothing(world: World) -> None:
    assert await world.round(after=86_400) == [HERE]
    assert await world.round(after=-86_400) == [HERE]


async def test_rounds_go_on_by_themselves(world: World) -> None:
    naps: list[float] = []
    is_enough = asyncio.Event()

    async def nap(seconds: float) -> None:
        await world.discovery.drain()
        if len(naps) == 24:
            is_enough.set()
            await asyncio.Event().wait()
        naps.append(seconds)
        world.clock.pass_by(seconds)

    async with Discovery(replace(world.tools, sleep=nap)) as world.discovery:
        await is_enough.wait()
    assert world.cloud.asked == [HERE] * 3
    assert set(naps) == {5}
