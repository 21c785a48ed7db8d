"""Stopping: real processes are told to, between the fake Slack and the simulator; what they leave goes on elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from bot.sandbox.iot_faults import Fault, FaultKind
from bot.server import CALL_SECONDS, DOOR_SECONDS, SHUTDOWN_SECONDS
from bot.storage.database import open_database
from tests.crash import world as worlds
from tests.crash.flows import Flow, flow
from tests.crash.world import World, world
from tests.own_postgres import own_postgres
from tests.serving import Process, Start, eventually, processes

Scene = tuple[World, Start, httpx.AsyncClient]
CANCEL = flow("cancel", 1)
CALL = "CancelOTATaskByJob"


@contextlib.asynccontextmanager
async def scene_on(folder: Path, database_url: str, flows: Sequence[Flow] = (CANCEL,)) -> AsyncIterator[Scene]:
    rollouts = [each.rollout for each in flows]
    async with httpx.AsyncClient() as http, world(folder, database_url, jobs=rollouts) as at, processes() as start:
        yield at, start, http


@pytest.fixture
async def scene(tmp_path: Path, empty_sqlite_url: str) -> AsyncIterator[Scene]:
    async with scene_on(tmp_path, empty_sqlite_url) as made:
        yield made


async def serving(at: World, start: Start) -> Process:
    return await (await start(at.settings)).serving()


async def clicked(at: World, process: Process, what: Flow = CANCEL) -> None:
    """Somebody has typed it and said yes."""
    assert (await at.types(process.url, what.user, what.typed)).is_taken
    await eventually(lambda: at.live_button(what.job))
    button = at.live_button(what.job)
    assert button is not None
    assert (await at.clicks(process.url, what.user, button)).is_taken


def sent(at: World) -> list[str]:
    return [arrival.action for arrival in at.arrivals if arrival.action.startswith("Cancel")]


async def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    database = open_database(url)
    try:
        found = await database.read(lambda connection: connection.execute(text(statement)).all())
        return [tuple(row) for row in found]
    finally:
        await database.close()


async def is_in(url: str, *states: str) -> bool:
    """Whether the one proposal is in one of these states."""
    return await rows(url, "SELECT state FROM proposals") in [[(state,)] for state in states]


async def test_readiness_goes_first_and_the_door_stays_open(scene: Scene) -> None:
    at, start, http = scene
    process = await serving(at, start)
    assert await process.readiness(http) == (200, [])
    process.send(signal.SIGTERM)
    await eventually(lambda: process.logged("stopping"))
    code, reasons = await process.readiness(http)
    assert (code, "shutting down" in reasons) == (503, True)
    assert (await http.get(f"{process.url}/healthz")).status_code == 200
    ending = await process.ended()
    assert ending.code == 0
    assert DOOR_SECONDS - 0.5 <= ending.seconds < DOOR_SECONDS + 1.5
    assert process.logged("stopped")


async def test_a_command_that_comes_while_it_stops_is_written_down_and_answered_by_the_next_start(
    scene: Scene, empty_sqlite_url: str
) -> None:
    at, start, _ = scene
    process = await serving(at, start)
    process.send(signal.SIGTERM)
    await eventually(lambda: process.logged("stopping"))
    assert (await at.types(process.url, CANCEL.user, CANCEL.typed)).is_taken
    assert (await process.ended()).code == 0
    assert await rows(empty_sqlite_url, "SELECT count(*) FROM inbox WHERE handled_at IS NULL") == [(1,)]
    assert at.cards(CANCEL.job) == []
    await serving(at, start)
    await eventually(lambda: at.live_button(CANCEL.job))
    assert len(at.cards(CANCEL.job)) == 1


async def test_a_yes_that_comes_while_it_stops_is_carried_out_once_by_the_next_start(scene: Scene) -> None:
    at, start, _ = scene
    process = await serving(at, start)
    await at.types(process.url, CANCEL.user, CANCEL.typed)
    await eventually(lambda: at.live_button(CANCEL.job))
    process.send(signal.SIGTERM)
    await eventually(lambda: process.logged("stopping"))
    assert (await at.clicks(process.url, CANCEL.user, at.live_button(CANCEL.job) or "")).is_taken
    assert (await process.ended()).code == 0
    assert sent(at) == []
    await serving(at, start)
    await eventually(lambda: len(at.effects()) == 1)
    assert len(sent(at)) == 1


async def test_a_call_that_is_under_way_is_waited_for(scene: Scene, empty_sqlite_url: str) -> None:
    at, start, _ = scene
    at.faults.add(Fault(FaultKind.LATENCY, CALL, calls=1, seconds=3))
    process = await serving(at, start)
    await clicked(at, process)
    await eventually(lambda: is_in(empty_sqlite_url, "calling"))
    ending = await process.stopped()
    assert ending.code == 0
    assert DOOR_SECONDS < ending.seconds < CALL_SECONDS
    assert await is_in(empty_sqlite_url, "following")
    assert len(at.effects()) == len(sent(at)) == 1


async def test_a_call_that_takes_too_long_is_left_to_be_found_out(scene: Scene, empty_sqlite_url: str) -> None:
    at, start, _ = scene
    at.faults.add(Fault(FaultKind.ACCEPT_THEN_TIMEOUT, CALL, calls=1))
    process = await serving(at, start)
    await clicked(at, process)
    await eventually(lambda: len(at.fleet.history) == 1)
    ending = await process.stopped()
    assert ending.code == 0
    assert CALL_SECONDS - 0.5 <= ending.seconds < SHUTDOWN_SECONDS + 0.5
    assert await is_in(empty_sqlite_url, "calling", "unknown")
    assert await rows(empty_sqlite_url, "SELECT name FROM leases WHERE owner <> '' AND until > 0") == []
    await serving(at, start)
    await eventually(lambda: is_in(empty_sqlite_url, "following", "finished"), 30)
    assert len(at.fleet.history) == 1


@pytest.mark.postgres
async def test_a_follow_is_handed_over_within_a_second(tmp_path: Path, empty_postgres_url: str) -> None:
    async with scene_on(tmp_path, empty_postgres_url) as (at, start, _):
        first, second = await serving(at, start), await serving(at, start)
        await clicked(at, first)
        await eventually(lambda: is_in(empty_postgres_url, "following"))
        first.send(signal.SIGTERM)
        began = time.monotonic()
        owner: list[tuple[object, ...]] = []
        while not any(f":{second.pid}:" in str(one) for (one,) in owner):
            assert time.monotonic() - began < 3, f"nobody took it over: {owner}"
            owner = await rows(empty_postgres_url, "SELECT owner FROM leases WHERE name LIKE 'proposal:%'")
        assert time.monotonic() - began < 2
        assert first.logged("stopping")
        assert (await first.ended()).code == 0
        assert len(at.effects()) == len(sent(at)) == 1


async def test_what_is_owed_to_people_is_sent_before_it_ends(scene: Scene, empty_sqlite_url: str) -> None:
    at, start, _ = scene
    process = await serving(at, start)
    assert (await at.types(process.url, CANCEL.user, CANCEL.typed)).is_taken
    await eventually(lambda: is_in(empty_sqlite_url, "offered"))
    assert (await process.stopped()).code == 0
    assert at.live_button(CANCEL.job)
    assert await rows(empty_sqlite_url, "SELECT count(*) FROM outbox WHERE settled_at IS NULL") == [(0,)]


async def test_a_slack_that_hangs_does_not_keep_it(
    scene: Scene, empty_sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, start, _ = scene
    process = await serving(at, start)
    monkeypatch.setattr(worlds, "POST_SECONDS", (20.0, 0.0))
    assert (await at.types(process.url, CANCEL.user, CANCEL.typed)).is_taken
    await eventually(lambda: is_in(empty_sqlite_url, "offered"))
    ending = await process.stopped()
    assert (ending.code, ending.seconds < SHUTDOWN_SECONDS) == (0, True)
    assert process.logged("posts are left for later")
    monkeypatch.setattr(worlds, "POST_SECONDS", (0.0, 0.0))
    await serving(at, start)
    await eventually(lambda: at.live_button(CANCEL.job))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM),
    ],
)
async def test_a_second_signal_ends_it_at_once(scene: Scene, first: signal.Signals, second: signal.Signals) -> None:
    at, start, _ = scene
    process = await serving(at, start)
    process.send(first)
    await eventually(lambda: process.logged("stopping"))
    ending = await process.stopped(second)
    assert ending.code == -second
    assert ending.seconds < 0.5
    assert not process.logged("stopped")


async def test_an_interrupt_from_the_keyboard_stops_it_in_the_same_way(scene: Scene) -> None:
    at, start, _ = scene
    process = await serving(at, start)
    assert (await process.stopped(signal.SIGINT)).code == 0
    assert process.logged("stopped")
    assert not [line for line in process.lines if "Traceback" in line]


async def test_it_can_be_stopped_while_it_waits_for_the_database(tmp_path: Path) -> None:
    nothing = "postgresql://postgres@127.0.0.1:1/none"
    async with scene_on(tmp_path, nothing) as (at, start, _):
        process = await start(at.settings)
        await eventually(lambda: process.logged("waiting for the database"), 20)
        ending = await process.stopped()
        assert ending.code == 0
        assert ending.seconds < 3
        assert process.logged("stopped while starting")
        assert not [line for line in process.lines if "Traceback" in line]


async def test_a_database_that_is_silent_does_not_keep_it(tmp_path: Path) -> None:
    with own_postgres() as server:
        url = server.new_database()
        async with scene_on(tmp_path, url) as (at, start, _):
            process = await serving(at, start)
            server.silence()
            await asyncio.sleep(1.5)  # so that the sweep and the outbox hang in it
            ending = await process.stopped()
            assert ending.seconds < SHUTDOWN_SECONDS + 1
            server.go_on()
