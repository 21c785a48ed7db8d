"""What the simulated IoT service answers: each operation it offers, with its limit, its parameters and its fields.

Values in, values out. The field lists follow the published metadata of version 2018-01-20; fields without a value are
left out. A `FleetRefusal` is the service's own no, a `GatewayRefusal` that of the gateway, which checks parameters.
Creating and retrying rollouts is not offered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from bot.model import JobKind, TaskState
from bot.sandbox.fleet import CANCEL_FLAGS, Firmware, Fleet, FleetRefusal
from bot.sandbox.iot_gateway import COMMON_PARAMS, GatewayRefusal, missing_parameter
from bot.sandbox.rollouts import Rollout, Task

Answer = dict[str, Any]
EmptyRows = Literal["list", "object", "absent"]

_MOST_ROWS = 100_000
_MOST_NAMED_DEVICES = 50
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that the gateway let pass. `empty_rows` is how a list with nothing in it is written."""

    fleet: Fleet
    params: Mapping[str, str]
    request_id: str
    instance_id: str
    empty_rows: EmptyRows = "list"

    def text(self, name: str) -> str:
        return self.params.get(name, "")

    def number(self, name: str, default: int) -> int:
        given = self.params.get(name, "")
        if not given:
            return default
        if not re.fullmatch(r"-?[0-9]{1,9}", given):
            raise GatewayRefusal(400, "InvalidParameter", f"Specified parameter {name} is not valid.")
        return int(given)

    def flags(self, names: Sequence[str]) -> dict[str, bool]:
        """The flags that were sent. SDKs of some languages write them with a capital letter."""
        flags: dict[str, bool] = {}
        for name in names:
            given = self.params.get(name, "")
            if given and given.lower() not in _FLAGS:
                raise GatewayRefusal(400, "InvalidParameter", f"Specified parameter {name} is not valid.")
            if given:
                flags[name] = _FLAGS[given.lower()]
        return flags

    def listed(self, name: str) -> tuple[str, ...]:
        """The values of `Name.1`, `Name.2` …"""
        found = [(key, value) for key, value in self.params.items() if re.fullmatch(rf"{name}\.[0-9]{{1,4}}", key)]
        return tuple(value for _, value in sorted(found, key=lambda pair: int(pair[0].rpartition(".")[2])))

    def own_params(self) -> dict[str, str]:
        """The parameters of the operation, without those of the signature."""
        return {name: value for name, value in self.params.items() if name not in COMMON_PARAMS}

    def page(self, *, largest: int) -> tuple[int, int]:
        """The page's number and size. Raises `FleetRefusal` outside the documented limits."""
        current, size = self.number("CurrentPage", 1), self.number("PageSize", 10)
        if current < 1 or not 1 <= size <= largest or current * size > _MOST_ROWS:
            raise FleetRefusal("iot.common.InvalidPageParams", "The page parameters are not valid.")
        return current, size


@dataclass(frozen=True, slots=True)
class Offered:
    """An operation of the service: calls per second of an account, parameters that must be given, and its answer."""

    calls_per_second: int
    required: tuple[str, ...]
    answer: Callable[[Asked], Answer]


def answer(action: str, asked: Asked) -> Answer:
    """The fields of a success, without the envelope."""
    offered = OFFERED[action]
    for name in offered.required:
        if not asked.text(name):
            raise missing_parameter(name)
    return offered.answer(asked)


def _cancel_tasks(asked: Asked) -> Answer:
    asked.fleet.cancel_tasks(
        asked.text("JobId"),
        asked.flags(CANCEL_FLAGS),
        instance_id=asked.instance_id,
        request_id=asked.request_id,
        params=asked.own_params(),
    )
    return {}


def _cancel_strategy(asked: Asked) -> Answer:
    asked.fleet.cancel_strategy(
        asked.text("JobId"),
        instance_id=asked.instance_id,
        request_id=asked.request_id,
        params=asked.own_params(),
    )
    return {}


def _query_job(asked: Asked) -> Answer:
    rollout = asked.fleet.job(asked.text("JobId"), instance_id=asked.instance_id)
    facts, course = rollout.facts, rollout.course
    firmware = asked.fleet.firmwares[facts.firmware_id]
    is_dynamic = facts.kind is JobKind.DYNAMIC
    return {
        "Data": {
            **_job_fields(asked.fleet, rollout),
            "Name": firmware.name,
            "DestVersion": firmware.dest_version,
            "JobDesc": facts.description,
            "UtcScheduleTime": _utc(facts.starts_at) if facts.kind is JobKind.SCHEDULED else None,
            "GrayPercent": facts.gray_percent,
            "MaximumPerMinute": max(10, round(course.per_minute)),
            "TimeoutInMinutes": course.timeout_minutes,
            "OverwriteMode": 1 if facts.kind in (JobKind.STATIC, JobKind.DYNAMIC) else None,
            "DynamicMode": 1 if is_dynamic else None,
            "NeedConfirm": course.confirm_seconds is not None,
            "NeedPush": True,
            "MultiModuleMode": False,
            "DownloadProtocol": "HTTPS",
            "SrcVersions": {"SrcVersion": list(facts.src_versions)},
        }
    }


def _list_tasks(asked: Asked) -> Answer:
    rollout = asked.fleet.job(asked.text("JobId"), instance_id=asked.instance_id)
    state = _task_state(asked.text("TaskStatus"))
    names = frozenset(asked.listed("DeviceNames"))
    now = asked.fleet.now()
    if len(names) > _MOST_NAMED_DEVICES:
        raise FleetRefusal("iot.device.TooManyDeviceNamesPerRequest", "The request names too many devices.")
    current, size = asked.page(largest=100)
    if names:
        found = list(rollout.tasks(now, state=state, names=names))
        current, size, total, shown = 1, max(size, len(found)), len(found), found
    else:
        counts = rollout.counts(now)
        total = counts[state.value] if state else sum(counts.values())
        first = (current - 1) * size
        shown = list(rollout.tasks(now, state=state))[first : first + size] if first < total else []
    rows = [_task_fields(asked.fleet, rollout, task, now) for task in shown]
    return _paged(asked, "Data", "SimpleOTATaskInfo", rows, page=(current, size), total=total)


def _list_jobs(asked: Asked) -> Answer:
    firmware = asked.fleet.firmwares.get(asked.text("FirmwareId"))
    if firmware is None or firmware.instance_id != asked.instance_id:
        raise FleetRefusal("iot.ota.FirmwareNotFound", "The update package does not exist.")
    current, size = asked.page(largest=200)
    found = asked.fleet.jobs_of(firmware.firmware_id)
    rows = [_job_fields(asked.fleet, rollout) for rollout in found[(current - 1) * size : current * size]]
    return _paged(asked, "Data", "SimpleOTAJobInfo", rows, page=(current, size), total=len(found))


def _list_firmware(asked: Asked) -> Answer:
    current, size = asked.page(largest=100)
    product, version = asked.text("ProductKey"), asked.text("DestVersion")
    found = [
        firmware
        for firmware in asked.fleet.firmwares.values()
        if firmware.instance_id == asked.instance_id
        and product in ("", firmware.product_key)
        and version in ("", firmware.dest_version)
    ]
    found.sort(key=lambda firmware: (-firmware.created_at, firmware.firmware_id))
    rows = [_firmware_fields(asked.fleet, firmware) for firmware in found[(current - 1) * size : current * size]]
    return _paged(asked, "FirmwareInfo", "SimpleFirmwareInfo", rows, page=(current, size), total=len(found))


OFFERED: Mapping[str, Offered] = {
    "CancelOTATaskByJob": Offered(5, ("JobId",), _cancel_tasks),
    "CancelOTAStrategyByJob": Offered(10, ("JobId",), _cancel_strategy),
    "QueryOTAJob": Offered(10, ("JobId",), _query_job),
    "ListOTATaskByJob": Offered(10, ("JobId",), _list_tasks),
    "ListOTAJobByFirmware": Offered(10, ("FirmwareId", "CurrentPage", "PageSize"), _list_jobs),
    "ListOTAFirmware": Offered(10, ("CurrentPage", "PageSize"), _list_firmware),
}


def _paged(
    asked: Asked, outer: str, inner: str, rows: Sequence[Answer], *, page: tuple[int, int], total: int
) -> Answer:
    current, size = page
    paging = {"CurrentPage": current, "PageSize": size, "PageCount": -(-total // size), "Total": total}
    if not rows and asked.empty_rows == "absent":
        return paging
    return {**paging, outer: {} if not rows and asked.empty_rows == "object" else {inner: list(rows)}}


def _job_fields(fleet: Fleet, rollout: Rollout) -> Answer:
    facts, now = rollout.facts, fleet.now()
    ended_at = rollout.ended_at(now)
    return {
        "JobId": facts.job_id,
        "FirmwareId": facts.firmware_id,
        "ProductKey": facts.product_key,
        "JobStatus": rollout.state(now).value,
        "JobType": "VERIFY_FIRMWARE" if facts.kind is JobKind.VERIFICATION else "UPGRADE_FIRMWARE",
        "SelectionType": "DYNAMIC" if facts.kind is JobKind.DYNAMIC else "STATIC",
        "TargetSelection": facts.target_selection,
        "UtcCreate": _utc(facts.created_at),
        "UtcModified": _utc(rollout.changed_at(now)),
        "UtcStartTime": _utc(facts.starts_at),
        "UtcEndTime": None if ended_at is None else _utc(ended_at),
        "Tags": {"OtaTagDTO": [{"Key": key, "Value": value} for key, value in facts.tags.items()]},
    }


def _task_fields(fleet: Fleet, rollout: Rollout, task: Task, now: float) -> Answer:
    facts = rollout.facts
    changed_at, state = task.move_at(now)
    timeout = rollout.course.timeout_minutes
    return {
        "TaskId": _id(f"{facts.job_id}/{task.number}", 22),
        "JobId": facts.job_id,
        "FirmwareId": facts.firmware_id,
        "ProductKey": facts.product_key,
        "ProductName": fleet.products[facts.product_key].name,
        "DeviceName": task.device_name,
        "IotId": _id(f"{facts.product_key}/{task.device_name}", 20) + "000100",
        "TaskStatus": state.value,
        "Progress": f"{task.progress_at(now):.2f}",
        "TaskDesc": task.failure if state is TaskState.FAILED else "",
        "SrcVersion": facts.src_versions[0] if facts.src_versions else "",
        "DestVersion": fleet.firmwares[facts.firmware_id].dest_version,
        "Timeout": "" if timeout is None else str(timeout),
        "UtcCreate": _utc(task.created_at),
        "UtcModified": _utc(changed_at),
    }


def _firmware_fields(fleet: Fleet, firmware: Firmware) -> Answer:
    return {
        "FirmwareId": firmware.firmware_id,
        "FirmwareName": firmware.name,
        "FirmwareDesc": firmware.description,
        "FirmwareSign": firmware.sign,
        "SignMethod": "MD5",
        "FirmwareSize": firmware.size,
        "ModuleName": firmware.module_name,
        "ProductKey": firmware.product_key,
        "ProductName": fleet.products[firmware.product_key].name,
        "SrcVersion": firmware.src_version,
        "DestVersion": firmware.dest_version,
        "Status": firmware.status,
        "Type": 1 if firmware.is_delta else 0,
        "UtcCreate": _utc(firmware.created_at),
        "UtcModified": _utc(firmware.created_at),
    }


def _task_state(given: str) -> TaskState | None:
    if not given:
        return None
    try:
        return TaskState(given)
    except ValueError:
        raise FleetRefusal("iot.firmware.InvalidTaskStatus", "The task status is not valid.") from None


def _id(of: str, length: int) -> str:
    """An id that is the same for the same thing, in every run."""
    return hashlib.sha256(of.encode()).hexdigest()[:length]


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
