"""What the IoT Platform's answers hold, as frozen values, and how they are read.

Reading is tolerant, because the documents contradict each other: COMPLETE and COMPLETED, VERFIY_ and VERIFY_, numbers
as text, lists that are absent, empty, single (XML) or wrapped. Signed download links (FirmwareUrl) are never taken out
of an answer. https://help.aliyun.com/document_detail/202667.htm (statuses)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from bot.alibaba.answers import folded, plain_text

Fields = Mapping[str, object]
"""An answer's fields by lower-case name (`folded`)."""

_Row = TypeVar("_Row")
_SPELLINGS = {
    "COMPLETE": "COMPLETED",
    "CANCELLED": "CANCELED",
    "VERFIY_FIRMWARE": "VERIFY_FIRMWARE",
}


@dataclass(frozen=True, slots=True)
class OtaJob:
    """One batch. Statuses and types as the API spells them (misspellings mended), times as text, "" where absent."""

    job_id: str
    status: str
    job_type: str
    selection_type: str
    target_selection: str
    firmware_id: str
    product_key: str
    name: str = ""
    dest_version: str = ""
    src_versions: tuple[str, ...] = ()
    description: str = ""
    created_at: str = ""
    started_at: str = ""
    ended_at: str = ""
    scheduled_at: str = ""


@dataclass(frozen=True, slots=True)
class OtaTask:
    """One device's task in a batch."""

    task_id: str
    device_name: str
    status: str
    progress: str
    description: str
    src_version: str
    dest_version: str
    modified_at: str


@dataclass(frozen=True, slots=True)
class Firmware:
    """One package, without its download link."""

    firmware_id: str
    name: str
    product_key: str
    module_name: str
    src_version: str
    dest_version: str
    created_at: str


@dataclass(frozen=True, slots=True)
class TaskPage:
    """`total` is None where the API did not say it."""

    tasks: tuple[OtaTask, ...]
    total: int | None
    current_page: int | None
    page_size: int | None


@dataclass(frozen=True, slots=True)
class JobPage:
    jobs: tuple[OtaJob, ...]
    total: int | None
    current_page: int | None
    page_size: int | None


@dataclass(frozen=True, slots=True)
class FirmwarePage:
    firmware: tuple[Firmware, ...]
    total: int | None
    current_page: int | None
    page_size: int | None


def read_job(fields: Fields) -> OtaJob:
    return OtaJob(
        job_id=_text(fields, "JobId"),
        status=_word(fields, "JobStatus"),
        job_type=_word(fields, "JobType"),
        selection_type=_word(fields, "SelectionType"),
        target_selection=_word(fields, "TargetSelection"),
        firmware_id=_text(fields, "FirmwareId"),
        product_key=_text(fields, "ProductKey"),
        name=_text(fields, "Name"),
        dest_version=_text(fields, "DestVersion"),
        src_versions=tuple(
            plain_text(each) for each in _listed(fields.get("srcversions"), "SrcVersion") if plain_text(each)
        ),
        description=_text(fields, "JobDesc"),
        created_at=_text(fields, "UtcCreate"),
        started_at=_text(fields, "UtcStartTime"),
        ended_at=_text(fields, "UtcEndTime"),
        scheduled_at=_text(fields, "UtcScheduleTime"),
    )


def read_task(fields: Fields) -> OtaTask:
    return OtaTask(
        task_id=_text(fields, "TaskId"),
        device_name=_text(fields, "DeviceName"),
        status=_word(fields, "TaskStatus"),
        progress=_text(fields, "Progress"),
        description=_text(fields, "TaskDesc"),
        src_version=_text(fields, "SrcVersion"),
        dest_version=_text(fields, "DestVersion"),
        modified_at=_text(fields, "UtcModified"),
    )


def read_firmware(fields: Fields) -> Firmware:
    return Firmware(
        firmware_id=_text(fields, "FirmwareId"),
        name=_text(fields, "FirmwareName"),
        product_key=_text(fields, "ProductKey"),
        module_name=_text(fields, "ModuleName"),
        src_version=_text(fields, "SrcVersion"),
        dest_version=_text(fields, "DestVersion"),
        created_at=_text(fields, "UtcCreate"),
    )


def _text(fields: Fields, name: str) -> str:
    return plain_text(fields.get(name.casefold()))


def _word(fields: Fields, name: str) -> str:
    word = _text(fields, name).upper()
    return _SPELLINGS.get(word, word)


def _number(fields: Fields, name: str) -> int | None:
    text = _text(fields, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def read_paging(fields: Fields) -> tuple[int | None, int | None, int | None]:
    return _number(fields, "Total"), _number(fields, "CurrentPage"), _number(fields, "PageSize")


def _listed(value: object, name: str) -> list[object]:
    """The list under `name` in its wrapper; absent, empty, single and unwrapped lists are read as well."""
    inner = folded(value).get(name.casefold()) if isinstance(value, dict) else value
    if isinstance(inner, list):
        return inner
    return [] if inner is None or inner == "" else [inner]


def read_rows(value: object, name: str, row: Callable[[Fields], _Row]) -> tuple[_Row, ...]:
    return tuple(row(folded(each)) for each in _listed(value, name) if isinstance(each, dict))
