"""The `Found` port: the packages and batches that discovery saw, each with when.

A batch that its package's list no longer holds is gone, and so forgotten when others of that list are written; what is
not written again stays as it was seen, until it is forgotten. What it does not do: judge what is still true.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, Table, delete, select

from bot.model import Firmware, Job, JobState
from bot.ports import FoundFirmware, FoundJob
from bot.storage.codec import readable, to_json
from bot.storage.database import Database
from bot.storage.tables import found_firmware, found_jobs
from bot.storage.upserts import Row, upsert

ROWS = 500
"""The most rows that one unit reads or writes, so that it stays short."""

_RUNNING = (JobState.PLANNED, JobState.IN_PROGRESS)


class SqlFound:
    """`ports.Found` on a `Database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def save_found(
        self, instance: str, firmware: Sequence[Firmware], jobs: Sequence[Job], *, seen_at: datetime
    ) -> None:
        # A list that was cut while it was read can hold an object twice, and one statement may write a row once only.
        packages = {each.firmware_id: _firmware_row(instance, each, seen_at) for each in firmware}
        batches = {job.job_id: _job_row(instance, job, seen_at) for job in jobs}
        await self._save(found_firmware, list(packages.values()))
        await self._save(found_jobs, list(batches.values()))
        listed = sorted({job.firmware_id for job in jobs})
        for start in range(0, len(listed), ROWS):
            await self._forget(found_jobs, instance, seen_at, listed[start : start + ROWS])

    async def _save(self, table: Table, rows: Sequence[Row]) -> None:
        for start in range(0, len(rows), ROWS):
            await self._database.run(partial(upsert, table=table, rows=rows[start : start + ROWS]))

    async def forget_unseen(self, instance: str, *, before: datetime) -> None:
        for table in (found_firmware, found_jobs):
            await self._forget(table, instance, before)

    async def _forget(
        self, table: Table, instance: str, before: datetime, firmware_ids: Sequence[str] | None = None
    ) -> None:
        statement = delete(table).where(table.c.instance == instance, table.c.seen_at < before)
        if firmware_ids is not None:
            statement = statement.where(table.c.firmware_id.in_(firmware_ids))
        await self._database.run(lambda connection: connection.execute(statement) and None)

    async def fetch_found_jobs(self, instances: Collection[str], *, job: str | None = None) -> tuple[FoundJob, ...]:
        newest = found_jobs.c.created_at.desc().nulls_last()
        statement = (
            select(found_jobs.c.instance, found_jobs.c.job_id, found_jobs.c.body, found_jobs.c.seen_at)
            .where(found_jobs.c.instance.in_(instances))
            .order_by(found_jobs.c.is_running.desc(), newest, found_jobs.c.job_id, found_jobs.c.instance)
            .limit(ROWS)
        )
        if job is not None:
            statement = statement.where(found_jobs.c.job_id == job)

        def unit(connection: Connection) -> tuple[FoundJob, ...]:
            rows = connection.execute(statement).all()
            read = ((row, readable(Job, row.job_id, row.body)) for row in rows)
            return tuple(FoundJob(row.instance, job, row.seen_at) for row, job in read if job is not None)

        return await self._database.read(unit)

    async def fetch_found_firmware(self, instances: Collection[str]) -> tuple[FoundFirmware, ...]:
        newest = found_firmware.c.created_at.desc().nulls_last()
        statement = (
            select(
                found_firmware.c.instance, found_firmware.c.firmware_id, found_firmware.c.body, found_firmware.c.seen_at
            )
            .where(found_firmware.c.instance.in_(instances))
            .order_by(newest, found_firmware.c.firmware_id, found_firmware.c.instance)
            .limit(ROWS)
        )

        def unit(connection: Connection) -> tuple[FoundFirmware, ...]:
            rows = connection.execute(statement).all()
            read = ((row, readable(Firmware, row.firmware_id, row.body)) for row in rows)
            return tuple(FoundFirmware(row.instance, each, row.seen_at) for row, each in read if each is not None)

        return await self._database.read(unit)


def _firmware_row(instance: str, firmware: Firmware, seen_at: datetime) -> Row:
    return {
        "instance": instance,
        "firmware_id": firmware.firmware_id,
        "seen_at": seen_at,
        "created_at": firmware.created_at,
        "body": to_json(firmware),
    }


def _job_row(instance: str, job: Job, seen_at: datetime) -> Row:
    return {
        "instance": instance,
        "job_id": job.job_id,
        "firmware_id": job.firmware_id,
        "is_running": job.state in _RUNNING,
        "seen_at": seen_at,
        "created_at": job.created_at,
        "body": to_json(job),
    }
