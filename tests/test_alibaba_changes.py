"""From a step to the call that makes it: every kind, the API's limits, and the official SDK's spelling of the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.alibaba.changes import Change, change_of
from bot.errors import CloudRefused
from bot.model import JobSettings, Step, StepKind, Target, Touch

TARGET = Target("prod", "j1", "f1", "a1")
SETTINGS = JobSettings(60, 30, "ALL", "DYNAMIC", ("4.1.0", "4.2.0"), (("team", "gw"), ("ticket", "OPS 7")))
RATE = Step(StepKind.SET_RATE, TARGET, settings=SETTINGS)


@pytest.mark.parametrize(
    ("touches", "flags"),
    [
        ([Touch.QUEUED], {"CancelQueuedTask": "true", "CancelUnconfirmedTask": "false"}),
        ([Touch.CONFIRM], {"CancelUnconfirmedTask": "true"}),
        ([Touch.SCHEDULED], {"CancelScheduledTask": "true", "CancelUnconfirmedTask": "false"}),
        (
            [Touch.NOTIFIED, Touch.IN_PROGRESS, Touch.CONFIRM],
            {"CancelNotifiedTask": "true", "CancelInProgressTask": "true", "CancelUnconfirmedTask": "true"},
        ),
    ],
)
def test_what_a_step_touches_becomes_flags_and_unconfirmed_is_always_said(
    touches: list[Touch], flags: dict[str, str]
) -> None:
    change = change_of(Step(StepKind.CANCEL_TASKS, TARGET, frozenset(touches)))
    assert change == Change("CancelOTATaskByJob", {"JobId": "j1", **flags})


def test_a_strategy_is_cancelled_by_its_own_call() -> None:
    assert change_of(Step(StepKind.CANCEL_STRATEGY, TARGET)) == Change("CancelOTAStrategyByJob", {"JobId": "j1"})


def test_devices_are_cancelled_by_name_in_their_batch_alone() -> None:
    change = change_of(Step(StepKind.CANCEL_DEVICES, TARGET, devices=("d1", "d 2")))
    assert change.action == "CancelOTATaskByDevice"
    assert change.params == {
        "ProductKey": "a1",
        "FirmwareId": "f1",
        "JobId": "j1",
        "DeviceName.1": "d1",
        "DeviceName.2": "d 2",
    }


def test_tasks_run_again_by_their_ids() -> None:
    change = change_of(Step(StepKind.RETRY_TASKS, TARGET, devices=("d1", "d2"), tasks=("t1", "t2")))
    assert change == Change("ReupgradeOTATask", {"JobId": "j1", "TaskId.1": "t1", "TaskId.2": "t2"})


def test_a_new_rate_takes_all_settings_and_tags_of_a_dynamic_batch_along() -> None:
    assert change_of(RATE) == Change(
        "UpdateOTAJob",
        {
            "JobId": "j1",
            "MaximumPerMinute": "60",
            "TargetSelection": "ALL",
            "UpgradeType": "DYNAMIC",
            "TimeoutInMinutes": "30",
            "SrcVersionList.1": "4.1.0",
            "SrcVersionList.2": "4.2.0",
            "Tags.1.Key": "team",
            "Tags.1.Value": "gw",
            "Tags.2.Key": "ticket",
            "Tags.2.Value": "OPS 7",
        },
    )


def test_a_static_batch_keeps_its_tags_but_sends_no_time_out_and_no_versions() -> None:
    static = replace(SETTINGS, upgrade_type="STATIC", target_selection="GRAY")
    params = change_of(replace(RATE, settings=static)).params
    assert set(params) == {
        "JobId",
        "MaximumPerMinute",
        "TargetSelection",
        "UpgradeType",
        "Tags.1.Key",
        "Tags.1.Value",
        "Tags.2.Key",
        "Tags.2.Value",
    }


@pytest.mark.parametrize(
    "step",
    [
        Step(StepKind.CANCEL_TASKS, TARGET),
        Step(StepKind.CANCEL_STRATEGY, Target("prod")),
        Step(StepKind.CANCEL_DEVICES, TARGET),
        Step(StepKind.CANCEL_DEVICES, TARGET, devices=("d1", "d1")),
        Step(StepKind.CANCEL_DEVICES, TARGET, devices=tuple(f"d{number}" for number in range(201))),
        Step(StepKind.RETRY_TASKS, TARGET),
        Step(StepKind.RETRY_TASKS, TARGET, tasks=tuple(f"t{number}" for number in range(11))),
        Step(StepKind.SET_RATE, TARGET),
        replace(RATE, settings=replace(SETTINGS, per_minute=None)),
        replace(RATE, settings=replace(SETTINGS, per_minute=9)),
        replace(RATE, settings=replace(SETTINGS, per_minute=10_001)),
    ],
)
def test_a_step_that_the_api_cannot_take_is_a_defect(step: Step) -> None:
    with pytest.raises(ValueError, match=r"must name|values of|a rate"):
        change_of(step)


@pytest.mark.parametrize(
    ("step", "what"),
    [
        (Step(StepKind.CANCEL_DEVICES, replace(TARGET, product=""), devices=("d1",)), "ProductKey"),
        (Step(StepKind.CANCEL_DEVICES, replace(TARGET, firmware=""), devices=("d1",)), "FirmwareId"),
        (Step(StepKind.CANCEL_DEVICES, TARGET, devices=("d1", "")), "DeviceName"),
        (Step(StepKind.RETRY_TASKS, TARGET, tasks=("",)), "TaskId"),
        (replace(RATE, settings=replace(SETTINGS, target_selection="")), "TargetSelection"),
        (replace(RATE, settings=replace(SETTINGS, upgrade_type="")), "SelectionType"),
    ],
)
def test_what_the_cloud_left_out_is_named_in_a_refusal(step: Step, what: str) -> None:
    with pytest.raises(CloudRefused, match=what) as caught:
        change_of(step)
    assert caught.value.code == "otabrake.IncompleteAnswer"


def test_the_most_that_a_call_may_hold_is_taken() -> None:
    devices = tuple(f"d{number}" for number in range(200))
    assert change_of(Step(StepKind.CANCEL_DEVICES, TARGET, devices=devices)).params["DeviceName.200"] == "d199"
    tasks = tuple(f"t{number}" for number in range(10))
    assert change_of(Step(StepKind.RETRY_TASKS, TARGET, tasks=tasks)).params["TaskId.10"] == "t9"


@given(st.permutations(sorted(Touch)))
def test_the_same_step_gives_the_same_parameters_in_the_same_order(touches: list[Touch]) -> None:
    given_so = change_of(Step(StepKind.CANCEL_TASKS, TARGET, frozenset(touches)))
    assert list(given_so.params.items()) == list(
        change_of(Step(StepKind.CANCEL_TASKS, TARGET, frozenset(Touch))).params.items()
    )


def _sdk_query(step: Step) -> dict[str, Any]:
    """What the official SDK puts into the query for the same step."""
    from alibabacloud_iot20180120 import models
    from alibabacloud_tea_openapi.utils import Utils

    if step.kind is StepKind.CANCEL_DEVICES:
        request: Any = models.CancelOTATaskByDeviceRequest(
            product_key="a1", firmware_id="f1", job_id="j1", device_name=list(step.devices)
        )
    elif step.kind is StepKind.RETRY_TASKS:
        request = models.ReupgradeOTATaskRequest(job_id="j1", task_id=list(step.tasks))
    elif step.kind is StepKind.SET_RATE:
        request = models.UpdateOTAJobRequest(
            job_id="j1",
            maximum_per_minute=60,
            target_selection="ALL",
            upgrade_type="DYNAMIC",
            timeout_in_minutes=30,
            src_version_list=["4.1.0", "4.2.0"],
            tags=[models.UpdateOTAJobRequestTags(key=key, value=value) for key, value in SETTINGS.tags],
        )
    elif step.kind is StepKind.CANCEL_STRATEGY:
        request = models.CancelOTAStrategyByJobRequest(job_id="j1")
    else:
        request = models.CancelOTATaskByJobRequest(job_id="j1", cancel_queued_task=True, cancel_unconfirmed_task=False)
    query: dict[str, Any] = Utils.query(request.to_map())
    return query


@pytest.mark.parametrize(
    "step",
    [
        Step(StepKind.CANCEL_STRATEGY, TARGET),
        Step(StepKind.CANCEL_TASKS, TARGET, frozenset({Touch.QUEUED})),
        Step(StepKind.CANCEL_DEVICES, TARGET, devices=("d1", "d 2")),
        Step(StepKind.RETRY_TASKS, TARGET, tasks=("t1", "t2")),
        RATE,
    ],
    ids=lambda step: step.kind.value,
)
def test_the_official_sdk_spells_the_same_call_the_same_way(step: Step) -> None:
    ours = change_of(step).params
    theirs = {name: value.lower() if name.startswith("Cancel") else value for name, value in _sdk_query(step).items()}
    assert ours == theirs
