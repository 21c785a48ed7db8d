"""What the IoT Platform's answers hold, as frozen values, and how they are read.

Reading is tolerant, because the documents contradict each other: COMPLETE and COMPLETED, VERFIY_ and VERIFY_, numbers
as text, lists that are absent, empty, single (XML) or wrapped. What is shown is cleaned; what is sent back to the cloud
(versions, tags) is kept letter for letter. Signed download links (FirmwareUrl) are never taken out of an answer.
https://help.aliyun.com/document_detail/202667.htm (statuses)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from bot.alibaba.answers import folded, plain_text

Fields = Mapping[str, object]
"""An answer's fields by lower-case name (`folded`)."""

Row = TypeVar("Row")
_SPELLINGS = {
    "COMPLETE": "COMPLETED",
    "CANCELLED": "CANCELED",
    "VERFIY_FIRMWARE": "VERIFY_FIRMWARE",
}


class Unreadable(ValueError):
    """A value is there, in a shape that nobody knows."""


@dataclass(frozen=True, slots=True)
class OtaSettings:
    """What UpdateOTAJob takes, letter for letter. `per_minute` and `timeout_minutes` are None where none is told."""

    per_minute: int | None
    timeout_minutes: int | None
    src_versions: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class OtaJob:
    """One batch. Statuses and types as the API spells them (misspellings mended), texts "" where absent.

    `settings` is None if one of them is there and cannot be read: sent back, it would be lost.
    """

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
    is_scheduled: bool = False
    created_at: datetime | None = None
    scheduled_at: datetime | None = None
    settings: OtaSettings | None = None


@dataclass(frozen=True, slots=True)
class OtaTask:
    """One device's task in a batch."""

    task_id: str
    job_id: str
    firmware_id: str
    product_key: str
    device_name: str
    status: str
    progress: str
    description: str
    src_version: str
    dest_version: str
    created_at: datetime | None
    modified_at: datetime | None


@dataclass(frozen=True, slots=True)
class OtaFirmware:
    """One package, without its download link."""

    firmware_id: str
    name: str
    product_key: str
    src_version: str
    dest_version: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """A page of a list; `total` is how many rows there are on all pages, None where the API did not say it."""

    rows: tuple[Row, ...]
    total: int | None


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
        is_scheduled=bool(_text(fields, "UtcScheduleTime")),
        created_at=_time(fields, "UtcCreate"),
        scheduled_at=_time(fields, "UtcScheduleTime"),
        settings=_settings(fields),
    )


def read_task(fields: Fields) -> OtaTask:
    return OtaTask(
        task_id=_text(fields, "TaskId"),
        job_id=_text(fields, "JobId"),
        firmware_id=_text(fields, "FirmwareId"),
        product_key=_text(fields, "ProductKey"),
        device_name=_text(fields, "DeviceName"),
        status=_word(fields, "TaskStatus"),
        progress=_text(fields, "Progress"),
        description=_text(fields, "TaskDesc"),
        src_version=_text(fields, "SrcVersion"),
        dest_version=_text(fields, "DestVersion"),
        created_at=_time(fields, "UtcCreate"),
        modified_at=_time(fields, "UtcModified"),
    )


def read_firmware(fields: Fields) -> OtaFirmware:
    return OtaFirmware(
        firmware_id=_text(fields, "FirmwareId"),
        name=_text(fields, "FirmwareName"),
        product_key=_text(fields, "ProductKey"),
        src_version=_text(fields, "SrcVersion"),
        dest_version=_text(fields, "DestVersion"),
        created_at=_time(fields, "UtcCreate"),
    )


def read_page(answer: Fields, wrapper: str, name: str, row: Callable[[Fields], Row]) -> Page[Row]:
    """The list `name` inside `wrapper`, and the total beside it."""
    rows = _listed(answer.get(wrapper.casefold()), name)
    return Page(tuple(row(folded(each)) for each in rows if isinstance(each, dict)), _number(answer, "Total"))


def _settings(fields: Fields) -> OtaSettings | None:
    try:
        timeout = fields.get("timeoutinminutes")
        minutes = _number(fields, "TimeoutInMinutes")
        if minutes is None and timeout not in (None, ""):
            raise Unreadable("TimeoutInMinutes")
        return OtaSettings(
            per_minute=_number(fields, "MaximumPerMinute"),
            timeout_minutes=minutes or None,
            src_versions=tuple(_exact(each) for each in _kept(fields.get("srcversions"), "SrcVersion") if each != ""),
            tags=tuple(_tag(each) for each in _kept(fields.get("tags"), "OtaTagDTO")),
        )
    except Unreadable:
        return None


def _kept(value: object, name: str) -> list[object]:
    """As `_listed`, but what stands in another wrapper than this one is not taken for nothing."""
    if isinstance(value, dict) and value and name.casefold() not in folded(value):
        raise Unreadable(name)
    return _listed(value, name)


def _tag(value: object) -> tuple[str, str]:
    tag = folded(value) if isinstance(value, dict) else {}
    key, text = _exact(tag.get("key")), _exact(tag.get("value"))
    if not key:
        raise Unreadable("a tag without a key")
    return key, text


def _exact(value: object) -> str:
    if not isinstance(value, str):
        raise Unreadable("not a text")
    return value


def _text(fields: Fields, name: str) -> str:
    return plain_text(fields.get(name.casefold()))


def _word(fields: Fields, name: str) -> str:
    word = _text(fields, name).upper()
    return _SPELLINGS.get(word, word)


def _number(fields: Fields, name: str) -> int | None:
    text = _text(fields, name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _time(fields: Fields, name: str) -> datetime | None:
    """An ISO time as aware UTC (``2026-03-01T03:12:00.000Z``; without a zone it is UTC as well), or None."""
    try:
        time = datetime.fromisoformat(_text(fields, name))
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _listed(value: object, name: str) -> list[object]:
    """The list under `name` in its wrapper; absent, empty, single and unwrapped lists are read as well."""
    inner = folded(value).get(name.casefold()) if isinstance(value, dict) else value
    if isinstance(inner, list):
        return inner
    return [] if inner is None or inner == "" else [inner]
