"""Slots in the database: claimed, given back, paused, and left behind by a clock that jumps; on both databases."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import text

import bot.storage.slots
from bot.alibaba.budget import Budget, CallClass
from bot.errors import StoreUnavailable
from bot.ports import LONGEST_HOLD_SECONDS, Claim, Freed, Lane, Slot
from bot.storage.database import Database, open_database
from bot.storage.slots import SqlSlots

LANE = Lane("prod", "CancelOTATaskByJob", 5)
HOLD = 13.0


class Seconds:
    """This process's clock, which stands; the database's runs on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def slots(database: Database, seconds: Seconds) -> SqlSlots:
    return SqlSlots(database, seconds=seconds)


@pytest.fixture
async def others(database: Database, any_database_url: str, seconds: Seconds) -> AsyncIterator[SqlSlots]:
    """Another process's."""
    opened = open_database(any_database_url)
    yield SqlSlots(opened, seconds=seconds)
    await opened.close()


async def claim(slots: SqlSlots, foreground: int = 0, *, background: int = 0, lane: Lane = LANE) -> Claim:
    return await slots.claim(lane, foreground=foreground, background=background, hold_seconds=HOLD)


def wait(claimed: Claim, seconds: Seconds) -> float:
    return claimed.again_at - seconds.now


def numbers(claimed: Claim) -> list[int]:
    return [slot.number for slot in claimed.slots]


async def let_pass(database: Database, by: float) -> None:
    """Time passes in the database: all its rows are so much older."""
    columns = ", ".join(f"{name} = {name} - :by" for name in ("taken_at", "free_at", "paused_until"))
    statement = text(f"UPDATE slots SET {columns}")
    await database.run(lambda connection: connection.execute(statement, {"by": by}) and None)


async def free(slots: SqlSlots, those: Sequence[Slot], *, after: float, seconds: Seconds) -> None:
    await slots.release([Freed(slot, seconds.now + after) for slot in those])


async def test_a_claim_takes_what_is_wanted_and_not_more_than_there_is(slots: SqlSlots, seconds: Seconds) -> None:
    assert numbers(await claim(slots, 2)) == [4, 3]
    rest = await claim(slots, 7)
    assert numbers(rest) == [2, 1, 0]
    assert 0.9 < wait(rest, seconds) <= 1
    assert numbers(await claim(slots, 1)) == []


async def test_the_background_gets_the_lower_half_and_only_what_the_foreground_leaves(slots: SqlSlots) -> None:
    assert numbers(await claim(slots, background=9)) == [1, 0]
    assert numbers(await claim(slots, 9, background=9)) == [4, 3, 2]
    other = Lane("prod", "QueryOTAJob", 10)
    assert numbers(await claim(slots, 7, background=5, lane=other)) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


async def test_accounts_and_operations_have_slots_of_their_own(slots: SqlSlots) -> None:
    for lane in (LANE, Lane("test", LANE.action, 5), Lane("prod", "QueryOTAJob", 10)):
        assert len((await claim(slots, 99, lane=lane)).slots) == lane.limit


async def test_each_claim_raises_the_token_of_its_row(slots: SqlSlots, database: Database) -> None:
    [first] = (await claim(slots, 1)).slots
    await let_pass(database, HOLD + 0.1)
    [second] = (await claim(slots, 1)).slots
    assert (second.number, second.token) == (first.number, first.token + 1)


async def test_a_slot_that_is_given_back_is_free_at_the_time_that_was_said(
    slots: SqlSlots, database: Database, seconds: Seconds
) -> None:
    [slot] = (await claim(slots, 9)).slots[:1]
    await free(slots, [slot], after=1.003, seconds=seconds)
    waiting = await claim(slots, 1)
    assert waiting.slots == ()
    assert 0.8 < wait(waiting, seconds) <= 1.003
    await let_pass(database, 1.004)
    assert numbers(await claim(slots, 1)) == [slot.number]


async def test_a_slot_can_be_claimed_a_moment_before_it_opens_and_those_that_are_open_go_first(
    slots: SqlSlots, database: Database, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot.storage.slots, "AHEAD_SECONDS", 5.0)  # a moment that a slow machine does not miss
    high, low = (await claim(slots, 9)).slots[:2]
    await free(slots, [high], after=9, seconds=seconds)
    await free(slots, [low], after=0, seconds=seconds)
    await let_pass(database, 5)
    [first] = (await claim(slots, 1)).slots
    assert (first.number, first.opens_at) == (low.number, 0)
    [second] = (await claim(slots, 1)).slots
    assert second.number == high.number
    assert 0 < second.opens_at - seconds.now < 4


async def test_what_the_way_to_the_database_took_is_not_waited_for_again(slots: SqlSlots, seconds: Seconds) -> None:
    [slot] = (await claim(slots, 9)).slots[:1]
    seconds.now += 5
    await free(slots, [slot], after=-3, seconds=seconds)
    assert numbers(await claim(slots, 1)) == [slot.number]


async def test_a_late_release_does_not_touch_the_slot_of_the_next_one(
    slots: SqlSlots, database: Database, seconds: Seconds
) -> None:
    late = (await claim(slots, 5)).slots
    await let_pass(database, HOLD + 0.1)
    assert len((await claim(slots, 5)).slots) == 5
    await free(slots, late, after=0, seconds=seconds)
    assert (await claim(slots, 1)).slots == ()


async def test_a_second_release_changes_nothing(slots: SqlSlots, seconds: Seconds) -> None:
    given = (await claim(slots, 5)).slots
    await free(slots, given, after=1.003, seconds=seconds)
    await free(slots, given, after=0, seconds=seconds)
    assert (await claim(slots, 1)).slots == ()


async def test_a_slot_whose_call_is_long_under_way_is_looked_at_once_a_second(
    slots: SqlSlots, database: Database, seconds: Seconds
) -> None:
    await claim(slots, 5)
    await let_pass(database, 6)
    assert 0.9 < wait(await claim(slots, 1), seconds) <= 1
    await let_pass(database, HOLD - 6.1)
    assert 0 < wait(await claim(slots, 1), seconds) <= 0.1


async def test_a_pause_holds_for_everybody_and_no_release_or_shorter_pause_ends_it(
    slots: SqlSlots, others: SqlSlots, database: Database, seconds: Seconds
) -> None:
    [slot] = (await claim(slots, 1)).slots
    await slots.pause(LANE, until=seconds.now + 20)
    await others.pause(LANE, until=seconds.now + 1)
    await free(slots, [slot], after=0, seconds=seconds)
    for each in (slots, others):
        paused = await claim(each, 1)
        assert paused.slots == ()
        assert 19 < wait(paused, seconds) <= 20
    assert len((await claim(others, 1, lane=Lane("prod", "QueryOTAJob", 10))).slots) == 1
    await let_pass(database, 20)
    assert len((await claim(others, 9)).slots) == 5


async def test_a_pause_lasts_a_minute_at_most(slots: SqlSlots, database: Database, seconds: Seconds) -> None:
    await claim(slots, 1)
    await slots.pause(LANE, until=seconds.now + 86_400)
    await let_pass(database, LONGEST_HOLD_SECONDS)
    assert len((await claim(slots, 1)).slots) == 1


@pytest.mark.parametrize("back", [5.0, 86_400.0])
async def test_after_the_clock_was_set_back_held_slots_begin_their_span_anew(
    slots: SqlSlots, database: Database, seconds: Seconds, back: float
) -> None:
    await claim(slots, 5)
    await let_pass(database, -back)
    waiting = await claim(slots, 1)
    assert waiting.slots == ()
    assert wait(waiting, seconds) <= 1
    await let_pass(database, HOLD - 0.5)
    assert (await claim(slots, 1)).slots == ()
    await let_pass(database, 0.6)
    assert len((await claim(slots, 9)).slots) == 5


async def test_a_release_made_while_the_clock_was_ahead_does_not_lock_the_slot_away(
    slots: SqlSlots, database: Database, seconds: Seconds
) -> None:
    await claim(slots, 5)
    statement = text("UPDATE slots SET is_held = false, free_at = free_at + 86400")
    await database.run(lambda connection: connection.execute(statement) and None)
    assert wait(await claim(slots, 1), seconds) <= LONGEST_HOLD_SECONDS
    await let_pass(database, LONGEST_HOLD_SECONDS)
    assert len((await claim(slots, 9)).slots) == 5


async def test_a_pause_written_while_the_clock_was_ahead_counts_as_over(
    slots: SqlSlots, database: Database, seconds: Seconds
) -> None:
    await claim(slots, 1)
    await database.run(lambda connection: connection.execute(text("UPDATE slots SET paused_until = 9e9")) and None)
    assert len((await claim(slots, 1)).slots) == 1
    await slots.pause(LANE, until=seconds.now + 20)
    assert 19 < wait(await claim(slots, 1), seconds) <= 20


async def test_two_processes_that_claim_at_once_never_get_the_same_slot(slots: SqlSlots, others: SqlSlots) -> None:
    lane = Lane("prod", "ReupgradeOTATask", 20)
    claims = await asyncio.gather(*(claim(each, 2, background=1, lane=lane) for each in (slots, others) * 10))
    got = [slot.number for each in claims for slot in each.slots]
    while len(got) < lane.limit:  # rows that were being looked at by both were left alone by both
        rest = numbers(await claim(slots, lane.limit, lane=lane))
        assert rest
        got += rest
    assert sorted(got) == list(range(lane.limit))


async def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    away = open_database(f"sqlite:///{tmp_path / 'no' / 'such.db'}")
    with pytest.raises(StoreUnavailable):
        await claim(SqlSlots(away), 1)
    await away.close()


HOLDER = """
import asyncio, sys
from bot.ports import Lane
from bot.storage.database import open_database
from bot.storage.slots import SqlSlots
async def main():
    slots = SqlSlots(open_database(sys.argv[1]))
    claim = await slots.claim(Lane("prod", "CancelOTATaskByJob", 5), foreground=2, background=0, hold_seconds=13)
    print(len(claim.slots), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_the_slots_of_a_killed_process_are_held_to_the_end_and_then_free_themselves(
    slots: SqlSlots, database: Database, any_database_url: str
) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLDER,
        any_database_url,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"2\n"
    holder.kill()
    await holder.wait()
    assert numbers(await claim(slots, 9)) == [2, 1, 0]
    await let_pass(database, HOLD - 0.5)
    assert numbers(await claim(slots, 9)) == []
    await let_pass(database, 0.6)
    assert numbers(await claim(slots, 9)) == [4, 3, 2, 1, 0]


async def test_two_processes_together_keep_to_the_limit_in_real_time(database: Database, any_database_url: str) -> None:
    seen: list[float] = []
    second = open_database(any_database_url)
    async with Budget(SqlSlots(database)) as one, Budget(SqlSlots(second)) as two:

        async def call(number: int) -> None:
            async with (one, two)[number % 2].slot("prod", LANE.action, CallClass.STOP):
                seen.append(time.monotonic())

        began = time.monotonic()
        await asyncio.gather(*(call(number) for number in range(11)))
        took = time.monotonic() - began
    await second.close()
    assert took < 3
    assert all(later - earlier > 1 for earlier, later in zip(seen, seen[LANE.limit :], strict=False))
