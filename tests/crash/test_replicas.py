"""Several replicas at once, as real processes: crowds on one card, a paused owner, the same ask twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from bot.audit import EntryName
from bot.exchange import Click
from bot.sandbox.slack_gestures import Impossible
from tests.crash.checks import check
from tests.crash.flows import carry_out, flow
from tests.crash.ground import NOT_IN_TIME, NOT_WRITTEN, Ground, eventually, ground
from tests.crash.replicas import Replica

CROWD = tuple(f"U0CROWD{number:04d}" for number in range(10))
CLICKS_EACH = 10
PAUSE_SECONDS = 8
LATEST = "9999"
QUIET_SECONDS = 0.7
"""Time for the posts after the clicks: whoever is paused in the middle of a transaction lets nobody write on SQLite."""


pytestmark = pytest.mark.timeout(120)


def urls(at: Ground) -> Sequence[str]:
    return [replica.url for replica in at.replicas]


async def test_of_a_hundred_clicks_by_ten_people_over_four_replicas_one_counts_and_the_others_are_told(
    any_database_url: str, tmp_path: Path
) -> None:
    one = flow("cancel", 1)
    async with ground(any_database_url, tmp_path, count=4, jobs=[one.rollout], people=CROWD) as at:
        await at.world.types(urls(at)[0], CROWD[0], one.typed)
        await eventually(lambda: at.world.live_button(one.job), "the card has its buttons")
        button = at.world.live_button(one.job)
        assert button is not None

        async def click(number: int) -> None:
            # Who sees the buttons go away under the cursor has not clicked.
            with contextlib.suppress(Impossible):
                await at.world.clicks(urls(at)[number % 4], CROWD[number % len(CROWD)], button)

        await asyncio.gather(*(click(number) for number in range(len(CROWD) * CLICKS_EACH)))
        kept = await at.kept_at_rest()

        clicks = [delivery for delivery, _ in kept.deliveries if isinstance(delivery.content, Click)]
        confirmed = [entry for entry in kept.entries if entry.name == EntryName.CONFIRMED]
        refused = Counter(entry.actor for entry in kept.entries if entry.name == EntryName.CLICK_REFUSED)
        assert len(confirmed) == 1
        assert len(at.world.fleet.history) == 1
        assert refused.total() == len(clicks) - 1
        told = {user: Counter(_is_excuse(text) for text in at.world.told(user)) for user in CROWD}
        # On a busy machine some cannot be written down in time, and are told so.
        not_written = sum(text.startswith(NOT_WRITTEN) for user in CROWD for text in at.world.told(user))
        assert len(clicks) + not_written == len(CROWD) * CLICKS_EACH
        assert {user: told[user][False] for user in CROWD} == {user: refused[user] for user in CROWD}
        assert all(told[user].total() >= CLICKS_EACH - 1 for user in CROWD)
        assert check(at.world, kept, kills=0).complaints == ()


def _is_excuse(text: str) -> bool:
    return text.startswith((NOT_WRITTEN, NOT_IN_TIME))


async def test_an_owner_that_was_paused_for_eight_seconds_writes_nothing_on_what_another_has_taken_over(
    any_database_url: str, tmp_path: Path
) -> None:
    flows = [flow("cancel", number) for number in range(5)]
    given = {"jobs": [one.rollout for one in flows], "call_seconds": (0.1, 5.0)}
    async with ground(any_database_url, tmp_path, count=2, **given) as at:
        owner, other = at.replicas
        is_paused = asyncio.Event()

        def where() -> str:
            return other.url if is_paused.is_set() else owner.url

        going_on = [asyncio.create_task(carry_out(at.world, one, where, within_seconds=60)) for one in flows]
        await eventually(lambda: len(at.world.fleet.history) == 5, "five calls are carried out and not answered")
        await asyncio.sleep(QUIET_SECONDS)
        owner.signal(signal.SIGSTOP)
        is_paused.set()
        await asyncio.sleep(PAUSE_SECONDS)
        owner.signal(signal.SIGCONT)
        assert all(await asyncio.gather(*going_on))
        kept = await at.kept_at_rest()
        assert len(at.world.fleet.history) == 5
        assert check(at.world, kept, kills=1).complaints == ()
        taken_over = {proposal_id: steps[0][0] for proposal_id, steps in _steps_of(other).items()}
        assert taken_over
        for proposal_id, steps in _steps_of(owner).items():
            assert [step for step in steps if step[0] > taken_over.get(proposal_id, LATEST)] == []


def _steps_of(replica: Replica) -> dict[str, list[tuple[str, str]]]:
    """When this replica wrote which step of a change, by proposal."""
    steps: dict[str, list[tuple[str, str]]] = {}
    for line in replica.log():
        if line.get("event") in set(EntryName) and line.get("proposal") is not None:
            steps.setdefault(line["proposal"], []).append((line["timestamp"], line["event"]))
    return steps


@pytest.mark.parametrize("is_same_person", [True, False], ids=["one person", "two people"])
async def test_the_same_ask_at_two_replicas_at_once_makes_one_card_and_the_other_is_told(
    any_database_url: str, tmp_path: Path, is_same_person: bool
) -> None:
    one = flow("cancel", 1)
    users = ("U0ONCALLA1", "U0ONCALLA1" if is_same_person else "U0ONCALLB2")
    async with ground(any_database_url, tmp_path, count=2, jobs=[one.rollout]) as at:
        await asyncio.gather(*(at.world.types(url, user, one.typed) for url, user in zip(urls(at), users, strict=True)))
        await eventually(lambda: at.world.live_button(one.job), "the card has its buttons")
        await eventually(lambda: sum(len(at.world.told(user)) for user in set(users)), "somebody was told")
        assert await carry_out(at.world, one, lambda: urls(at)[0], within_seconds=30)
        kept = await at.kept_at_rest()
        assert len(at.world.cards(one.job)) == 1
        assert len(at.world.fleet.history) == 1
        assert sum(len(at.world.told(user)) for user in set(users)) == 1
        assert check(at.world, kept, kills=0).complaints == ()
