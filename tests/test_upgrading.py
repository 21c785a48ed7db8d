"""An upgrade with work pending: what a release left goes on under today's code, to its own last line, and is done once.

The rows are those that the releases themselves wrote (`old_rows`), each moment as a `kill -9` would have left it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from bot.exchange import Delivery, Post, PostKind
from bot.model import Firmware, JobKind, OutcomeCode, StepKind, TaskState
from bot.ops import KNOWN
from bot.policy.load import load
from bot.proposals import Proposal, State
from bot.sandbox.server import sandbox
from bot.sandbox.workspace import Message
from bot.storage.codec import from_json
from bot.storage.database import open_database
from bot.storage.migrations import upgrade
from bot.storage.tables import entries, inbox, outbox, proposals
from bot.workflow.road import Road
from tests.conftest import Clock
from tests.old_rows import RELEASES, messages, moments, put_back, recorded
from tests.slots import OpenSlots
from tests.test_app import audit, effects, has_buttons, settled
from tests.values import job
from tests.world import World, living_world

RULES = b"""
instances:
  prod-shanghai: {region: cn-shanghai, account: a, channel: C0INCIDENT}
rules:
- {name: all, allow: [reads, changes], who: [U0ONCALLA1, U0RELEASE1]}
"""
STATIC, DYNAMIC, FIRMWARE = "7glPHmaDYLAYMD1HHutT02", "dYn4m1cRq2WsXe8RtGv501", "Gw421aFq8LkT2nVb6Wc001"
STRATEGY, TASKS = StepKind.CANCEL_STRATEGY, StepKind.CANCEL_TASKS


@dataclass(frozen=True)
class Course:
    """How it goes on from a moment: what is sent by itself, and after a yes; how many of these are the old version's
    own calls, sent again byte for byte; and how it ends."""

    sent: tuple[StepKind, ...] = ()
    again: int = 0
    is_waiting: bool = False
    ends: OutcomeCode = OutcomeCode.STOPPED


COURSES = {
    "cancel: ask written": Course((TASKS,), is_waiting=True),
    "cancel: received": Course((TASKS,), is_waiting=True),
    "cancel: offered": Course((TASKS,), is_waiting=True),
    "cancel: waiting": Course((TASKS,), is_waiting=True),
    "cancel: click written": Course((TASKS,)),
    "cancel: approved": Course((TASKS,)),
    "cancel: calling": Course((TASKS,), again=1),
    "cancel: following": Course(),
    "cancel: over": Course(),
    "halt: calling": Course((STRATEGY, TASKS), again=1),
    "halt: unknown": Course((STRATEGY, TASKS), again=1),
    "halt: following": Course(),
    "firmware: waiting": Course((TASKS, STRATEGY, TASKS), is_waiting=True),
    "firmware: calling": Course((TASKS, STRATEGY, TASKS), again=1),
    "firmware: unknown": Course((TASKS, STRATEGY, TASKS), again=1),
    "firmware: following": Course(),
    # Run again is never sent a second time: what became of it is not known, and that is said.
    "retry: calling": Course(ends=OutcomeCode.UNKNOWN_OUTCOME),
    "retry: unknown": Course(ends=OutcomeCode.UNKNOWN_OUTCOME),
    # These clouds have nothing of what was asked for any more.
    "retry: waiting": Course(is_waiting=True, ends=OutcomeCode.NOT_DONE),
    "retry: following": Course(ends=OutcomeCode.NOT_DONE),
    "rate: waiting": Course(is_waiting=True, ends=OutcomeCode.NOT_DONE),
}


def test_every_moment_has_its_course() -> None:
    assert {moment for _, moment in moments()} == set(COURSES)


@contextlib.asynccontextmanager
async def upgraded(url: str, clock: Clock, release: str, moment: str) -> AsyncIterator[World]:
    """Today's road on the database that the release left, a second later."""
    database = open_database(url)
    await database.run(partial(put_back, release=release, moment=moment))
    await database.close()
    clock.at = recorded_at(release, moment) + timedelta(seconds=1)
    async with living_world(clock, url) as world:
        world.policy[0] = load({"p.yaml": RULES}, operations=KNOWN)
        world.cloud.job = job(firmware_id=FIRMWARE)
        world.cloud.packages = [Firmware(FIRMWARE, "gateway-4.2.1", "a1Gateway01", "4.2.1")]
        moving = dict.fromkeys(TaskState, 0) | {TaskState.QUEUED: 305}
        if moment.endswith("following"):  # the cloud had obeyed
            moving |= {TaskState.QUEUED: 0, TaskState.CANCELED: 305}
        world.cloud.counts = dict(moving)
        world.cloud.others[DYNAMIC] = job(job_id=DYNAMIC, kind=JobKind.DYNAMIC, firmware_id=FIRMWARE), dict(moving)
        yield world


def recorded_at(release: str, moment: str) -> datetime:
    latest = max(row["at"] for table, row in recorded(release)[moment] if table == "entries")
    return datetime.fromisoformat(latest).replace(tzinfo=UTC)


async def newest(world: World) -> Proposal:
    """The proposal that the moment is about: the last that was written."""
    known = [entry.proposal_id for entry in await rows(world, entries)]
    found = await world.store.fetch_proposal(next(each for each in reversed(known) if each))
    assert found is not None
    return found


async def rows(world: World, table: Any) -> list[Any]:
    key = next(iter(table.primary_key))
    return list(await world.database.read(lambda connection: connection.execute(select(table).order_by(key)).all()))


async def sweep(world: World) -> None:
    """What a new process does by itself."""
    async with Road(world.means) as road:
        await road.sweep_once()
        await road.drain()


def on_both(moment: str) -> bool:
    """What the two databases may differ in shows in a cancel, which has all states but one, and in a lost answer."""
    return moment.startswith("cancel") or moment == "halt: unknown"


@pytest.fixture
def left_in(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


LEFT_IN = [
    *(("sqlite", *left) for left in moments()),
    *(pytest.param("postgres", *left, marks=pytest.mark.postgres) for left in moments() if on_both(left[1])),
]


@pytest.mark.parametrize(("left_in", "release", "moment"), LEFT_IN, indirect=["left_in"])
async def test_what_a_release_left_goes_on_and_is_done_once(
    left_in: str, clock: Clock, release: str, moment: str
) -> None:
    course = COURSES[moment]
    calls = [
        row["nonce"] for table, row in recorded(release)[moment] if table == "calls" and row["answer"] != "accepted"
    ]
    async with upgraded(left_in, clock, release, moment) as world:
        before = await rows(world, entries)
        await sweep(world)
        if course.is_waiting:
            waiting = await newest(world)
            assert (waiting.state, world.cloud.sent) == (State.OFFERED, [])
            assert waiting.offer is not None
            world.last = lambda: newest(world)  # type: ignore[method-assign]
            await world.click(user=waiting.requester, offer_id=waiting.offer.offer_id)
        ended = await newest(world)
        assert ended.outcome is not None
        assert (ended.state, ended.outcome.code) == (State.FINISHED, course.ends)
        assert [intent.step.kind for intent in world.cloud.sent] == list(course.sent)
        assert [intent.nonce for intent in world.cloud.sent][: course.again] == calls[: course.again]
        assert await world.found_open() == []
        assert (await rows(world, entries))[: len(before)] == before
        last = [post for post in await posts(world) if post.kind is PostKind.BROADCAST]
        assert last or moment == "cancel: over"


async def posts(world: World) -> list[Post]:
    return [owed.post for owed in await world.store.fetch_owed()]


@pytest.mark.parametrize(("release", "moment"), moments())
async def test_every_row_of_a_release_is_read_by_todays_codec(
    empty_sqlite_url: str, clock: Clock, release: str, moment: str
) -> None:
    left = recorded(release)[moment]
    async with upgraded(empty_sqlite_url, clock, release, moment) as world:
        for row in await rows(world, proposals):
            read = await world.store.fetch_proposal(row.proposal_id)
            assert read is not None
            assert (read.state.value, read.version) == (row.state, row.version)
            assert len(read.calls) == sum(
                of["proposal_id"] == row.proposal_id for table, of in left if table == "calls"
            )
        for row in await rows(world, inbox):
            assert from_json(Delivery, row.body).delivery_id == row.delivery_id
        for row in await rows(world, outbox):
            assert from_json(Post, row.body).lane == row.lane
        owed = [of["post_id"] for table, of in left if table == "outbox" and of["settled_at"] is None]
        assert [each.post_id for each in await world.store.fetch_owed()] == sorted(owed)
        for table in (entries, inbox, outbox, proposals):
            assert len(await rows(world, table)) == sum(name == table.name for name, _ in left), table.name


@pytest.mark.parametrize("release", RELEASES)
async def test_an_old_offer_that_has_expired_ends_without_a_call(
    empty_database_url: str, clock: Clock, release: str
) -> None:
    async with upgraded(empty_database_url, clock, release, "cancel: waiting") as world:
        clock.pass_by(20 * 60)
        await sweep(world)
        ended = await newest(world)
        assert ended.outcome is not None
        assert (ended.outcome.code, world.cloud.sent) == (OutcomeCode.EXPIRED, [])


@pytest.mark.parametrize("release", RELEASES)
async def test_an_old_yes_that_was_not_carried_out_in_time_is_not_carried_out_any_more(
    empty_database_url: str, clock: Clock, release: str
) -> None:
    """The upgrade took an hour: nobody expects that call now."""
    async with upgraded(empty_database_url, clock, release, "cancel: approved") as world:
        clock.pass_by(3600)
        await sweep(world)
        ended = await newest(world)
        assert ended.outcome is not None
        assert (ended.outcome.code, world.cloud.sent) == (OutcomeCode.NOT_DONE, [])


# The whole bot: the buttons that people see are those that the old version posted.


@pytest.mark.parametrize("release", RELEASES)
async def test_a_card_of_the_old_version_is_confirmed_at_its_old_buttons(
    empty_database_url: str, clock: Clock, release: str
) -> None:
    database = open_database(empty_database_url)
    await database.run(partial(put_back, release=release, moment="cancel: waiting"))
    await upgrade(database)
    await database.close()
    clock.at = recorded_at(release, "cancel: waiting") + timedelta(seconds=60)
    options = {"clock": clock, "sleep": clock.sleep, "slots": OpenSlots, "database_url": empty_database_url}
    async with httpx.AsyncClient(timeout=20) as http, sandbox(**options) as at:
        for told in messages(release):
            at.slack.workspace.say(Message(**{**told, "blocks": tuple(told["blocks"])}))
        [shown] = [one for one in messages(release) if '"actions"' in str(one["blocks"]).replace("'", '"')]
        gesture = {"user": "U0ONCALLA1", "channel": "C0INCIDENT", "ts": shown["ts"], "action_id": "proposal.confirm"}
        assert (await http.post(f"{at.slack_url}/_sandbox/click", json=gesture)).status_code == 200
        await settled(at)
        assert effects(at) == ["CancelOTATaskByJob"]
        card, buttons, *said = at.slack.workspace.messages("C0INCIDENT", shown["thread_ts"])
        assert (card.ts, buttons.ts) == (shown["thread_ts"], shown["ts"])
        assert "stopped" in card.text
        assert not has_buttons(buttons)
        final = [one for one in said if one.is_broadcast][-1]
        assert "topped 305, " in final.text
        assert [name for name, _ in await audit(at)][-4:] == [
            "proposal:confirmed",
            "call:intended",
            "call:accepted",
            "proposal:ended",
        ]
