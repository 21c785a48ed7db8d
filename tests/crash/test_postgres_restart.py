"""PostgreSQL restarted under load: nothing is lost, and what cannot be done meanwhile is said."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import MUST_RUN_ALL
from tests.crash.checks import check
from tests.crash.databases import opened
from tests.crash.flows import Flow, carry_out, flow
from tests.crash.ground import NOT_IN_TIME, NOT_WRITTEN, Ground, eventually, ground
from tests.crash.own_server import OwnServer, own_server, programs

FLOWS, LATECOMER = 6, "U0LATECOME"
MODES = {"fast": 0, "immediate": 100}
"""How it is stopped (as it should be, and as in a crash), and where the numbers of its flows begin."""

AWAY_SECONDS = 2.0

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(150)]


@pytest.fixture
def bin_folder() -> Path:
    found = programs()
    if found is None and not MUST_RUN_ALL:
        pytest.skip("PostgreSQL's own programs (initdb, pg_ctl) are not on this machine")
    assert found is not None
    return found


async def test_restarts_of_postgresql_under_load_lose_nothing_and_are_said(bin_folder: Path, tmp_path: Path) -> None:
    by_mode = {mode: [flow("cancel", place + number) for number in range(FLOWS)] for mode, place in MODES.items()}
    late = {mode: replace(flow("cancel", place + FLOWS), user=LATECOMER) for mode, place in MODES.items()}
    everything = [*(one for flows in by_mode.values() for one in flows), *late.values()]
    given = {"jobs": [one.rollout for one in everything], "people": [LATECOMER]}
    async with (
        own_server(bin_folder) as server,
        opened(server.url, tmp_path) as databases,
        ground(await databases.new(tmp_path), tmp_path, count=2, **given) as at,
    ):
        for mode, flows in by_mode.items():
            done = len(at.world.fleet.history)
            going_on = [asyncio.create_task(_staggered(at, one, number)) for number, one in enumerate(flows)]
            await eventually(lambda done=done: len(at.world.fleet.history) > done, "the first change was made")
            await server.stop(mode)
            told = await _asked_meanwhile(at, late[mode], server)
            assert all(text.startswith((NOT_WRITTEN, NOT_IN_TIME)) for text in told), told
            assert all(await asyncio.gather(*going_on))
            assert await carry_out(at.world, late[mode], lambda: at.replicas[0].url, within_seconds=30)
        kept = await at.kept_at_rest()
        assert {proposal.target.job for proposal in kept.proposals} == {one.job for one in everything}
        assert check(at.world, kept, kills=len(MODES)).complaints == ()


async def _staggered(at: Ground, one: Flow, number: int) -> bool:
    """One flow after the other, so that the restart meets them at different points."""
    await asyncio.sleep(0.15 * number)
    return await carry_out(at.world, one, lambda: at.replicas[number % 2].url, within_seconds=60)


async def _asked_meanwhile(at: Ground, late: Flow, server: OwnServer) -> list[str]:
    """What somebody was told who asked both replicas while the database was away; then it comes back."""
    before = len(at.world.told(late.user))
    deeds = [await at.world.types(replica.url, late.user, late.typed) for replica in at.replicas]
    assert [deed.answer.error for deed in deeds] == [None, None]
    await asyncio.sleep(AWAY_SECONDS)
    await server.start()
    told = at.world.told(late.user)[before:]
    assert len(told) >= len(deeds)
    return told
