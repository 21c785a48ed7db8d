"""The changes that the API offers: a step of the road in, an action and its parameters out. No I/O.

The same step gives the same parameters each time, so that a call can be sent again byte for byte. Whatever the API
would not take is found before anything is sent: more names than a call may hold are a defect of ours (ValueError), a
fact that the cloud itself left out is a `CloudRefused` of our own.
https://www.alibabacloud.com/help/doc-detail/147909.htm (tasks), 147905 (strategy), 147920 (devices),
https://help.aliyun.com/zh/iot/developer-reference/api-updateotajob (rate)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bot.errors import CloudRefused
from bot.model import JobSettings, Step, StepKind, Target, Touch

INCOMPLETE = "otabrake.IncompleteAnswer"
"""The cloud did not tell something that the call must name."""

DEVICES_A_CALL = 200
TASKS_A_CALL = 10
PER_MINUTE = range(10, 10_001)

ACTIONS = {
    StepKind.CANCEL_STRATEGY: "CancelOTAStrategyByJob",
    StepKind.CANCEL_TASKS: "CancelOTATaskByJob",
    StepKind.CANCEL_DEVICES: "CancelOTATaskByDevice",
    StepKind.RETRY_TASKS: "ReupgradeOTATask",
    StepKind.SET_RATE: "UpdateOTAJob",
}

_FLAGS = {
    "CancelScheduledTask": Touch.SCHEDULED,
    "CancelQueuedTask": Touch.QUEUED,
    "CancelNotifiedTask": Touch.NOTIFIED,
    "CancelInProgressTask": Touch.IN_PROGRESS,
    "CancelUnconfirmedTask": Touch.CONFIRM,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One call. Lists are spelt ``DeviceName.1``, ``Tags.1.Key``, booleans in lower case."""

    action: str
    params: Mapping[str, str]


def change_of(step: Step) -> Change:
    """The call that makes a step. Raises ValueError or `CloudRefused` if the API would not take it."""
    target = step.target
    if not target.job:
        raise ValueError(f"{step.kind} must name a job")
    match step.kind:
        case StepKind.CANCEL_STRATEGY:
            params = {"JobId": target.job}
        case StepKind.CANCEL_TASKS:
            params = {"JobId": target.job, **_flags(step.touches)}
        case StepKind.CANCEL_DEVICES:
            params = _devices(target, step.devices)
        case StepKind.RETRY_TASKS:
            params = {"JobId": target.job, **_list("TaskId", step.tasks, most=TASKS_A_CALL)}
        case StepKind.SET_RATE:
            params = _settings(target, step.settings)
    return Change(ACTIONS[step.kind], params)


def _flags(touches: frozenset[Touch]) -> dict[str, str]:
    """CancelUnconfirmedTask is always said: unsaid, the cloud would cancel CONFIRM tasks together with queued ones."""
    if not touches:
        raise ValueError("a cancel call must name at least one kind of task")
    given = {flag: "true" for flag, touch in _FLAGS.items() if touch in touches}
    return given if Touch.CONFIRM in touches else given | {"CancelUnconfirmedTask": "false"}


def _devices(target: Target, devices: Sequence[str]) -> dict[str, str]:
    """Without the job the call would concern every batch of the firmware."""
    return {
        "ProductKey": _known(target.product, "ProductKey", target),
        "FirmwareId": _known(target.firmware, "FirmwareId", target),
        "JobId": target.job,
        **_list("DeviceName", devices, most=DEVICES_A_CALL),
    }


def _settings(target: Target, settings: JobSettings | None) -> dict[str, str]:
    """All that a batch shall have: what is left out, the cloud may forget (tags it does).

    Time-out and versions are taken for a dynamic batch only.
    """
    if settings is None or settings.per_minute not in PER_MINUTE:
        raise ValueError(f"a rate is between {PER_MINUTE[0]} and {PER_MINUTE[-1]} devices a minute")
    is_dynamic = settings.upgrade_type == "DYNAMIC"
    params = {
        "JobId": target.job,
        "MaximumPerMinute": str(settings.per_minute),
        "TargetSelection": _known(settings.target_selection, "TargetSelection", target),
        "UpgradeType": _known(settings.upgrade_type, "SelectionType", target),
    }
    if is_dynamic and settings.timeout_minutes is not None:
        params["TimeoutInMinutes"] = str(settings.timeout_minutes)
    if is_dynamic and settings.src_versions:
        params |= _list("SrcVersionList", settings.src_versions)
    for number, (key, value) in enumerate(settings.tags, start=1):
        params |= {f"Tags.{number}.Key": key, f"Tags.{number}.Value": value}
    return params


def _known(value: str, name: str, target: Target) -> str:
    if not value:
        raise CloudRefused(INCOMPLETE, f"the cloud did not tell the {name} of job {target.job}; nothing was sent")
    return value


def _list(name: str, values: Sequence[str], *, most: int | None = None) -> dict[str, str]:
    if not values or len(values) > (most or len(values)) or len(set(values)) != len(values):
        raise ValueError(f"a call takes 1 to {most or 'many'} different values of {name}, not {len(values)}")
    if not all(values):
        raise CloudRefused(INCOMPLETE, f"the cloud left a {name} empty; nothing was sent")
    return {f"{name}.{number}": value for number, value in enumerate(values, start=1)}
