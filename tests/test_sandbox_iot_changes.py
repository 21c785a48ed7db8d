"""The calls of the simulator that change single devices, single tasks and settings, over ASGI in both schemes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from defusedxml import ElementTree

from bot.model import TaskState
from bot.sandbox.courses import Task
from bot.sandbox.habits import Habits
from bot.sandbox.iot_answers import OFFERED
from tests.test_sandbox_iot import DYNAMIC, EPOCH, FINISHED, FIRMWARE, INSTANCE, SCHEDULED, STATIC, Sandbox, code

GATEWAY, SENSOR = "a1Gateway01", "a1Sensor0002"
CONFIRM, CANCELED = "C0nf1rmLp9OkMjUh7Yb601", "Canc3l3dTg6Yh9Uj2Ik401"
SENSOR_FIRMWARE = "Sn207bHt9CvN4kQe1Ua001"
DEVICES = {"ProductKey": GATEWAY, "FirmwareId": FIRMWARE}
RATE = {"JobId": STATIC, "MaximumPerMinute": "600", "TargetSelection": "ALL", "UpgradeType": "STATIC"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    await sandbox.client.aclose()


def numbered(name: str, *values: str) -> dict[str, str]:
    return {f"{name}.{place}": value for place, value in enumerate(values, 1)}


def tasks(sandbox: Sandbox, job: str, state: TaskState | None = None) -> list[Task]:
    return list(sandbox.fleet.job(job).tasks(sandbox.at, state=state))


def ids(sandbox: Sandbox, job: str, state: TaskState, count: int = 1) -> list[str]:
    rollout = sandbox.fleet.job(job)
    return [rollout.task_id(task) for task in tasks(sandbox, job, state)[:count]]


async def accepted(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert body.get("Success") is True, answer.text
    return body


# Devices


@pytest.mark.parametrize("scheme", ["v3", "v1"])
async def test_named_devices_are_cancelled_wherever_they_are(sandbox: Sandbox, scheme: str) -> None:
    states = (TaskState.QUEUED, TaskState.NOTIFIED, TaskState.IN_PROGRESS)
    named = [next(task for task in tasks(sandbox, STATIC, state) if not task.ignores) for state in states]
    given = {**DEVICES, **numbered("DeviceName", *(task.device_name for task in named))}
    await accepted(await sandbox.ask("CancelOTATaskByDevice", given, scheme=scheme))
    after = {task.device_name: task.move_at(sandbox.at)[1] for task in tasks(sandbox, STATIC)}
    assert {after[task.device_name] for task in named} == {TaskState.CANCELED}
    assert list(after.values()).count(TaskState.CANCELED) == 3
    (effect,) = sandbox.fleet.history
    assert (effect.action, effect.job_id, effect.tasks) == ("CancelOTATaskByDevice", "", 3)
    assert effect.params["DeviceName.1"] == named[0].device_name


async def test_devices_that_are_done_or_ignore_are_named_in_vain(sandbox: Sandbox) -> None:
    sandbox.at += 200
    done = tasks(sandbox, STATIC, TaskState.SUCCEEDED)[0]
    deaf = next(task for task in tasks(sandbox, STATIC, TaskState.IN_PROGRESS) if task.ignores)
    given = {**DEVICES, **numbered("DeviceName", done.device_name, deaf.device_name)}
    await accepted(await sandbox.ask("CancelOTATaskByDevice", given))
    assert sandbox.fleet.history[0].tasks == 0


async def test_a_job_restricts_the_devices_that_are_cancelled() -> None:
    twin = {
        **{"job_id": "Tw1n", "instance_id": INSTANCE, "product_key": GATEWAY, "firmware_id": FIRMWARE},
        **{"device_prefix": "gw-sh-", "course": {"devices": 5, "per_minute": 1}},
    }
    sandbox = Sandbox(jobs=[twin])
    both = [task.device_name for task in tasks(sandbox, STATIC)[398:]]
    first = [task.device_name for task in tasks(sandbox, "Tw1n")[3:]]
    given = {**DEVICES, "JobId": STATIC, **numbered("DeviceName", *both, *first)}
    await accepted(await sandbox.ask("CancelOTATaskByDevice", given))
    assert sandbox.fleet.job("Tw1n").counts(EPOCH)["CANCELED"] == 0
    assert sandbox.fleet.job(STATIC).counts(EPOCH)["CANCELED"] == 2
    del given["JobId"]
    await accepted(await sandbox.ask("CancelOTATaskByDevice", given))
    assert sandbox.fleet.job("Tw1n").counts(EPOCH)["CANCELED"] == 2
    assert [effect.tasks for effect in sandbox.fleet.history] == [2, 2]


async def test_by_device_is_what_is_left_after_a_strategy_cancel_that_shuts_the_job() -> None:
    sandbox = Sandbox(habits=Habits(refuses_after_strategy=True))
    await accepted(await sandbox.ask("CancelOTAStrategyByJob", {"JobId": DYNAMIC}))
    refused = await sandbox.ask("CancelOTATaskByJob", {"JobId": DYNAMIC, "CancelQueuedTask": "true"})
    assert code(refused) == (200, "iot.ota.JobHasCanceled")
    sandbox.at += 1
    moving = [task.device_name for task in tasks(sandbox, DYNAMIC) if task.move_at(sandbox.at)[1] == "IN_PROGRESS"]
    given = {**DEVICES, "JobId": DYNAMIC, **numbered("DeviceName", *moving)}
    await accepted(await sandbox.ask("CancelOTATaskByDevice", given))
    assert sandbox.fleet.history[-1].tasks > 0


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"ProductKey": "a1Nothing00"}, "iot.prod.NotExistedProduct"),
        ({"FirmwareId": "none"}, "iot.ota.FirmwareNotFound"),
        ({"FirmwareId": "Gw421stagingTr3Bx7K001"}, "iot.ota.FirmwareNotFound"),
        ({"FirmwareId": SENSOR_FIRMWARE}, "iot.ota.FirmwareAndProductKeyMismatch"),
        ({"JobId": "none"}, "iot.ota.InvalidJobId"),
        ({"JobId": CONFIRM}, "iot.ota.UnmatchedJob"),
        ({"DeviceName.2": "gw-sh-00400"}, "iot.system.IllegalRequest"),
        ({"DeviceName.2": ""}, "iot.device.NullDeviceName"),
        ({"DeviceName.2": "gw-sh-99999"}, "iot.device.NotExistedDevice"),
        ({"DeviceName.1": "gw-sg-00001"}, "iot.device.NotExistedDevice"),
        (numbered("DeviceName", *(f"d{n}" for n in range(201))), "iot.device.TooManyDeviceNamesPerRequest"),
    ],
)
async def test_a_cancel_by_device_is_refused_whole(sandbox: Sandbox, changed: dict[str, str], expected: str) -> None:
    answer = await sandbox.ask("CancelOTATaskByDevice", {**DEVICES, "DeviceName.1": "gw-sh-00400", **changed})
    assert code(answer) == (200, expected)
    assert sandbox.fleet.history == []
    assert sandbox.fleet.job(STATIC).counts(EPOCH)["CANCELED"] == 0


async def test_two_hundred_devices_are_cancelled_in_one_call(sandbox: Sandbox) -> None:
    names = [task.device_name for task in tasks(sandbox, STATIC, TaskState.QUEUED)[:200]]
    await accepted(
        await sandbox.ask("CancelOTATaskByDevice", params={}, data={**DEVICES, **numbered("DeviceName", *names)})
    )
    assert sandbox.fleet.history[0].tasks == 200


# Tasks run again


@pytest.mark.parametrize("scheme", ["v3", "v1"])
async def test_failed_and_cancelled_tasks_run_again_to_an_end(sandbox: Sandbox, scheme: str) -> None:
    sandbox.at += 100
    await sandbox.ask("CancelOTATaskByJob", {"JobId": STATIC, "CancelQueuedTask": "true"})
    again = [*ids(sandbox, STATIC, TaskState.FAILED, 2), *ids(sandbox, STATIC, TaskState.CANCELED, 2)]
    await accepted(
        await sandbox.ask("ReupgradeOTATask", {"JobId": STATIC, **numbered("TaskId", *again)}, scheme=scheme)
    )
    rollout = sandbox.fleet.job(STATIC)
    found = [rollout.with_id(task_id, sandbox.at) for task_id in again]
    assert {task.move_at(sandbox.at)[1] for task in found if task} == {TaskState.QUEUED}
    assert {task.progress_at(sandbox.at) for task in found if task} == {0.0}
    assert {task.move_at(sandbox.at + 3600)[1] for task in found if task} <= {"SUCCEEDED", "FAILED", "NOTIFIED"}
    assert sum(rollout.counts(sandbox.at).values()) == 400
    effect = sandbox.fleet.history[-1]
    assert (effect.action, effect.tasks, effect.params["TaskId.4"]) == ("ReupgradeOTATask", 4, again[3])


async def test_what_runs_again_is_the_same_in_every_run_and_different_each_time() -> None:
    seen = []
    for _ in range(2):
        sandbox = Sandbox()
        task_id = ids(sandbox, STATIC, TaskState.FAILED)[0]
        for _ in range(2):
            await accepted(await sandbox.ask("ReupgradeOTATask", {"JobId": STATIC, "TaskId.1": task_id}))
            sandbox.fleet.cancel_tasks(STATIC, {"CancelQueuedTask": True})
            seen.append(sandbox.fleet.job(STATIC).with_id(task_id, sandbox.at))
    assert seen[0] == seen[2]
    assert seen[1] == seen[3]
    assert seen[0] != seen[1]


async def test_a_task_that_needs_confirmation_waits_for_it_again(sandbox: Sandbox) -> None:
    sandbox.at += 300
    task_id = ids(sandbox, CONFIRM, TaskState.SUCCEEDED)[0]
    assert code(await sandbox.ask("ReupgradeOTATask", {"JobId": CONFIRM, "TaskId.1": task_id}))[1].startswith("iot.ota")
    sandbox.fleet.cancel_tasks(CONFIRM, {"CancelUnconfirmedTask": True})
    task_id = ids(sandbox, CONFIRM, TaskState.CANCELED)[0]
    await accepted(await sandbox.ask("ReupgradeOTATask", {"JobId": CONFIRM, "TaskId.1": task_id}))
    assert ids(sandbox, CONFIRM, TaskState.CONFIRM) == [task_id]
    await accepted(await sandbox.ask("ConfirmOTATask", {"TaskId.1": task_id}))
    assert ids(sandbox, CONFIRM, TaskState.CONFIRM) == []
    assert task_id in ids(sandbox, CONFIRM, TaskState.QUEUED, 200)
    assert [effect.action for effect in sandbox.fleet.history[1:]] == ["ReupgradeOTATask", "ConfirmOTATask"]


@pytest.mark.parametrize("action", ["ReupgradeOTATask", "ConfirmOTATask"])
@pytest.mark.parametrize("scheme", ["v3", "v1"])
async def test_tasks_are_posted(sandbox: Sandbox, action: str, scheme: str) -> None:
    given = {"JobId": STATIC, "TaskId.1": ids(sandbox, STATIC, TaskState.FAILED)[0]}
    assert code(await sandbox.ask(action, given, method="GET", scheme=scheme)) == (404, "InvalidApi.NotFound")


@pytest.mark.parametrize(
    ("job", "states", "expected"),
    [
        (STATIC, ["FAILED", "SUCCEEDED"], "iot.ota.InvalidTaskExist"),
        (STATIC, ["FAILED", "QUEUED"], "iot.ota.InvalidTaskExist"),
        (STATIC, ["FAILED", "FAILED"], "iot.system.IllegalRequest"),
        (FINISHED, ["of " + STATIC], "iot.ota.UnmatchedJob"),
        (STATIC, ["none"], "iot.ota.InvalidTaskId"),
        ("none", ["FAILED"], "iot.ota.InvalidJobId"),
        (CONFIRM, ["none"], "iot.ota.FailedTaskNotFound"),
        (STATIC, [f"n{number}" for number in range(11)], "iot.ota.TooManyOtaTask"),
    ],
)
async def test_running_again_is_refused_whole(sandbox: Sandbox, job: str, states: list[str], expected: str) -> None:
    known = {state: ids(sandbox, STATIC, TaskState(state))[0] for state in ("FAILED", "SUCCEEDED", "QUEUED")}
    known["of " + STATIC] = known["FAILED"]
    given = {"JobId": job, **numbered("TaskId", *(known.get(state, state) for state in states))}
    assert code(await sandbox.ask("ReupgradeOTATask", given)) == (200, expected)
    assert sandbox.fleet.history == []


@pytest.mark.parametrize(
    ("job", "state", "expected"),
    [(STATIC, "QUEUED", "iot.ota.InvalidTaskExist"), (None, "", "iot.ota.InvalidTaskId")],
)
async def test_what_cannot_be_confirmed_is_refused(
    sandbox: Sandbox, job: str | None, state: str, expected: str
) -> None:
    task_id = ids(sandbox, job, TaskState(state))[0] if job else "none"
    assert code(await sandbox.ask("ConfirmOTATask", {"TaskId.1": task_id})) == (200, expected)


async def test_nothing_is_confirmed_before_the_hour() -> None:
    job = {
        **{"job_id": "L4ter", "instance_id": INSTANCE, "product_key": SENSOR, "firmware_id": SENSOR_FIRMWARE},
        **{"kind": "scheduled", "starts_in_seconds": 600, "device_prefix": "x-"},
        "course": {"devices": 2, "confirm_seconds": 3600},
    }
    sandbox = Sandbox(jobs=[job])
    given = {"TaskId.1": ids(sandbox, "L4ter", TaskState.CONFIRM)[0]}
    assert code(await sandbox.ask("ConfirmOTATask", given)) == (200, "iot.system.IllegalRequest")
    sandbox.at += 601
    await accepted(await sandbox.ask("ConfirmOTATask", given))


# Settings


def told_within(sandbox: Sandbox, job: str, seconds: float) -> int:
    """How many devices leave the queue in the next seconds."""
    rollout = sandbox.fleet.job(job)
    return rollout.counts(sandbox.at)["QUEUED"] - rollout.counts(sandbox.at + seconds)["QUEUED"]


@pytest.mark.parametrize("scheme", ["v3", "v1"])
@pytest.mark.parametrize("rate", [10, 60, 600])
async def test_another_rate_is_how_fast_devices_are_told_from_then_on(sandbox: Sandbox, scheme: str, rate: int) -> None:
    before = sandbox.fleet.job(STATIC).counts(EPOCH - 30)
    assert told_within(sandbox, STATIC, 20) == 14
    await accepted(await sandbox.ask("UpdateOTAJob", {**RATE, "MaximumPerMinute": str(rate)}, scheme=scheme))
    assert told_within(sandbox, STATIC, 20) == min(295, rate * 20 // 60)
    assert sandbox.fleet.job(STATIC).counts(EPOCH - 30) == before
    assert (await sandbox.ask()).json()["Data"]["MaximumPerMinute"] == rate
    assert [effect.action for effect in sandbox.fleet.history] == ["UpdateOTAJob"]


async def test_a_device_that_is_about_to_be_cancelled_is_not_told_at_the_new_rate() -> None:
    sandbox = Sandbox(habits=Habits(cancel_lag_seconds=60))
    await accepted(await sandbox.ask("CancelOTATaskByJob", {"JobId": STATIC, "CancelQueuedTask": "true"}))
    last = tasks(sandbox, STATIC)[-1]
    await accepted(await sandbox.ask("UpdateOTAJob", {**RATE, "MaximumPerMinute": "10000"}))
    assert tasks(sandbox, STATIC)[-1] == last
    assert sandbox.fleet.job(STATIC).counts(EPOCH + 60)["QUEUED"] == 0


async def test_devices_that_a_dynamic_job_finds_later_are_told_at_the_new_rate(sandbox: Sandbox) -> None:
    given = {**RATE, "JobId": DYNAMIC, "UpgradeType": "DYNAMIC", "MaximumPerMinute": "10"}
    await accepted(await sandbox.ask("UpdateOTAJob", given))
    rollout = sandbox.fleet.job(DYNAMIC)
    told = sorted(
        at
        for task in rollout.tasks(EPOCH + 3600)
        for at, state in task.moves
        if state is TaskState.NOTIFIED and at > EPOCH
    )
    assert len(told) > 500
    assert min(after - before for before, after in pairwise(told)) > 5.99


async def test_tags_that_are_not_sent_are_cleared(sandbox: Sandbox) -> None:
    tags = {"Tags.1.Key": "ring", "Tags.1.Value": "4", "Tags.2.Key": "new", "Tags.2.Value": "1"}
    await accepted(await sandbox.ask("UpdateOTAJob", {**RATE, **tags}))
    shown = (await sandbox.ask()).json()["Data"]["Tags"]
    assert shown == {"OtaTagDTO": [{"Key": "ring", "Value": "4"}, {"Key": "new", "Value": "1"}]}
    await accepted(await sandbox.ask("UpdateOTAJob", RATE))
    assert (await sandbox.ask()).json()["Data"]["Tags"] == {"OtaTagDTO": []}


async def test_a_dynamic_job_takes_versions_and_a_timeout(sandbox: Sandbox) -> None:
    given = {**RATE, "JobId": DYNAMIC, "UpgradeType": "DYNAMIC", "TimeoutInMinutes": "30"}
    await accepted(await sandbox.ask("UpdateOTAJob", {**given, **numbered("SrcVersionList", "4.1.8", "4.1.7")}))
    data = (await sandbox.ask(params={"JobId": DYNAMIC})).json()["Data"]
    assert (data["TimeoutInMinutes"], data["SrcVersions"]) == (30, {"SrcVersion": ["4.1.8", "4.1.7"]})


LONG = {"Tags.1.Key": "k" * 31, "Tags.1.Value": "v"}
MANY = {f"Tags.{n}.{half}": str(n) for n in range(1, 12) for half in ("Key", "Value")}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"JobId": "none"}, "iot.ota.InvalidJobId"),
        ({"JobId": FINISHED}, "iot.ota.JobHasFinished"),
        ({"JobId": CANCELED}, "iot.ota.JobHasCanceled"),
        ({"MaximumPerMinute": "9"}, "iot.ota.InvalidMaximumPerMinute"),
        ({"MaximumPerMinute": "10001"}, "iot.ota.InvalidMaximumPerMinute"),
        ({"UpgradeType": "FAST"}, "iot.ota.InvalidUpgradeType"),
        ({"UpgradeType": "DYNAMIC"}, "iot.ota.noDynamicJob"),
        ({"JobId": DYNAMIC}, "iot.ota.InvalidUpgradeType"),
        ({"TimeoutInMinutes": "30"}, "iot.ota.noDynamicJob"),
        ({"SrcVersionList.1": "1"}, "iot.ota.noDynamicJob"),
        ({"TargetSelection": "SOME"}, "iot.ota.InvalidStrategyType"),
        ({"TargetSelection": "GRAY"}, "iot.ota.InvalidStrategyType"),
        ({"JobId": DYNAMIC, "UpgradeType": "DYNAMIC", "TimeoutInMinutes": "1441"}, "iot.ota.InvalidTimeout"),
        (
            {"JobId": DYNAMIC, "UpgradeType": "DYNAMIC", **numbered("SrcVersionList", "1", "1")},
            "iot.ota.InvalidSrcVersionList",
        ),
        (LONG, "iot.ota.JobTagIsTooLong"),
        (MANY, "iot.ota.JobTagIsTooLong"),
    ],
)
async def test_a_wrong_setting_is_refused_and_changes_nothing(
    sandbox: Sandbox, changed: dict[str, str], expected: str
) -> None:
    before = (await sandbox.ask()).json()["Data"]
    assert code(await sandbox.ask("UpdateOTAJob", {**RATE, **changed})) == (200, expected)
    assert (await sandbox.ask()).json()["Data"] == before
    assert sandbox.fleet.history == []


@pytest.mark.parametrize("missing", ["JobId", "MaximumPerMinute", "TargetSelection", "UpgradeType"])
async def test_a_setting_that_must_be_resent_is_named(sandbox: Sandbox, missing: str) -> None:
    given = {name: value for name, value in RATE.items() if name != missing}
    assert code(await sandbox.ask("UpdateOTAJob", given)) == (400, f"Missing{missing}")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"MaximumPerMinute": "many"}, "InvalidParameter"),
        ({"Tags.1.Key": "ring"}, "MissingTags.1.Value"),
        ({"Tags.3.Value": "ring"}, "MissingTags.3.Key"),
    ],
)
async def test_a_malformed_setting_is_refused_by_the_gateway(
    sandbox: Sandbox, changed: dict[str, str], expected: str
) -> None:
    assert code(await sandbox.ask("UpdateOTAJob", {**RATE, **changed})) == (400, expected)


async def test_a_job_shows_every_setting_that_must_be_resent() -> None:
    job = {
        **{"job_id": "S3ttings", "instance_id": INSTANCE, "product_key": SENSOR, "firmware_id": SENSOR_FIRMWARE},
        **{"kind": "scheduled", "starts_in_seconds": 600, "finishes_in_seconds": 7200, "device_prefix": "x-"},
        **{"src_versions": ["1", "2"], "tags": {"a": "b"}, "target_selection": "GROUP", "overwrite_mode": 2},
        **{"retry_interval": 30, "retry_count": 2, "group_id": "g1", "group_name": "ring one"},
        "course": {"devices": 2, "per_minute": 50, "timeout_minutes": 60},
    }
    data = (await Sandbox(jobs=[job]).ask(params={"JobId": "S3ttings"})).json()["Data"]
    shown = {
        **{"MaximumPerMinute": 50, "TimeoutInMinutes": 60, "RetryInterval": 30, "RetryCount": 2, "OverwriteMode": 2},
        **{
            "GroupId": "g1",
            "GroupName": "ring one",
            "TargetSelection": "GROUP",
            "SrcVersions": {"SrcVersion": ["1", "2"]},
        },
        **{"UtcScheduleTime": "2027-01-15T08:10:00.000Z", "UtcScheduleFinishTime": "2027-01-15T10:00:00.000Z"},
        "Tags": {"OtaTagDTO": [{"Key": "a", "Value": "b"}]},
    }
    assert shown.items() <= data.items()
    assert "DynamicMode" not in data


# Look-ups of a device and of a package


async def test_open_tasks_of_a_device_are_listed_over_all_jobs(sandbox: Sandbox) -> None:
    queued = tasks(sandbox, STATIC, TaskState.QUEUED)[0].device_name
    given = {"ProductKey": GATEWAY, "DeviceName": queued}
    (row,) = (await accepted(await sandbox.ask("ListOTAUnfinishedTaskByDevice", given)))["Data"]["SimpleOTATaskInfo"]
    assert (row["JobId"], row["TaskStatus"], row["ModuleName"]) == (STATIC, "QUEUED", "default")
    by_id = await accepted(await sandbox.ask("ListOTAUnfinishedTaskByDevice", {"IotId": row["IotId"]}))
    assert by_id["Data"] == {"SimpleOTATaskInfo": [row]}
    assert set(by_id) == {"RequestId", "Success", "Data"}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, 1),
        ({"TaskStatus": "QUEUED"}, 1),
        ({"TaskStatus": "NOTIFIED"}, 0),
        (numbered("TaskStatusList", "NOTIFIED", "QUEUED"), 1),
        ({"ModuleName": "default"}, 1),
        ({"ModuleName": "mcu"}, 0),
    ],
)
async def test_open_tasks_are_filtered(sandbox: Sandbox, given: dict[str, str], found: int) -> None:
    given = {"ProductKey": GATEWAY, "DeviceName": "gw-sh-00400", **given}
    body = await accepted(await sandbox.ask("ListOTAUnfinishedTaskByDevice", given))
    assert len(body["Data"]["SimpleOTATaskInfo"]) == found


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "iot.ota.EmptyDeviceInfoParams"),
        ({"ProductKey": GATEWAY}, "iot.ota.EmptyDeviceInfoParams"),
        ({"ProductKey": "none", "DeviceName": "x"}, "iot.prod.NotExistedProduct"),
        ({"ProductKey": GATEWAY, "DeviceName": "x"}, "iot.device.NotExistedDevice"),
        ({"IotId": "x"}, "iot.device.InvalidIoTId"),
        ({"ProductKey": GATEWAY, "DeviceName": "x", "TaskStatus": "SUCCEEDED"}, "iot.firmware.InvalidTaskStatus"),
        (
            {"ProductKey": GATEWAY, "DeviceName": "x", "TaskStatus": "QUEUED", "TaskStatusList.1": "QUEUED"},
            "iot.system.IllegalRequest",
        ),
        ({"ProductKey": GATEWAY, "DeviceName": "x", "ModuleName": "m" * 65}, "iot.ota.InvalidOtaModuleName"),
    ],
)
async def test_a_device_that_cannot_be_looked_up_is_refused(
    sandbox: Sandbox, given: dict[str, str], expected: str
) -> None:
    assert code(await sandbox.ask("ListOTAUnfinishedTaskByDevice", given)) == (200, expected)


async def test_jobs_of_a_device_are_those_of_one_package(sandbox: Sandbox) -> None:
    given = {"ProductKey": GATEWAY, "DeviceName": "gw-sh-00400", "CurrentPage": "1", "PageSize": "100"}
    for firmware, job in ((FIRMWARE, STATIC), ("Gw419xPm3RjS7hDz5Ye001", FINISHED)):
        body = await accepted(await sandbox.ask("ListOTAJobByDevice", {**given, "FirmwareId": firmware}))
        assert [row["JobId"] for row in body["Data"]["SimpleOTAJobInfo"]] == [job]
        assert body["Total"] == 1
    none = await accepted(await sandbox.ask("ListOTAJobByDevice", {**given, "FirmwareId": SENSOR_FIRMWARE}))
    assert none["Total"] == 0
    too_large = {**given, "FirmwareId": FIRMWARE, "PageSize": "101"}
    assert code(await sandbox.ask("ListOTAJobByDevice", too_large)) == (200, "iot.common.InvalidPageParams")


async def test_a_package_is_described_with_addresses_that_are_signed(sandbox: Sandbox) -> None:
    info = (await accepted(await sandbox.ask("QueryOTAFirmware", {"FirmwareId": FIRMWARE})))["FirmwareInfo"]
    assert (info["FirmwareId"], info["DestVersion"], info["VerifyProgress"]) == (FIRMWARE, "4.2.1", 100)
    assert "Signature=" in info["FirmwareUrl"]
    assert code(await sandbox.ask("QueryOTAFirmware", {"FirmwareId": "none"})) == (200, "iot.ota.FirmwareNotFound")


async def test_every_new_answer_comes_in_xml_too(sandbox: Sandbox) -> None:
    given = {
        "CancelOTATaskByDevice": {**DEVICES, "DeviceName.1": "gw-sh-00400"},
        "ReupgradeOTATask": {"JobId": STATIC, "TaskId.1": ids(sandbox, STATIC, TaskState.FAILED)[0]},
        "ConfirmOTATask": {"TaskId.1": ids(sandbox, CONFIRM, TaskState.CONFIRM)[0]},
        "UpdateOTAJob": RATE,
        "ListOTAJobByDevice": {**DEVICES, "DeviceName": "gw-sh-00400", "CurrentPage": "1", "PageSize": "10"},
        "ListOTAUnfinishedTaskByDevice": {"ProductKey": GATEWAY, "DeviceName": "gw-sh-00399"},
        "QueryOTAFirmware": {"FirmwareId": FIRMWARE},
    }
    for action, params in given.items():
        assert action in OFFERED
        root = ElementTree.fromstring((await sandbox.ask(action, params, headers={"accept": "text/xml"})).text)
        assert (root.tag, root.findtext("Success")) == (f"{action}Response", "true")


HOSTILE = ("", "0", "-1", "9" * 9, "true", "\x00<&>", "名" * 300, "*", "a" * 5000)


@pytest.mark.parametrize("action", OFFERED)
async def test_no_value_gives_a_500(action: str) -> None:
    sandbox = Sandbox(is_throttling=False)
    names = ("JobId", "FirmwareId", "ProductKey", "DeviceName", "IotId", "CurrentPage", "PageSize", "TaskStatus")
    lists = ("DeviceName.1", "TaskId.1", "TaskId.0099", "SrcVersionList.1", "Tags.1.Key", "Tags.1.Value", "Tags.x.Key")
    settings = ("MaximumPerMinute", "TimeoutInMinutes", "UpgradeType", "TargetSelection", "CancelQueuedTask")
    every = (*names, *lists, *settings)
    good = {**RATE, **DEVICES, "DeviceName": "gw-sh-00400", "CurrentPage": "1", "PageSize": "10"}
    turns = [{**good, name: HOSTILE[place % len(HOSTILE)]} for place, name in enumerate(every)]
    for given in (*(dict.fromkeys(every, value) for value in HOSTILE), *turns):
        answer = await sandbox.ask(action, params={}, data=given)
        assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize("job", [STATIC, DYNAMIC, SCHEDULED, CONFIRM])
async def test_a_task_is_found_by_its_id(sandbox: Sandbox, job: str) -> None:
    rollout = sandbox.fleet.job(job)
    for task in tasks(sandbox, job)[::37]:
        assert rollout.with_id(rollout.task_id(task), sandbox.at) == task
    assert rollout.with_id("none", sandbox.at) is None
