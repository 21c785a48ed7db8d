"""How long it takes until another replica goes on: from kill -9 of the owner to the first call of whoever took over.

Two replicas are up. The owner is killed while its change is on its way to the cloud, or while it watches the devices;
the other one shows itself by its first call for that change that arrives at the simulator.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.databases import Databases
from tests.crash.flows import carry_out, flow
from tests.crash.replicas import Nursery, Replica, Replicas, nursery, replicas
from tests.crash.world import CHANGES, World, world

WITHIN_SECONDS = 30
_IN_FLIGHT_SECONDS = 0.15
_WATCHING = "ListOTATaskByJob"
_LONG_WATCHED = {"answer_seconds": 4.0, "ignoring": 1.0, "update_seconds": 60.0}
"""Devices that were told go on whatever the cloud says, so that there is something to watch for a while."""


class NobodyTookOver(Exception):
    """Nobody went on within the time; the text says with what."""


async def measure_takeovers(
    databases: Databases, *, count: int, told: Callable[[str, float], None] = lambda *_: None
) -> list[float]:
    """The seconds of each takeover, in turn in the middle of a call and of a follow. Raises `NobodyTookOver`."""
    seconds = []
    async with nursery() as of:
        for number in range(count):
            middle = ("call", "follow")[number % 2]
            seconds.append(await takeover(databases, of, middle=middle, number=number))
            told(middle, seconds[-1])
    return seconds


async def takeover(databases: Databases, of: Nursery, *, middle: str, number: int = 0) -> float:
    one = flow("cancel", number)
    rollout = {**one.rollout, "course": {**one.rollout["course"], **_LONG_WATCHED}}
    with tempfile.TemporaryDirectory(prefix="otabrake-crash-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        url = await databases.new(folder)
        async with world(folder, url, jobs=[rollout]) as there, replicas(of, there.settings, folder) as started:
            owner, _ = await asyncio.gather(started.start(), started.start())
            flowing = asyncio.create_task(carry_out(there, one, _first_alive(started), within_seconds=60))
            try:
                return await _seconds(there, owner, middle)
            finally:
                flowing.cancel()
                await asyncio.gather(flowing, return_exceptions=True)


def _first_alive(started: Replicas) -> Callable[[], str | None]:
    return lambda: started.alive[0].url if started.alive else None


async def _seconds(there: World, owner: Replica, middle: str) -> float:
    awaited = CHANGES if middle == "call" else (_WATCHING,)
    before = await _arrived(there, awaited, after=0.0) if middle == "call" else await _watched(there)
    killed_at = time.time()
    await owner.kill()
    first = await _arrived(there, awaited, after=max(before, killed_at) + _IN_FLIGHT_SECONDS)
    return first - killed_at


async def _watched(there: World) -> float:
    """When the devices were first looked at after the cloud had accepted the change and said so."""
    change = await _arrived(there, CHANGES, after=0.0)
    return await _arrived(there, (_WATCHING,), after=change + 0.3)


async def _arrived(there: World, actions: tuple[str, ...], *, after: float) -> float:
    """When the first call of these kinds arrived after a moment; waits for it."""
    until = time.monotonic() + WITHIN_SECONDS
    while time.monotonic() < until:
        for one in there.copies(*actions):
            if one.at > after:
                return one.at
        await asyncio.sleep(0.005)
    raise NobodyTookOver(f"no {' or '.join(actions)} came within {WITHIN_SECONDS} s")
