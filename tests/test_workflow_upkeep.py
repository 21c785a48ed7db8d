"""Upkeep: one process of many prunes, and trouble ends no round but its own."""

from __future__ import annotations

import asyncio

import pytest

from bot.errors import StoreUnavailable
from bot.ports.retention import Pruned
from bot.storage.database import Database
from bot.storage.leases import SqlLeases
from bot.workflow.upkeep import EVERY_SECONDS, FIRST_SECONDS, Upkeep
from tests.world import SilentLog


class Keeper:
    """Counts how often it is told to prune, and waits until it is let go on."""

    def __init__(self, *troubles: Exception) -> None:
        self.times = 0
        self.troubles = list(troubles)
        self.may_go_on = asyncio.Event()
        self.has_begun = asyncio.Event()

    async def prune(self) -> Pruned:
        self.times += 1
        self.has_begun.set()
        await self.may_go_on.wait()
        if self.troubles:
            raise self.troubles.pop()
        return Pruned(1, 2, 3)


async def test_while_one_process_prunes_no_other_does(database: Database) -> None:
    keeper = Keeper()
    one = Upkeep(keeper, SqlLeases(database, owner="one"), SilentLog())
    two = Upkeep(keeper, SqlLeases(database, owner="two"), SilentLog())
    at_work = asyncio.create_task(one.prune_once())
    async with asyncio.timeout(10):
        await keeper.has_begun.wait()
        await two.prune_once()
        assert keeper.times == 1
        keeper.may_go_on.set()
        await at_work
        await two.prune_once()
    assert keeper.times == 2


@pytest.mark.parametrize("trouble", [StoreUnavailable("away"), RuntimeError("a bug")])
async def test_a_round_that_fails_is_followed_by_the_next(database: Database, trouble: Exception) -> None:
    keeper, slept = Keeper(trouble), []
    keeper.may_go_on.set()
    is_done = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            is_done.set()
            await asyncio.Event().wait()

    async with Upkeep(keeper, SqlLeases(database, owner="one"), SilentLog(), sleep=sleep), asyncio.timeout(10):
        await is_done.wait()
    assert keeper.times == 2
    assert slept == [FIRST_SECONDS, EVERY_SECONDS, EVERY_SECONDS]
