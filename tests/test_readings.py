"""Whose turn it is to look at a batch, and the looks that are kept."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from bot.model import Target
from bot.ports import Reading, Watched
from bot.storage.database import Database, open_database
from bot.storage.readings import MOST_READINGS, SqlReadings
from tests.conftest import Clock
from tests.values import AT, TARGET, counts

WATCHED = Watched(TARGET)
OTHER = Watched(Target(TARGET.instance, TARGET.job, devices=("gw-1",)))


@pytest.fixture
def readings(database: Database, clock: Clock) -> SqlReadings:
    return SqlReadings(database, clock=clock)


def reading(seconds: float = 0, **numbers: int | None) -> Reading:
    began_at = AT + timedelta(seconds=seconds)
    return Reading(counts(at=began_at + timedelta(milliseconds=120), **numbers), began_at)


def kept(connection: Connection) -> int:
    found: int = connection.scalar(text("SELECT count(*) FROM readings"))
    return found


async def test_one_looks_and_the_others_hear_when_they_may(readings: SqlReadings, clock: Clock) -> None:
    assert await readings.may_read(WATCHED, hold_seconds=10) == 0
    assert await readings.may_read(WATCHED, hold_seconds=10) == 10
    clock.pass_by(4)
    assert await readings.may_read(WATCHED, hold_seconds=10) == 6
    clock.pass_by(6)
    assert await readings.may_read(WATCHED, hold_seconds=10) == 0


async def test_what_is_watched_apart_has_its_own_turn(readings: SqlReadings) -> None:
    assert await readings.may_read(WATCHED, hold_seconds=10) == 0
    assert await readings.may_read(OTHER, hold_seconds=10) == 0
    assert await readings.may_read(Watched(Target("prod-beijing", TARGET.job)), hold_seconds=10) == 0


async def test_of_many_at_once_in_several_processes_one_looks(any_database_url: str, database: Database) -> None:
    second = open_database(any_database_url)
    processes = [SqlReadings(each, clock=Clock()) for each in (database, second)]
    for _ in range(3):  # a turn that nobody has taken yet, and turns that are taken over
        turns = [each.may_read(WATCHED, hold_seconds=10) for each in processes for _ in range(10)]
        assert sorted(await asyncio.gather(*turns)) == [0] + [10] * 19
        for each in processes:
            await each.put_off(WATCHED, pause_seconds=-1)
    await second.close()


async def test_after_a_look_the_next_one_is_due_after_the_pause(readings: SqlReadings) -> None:
    assert await readings.may_read(WATCHED, hold_seconds=10) == 0
    await readings.save_reading(WATCHED, reading(QUEUED=7), pause_seconds=1.5)
    assert await readings.may_read(WATCHED, hold_seconds=10) == 1.5
    await readings.put_off(WATCHED, pause_seconds=3)
    assert await readings.may_read(WATCHED, hold_seconds=10) == 3


async def test_a_turn_that_a_clock_set_back_has_locked_away_is_taken(readings: SqlReadings, clock: Clock) -> None:
    clock.pass_by(3_600)
    assert await readings.may_read(WATCHED, hold_seconds=10) == 0
    clock.pass_by(-3_600)
    assert await readings.may_read(WATCHED, hold_seconds=10) == 0
    assert await readings.may_read(WATCHED, hold_seconds=10) == 10


async def test_no_turn_is_held_for_longer_than_a_minute(readings: SqlReadings) -> None:
    await readings.put_off(WATCHED, pause_seconds=600)
    assert await readings.may_read(WATCHED, hold_seconds=600) == 60


async def test_looks_are_read_back_whole_and_oldest_first(readings: SqlReadings) -> None:
    seen = [reading(n, QUEUED=9 - n, CONFIRM=None) for n in range(4)]
    for each in (seen[0], seen[2], seen[1], seen[3]):
        await readings.save_reading(WATCHED, each, pause_seconds=1)
    await readings.save_reading(OTHER, reading(9), pause_seconds=1)
    assert await readings.fetch_readings(WATCHED, since=AT) == tuple(seen)
    assert await readings.fetch_readings(WATCHED, since=AT + timedelta(seconds=1)) == tuple(seen[1:])
    assert await readings.fetch_readings(WATCHED, since=AT, most=2) == tuple(seen[2:])
    assert await readings.fetch_readings(WATCHED, since=AT + timedelta(seconds=9)) == ()


async def test_however_many_looks_there_are_a_bounded_number_is_read(readings: SqlReadings, database: Database) -> None:
    await readings.save_reading(WATCHED, reading(5, QUEUED=1), pause_seconds=1)
    copies = (
        "INSERT INTO readings (instance, target, began_at, body) SELECT instance, target, began_at, body FROM readings"
    )
    for _ in range(11):
        await database.run(lambda connection: connection.execute(text(copies)) and None)
    assert len(await readings.fetch_readings(WATCHED, since=AT)) == MOST_READINGS
    assert len(await readings.fetch_readings(WATCHED, since=AT, most=MOST_READINGS + 1)) == MOST_READINGS


async def test_looks_older_than_a_week_go_as_new_ones_come(
    readings: SqlReadings, database: Database, clock: Clock
) -> None:
    for n in range(3):
        await readings.save_reading(OTHER, reading(n), pause_seconds=1)
    clock.pass_by(7 * 86_400 + 2)
    await readings.save_reading(WATCHED, reading(7 * 86_400), pause_seconds=1)
    assert await database.read(kept) == 2
    assert await readings.fetch_readings(OTHER, since=AT) == (reading(2),)
