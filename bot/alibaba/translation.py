"""The API's records in the words of the core. Pure.

What is in a state that nobody knows is never taken for something else. A batch in one is a `CloudLost`, because nothing
may be decided about it; a task in one is left out of its list, because where numbers count each state is asked for by
name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from bot.alibaba.records import OtaFirmware, OtaJob, OtaTask
from bot.errors import CloudLost
from bot.model import Firmware, Job, JobKind, JobSettings, JobState, Task, TaskState

MOST_REASONS = 5
_STATES = frozenset(TaskState)
_EARLIEST = datetime.min.replace(tzinfo=UTC)


def job_of(record: OtaJob) -> Job:
    """A batch as QueryOTAJob tells it. Raises `CloudLost` if its state is not known."""
    try:
        state = JobState(record.status)
    except ValueError:
        raise CloudLost(f"the answer holds a job status that is not known: {record.status or 'none'}") from None
    return Job(
        job_id=record.job_id,
        state=state,
        kind=_kind_of(record),
        firmware_id=record.firmware_id,
        firmware=record.name,
        product=record.product_key,
        dest_version=record.dest_version,
        src_versions=record.src_versions,
        description=record.description,
        created_at=record.created_at,
        planned_for=record.scheduled_at,
        settings=_settings_of(record),
    )


def listed_jobs_of(records: Iterable[OtaJob], *, is_leaving_out_unknown: bool = False) -> tuple[Job, ...]:
    """Batches as a list tells them, without their settings, and each once.

    Raises `CloudLost` for one in a state that is not known, unless such are left out.
    """
    known = {state.value for state in JobState}
    return tuple(
        replace(job_of(record), settings=None)
        for record in {record.job_id: record for record in records}.values()
        if record.status in known or not is_leaving_out_unknown
    )


def tasks_of(records: Iterable[OtaTask]) -> tuple[Task, ...]:
    return tuple(_task_of(record) for record in records if record.status in _STATES)


def firmware_of(records: Iterable[OtaFirmware]) -> tuple[Firmware, ...]:
    """Each package once, the newest first; one of unknown age comes last."""
    by_id = {
        record.firmware_id: Firmware(
            firmware_id=record.firmware_id,
            name=record.name,
            product=record.product_key,
            dest_version=record.dest_version,
            src_version=record.src_version,
            created_at=record.created_at,
        )
        for record in records
    }
    return tuple(sorted(by_id.values(), key=lambda each: each.created_at or _EARLIEST, reverse=True))


def reasons_of(records: Iterable[OtaTask]) -> Mapping[str, int]:
    """Why tasks failed, as the cloud wrote it, the most frequent first; a task without a word is left out."""
    said = Counter(record.description for record in records if record.status == TaskState.FAILED and record.description)
    return dict(said.most_common(MOST_REASONS))


def _task_of(record: OtaTask) -> Task:
    return Task(
        task_id=record.task_id,
        device=record.device_name,
        state=TaskState(record.status),
        job_id=record.job_id,
        firmware_id=record.firmware_id,
        product=record.product_key,
        progress=record.progress,
        detail=record.description,
        src_version=record.src_version,
        dest_version=record.dest_version,
        created_at=record.created_at,
        changed_at=record.modified_at,
    )


def _kind_of(record: OtaJob) -> JobKind:
    """Lists do not tell the hour of a scheduled batch; but only such a one is ever planned."""
    if record.selection_type == "DYNAMIC":
        return JobKind.DYNAMIC
    if record.job_type == "VERIFY_FIRMWARE":
        return JobKind.VERIFICATION
    return JobKind.SCHEDULED if record.is_scheduled or record.status == JobState.PLANNED else JobKind.STATIC


def _settings_of(record: OtaJob) -> JobSettings | None:
    """A dynamic batch always selects ALL, so that need not be told."""
    if record.settings is None:
        return None
    is_dynamic = record.selection_type == "DYNAMIC"
    return JobSettings(
        per_minute=record.settings.per_minute,
        timeout_minutes=record.settings.timeout_minutes,
        target_selection=record.target_selection or ("ALL" if is_dynamic else ""),
        upgrade_type=record.selection_type,
        src_versions=record.settings.src_versions,
        tags=record.settings.tags,
    )
