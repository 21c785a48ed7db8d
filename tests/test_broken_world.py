"""A bot whose database breaks while people use it: a real process between the fake Slack and the simulator.

What they are told meanwhile is true and comes in Slack's time, and it all goes on by itself when the database is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from bot.sandbox.iot_faults import Fault, FaultKind
from bot.storage.database import open_database
from tests.crash.flows import Flow, carry_out, flow
from tests.crash.world import World, world
from tests.own_postgres import OwnPostgres, own_postgres
from tests.serving import Process, eventually, processes

TIMINGS = {"follow_seconds": 15, "poll_seconds": 0.2, "poll_most_seconds": 0.5, "progress_seconds": 0.4}
VICTIM = ("-m", "tests.broken_victim", json.dumps({"timings": TIMINGS}))
ANSWER_SECONDS = 2.4
"""The bot gives itself 2 s of Slack's three; this machine may be busy."""

BACK_SECONDS = 2.0
CALL = "CancelOTATaskByJob"
CANCEL = flow("cancel", 1)
ASKED = f"status {CANCEL.job} on prod-shanghai"
TAKEN, NOT_DONE, UNSURE = "taken", "Not done: my database cannot be written now", "could not write this down in time"


@dataclass(slots=True)
class Scene:
    """A world with one bot in it, on `url`."""

    at: World
    bot: Process
    url: str

    async def rows(self, statement: str) -> list[tuple[object, ...]]:
        database = open_database(self.url)
        try:
            found = await database.read(lambda connection: connection.execute(text(statement)).all())
            return [tuple(row) for row in found]
        finally:
            await database.close()

    async def is_in(self, *states: str) -> bool:
        return await self.rows("SELECT state FROM proposals") in [[(state,)] for state in states]


@contextlib.asynccontextmanager
async def scene_on(folder: Path, url: str, flows: Sequence[Flow] = (CANCEL,)) -> AsyncIterator[Scene]:
    rollouts = [each.rollout for each in flows]
    async with world(folder, url, jobs=rollouts) as at, processes() as start:
        yield Scene(at, await (await start(at.settings, arguments=VICTIM)).serving(), url)


@pytest.fixture(scope="module")
def server() -> Iterator[OwnPostgres]:
    with own_postgres() as running:
        yield running


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody was told who typed a command, and after how many seconds."""

    told: str
    seconds: float


async def ask(scene: Scene) -> Answer:
    began = time.monotonic()
    deed = await scene.at.types(scene.bot.url, CANCEL.user, ASKED)
    body = deed.answer.body
    told = TAKEN if deed.is_taken else next((each for each in (NOT_DONE, UNSURE) if each in body), body or "error")
    return Answer(told, time.monotonic() - began)


async def keep_asking(scene: Scene, until: asyncio.Event) -> list[Answer]:
    """Somebody types a command four times a second, whatever comes."""
    async with asyncio.TaskGroup() as tasks:
        asked = []
        while not until.is_set():
            asked.append(tasks.create_task(ask(scene)))
            await asyncio.sleep(0.25)
    return [each.result() for each in asked]


async def until_taken(scene: Scene) -> float:
    began = time.monotonic()
    while True:
        if (await ask(scene)).told == TAKEN:
            return time.monotonic() - began
        await asyncio.sleep(0.05)


async def assert_told_the_truth(scene: Scene, answers: Sequence[Answer]) -> Counter[str]:
    """All in time; what was taken is answered, and of the rest nothing was kept."""
    told = Counter(answer.told for answer in answers)
    assert set(told) <= {TAKEN, NOT_DONE, UNSURE}
    assert max(answer.seconds for answer in answers) < ANSWER_SECONDS
    await eventually(lambda: _all_answered(scene), 15)
    [(kept,)] = await scene.rows("SELECT count(*) FROM inbox")
    assert isinstance(kept, int)
    assert told[TAKEN] <= kept <= told[TAKEN] + told[UNSURE]
    await eventually(lambda: len(scene.at.told(CANCEL.user)) >= kept)
    return told


async def _all_answered(scene: Scene) -> bool:
    return await scene.rows("SELECT count(*) FROM inbox WHERE handled_at IS NULL") == [(0,)]


@pytest.mark.parametrize("how", ["stopped", "silent"])
async def test_people_are_told_in_time_that_the_database_is_away_and_it_is_used_again_when_it_is_back(
    tmp_path: Path, server: OwnPostgres, how: str
) -> None:
    async with scene_on(tmp_path, server.new_database()) as scene:
        await until_taken(scene)
        over = asyncio.Event()
        asking = asyncio.create_task(keep_asking(scene, over))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.stop if how == "stopped" else server.silence)
        await asyncio.sleep(5)
        await asyncio.to_thread(server.start if how == "stopped" else server.go_on)
        assert await until_taken(scene) < BACK_SECONDS
        await asyncio.sleep(0.5)
        over.set()
        told = await assert_told_the_truth(scene, [Answer(TAKEN, 0), Answer(TAKEN, 0), *await asking])
        assert told[NOT_DONE] + told[UNSURE] >= 10
        assert not [line for line in scene.bot.lines if "Traceback" in line]


async def test_an_answer_of_the_cloud_that_cannot_be_written_is_found_out(tmp_path: Path, server: OwnPostgres) -> None:
    async with scene_on(tmp_path, server.new_database()) as scene:
        at = scene.at
        at.faults.add(Fault(FaultKind.LATENCY, CALL, calls=1, seconds=1.5))
        await click(scene)
        await eventually(lambda: scene.is_in("calling"))
        await asyncio.to_thread(server.stop)
        await eventually(lambda: at.fleet.history)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        await eventually(lambda: scene.is_in("following", "finished"), 20)
        assert len(at.fleet.history) == 1


async def click(scene: Scene) -> None:
    """Somebody types it and says yes."""
    at = scene.at
    assert (await at.types(scene.bot.url, CANCEL.user, CANCEL.typed)).is_taken
    await eventually(lambda: at.live_button(CANCEL.job))
    assert (await at.clicks(scene.bot.url, CANCEL.user, at.live_button(CANCEL.job) or "")).is_taken


async def test_changes_come_to_their_end_while_connections_are_cut_again_and_again(
    tmp_path: Path, server: OwnPostgres
) -> None:
    flows = [flow("cancel", 1), flow("halt", 2)]
    async with scene_on(tmp_path, server.new_database(), flows) as scene:
        over = asyncio.Event()

        async def cut() -> None:
            while not over.is_set():
                await asyncio.to_thread(server.terminate_backends, scene.url)
                await asyncio.sleep(0.4)

        cutting = asyncio.create_task(cut())
        doing = asyncio.gather(*(carry_out(scene.at, each, lambda: scene.bot.url, within_seconds=45) for each in flows))
        await asyncio.sleep(8)
        over.set()
        await cutting
        outcomes = await doing
        assert outcomes == [True, True]
        done = Counter(effect.action for effect in scene.at.fleet.history)
        assert done == {CALL: 2, "CancelOTAStrategyByJob": 1}
        assert await scene.rows("SELECT state, count(*) FROM proposals GROUP BY state") == [("finished", 2)]
        await eventually(lambda: not scene.at.workspace.live_buttons())
        # Where the connection is cut between a post and its being written down, its text is posted once more.
        assert max(scene.at.workspace.most_live.values()) == 1


class FullDisk:
    """A disk with room for a little, or for nothing more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FullDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here (that takes root on Linux)")
    yield FullDisk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def until_refused(scene: Scene) -> list[Answer]:
    answers = [await ask(scene)]
    while answers[-1].told == TAKEN and len(answers) < 100:
        answers.append(await ask(scene))
    return answers


async def test_a_full_disk_is_said_and_room_is_used_at_once(tmp_path: Path, disk: FullDisk) -> None:
    async with scene_on(tmp_path, f"sqlite:///{disk.folder / 'otabrake.db'}") as scene:
        await scene.at.types(scene.bot.url, CANCEL.user, CANCEL.typed)
        await eventually(lambda: scene.at.live_button(CANCEL.job))
        disk.fill()
        answers = await until_refused(scene)
        answers += [await ask(scene) for _ in range(5)]
        assert {answer.told for answer in answers[-5:]} == {NOT_DONE}
        await scene.at.clicks(scene.bot.url, CANCEL.user, scene.at.live_button(CANCEL.job) or "")
        await eventually(lambda: any(NOT_DONE in each for each in scene.at.told(CANCEL.user)))
        assert "full" in str(scene.bot.lines[-20:])
        disk.make_room()
        assert await until_taken(scene) < BACK_SECONDS
        await eventually(lambda: _all_answered(scene), 15)
        assert scene.at.fleet.history == []
        assert (await scene.at.clicks(scene.bot.url, CANCEL.user, scene.at.live_button(CANCEL.job) or "")).is_taken
        await eventually(lambda: scene.is_in("following", "finished"))
        assert [effect.action for effect in scene.at.fleet.history] == [CALL]


async def test_a_disk_that_fails_to_write_is_said_and_used_again_when_it_writes(
    tmp_path: Path, empty_sqlite_url: str
) -> None:
    def written_so_far() -> int:
        return Path(empty_sqlite_url.removeprefix("sqlite:///") + "-wal").stat().st_size

    async with scene_on(tmp_path, empty_sqlite_url) as scene:
        before = await ask(scene)
        before_limits = resource.prlimit(scene.bot.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(scene.bot.pid, resource.RLIMIT_FSIZE, (written_so_far(), before_limits[1]))
        answers = [before, *await until_refused(scene), *[await ask(scene) for _ in range(5)]]
        assert {answer.told for answer in answers[-5:]} == {NOT_DONE}
        assert "disk I/O error" in str(scene.bot.lines[-20:])
        resource.prlimit(scene.bot.pid, resource.RLIMIT_FSIZE, before_limits)
        assert await until_taken(scene) < BACK_SECONDS
        await assert_told_the_truth(scene, [*answers, Answer(TAKEN, 0)])
