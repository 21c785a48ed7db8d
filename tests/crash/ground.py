"""A world, replicas and the database that they share, for tests of several processes at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bot.storage.database import Database, open_database
from tests.crash.kept import Kept, fetch_kept, is_at_rest
from tests.crash.replicas import Replica, Replicas, nursery, replicas
from tests.crash.world import World, world

REST_SECONDS = 40
NOT_WRITTEN = "Not done: my database cannot be written now"
NOT_IN_TIME = "I could not write this down in time"


class Ground:
    def __init__(self, there: World, started: Replicas, database: Database) -> None:
        self.world = there
        self.started = started
        self.database = database

    @property
    def replicas(self) -> list[Replica]:
        return self.started.all

    async def kept_at_rest(self) -> Kept:
        """What is kept when nothing is under way any more."""

        async def is_over() -> bool:
            return await is_at_rest(self.database)

        await eventually(is_over, "nothing is owed, unanswered or under way")
        return await fetch_kept(self.database)


@contextlib.asynccontextmanager
async def ground(url: str, folder: Path, *, count: int, **given: Any) -> AsyncIterator[Ground]:
    """`count` replicas on the database at `url`; the rest as for `world`."""
    database = open_database(url)
    try:
        async with (
            nursery() as of,
            world(folder, url, **given) as there,
            replicas(of, there.settings, folder) as started,
        ):
            await asyncio.gather(*(started.start() for _ in range(count)))
            yield Ground(there, started, database)
    finally:
        await database.close()


async def eventually(is_so: Callable[[], Any | Awaitable[Any]], what: str) -> None:
    """Returns when it is; fails the test after a while."""
    until = time.monotonic() + REST_SECONDS
    while time.monotonic() < until:
        told = is_so()
        if await told if asyncio.iscoroutine(told) else told:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"not within {REST_SECONDS} s: {what}")
