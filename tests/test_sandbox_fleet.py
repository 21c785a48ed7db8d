"""The simulated fleet by itself: tasks move with the clock, and a cancel stops those that it names and that obey."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from bot.model import JobKind, JobState, TaskState
from bot.sandbox.fleet import Fleet, cancelled_states
from bot.sandbox.habits import Habits
from bot.sandbox.inventory import FleetRefusal
from bot.sandbox.iot import load_seed
from bot.sandbox.rollouts import Rollout

EPOCH = 1_800_000_000.0
QUEUED, CONFIRM, NOTIFIED, IN_PROGRESS = (
    TaskState.QUEUED,
    TaskState.CONFIRM,
    TaskState.NOTIFIED,
    TaskState.IN_PROGRESS,
)
EVERYTHING = {"CancelQueuedTask": True, "CancelNotifiedTask": True, "CancelInProgressTask": True}


class Clock:
    def __init__(self) -> None:
        self.at = EPOCH

    def __call__(self) -> float:
        return self.at


def fleet_of(
    course: Mapping[str, Any], *, clock: Clock | None = None, habits: Habits | None = None, seed: int = 1, **facts: Any
) -> Fleet:
    job = {
        "job_id": "J1",
        "instance_id": "iot-1",
        "product_key": "pk",
        "firmware_id": "fw",
        "device_prefix": "d-",
        "course": {"devices": 100, **course},
        **facts,
    }
    data = {
        "instances": [{"instance_id": "iot-1", "name": "one", "region": "cn-shanghai"}],
        "products": [{"product_key": "pk", "name": "Product"}],
        "firmwares": [
            {"firmware_id": "fw", "instance_id": "iot-1", "product_key": "pk", "name": "f", "dest_version": "2"}
        ],
        "jobs": [job],
    }
    return Fleet.from_seed(data, now=clock or Clock(), seed=seed, habits=habits)


def rollout_of(course: Mapping[str, Any], **options: Any) -> Rollout:
    return fleet_of(course, **options).job("J1")


def only(counts: Mapping[str, int]) -> dict[str, int]:
    """The states in which there is somebody."""
    return {state: count for state, count in counts.items() if count}


# Moving


def test_a_device_goes_through_every_state_to_success() -> None:
    rollout = rollout_of({"devices": 1, "per_minute": 60, "confirm_seconds": 10, "answer_seconds": 10})
    seen = [next(state for state in only(rollout.counts(EPOCH + second))) for second in range(120)]
    assert list(dict.fromkeys(seen)) == ["CONFIRM", "NOTIFIED", "IN_PROGRESS", "SUCCEEDED"]
    late = rollout_of({"devices": 1, "per_minute": 1, "confirm_seconds": 10})
    seen = [next(state for state in only(late.counts(EPOCH + second))) for second in range(120)]
    assert list(dict.fromkeys(seen)) == ["CONFIRM", "QUEUED", "NOTIFIED", "IN_PROGRESS", "SUCCEEDED"]


def test_devices_are_told_at_the_rate_of_the_job() -> None:
    rollout = rollout_of({"per_minute": 60, "silent": 1.0})
    assert only(rollout.counts(EPOCH)) == {"QUEUED": 100}
    assert only(rollout.counts(EPOCH + 30)) == {"QUEUED": 70, "NOTIFIED": 30}
    assert only(rollout.counts(EPOCH + 1e6)) == {"NOTIFIED": 100}


@pytest.mark.parametrize(
    ("course", "end"),
    [
        ({}, "SUCCEEDED"),
        ({"failing": 1.0}, "FAILED"),
        ({"silent": 1.0}, "NOTIFIED"),
        ({"stuck": 1.0}, "IN_PROGRESS"),
        ({"stuck": 1.0, "timeout_minutes": 5}, "FAILED"),
        ({"confirm_seconds": 5, "unconfirmed": 1.0}, "CONFIRM"),
    ],
)
def test_every_setting_has_its_end(course: dict[str, Any], end: str) -> None:
    assert only(rollout_of(course).counts(EPOCH + 86_400)) == {end: 100}


def test_counts_always_sum_to_the_devices_and_agree_with_the_list() -> None:
    clock = Clock()
    fleet = fleet_of(
        {"per_minute": 60, "confirm_seconds": 20, "unconfirmed": 0.1, "failing": 0.2, "silent": 0.1, "ignoring": 0.3},
        clock=clock,
    )
    rollout = fleet.job("J1")
    for second in range(0, 200, 5):
        clock.at = EPOCH + second
        if second == 60:
            fleet.cancel_tasks("J1", {"CancelNotifiedTask": True, "CancelQueuedTask": True})
        counts = rollout.counts(clock.at)
        assert sum(counts.values()) == 100
        for state in TaskState:
            assert counts[state] == len(list(rollout.tasks(clock.at, state=state)))


def test_progress_grows_to_a_hundred() -> None:
    rollout = rollout_of({"devices": 1})
    seen = [next(rollout.tasks(EPOCH + second)).progress_at(EPOCH + second) for second in range(60)]
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 100.0)
    assert any(0 < progress < 100 for progress in seen)


def test_a_stuck_device_reports_the_same_progress_for_ever() -> None:
    rollout = rollout_of({"devices": 1, "stuck": 1.0})
    first, later = (next(rollout.tasks(EPOCH + second)).progress_at(EPOCH + second) for second in (60, 86_400))
    assert 0 < first == later < 100


def test_a_failed_task_says_why() -> None:
    tasks = list(rollout_of({"failing": 1.0}).tasks(EPOCH + 86_400))
    assert len({task.failure for task in tasks}) > 2
    assert all(task.failure for task in tasks)


def test_the_same_seed_and_clock_give_the_same_fleet_however_often_it_is_read() -> None:
    course = {"per_minute": 60, "failing": 0.3, "silent": 0.2, "enrol_per_minute": 30}
    read_often, read_once = (rollout_of(course, kind="dynamic") for _ in range(2))
    for second in range(300):
        read_often.counts(EPOCH + second)
    assert list(read_often.tasks(EPOCH + 300)) == list(read_once.tasks(EPOCH + 300))
    assert list(read_once.tasks(EPOCH + 300)) != list(rollout_of(course, kind="dynamic", seed=2).tasks(EPOCH + 300))


def test_an_earlier_moment_can_be_read_again() -> None:
    clock = Clock()
    fleet = fleet_of({"per_minute": 60}, clock=clock)
    before = fleet.job("J1").counts(EPOCH + 10)
    clock.at += 20
    fleet.cancel_tasks("J1", EVERYTHING)
    assert fleet.job("J1").counts(EPOCH + 10) == before


# What a cancel names


@pytest.mark.parametrize(
    ("queued", "unconfirmed", "named"),
    [
        (True, None, {QUEUED, CONFIRM}),
        (True, False, {QUEUED}),
        (True, True, {QUEUED, CONFIRM}),
        (False, None, set()),
        (None, None, set()),
        (False, True, {CONFIRM}),
        (None, True, {CONFIRM}),
        (False, False, set()),
        (None, False, set()),
    ],
)
def test_the_unconfirmed_flag_has_three_values(
    queued: bool | None, unconfirmed: bool | None, named: set[TaskState]
) -> None:
    given = {"CancelQueuedTask": queued, "CancelUnconfirmedTask": unconfirmed}
    flags = {name: value for name, value in given.items() if value is not None}
    assert cancelled_states(flags) == named
    course = {"devices": 20, "per_minute": 1, "confirm_seconds": 10, "unconfirmed": 0.5}
    clock = Clock()
    fleet = fleet_of(course, clock=clock, habits=Habits(accepts_all_false=True))
    clock.at += 30
    before = fleet.job("J1").counts(clock.at)
    assert before["CONFIRM"] > 0
    assert before["QUEUED"] > 0
    if flags:
        fleet.cancel_tasks("J1", flags)
    after = fleet.job("J1").counts(clock.at)
    for state in (QUEUED, CONFIRM):
        assert after[state] == (0 if state in named else before[state])


@pytest.mark.parametrize(
    ("flag", "state"),
    [("CancelNotifiedTask", NOTIFIED), ("CancelInProgressTask", IN_PROGRESS), ("CancelUnconfirmedTask", CONFIRM)],
)
def test_a_flag_names_its_state_alone(flag: str, state: TaskState) -> None:
    assert cancelled_states({flag: True}) == {state}
    assert cancelled_states({flag: False}) == frozenset()


@pytest.mark.parametrize("is_planned", [True, False])
def test_the_scheduled_flag_means_something_only_while_the_job_is_planned(is_planned: bool) -> None:
    expected = {QUEUED} if is_planned else set()
    assert cancelled_states({"CancelScheduledTask": True}, is_planned=is_planned) == expected


@pytest.mark.parametrize(
    "flags", [{}, {"CancelQueuedTask": False}, {"CancelQueuedTask": False, "CancelUnconfirmedTask": False}]
)
def test_at_least_one_flag_must_be_true(flags: dict[str, bool]) -> None:
    fleet = fleet_of({})
    with pytest.raises(FleetRefusal) as refusal:
        fleet.cancel_tasks("J1", flags)
    assert refusal.value.code == "iot.system.IllegalRequest"
    assert fleet.history == []


def test_a_cloud_may_accept_flags_that_are_all_false() -> None:
    fleet = fleet_of({}, habits=Habits(accepts_all_false=True))
    fleet.cancel_tasks("J1", {"CancelQueuedTask": False})
    assert [effect.tasks for effect in fleet.history] == [0]


# What a cancel does


def test_every_accepted_cancel_stands_in_the_history() -> None:
    fleet = fleet_of({})
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True}, request_id="R1", params={"JobId": "J1"})
    (effect,) = fleet.history
    assert (effect.at, effect.action, effect.job_id, effect.request_id) == (EPOCH, "CancelOTATaskByJob", "J1", "R1")
    assert (effect.tasks, effect.params) == (100, {"JobId": "J1"})


def test_devices_that_were_not_named_finish() -> None:
    clock = Clock()
    fleet = fleet_of({"per_minute": 120}, clock=clock)
    clock.at += 30
    rollout = fleet.job("J1")
    moving = rollout.counts(clock.at)["IN_PROGRESS"]
    done = rollout.counts(clock.at)["SUCCEEDED"]
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True, "CancelNotifiedTask": True})
    assert rollout.state(clock.at) is JobState.IN_PROGRESS
    assert rollout.counts(clock.at + 60)["SUCCEEDED"] == moving + done
    assert rollout.state(clock.at + 60) is JobState.CANCELED


def test_an_ignoring_device_goes_on_although_its_state_was_named() -> None:
    clock = Clock()
    fleet = fleet_of({"per_minute": 6000, "ignoring": 1.0}, clock=clock)
    clock.at += 3
    fleet.cancel_tasks("J1", EVERYTHING)
    rollout = fleet.job("J1")
    assert only(rollout.counts(clock.at)) == {"NOTIFIED": 100}
    assert only(rollout.counts(clock.at + 60)) == {"SUCCEEDED": 100}


def test_a_device_that_was_never_told_cannot_ignore() -> None:
    fleet = fleet_of({"ignoring": 1.0})
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True})
    assert only(fleet.job("J1").counts(EPOCH)) == {"CANCELED": 100}


def test_an_ignoring_device_that_is_stuck_moves_for_ever() -> None:
    clock = Clock()
    fleet = fleet_of({"ignoring": 1.0, "stuck": 1.0}, clock=clock)
    clock.at += 60
    fleet.cancel_tasks("J1", EVERYTHING)
    assert only(fleet.job("J1").counts(clock.at + 86_400)) == {"IN_PROGRESS": 100}


def test_some_ignore_and_some_obey() -> None:
    clock = Clock()
    fleet = fleet_of({"ignoring": 0.3, "silent": 1.0}, clock=clock)
    clock.at += 60
    fleet.cancel_tasks("J1", EVERYTHING)
    counts = fleet.job("J1").counts(clock.at)
    assert 15 < counts["NOTIFIED"] < 45
    assert counts["NOTIFIED"] + counts["CANCELED"] == 100


def test_a_cancel_may_take_its_time() -> None:
    fleet = fleet_of({"per_minute": 60}, habits=Habits(cancel_lag_seconds=5))
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True})
    assert fleet.job("J1").counts(EPOCH + 4)["CANCELED"] == 0
    assert only(fleet.job("J1").counts(EPOCH + 5)) == {"CANCELED": 100}


def test_a_repeated_cancel_changes_nothing_more() -> None:
    clock = Clock()
    fleet = fleet_of({"per_minute": 60}, clock=clock)
    clock.at += 10
    fleet.cancel_tasks("J1", EVERYTHING)
    before = fleet.job("J1").counts(clock.at)
    clock.at += 1
    fleet.cancel_tasks("J1", EVERYTHING)
    assert fleet.job("J1").counts(clock.at) == before
    assert [effect.tasks > 0 for effect in fleet.history] == [True, False]


@pytest.mark.parametrize("state", [JobState.CANCELED, JobState.COMPLETED])
def test_the_state_after_a_full_cancel_is_a_habit(state: JobState) -> None:
    fleet = fleet_of({}, habits=Habits(state_after_cancel=state))
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True})
    assert fleet.job("J1").state(EPOCH) is state


def test_a_cancelled_job_may_refuse_another_cancel() -> None:
    fleet = fleet_of({}, habits=Habits(refuses_cancelled=True))
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True})
    with pytest.raises(FleetRefusal, match="JobHasCanceled"):
        fleet.cancel_tasks("J1", {"CancelQueuedTask": True})
    assert len(fleet.history) == 1


@pytest.mark.parametrize("refuses", [True, False])
def test_a_finished_job_refuses_a_cancel_or_ignores_it(refuses: bool) -> None:
    clock = Clock()
    fleet = fleet_of({}, clock=clock, habits=Habits(refuses_finished=refuses))
    clock.at += 3600
    if refuses:
        with pytest.raises(FleetRefusal, match="JobHasFinished"):
            fleet.cancel_tasks("J1", EVERYTHING)
        return
    assert fleet.cancel_tasks("J1", EVERYTHING).tasks == 0
    assert only(fleet.job("J1").counts(clock.at)) == {"SUCCEEDED": 100}


@pytest.mark.parametrize(("job", "instance"), [("J2", None), ("J1", "iot-2")])
def test_an_unknown_job_or_one_of_another_instance_is_refused(job: str, instance: str | None) -> None:
    fleet = fleet_of({})
    for cancel in (
        lambda: fleet.cancel_tasks(job, EVERYTHING, instance_id=instance),
        lambda: fleet.cancel_strategy(job, instance_id=instance),
    ):
        with pytest.raises(FleetRefusal, match=r"iot\.ota\.InvalidJobId"):
            cancel()
    assert fleet.history == []


# Dynamic, scheduled, ended


def test_a_dynamic_job_finds_devices_until_its_strategy_is_cancelled() -> None:
    clock = Clock()
    fleet = fleet_of({"devices": 10, "enrol_per_minute": 60}, kind="dynamic", clock=clock)
    rollout = fleet.job("J1")
    assert sum(rollout.counts(EPOCH + 30).values()) == 40
    clock.at += 30
    fleet.cancel_tasks("J1", EVERYTHING)
    assert sum(rollout.counts(EPOCH + 60).values()) == 70
    assert rollout.state(EPOCH + 60) is JobState.IN_PROGRESS
    clock.at += 60
    fleet.cancel_strategy("J1")
    assert rollout.state(clock.at) is JobState.CANCELED
    assert sum(rollout.counts(clock.at + 3600).values()) == 100
    assert [effect.action for effect in fleet.history] == ["CancelOTATaskByJob", "CancelOTAStrategyByJob"]


def test_tasks_of_a_dynamic_job_go_on_after_its_strategy_was_cancelled() -> None:
    fleet = fleet_of({"devices": 10}, kind="dynamic")
    fleet.cancel_strategy("J1")
    assert only(fleet.job("J1").counts(EPOCH + 3600)) == {"SUCCEEDED": 10}
    fleet = fleet_of({"devices": 10}, kind="dynamic")
    fleet.cancel_strategy("J1")
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True})
    assert only(fleet.job("J1").counts(EPOCH + 3600)) == {"CANCELED": 10}


def test_a_dynamic_job_stops_finding_devices_at_its_limit() -> None:
    rollout = rollout_of({"devices": 10, "enrol_per_minute": 600, "enrol_at_most": 50}, kind="dynamic")
    assert sum(rollout.counts(EPOCH + 86_400).values()) == 50


@pytest.mark.parametrize("strategy_first", [True, False])
def test_a_dynamic_job_may_take_cancelled_devices_back(strategy_first: bool) -> None:
    fleet = fleet_of({"devices": 10}, kind="dynamic", habits=Habits(return_after_seconds=30))
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True})
    if strategy_first:
        fleet.cancel_strategy("J1")
    rollout = fleet.job("J1")
    assert only(rollout.counts(EPOCH + 29)) == {"CANCELED": 10}
    assert sum(rollout.counts(EPOCH + 31).values()) == (10 if strategy_first else 20)
    assert len({task.device_name for task in rollout.tasks(EPOCH + 31)}) == 10


@pytest.mark.parametrize("refuses", [True, False])
def test_a_static_job_has_no_strategy(refuses: bool) -> None:
    fleet = fleet_of({}, habits=Habits(refuses_strategy_of_static=refuses))
    if refuses:
        with pytest.raises(FleetRefusal, match="noDynamicJob"):
            fleet.cancel_strategy("J1")
        assert fleet.history == []
    else:
        fleet.cancel_strategy("J1")
    assert only(fleet.job("J1").counts(EPOCH)) == {"QUEUED": 100}


def test_a_scheduled_job_is_planned_until_its_hour() -> None:
    rollout = rollout_of({}, kind="scheduled", starts_in_seconds=600)
    assert rollout.state(EPOCH + 599) is JobState.PLANNED
    assert only(rollout.counts(EPOCH + 599)) == {"QUEUED": 100}
    assert rollout.state(EPOCH + 601) is JobState.IN_PROGRESS
    assert rollout.state(EPOCH + 3600) is JobState.COMPLETED


def test_the_scheduled_flag_stops_a_planned_job() -> None:
    clock = Clock()
    fleet = fleet_of({}, kind="scheduled", starts_in_seconds=600, clock=clock)
    fleet.cancel_tasks("J1", {"CancelScheduledTask": True})
    assert only(fleet.job("J1").counts(EPOCH + 3600)) == {"CANCELED": 100}
    assert fleet.job("J1").state(EPOCH) is JobState.CANCELED


def test_the_scheduled_flag_stops_nothing_after_the_hour() -> None:
    clock = Clock()
    fleet = fleet_of({}, kind="scheduled", starts_in_seconds=600, clock=clock)
    clock.at += 601
    assert fleet.cancel_tasks("J1", {"CancelScheduledTask": True}).tasks == 0


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_job_can_be_cancelled_before_the_fleet_begins(kind: str) -> None:
    fleet = fleet_of({"per_minute": 60}, kind=kind, starts_in_seconds=-600, canceled_seconds_ago=570)
    rollout = fleet.job("J1")
    assert rollout.state(EPOCH) is JobState.CANCELED
    assert rollout.counts(EPOCH)["CANCELED"] >= 70
    assert rollout.ended_at(EPOCH) is not None
    assert fleet.history == []


def test_a_completed_job_knows_its_end() -> None:
    rollout = rollout_of({"per_minute": 60}, starts_in_seconds=-3600)
    assert rollout.state(EPOCH) is JobState.COMPLETED
    ended_at = rollout.ended_at(EPOCH)
    assert ended_at is not None
    assert -3600 < ended_at - EPOCH < -3000
    assert rollout_of({}).ended_at(EPOCH) is None


# The seed


def test_the_shipped_fleet_has_a_job_of_every_kind_and_state() -> None:
    fleet = Fleet.from_seed(load_seed(), now=Clock())
    rollouts = fleet.rollouts.values()
    assert {rollout.facts.kind for rollout in rollouts} == set(JobKind)
    assert {rollout.state(EPOCH) for rollout in rollouts} == set(JobState)
    assert {instance.name for instance in fleet.instances.values()} == {"prod-shanghai", "staging-singapore"}


def test_the_shipped_incident_is_in_mid_flight_and_drains_soon_after_a_cancel() -> None:
    clock = Clock()
    fleet = Fleet.from_seed(load_seed(), now=clock)
    incident = fleet.job("7glPHmaDYLAYMD1HHutT02")
    counts = incident.counts(EPOCH)
    assert sum(counts.values()) == 400
    assert min(counts[state] for state in ("QUEUED", "NOTIFIED", "IN_PROGRESS", "SUCCEEDED", "FAILED")) > 0
    fleet.cancel_tasks("7glPHmaDYLAYMD1HHutT02", {"CancelQueuedTask": True, "CancelNotifiedTask": True})
    after = incident.counts(EPOCH)
    assert after["CANCELED"] > 250
    assert after["IN_PROGRESS"] > 0
    assert incident.counts(EPOCH + 60)["IN_PROGRESS"] == 0


@pytest.mark.parametrize(
    ("facts", "course", "complaint"),
    [
        ({"kind": "sideways"}, {}, "kind must be one of"),
        ({"colour": "red"}, {}, "colour"),
        ({}, {"speed": 3}, "speed"),
        ({}, {"failing": 1.5}, "shares between 0 and 1"),
        ({}, {"per_minute": 0}, "more than 0"),
        ({"firmware_id": "none"}, {}, "firmware 'none' is not described"),
        ({"instance_id": "iot-9"}, {}, "instance 'iot-9'"),
        ({"product_key": "nope"}, {}, "product 'nope'"),
    ],
)
def test_a_wrong_seed_is_refused_with_what_is_wrong(
    facts: dict[str, Any], course: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        fleet_of(course, **facts)


def test_ten_thousand_devices_are_counted_quickly() -> None:
    clock = Clock()
    fleet = fleet_of({"devices": 10_000, "per_minute": 10_000}, clock=clock)
    clock.at += 20
    started = time.perf_counter()
    for _ in range(100):
        fleet.job("J1").counts(clock.at)
    assert time.perf_counter() - started < 0.5
