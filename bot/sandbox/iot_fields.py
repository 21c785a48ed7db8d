"""The fields of the simulated service's answers, by the published metadata of version 2018-01-20.

Fields without a value are None, and left out when they are written. What a job shows is all that UpdateOTAJob resends.
"""

from __future__ import annotations

from datetime import UTC, datetime

from bot.model import JobKind, JobState, TaskState
from bot.sandbox.courses import Task, iot_id, stable_id
from bot.sandbox.facts import Facts
from bot.sandbox.fleet import Fleet
from bot.sandbox.inventory import Firmware
from bot.sandbox.iot_asked import Answer
from bot.sandbox.rollouts import Rollout


def job_fields(fleet: Fleet, rollout: Rollout) -> Answer:
    """What lists of jobs show of one."""
    facts, now = rollout.facts, fleet.now()
    ended_at, state = rollout.ended_at(now), rollout.state(now)
    return {
        "JobId": facts.job_id,
        "FirmwareId": facts.firmware_id,
        "ProductKey": facts.product_key,
        "JobStatus": fleet.habits.completed_word if state is JobState.COMPLETED else state.value,
        "JobType": fleet.habits.verify_word if facts.kind is JobKind.VERIFICATION else "UPGRADE_FIRMWARE",
        "SelectionType": "DYNAMIC" if facts.kind is JobKind.DYNAMIC else "STATIC",
        "TargetSelection": facts.target_selection,
        "UtcCreate": _utc(facts.created_at),
        "UtcModified": _utc(rollout.changed_at(now)),
        "UtcStartTime": _utc(facts.starts_at),
        "UtcEndTime": _utc(ended_at),
        "Tags": {"OtaTagDTO": [{"Key": key, "Value": value} for key, value in rollout.settings.tags.items()]},
    }


def job_details(fleet: Fleet, rollout: Rollout) -> Answer:
    """What QueryOTAJob adds."""
    facts, settings = rollout.facts, rollout.settings
    firmware = fleet.firmwares[facts.firmware_id]
    return {
        "Name": firmware.name,
        "DestVersion": firmware.dest_version,
        "JobDesc": facts.description,
        "UtcScheduleTime": _utc(facts.starts_at) if facts.kind is JobKind.SCHEDULED else None,
        "UtcScheduleFinishTime": _utc(facts.finishes_at),
        "GrayPercent": facts.gray_percent,
        "GroupId": facts.group_id,
        "GroupName": facts.group_name,
        "MaximumPerMinute": min(10_000, max(10, round(settings.per_minute))),
        "TimeoutInMinutes": settings.timeout_minutes,
        "RetryInterval": facts.retry_interval,
        "RetryCount": facts.retry_count,
        "OverwriteMode": _overwrite_mode(facts),
        "DynamicMode": facts.dynamic_mode if facts.kind is JobKind.DYNAMIC else None,
        "NeedConfirm": rollout.course.confirm_seconds is not None,
        "NeedPush": True,
        "MultiModuleMode": False,
        "DownloadProtocol": "HTTPS",
        "SrcVersions": {"SrcVersion": list(settings.src_versions)},
    }


def task_fields(fleet: Fleet, rollout: Rollout, task: Task) -> Answer:
    """A row of ListOTATaskByJob."""
    timeout, now = rollout.settings.timeout_minutes, fleet.now()
    return {
        **_task_of_any_list(fleet, rollout, task),
        "Progress": f"{task.progress_at(now):.2f}",
        "TaskDesc": task.failure if task.move_at(now)[1] is TaskState.FAILED else "",
        "Timeout": "" if timeout is None else str(timeout),
    }


def open_task_fields(fleet: Fleet, rollout: Rollout, task: Task) -> Answer:
    """A row of ListOTAUnfinishedTaskByDevice."""
    module = fleet.firmwares[rollout.facts.firmware_id].module_name
    return {**_task_of_any_list(fleet, rollout, task), "ModuleName": module}


def _task_of_any_list(fleet: Fleet, rollout: Rollout, task: Task) -> Answer:
    facts, versions = rollout.facts, rollout.settings.src_versions
    changed_at, state = task.move_at(fleet.now())
    return {
        "TaskId": rollout.task_id(task),
        "JobId": facts.job_id,
        "FirmwareId": facts.firmware_id,
        "ProductKey": facts.product_key,
        "ProductName": fleet.products[facts.product_key].name,
        "DeviceName": task.device_name,
        "IotId": iot_id(facts.product_key, task.device_name),
        "TaskStatus": state.value,
        "SrcVersion": versions[0] if versions else "",
        "DestVersion": fleet.firmwares[facts.firmware_id].dest_version,
        "UtcCreate": _utc(task.created_at),
        "UtcModified": _utc(changed_at),
    }


def firmware_fields(fleet: Fleet, firmware: Firmware) -> Answer:
    """What lists of packages show of one."""
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


def firmware_details(firmware: Firmware) -> Answer:
    """What QueryOTAFirmware adds: among others addresses that are signed, and must not be passed on."""
    return {
        "FirmwareUrl": _signed_url(firmware.firmware_id) if not firmware.files else None,
        "Udi": firmware.udi,
        "VerifyProgress": 100 if firmware.status == 1 else 0,
        "MultiFiles": [
            {
                "Name": name,
                "Size": firmware.size // len(firmware.files),
                "Url": _signed_url(f"{firmware.firmware_id}/{name}"),
                "FileMd5": stable_id(name, 32),
                "SignValue": stable_id(name, 32),
            }
            for name in firmware.files
        ],
    }


def _signed_url(of: str) -> str:
    signature = stable_id(of, 27)
    return f"https://iotx-ota.oss.example/{of}?Expires=1800000000&OSSAccessKeyId=LTAI&Signature={signature}%3D"


def _overwrite_mode(facts: Facts) -> int | None:
    if facts.overwrite_mode is not None:
        return facts.overwrite_mode
    return 1 if facts.kind in (JobKind.STATIC, JobKind.DYNAMIC) else None


def _utc(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
