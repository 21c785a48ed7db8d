"""What discovery saw is kept with when it was seen."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from bot.model import Firmware, Job, JobState
from bot.ports import FoundFirmware, FoundJob
from bot.storage.database import Database
from bot.storage.found import ROWS, SqlFound
from tests.values import AT, job

HERE, THERE = "prod-shanghai", "prod-beijing"
LATER = AT + timedelta(minutes=1)


@pytest.fixture
def found(database: Database) -> SqlFound:
    return SqlFound(database)


def batch(
    job_id: str, *, minutes: float | None = 0, state: JobState = JobState.IN_PROGRESS, firmware: str = "fw-1"
) -> Job:
    created_at = AT - timedelta(minutes=minutes) if minutes is not None else None
    return job(job_id=job_id, state=state, firmware_id=firmware, created_at=created_at)


def package(firmware_id: str, *, minutes: float | None = 0) -> Firmware:
    created_at = AT - timedelta(minutes=minutes) if minutes is not None else None
    return Firmware(firmware_id, "gateway-fw", "a1Gateway01", "4.2.1", "4.2.0", created_at)


def ids(found: tuple[FoundJob, ...]) -> list[str]:
    return [each.job.job_id for each in found]


async def test_what_was_seen_is_read_back_whole_and_with_when(found: SqlFound) -> None:
    await found.save_found(HERE, [package("fw-1")], [batch("j1")], seen_at=AT)
    assert await found.fetch_found_jobs([HERE]) == (FoundJob(HERE, batch("j1"), AT),)
    assert await found.fetch_found_firmware([HERE]) == (FoundFirmware(HERE, package("fw-1"), AT),)
    assert await found.fetch_found_jobs([THERE]) == ()
    assert await found.fetch_found_jobs([]) == ()


async def test_a_second_look_replaces_what_the_first_one_saw(found: SqlFound) -> None:
    await found.save_found(HERE, [package("fw-1")], [batch("j1"), batch("j2")], seen_at=AT)
    ended = batch("j1", state=JobState.COMPLETED)
    await found.save_found(HERE, [package("fw-1")], [ended, batch("j2")], seen_at=LATER)
    assert await found.fetch_found_jobs([HERE]) == (FoundJob(HERE, batch("j2"), LATER), FoundJob(HERE, ended, LATER))
    assert [each.seen_at for each in await found.fetch_found_firmware([HERE])] == [LATER]


async def test_running_batches_come_first_and_then_the_newest(found: SqlFound) -> None:
    jobs = [
        batch("over", minutes=1, state=JobState.CANCELED),
        batch("old", minutes=9),
        batch("unknown", minutes=None),
        batch("planned", minutes=5, state=JobState.PLANNED),
        batch("new", minutes=2),
    ]
    await found.save_found(HERE, [], jobs, seen_at=AT)
    assert ids(await found.fetch_found_jobs([HERE])) == ["new", "planned", "old", "unknown", "over"]
    await found.save_found(HERE, [package("f3", minutes=None), package("f2", minutes=2), package("f1")], [], seen_at=AT)
    assert [each.firmware.firmware_id for each in await found.fetch_found_firmware([HERE])] == ["f1", "f2", "f3"]


async def test_one_batch_is_found_on_every_instance_that_is_asked_about(found: SqlFound) -> None:
    for instance in (HERE, THERE):
        await found.save_found(instance, [], [batch("j1"), batch("j2")], seen_at=AT)
    assert [each.instance for each in await found.fetch_found_jobs([HERE, THERE], job="j1")] == [THERE, HERE]
    assert [each.instance for each in await found.fetch_found_jobs([HERE], job="j1")] == [HERE]
    assert await found.fetch_found_jobs([HERE], job="j") == ()


async def test_a_batch_that_its_packages_list_no_longer_holds_is_forgotten(found: SqlFound) -> None:
    await found.save_found(HERE, [], [batch("j1"), batch("j2"), batch("j3", firmware="fw-2")], seen_at=AT)
    await found.save_found(THERE, [], [batch("j2")], seen_at=AT)
    await found.save_found(HERE, [], [batch("j1")], seen_at=LATER)
    assert ids(await found.fetch_found_jobs([HERE])) == ["j1", "j3"]
    assert ids(await found.fetch_found_jobs([THERE])) == ["j2"]


async def test_packages_alone_leave_their_batches_as_they_were_seen(found: SqlFound) -> None:
    await found.save_found(HERE, [package("fw-1")], [batch("j1")], seen_at=AT)
    await found.save_found(HERE, [package("fw-1")], [], seen_at=LATER)
    assert await found.fetch_found_jobs([HERE]) == (FoundJob(HERE, batch("j1"), AT),)


async def test_what_was_not_seen_for_long_is_forgotten(found: SqlFound) -> None:
    await found.save_found(HERE, [package("fw-1")], [batch("j1")], seen_at=AT)
    await found.save_found(HERE, [package("fw-2")], [batch("j2", firmware="fw-2")], seen_at=LATER)
    await found.save_found(THERE, [package("fw-1")], [batch("j1")], seen_at=AT)
    await found.forget_unseen(HERE, before=LATER)
    assert ids(await found.fetch_found_jobs([HERE, THERE])) == ["j1", "j2"]
    assert ids(await found.fetch_found_jobs([HERE])) == ["j2"]
    assert [each.firmware.firmware_id for each in await found.fetch_found_firmware([HERE])] == ["fw-2"]


async def test_a_list_longer_than_a_unit_is_kept_and_a_bounded_number_is_read(
    found: SqlFound, database: Database
) -> None:
    many = [batch(f"j{n:04}", state=JobState.COMPLETED) for n in range(ROWS + 20)]
    await found.save_found(HERE, [], [*many, many[0]], seen_at=AT)

    def kept(connection: Connection) -> int:
        count: int = connection.scalar(text("SELECT count(*) FROM found_jobs"))
        return count

    assert await database.read(kept) == ROWS + 20
    await found.save_found(HERE, [], [batch("running", minutes=999)], seen_at=AT)
    listed = ids(await found.fetch_found_jobs([HERE]))
    assert (len(listed), listed[0]) == (ROWS, "running")


async def test_a_row_of_a_newer_version_hides_no_other(found: SqlFound, database: Database) -> None:
    await found.save_found(HERE, [], [batch("j1"), batch("j2")], seen_at=AT)
    newer = "UPDATE found_jobs SET body = '{\"shape\": \"unheard of\"}' WHERE job_id = 'j1'"
    await database.run(lambda connection: connection.execute(text(newer)) and None)
    assert ids(await found.fetch_found_jobs([HERE])) == ["j2"]
