"""What the simulator answers, field by field, against the model classes of the official SDK."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest

from bot.model import TaskState
from bot.sandbox.fleet import Fleet
from bot.sandbox.iot_answers import OFFERED, answer
from bot.sandbox.iot_asked import Asked
from tests.test_sandbox_iot import EPOCH, FIRMWARE, INSTANCE, SEED, STATIC

pytestmark = [
    # What the SDK and its dependencies do is not ours to mend; newer Pythons warn about it.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]

GATEWAY = "a1Gateway01"
RICH_FIRMWARE = {
    **{"firmware_id": "R1chF", "instance_id": INSTANCE, "product_key": GATEWAY, "name": "rich", "dest_version": "9"},
    **{"src_version": "8", "is_delta": True, "udi": "{}", "files": ["one.bin", "two.bin"], "size": 10},
}
RICH_JOB: dict[str, Any] = {
    **{"instance_id": INSTANCE, "product_key": GATEWAY, "firmware_id": "R1chF", "device_prefix": "r-"},
    **{"tags": {"ring": "1"}, "src_versions": ["8"], "gray_percent": "50.00", "retry_interval": 10, "retry_count": 2},
    **{"group_id": "g", "group_name": "group", "overwrite_mode": 2, "finishes_in_seconds": 7200},
    "course": {"devices": 20, "per_minute": 1, "timeout_minutes": 60},
}
JOBS = [
    {**RICH_JOB, "job_id": "R1chScheduled", "kind": "scheduled", "starts_in_seconds": 600},
    {**RICH_JOB, "job_id": "R1chDynamic", "kind": "dynamic"},
    {**RICH_JOB, "job_id": "R1chOver", "canceled_seconds_ago": 0},
]
PAGE = {"CurrentPage": "1", "PageSize": "10"}
DEVICE = {"ProductKey": GATEWAY, "DeviceName": "r-00001"}
RATE = {"MaximumPerMinute": "10", "TargetSelection": "ALL", "UpgradeType": "STATIC"}
ASKED: dict[str, list[dict[str, str]]] = {
    "CancelOTATaskByJob": [{"JobId": STATIC, "CancelQueuedTask": "true"}],
    "CancelOTAStrategyByJob": [{"JobId": "R1chDynamic"}],
    "CancelOTATaskByDevice": [{"ProductKey": GATEWAY, "FirmwareId": "R1chF", "DeviceName.1": "r-00001"}],
    "ReupgradeOTATask": [{"JobId": STATIC, "TaskId.1": "FAILED"}],
    "ConfirmOTATask": [{"TaskId.1": "CONFIRM"}],
    "UpdateOTAJob": [{"JobId": STATIC, **RATE}],
    "QueryOTAJob": [{"JobId": job["job_id"]} for job in JOBS],
    "ListOTATaskByJob": [{"JobId": STATIC, **PAGE}],
    "ListOTAJobByFirmware": [{"FirmwareId": "R1chF", **PAGE}],
    "ListOTAJobByDevice": [{"FirmwareId": "R1chF", **DEVICE, **PAGE}],
    "ListOTAUnfinishedTaskByDevice": [DEVICE],
    "ListOTAFirmware": [PAGE],
    "QueryOTAFirmware": [{"FirmwareId": "R1chF"}, {"FirmwareId": FIRMWARE}],
}
"""Calls that together show every field of an answer."""

OF_FAILURES = {"code", "errormessage"}


def model(name: str) -> Any:
    from alibabacloud_iot20180120 import models

    return getattr(models, name)


def wire(attribute: str) -> str:
    """Names as far as they can be compared: `file_md_5` in the SDK is `FileMd5` on the wire."""
    return attribute.replace("_", "").lower()


def declared(kind: Any) -> dict[str, Any]:
    """The fields of a model and their types."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {wire(each.name): each.annotation for each in parameters if each.name != "self"}


def disagreements(value: Any, kind: Any, path: str) -> Iterator[str]:
    """What the SDK would not expect: a field that it doesn't know, or another type."""
    if value is None:
        return
    if get_origin(kind) is list:
        if not isinstance(value, list):
            yield f"{path}: {value!r} is not a list"
            return
        for each in value:
            yield from disagreements(each, get_args(kind)[0], f"{path}[]")
    elif kind in (str, int, bool):
        if type(value) is not kind:
            yield f"{path}: {value!r} is not {kind.__name__}"
    elif not isinstance(value, dict):
        yield f"{path}: {value!r} is not an object"
    else:
        fields = declared(kind)
        for name, each in value.items():
            if wire(name) not in fields:
                yield f"{path}.{name} is unknown"
            else:
                yield from disagreements(each, fields[wire(name)], f"{path}.{name}")


def leaves(kind: Any, path: str = "") -> Iterator[str]:
    """The paths of all that an answer may hold."""
    kind = get_args(kind)[0] if get_origin(kind) is list else kind
    if kind in (str, int, bool):
        yield path
        return
    for name, inner in declared(kind).items():
        yield from leaves(inner, f"{path}.{name}".strip("."))


def given_leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from given_leaves(inner, f"{path}.{wire(name)}".strip("."))
    elif isinstance(value, list):
        for inner in value:
            yield from given_leaves(inner, path)
    elif value is not None:
        yield path


def answers(action: str) -> Iterator[dict[str, Any]]:
    data = {**SEED, "firmwares": [*SEED["firmwares"], RICH_FIRMWARE], "jobs": [*SEED["jobs"], *JOBS]}
    for given in ASKED[action]:
        fleet = Fleet.from_seed(data, now=lambda: EPOCH)
        params = dict(given)
        if params.get("TaskId.1") in ("FAILED", "CONFIRM"):
            rollout = fleet.job(params.get("JobId", "C0nf1rmLp9OkMjUh7Yb601"))
            (task, *_) = rollout.tasks(EPOCH, state=TaskState(params["TaskId.1"]))
            params["TaskId.1"] = rollout.task_id(task)
        yield {"RequestId": "R", "Success": True, **answer(action, Asked(fleet, params, "R", INSTANCE))}


def test_every_operation_is_covered() -> None:
    assert set(ASKED) == set(OFFERED)


@pytest.mark.parametrize("action", OFFERED)
def test_every_field_has_the_name_and_the_type_of_the_sdk(action: str) -> None:
    kind = model(f"{action}ResponseBody")
    assert [line for body in answers(action) for line in disagreements(body, kind, action)] == []


@pytest.mark.parametrize("action", OFFERED)
def test_every_field_of_the_sdk_is_answered(action: str) -> None:
    seen = {path for body in answers(action) for path in given_leaves(body)}
    assert set(leaves(model(f"{action}ResponseBody"))) == seen | OF_FAILURES


@pytest.mark.parametrize("action", OFFERED)
def test_every_parameter_that_must_be_given_is_one_of_the_sdk(action: str) -> None:
    known = declared(model(f"{action}Request"))
    offered = OFFERED[action]
    assert {wire(name) for name in (*offered.required, *offered.lists)} <= set(known)
    assert all(get_origin(known[wire(name)]) is list for name in offered.lists)


def test_a_wrong_field_or_type_would_be_noticed() -> None:
    kind = model("QueryOTAJobResponseBody")
    wrong = {"Success": "true", "Data": {"JobId": 7, "Colour": "red", "Tags": {"OtaTagDTO": {}}}}
    assert len(list(disagreements(wrong, kind, "QueryOTAJob"))) == 4
