"""The bot's clock is set forward and back by an hour and a day while a change is in each of its states.

Slack's clock and the cloud's stay right, so that neither takes anything of a bot whose clock is wrong: what matters is
that nothing then hangs for longer than its longest span, that nothing is done twice, and that people are told the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from bot.sandbox.iot_faults import Fault, FaultKind
from bot.storage.database import open_database
from tests.crash.flows import Flow, flow
from tests.crash.world import World, world
from tests.serving import Process, eventually, processes

HOUR, DAY = 3600, 86400
IS_WHOLE = os.environ.get("OTABRAKE_TEST_WHOLE_MATRIX") == "1"
FORWARD = {"+1h": HOUR, **({"+1d": DAY} if IS_WHOLE else {})}
BACKWARD = {"-1d": -DAY, **({"-1h": -HOUR} if IS_WHOLE else {})}
JUMPS = pytest.mark.parametrize("jump", [*FORWARD.values(), *BACKWARD.values()], ids=[*FORWARD, *BACKWARD])
TIMINGS = {
    "offer_seconds": 8,
    "follow_seconds": 5,
    "first_call_seconds": 4,
    "retry_seconds": 6,
    "rate_seconds": 4,
    "restart_seconds": 4,
    "poll_seconds": 0.2,
    "poll_most_seconds": 0.5,
}
LONGEST_SECONDS = 8 + 6
"""The longest of these spans, and so long the sweep, the outbox and this machine may take."""

CALL = "CancelOTATaskByJob"
CANCEL = flow("cancel", 1)
RETRY = flow("retry", 2)


@dataclass(slots=True)
class Scene:
    """A world with one bot in it, whose clock is set by `jump`."""

    at: World
    bot: Process
    url: str
    clock: Path
    what: Flow

    def jump(self, seconds: float) -> None:
        after = self.clock.with_suffix(".new")
        after.write_text(str(seconds))
        after.rename(self.clock)

    async def typed(self) -> None:
        assert (await self.at.types(self.bot.url, self.what.user, self.what.typed)).is_taken
        await eventually(lambda: self.at.live_button(self.what.job))

    async def confirmed(self) -> None:
        await self.typed()
        button = self.at.live_button(self.what.job)
        assert (await self.at.clicks(self.bot.url, self.what.user, button or "")).is_taken

    async def state(self) -> str:
        database = open_database(self.url)
        try:
            unit = text("SELECT state FROM proposals")
            found = await database.read(lambda connection: connection.scalars(unit).all())
            return " ".join(found)
        finally:
            await database.close()

    async def is_in(self, *states: str) -> bool:
        return await self.state() in states

    async def ends(self, within_seconds: float = LONGEST_SECONDS) -> None:
        """The change comes to its end, and its card and thread say so."""
        await eventually(lambda: self.is_in("finished"), within_seconds)
        await eventually(lambda: self.at.live_button(self.what.job) is None)
        await eventually(lambda: "following" not in self.at.cards(self.what.job)[0].text)

    @property
    def effects(self) -> list[str]:
        return [effect.action for effect in self.at.fleet.history]


@contextlib.asynccontextmanager
async def scene_on(folder: Path, url: str, what: Flow) -> AsyncIterator[Scene]:
    clock = folder / "clock"
    clock.write_text("0")
    victim = ("-m", "tests.broken_victim", json.dumps({"clock": str(clock), "timings": TIMINGS}))
    async with world(folder, url, jobs=[what.rollout]) as at, processes() as start:
        bot = await (await start(at.settings, arguments=victim)).serving()
        yield Scene(at, bot, url, clock, what)


@pytest.fixture
async def scene(tmp_path: Path, empty_sqlite_url: str) -> AsyncIterator[Scene]:
    async with scene_on(tmp_path, empty_sqlite_url, CANCEL) as made:
        yield made


@JUMPS
async def test_an_offer_is_over_in_its_time(scene: Scene, jump: float) -> None:
    await scene.typed()
    scene.jump(jump)
    await scene.ends()
    assert scene.effects == []
    assert "expired" in scene.at.cards(CANCEL.job)[0].text


@pytest.mark.parametrize("jump", [*FORWARD.values()], ids=[*FORWARD])
async def test_an_offer_that_was_made_in_the_future_is_not_open_until_then(scene: Scene, jump: float) -> None:
    """The clock goes wrong while the target is read for the card, and is right again when the card stands."""
    scene.at.faults.add(Fault(FaultKind.LATENCY, "ListOTATaskByJob", seconds=1.5))
    assert (await scene.at.types(scene.bot.url, CANCEL.user, CANCEL.typed)).is_taken
    await asyncio.sleep(1)
    scene.jump(jump)
    await eventually(lambda: scene.is_in("offered", "finished"))
    scene.jump(0)
    await scene.ends()
    assert scene.effects == []


@JUMPS
async def test_a_yes_whose_target_cannot_be_read_is_over_in_its_time(scene: Scene, jump: float) -> None:
    await scene.typed()
    scene.at.faults.add(Fault(FaultKind.THROTTLE, "QueryOTAJob"))
    button = scene.at.live_button(CANCEL.job)
    assert (await scene.at.clicks(scene.bot.url, CANCEL.user, button or "")).is_taken
    await eventually(lambda: scene.is_in("approved"))
    scene.jump(jump)
    await scene.ends()
    assert scene.effects == []


@JUMPS
async def test_a_call_that_is_throttled_is_given_up_in_its_time(scene: Scene, jump: float) -> None:
    scene.at.faults.add(Fault(FaultKind.THROTTLE, CALL))
    await scene.confirmed()
    await eventually(lambda: scene.is_in("calling"))
    scene.jump(jump)
    await scene.ends()
    assert scene.effects == []


@JUMPS
async def test_a_call_under_way_is_made_once_and_followed_to_its_end(scene: Scene, jump: float) -> None:
    scene.at.faults.add(Fault(FaultKind.LATENCY, CALL, calls=1, seconds=1))
    await scene.confirmed()
    await eventually(lambda: scene.is_in("calling"))
    scene.jump(jump)
    await scene.ends()
    assert scene.effects == [CALL]


@JUMPS
async def test_a_lost_answer_is_found_out_in_its_time(scene: Scene, jump: float) -> None:
    scene.at.faults.add(Fault(FaultKind.ACCEPT_THEN_CLOSE, CALL))
    await scene.confirmed()
    await eventually(lambda: scene.is_in("unknown", "following"))
    scene.jump(jump)
    await scene.ends(LONGEST_SECONDS + 20)
    assert scene.effects == [CALL]


@JUMPS
async def test_devices_are_followed_for_their_time(scene: Scene, jump: float) -> None:
    await scene.confirmed()
    await eventually(lambda: scene.is_in("following"))
    scene.jump(jump)
    await scene.ends()
    assert scene.effects == [CALL]


@JUMPS
async def test_tasks_that_run_again_are_looked_at_for_their_time(
    tmp_path: Path, empty_sqlite_url: str, jump: float
) -> None:
    async with scene_on(tmp_path, empty_sqlite_url, RETRY) as scene:
        await eventually(lambda: scene.at.fleet.job(RETRY.job).counts(scene.at.fleet.now()).get("FAILED", 0) > 5, 40)
        await scene.confirmed()
        await eventually(lambda: scene.is_in("following"))
        scene.jump(jump)
        await scene.ends()
        assert scene.effects == ["ReupgradeOTATask"] * 2  # ten tasks in a call at most


@JUMPS
async def test_a_clock_that_was_wrong_for_a_while_is_forgotten(scene: Scene, jump: float) -> None:
    """Wrong for two seconds, in which Slack's deliveries are refused; then people are served as ever."""
    scene.jump(jump)
    refused = await scene.at.types(scene.bot.url, CANCEL.user, CANCEL.typed)
    assert not refused.is_taken
    scene.jump(0)
    await scene.confirmed()
    await scene.ends()
    assert scene.effects == [CALL]
