"""Seeded kills of real processes, on both databases: nothing is lost, and nothing happens twice.

`python -m tests.crash` makes more of them. A failure names its kill, which
`python -m tests.crash --kills 20 --only <number>` repeats.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import BOTH
from tests.crash.databases import opened
from tests.crash.episodes import plans, play_all
from tests.crash.replicas import nursery
from tests.crash.takeovers import takeover

KILLS, SEED = 20, 1
GROUPS = 4
"""So many tests on each database, to be run side by side."""

TAKEOVER_SECONDS = 5.0

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=BOTH)
def server(request: pytest.FixtureRequest) -> str | None:
    """The server to make databases on, or None for SQLite; skipped where no server answers."""
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres_server"))


@pytest.mark.parametrize("group", range(GROUPS))
async def test_whoever_is_killed_when_the_change_is_made_once_told_once_and_audited(
    server: str | None, group: int, tmp_path: Path
) -> None:
    size = KILLS // GROUPS
    chosen = plans(KILLS, seed=SEED)[group * size : (group + 1) * size]
    async with opened(server, tmp_path) as databases:
        episodes = await play_all(chosen, databases, at_once=size)
    assert all(episode.kills for episode in episodes)
    wrong = [str(episode) for episode in episodes if episode.complaints]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("middle", ["call", "follow"])
async def test_a_dead_replicas_work_is_gone_on_with_within_five_seconds(
    server: str | None, middle: str, tmp_path: Path
) -> None:
    async with opened(server, tmp_path) as databases, nursery() as of:
        assert await takeover(databases, of, middle=middle) < TAKEOVER_SECONDS
