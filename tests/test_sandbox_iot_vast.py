"""Rollouts of a million devices: formulas that agree with objects, quickly and in little memory."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.model import OPEN_STATES, JobState, TaskState
from bot.sandbox import rollouts
from bot.sandbox.fleet import Fleet
from bot.sandbox.fleet_devices import cancel_devices, confirm_tasks, device_of, run_tasks_again
from bot.sandbox.fleet_settings import Update, update_job
from bot.sandbox.habits import AtFinish, Habits, TaskOrder
from bot.sandbox.inventory import Call, FleetRefusal
from bot.sandbox.lines import Line, Stretch
from bot.sandbox.rollouts import Rollout
from bot.sandbox.spans import Span, ranked
from bot.sandbox.vast_tasks import VastTasks
from tests.test_sandbox_fleet import EPOCH, EVERYTHING, Clock, fleet_of

MILLION = {"devices": 1_000_000, "per_minute": 100_000}
MIXED = {"failing": 0.1, "silent": 0.05, "stuck": 0.02, "ignoring": 0.1}
SMALL = {"devices": 1_750, "per_minute": 5_250, **MIXED}


@pytest.fixture
def a_thousand_are_vast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formulas for rollouts that are small enough to be looked at device by device."""
    monkeypatch.setattr(rollouts, "LISTED_AT_MOST", 1_000)


def agrees_with_its_tasks(rollout: Rollout, now: float) -> dict[str, int]:
    """The counts, after each was compared with the tasks that are listed."""
    counts = rollout.counts(now)
    tasks = list(rollout.tasks(now))
    assert [task.number for task in tasks] == list(range(len(tasks)))
    assert Counter(task.move_at(now)[1] for task in tasks) == Counter({k: v for k, v in counts.items() if v})
    for state in TaskState:
        assert [task for task in tasks if task.move_at(now)[1] is state] == list(rollout.tasks(now, state=state))
    return counts


@pytest.mark.usefixtures("a_thousand_are_vast")
@pytest.mark.parametrize(
    "course",
    [
        {},
        {"confirm_seconds": 20, "unconfirmed": 0.1},
        {"timeout_minutes": 1, "stuck": 0.3},
        {"per_minute": 1_000},
    ],
)
def test_counts_agree_with_the_tasks_at_every_moment_and_after_every_call(course: dict[str, Any]) -> None:
    clock = Clock()
    fleet = fleet_of({**SMALL, **course}, clock=clock, habits=Habits(cancel_lag_seconds=2))
    rollout = fleet.job("J1")
    assert isinstance(rollout._tasks, VastTasks)
    for second in (0, 3, 11, 30, 45, 300):
        clock.at = EPOCH + second
        if second == 11:
            fleet.cancel_tasks("J1", {"CancelNotifiedTask": True, "CancelUnconfirmedTask": True})
        if second == 30:
            update_job(fleet, "J1", Update(100, "ALL", "STATIC"), call=Call())
        if second == 45:
            fleet.cancel_tasks("J1", EVERYTHING)
        assert sum(agrees_with_its_tasks(rollout, clock.at).values()) == 1_750


@pytest.mark.usefixtures("a_thousand_are_vast")
def test_an_earlier_moment_can_be_read_again() -> None:
    clock = Clock()
    fleet = fleet_of(SMALL, clock=clock)
    rollout = fleet.job("J1")
    before = [rollout.counts(EPOCH + second) for second in range(0, 20)]
    clock.at += 20
    fleet.cancel_tasks("J1", EVERYTHING)
    update_job(fleet, "J1", Update(10, "ALL", "STATIC"), call=Call())
    assert [rollout.counts(EPOCH + second) for second in range(0, 20)] == before


@pytest.mark.usefixtures("a_thousand_are_vast")
def test_a_cancel_says_how_many_obey() -> None:
    clock = Clock()
    fleet = fleet_of(SMALL, clock=clock)
    clock.at += 12
    before = fleet.job("J1").counts(clock.at)
    effect = fleet.cancel_tasks("J1", EVERYTHING)
    after = fleet.job("J1").counts(clock.at)
    assert effect.tasks == after["CANCELED"] > 0
    assert after["QUEUED"] == 0
    named = before["NOTIFIED"] + before["IN_PROGRESS"]
    assert 0.03 * named < after["NOTIFIED"] + after["IN_PROGRESS"] < 0.2 * named
    assert fleet.cancel_tasks("J1", EVERYTHING).tasks == 0
    assert fleet.job("J1").state(clock.at + 86_400) is JobState.IN_PROGRESS


def test_devices_finish_at_their_shares() -> None:
    clock = Clock()
    rollout = fleet_of({**MILLION, **MIXED}, clock=clock).job("J1")
    counts = rollout.counts(EPOCH + 86_400)
    assert sum(counts.values()) == 1_000_000
    assert 20_000 < counts["NOTIFIED"] < 90_000
    assert 60_000 < counts["FAILED"] < 130_000
    assert counts["SUCCEEDED"] > 700_000
    assert rollout_ends({**MILLION, "failing": 0.1}) is JobState.COMPLETED


def rollout_ends(course: dict[str, Any]) -> JobState:
    rollout = fleet_of(course).job("J1")
    ended_at = rollout.ended_at(EPOCH + 86_400)
    assert ended_at is not None
    assert EPOCH + 600 < ended_at < EPOCH + 700
    assert rollout.counts(ended_at - 1)["IN_PROGRESS"] > 0
    return rollout.state(ended_at)


@pytest.mark.usefixtures("a_thousand_are_vast")
def test_the_same_seed_and_clock_give_the_same_fleet() -> None:
    course = {**SMALL, "confirm_seconds": 5}
    one, same, other = (fleet_of(course, seed=seed).job("J1") for seed in (1, 1, 2))
    assert list(one.tasks(EPOCH + 20)) == list(same.tasks(EPOCH + 20)) != list(other.tasks(EPOCH + 20))


# Pages


@pytest.mark.usefixtures("a_thousand_are_vast")
@pytest.mark.parametrize("order", TaskOrder)
@pytest.mark.parametrize("state", [None, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELED, TaskState.CONFIRM])
def test_pages_hold_every_task_once(order: TaskOrder, state: TaskState | None) -> None:
    clock = Clock()
    fleet = fleet_of(SMALL, clock=clock, habits=Habits(task_order=order))
    clock.at += 15
    fleet.cancel_tasks("J1", EVERYTHING)
    single = ["d-00005", "d-01700"]
    cancel_devices(fleet, single, product_key="pk", firmware_id="fw", job_id="", call=Call())
    rollout = fleet.job("J1")
    expected = [task.number for task in rollout.tasks(clock.at, state=state)]
    if order is TaskOrder.NEWEST:
        expected.reverse()
    found: list[int] = []
    while page := rollout.page(clock.at, state=state, first=len(found), size=97):
        found += [task.number for task in page]
    assert found == expected


@given(
    spans=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 600)), max_size=8),
    first=st.integers(0, 900),
    size=st.integers(1, 50),
)
@settings(max_examples=200, deadline=None)
def test_a_page_of_spans_is_that_of_the_sorted_numbers(spans: list[tuple[int, int]], first: int, size: int) -> None:
    step = 8
    placed = [Span(start * step + place, (start + length) * step, step) for place, (start, length) in enumerate(spans)]
    numbers = sorted(number for span in placed for number in span.numbers)
    last = min(first + size, len(numbers))
    if first < last:
        assert ranked([span for span in placed if span.numbers], first, last) == numbers[first:last]


@given(
    steps=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 7, allow_nan=False)), min_size=1, max_size=5),
    begin=st.floats(1.7e9, 1.9e9),
    first=st.integers(0, 20),
)
@settings(max_examples=200, deadline=None)
def test_a_line_and_its_inverse_agree(steps: list[tuple[int, float]], begin: float, first: int) -> None:
    stretches, number, at = [], first, begin
    for length, step in steps:
        stretches.append(Stretch(number, at, step))
        number, at = number + length, at + length * step
    line = Line(stretches, number)
    turns = [line.at(each) for each in range(first, number)]
    assert all(before <= after for before, after in pairwise(turns))
    for turn in [*turns, begin - 1, turns[-1] + 1]:
        for now in (turn, turn - 1e-3, turn + 1e-3):
            assert line.reached(now) == first + sum(1 for each in turns if each <= now)


# Single devices


def test_a_device_is_found_by_its_name_and_by_its_id() -> None:
    clock = Clock()
    rollout = fleet_of(MILLION, clock=clock, first_device=7).job("J1")
    (task,) = rollout.tasks(EPOCH, names={"d-1000006", "d-1000007", "d-7", "d-0000006", "x", "d-٣", "d--1"})
    assert (task.number, task.device_name) == (999_999, "d-1000006")
    assert rollout.with_id(rollout.task_id(task), EPOCH) == task
    for wrong in ("", "x" * 22, rollout.task_id(task)[:-1], rollout.task_id(task)[:14] + "ffffffff"):
        assert rollout.with_id(wrong, EPOCH) is None


@pytest.mark.usefixtures("a_thousand_are_vast")
def test_names_sort_like_numbers() -> None:
    names = [task.device_name for task in fleet_of(SMALL).job("J1").tasks(EPOCH)]
    assert names == sorted(names)


def test_single_devices_are_cancelled_run_again_and_confirmed() -> None:
    clock = Clock()
    fleet = fleet_of({**MILLION, "confirm_seconds": 3600}, clock=clock)
    rollout = fleet.job("J1")
    names = ["d-0000001", "d-0500000", "d-1000000"]
    for repeat, hit in ((1, 3), (2, 0)):
        effect = cancel_devices(fleet, names, product_key="pk", firmware_id="fw", job_id="J1", call=Call())
        assert (effect.tasks, len(fleet.history)) == (hit, repeat)
    assert rollout.counts(EPOCH)["CANCELED"] == 3
    tasks = list(rollout.tasks(EPOCH, state=TaskState.CANCELED))
    assert [task.device_name for task in tasks] == names
    ids = [rollout.task_id(task) for task in tasks[:2]]
    run_tasks_again(fleet, "J1", ids, call=Call())
    assert rollout.counts(EPOCH)["CONFIRM"] == 999_999
    confirm_tasks(fleet, ids, call=Call())
    assert rollout.counts(EPOCH) | {"CONFIRM": 999_997, "QUEUED": 2, "CANCELED": 1} == rollout.counts(EPOCH)
    assert fleet.cancel_tasks("J1", {"CancelQueuedTask": True}).tasks == 999_999
    assert rollout.counts(EPOCH)["CANCELED"] == 1_000_000


@pytest.mark.usefixtures("a_thousand_are_vast")
def test_a_device_that_is_not_there_is_refused() -> None:
    fleet = fleet_of(SMALL)
    with pytest.raises(FleetRefusal, match="NotExistedDevice"):
        cancel_devices(fleet, ["d-01751"], product_key="pk", firmware_id="fw", job_id="", call=Call())
    with pytest.raises(FleetRefusal, match="InvalidIoTId"):
        device_of(fleet, "none")


# Rate, kinds, windows


@pytest.mark.usefixtures("a_thousand_are_vast")
def test_a_cancelled_job_ended_with_its_last_device() -> None:
    clock = Clock()
    fleet = fleet_of({"devices": 1_750, "per_minute": 5_250}, clock=clock)
    clock.at += 10
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True})
    assert fleet.job("J1").ended_at(clock.at) is None
    ended_at = fleet.job("J1").ended_at(clock.at + 3600)
    assert ended_at is not None
    assert sum(fleet.job("J1").counts(ended_at - 0.01)[state] for state in OPEN_STATES) == 1
    fleet = fleet_of({"devices": 1_750, "per_minute": 5_250}, clock=clock)
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True})
    assert fleet.job("J1").ended_at(clock.at + 3600) == clock.at


@pytest.mark.usefixtures("a_thousand_are_vast")
def test_settings_without_another_rate_change_no_device() -> None:
    fleet = fleet_of({**SMALL, "per_minute": 600})
    before = list(fleet.job("J1").tasks(EPOCH))
    update_job(fleet, "J1", Update(600, "ALL", "STATIC", tags=(("a", "b"),)), call=Call())
    assert list(fleet.job("J1").tasks(EPOCH)) == before
    assert fleet.job("J1").settings.tags == {"a": "b"}


@pytest.mark.parametrize("rate", [10, 6_000])
def test_another_rate_holds_for_the_devices_that_wait(rate: int) -> None:
    clock = Clock()
    fleet = fleet_of(MILLION, clock=clock)
    clock.at += 60
    rollout = fleet.job("J1")
    queued = rollout.counts(clock.at)["QUEUED"]
    assert queued == 900_000
    update_job(fleet, "J1", Update(rate, "ALL", "STATIC"), call=Call())
    assert rollout.counts(clock.at + 60)["QUEUED"] == queued - rate


@pytest.mark.usefixtures("a_thousand_are_vast")
def test_a_vast_dynamic_job_finds_devices_until_its_strategy_is_cancelled() -> None:
    clock = Clock()
    course = {"devices": 10, "per_minute": 600, "enrol_per_minute": 600, "enrol_at_most": 5_000}
    fleet = fleet_of(course, kind="dynamic", clock=clock)
    rollout = fleet.job("J1")
    assert [sum(rollout.counts(EPOCH + at).values()) for at in (0, 30, 3600)] == [10, 310, 5_000]
    clock.at += 30
    agrees_with_its_tasks(rollout, clock.at)
    fleet.cancel_tasks("J1", EVERYTHING)
    assert sum(rollout.counts(EPOCH + 60).values()) == 610
    clock.at += 30
    fleet.cancel_strategy("J1")
    assert rollout.state(clock.at) is JobState.CANCELED
    assert sum(agrees_with_its_tasks(rollout, clock.at + 3600).values()) == 610


@pytest.mark.usefixtures("a_thousand_are_vast")
@pytest.mark.parametrize(("enrol", "rate"), [(600, 6_000), (6_000, 600)])
def test_devices_that_a_vast_dynamic_job_finds_are_told_at_a_new_rate(enrol: int, rate: int) -> None:
    clock = Clock()
    course = {"devices": 0, "per_minute": 60, "enrol_per_minute": enrol, "enrol_at_most": 1_000_000, "silent": 1.0}
    fleet = fleet_of(course, kind="dynamic", clock=clock)
    clock.at += 60
    update_job(fleet, "J1", Update(rate, "ALL", "DYNAMIC"), call=Call())
    rollout = fleet.job("J1")
    agrees_with_its_tasks(rollout, EPOCH + 120)
    told = [rollout.counts(EPOCH + at)["NOTIFIED"] for at in (600, 660)]
    assert abs(told[1] - told[0] - min(enrol, rate)) <= 1


@pytest.mark.parametrize(("end", "expected"), [(AtFinish.CANCEL, "CANCELED"), (AtFinish.FAIL, "FAILED")])
def test_a_window_ends_for_all(end: AtFinish, expected: str) -> None:
    course = {**MILLION, "ignoring": 1.0, "stuck": 1.0}
    options: dict[str, Any] = {"kind": "scheduled", "starts_in_seconds": 60, "finishes_in_seconds": 3660}
    rollout = fleet_of(course, habits=Habits(at_schedule_finish=end), **options).job("J1")
    assert rollout.state(EPOCH) is JobState.PLANNED
    assert rollout.counts(EPOCH + 3659)["IN_PROGRESS"] == 1_000_000
    assert rollout.counts(EPOCH + 3660)[expected] == 1_000_000
    assert rollout.state(EPOCH + 3660) is JobState.COMPLETED


# Numbers


TRACED = 6 if sys.gettrace() else 1
"""How much slower formulas are while coverage is measured."""


def fastest(act: Callable[[], object], *, times: int = 9) -> float:
    """Seconds of this process in the fastest of some runs, without what others take of the machine."""
    spans = []
    for _ in range(times):
        started = time.process_time()
        act()
        spans.append(time.process_time() - started)
    return min(spans) / TRACED


def a_million_in_flight() -> tuple[Fleet, Clock]:
    clock = Clock()
    fleet = fleet_of({**MILLION, **MIXED}, clock=clock)
    clock.at += 300
    fleet.cancel_tasks("J1", {"CancelQueuedTask": True, "CancelNotifiedTask": True})
    return fleet, clock


def test_a_million_devices_are_counted_paged_and_cancelled_quickly() -> None:
    fleet, clock = a_million_in_flight()
    rollout = fleet.job("J1")
    counts = rollout.counts(clock.at)
    assert fastest(lambda: rollout.counts(clock.at)) < 0.005
    for state in (None, *TaskState):
        total = sum(counts.values()) if state is None else counts[state]
        first = max(0, min(99_900, total - 100))
        assert len(rollout.page(clock.at, state=state, first=first, size=100)) == min(100, total)
        assert (
            fastest(lambda state=state, first=first: rollout.page(clock.at, state=state, first=first, size=100)) < 0.02
        )
    assert fastest(lambda: fleet.cancel_tasks("J1", {"CancelInProgressTask": True}), times=3) < 0.1


def test_a_million_devices_need_next_to_no_memory() -> None:
    tracemalloc.start()
    try:
        fleet, clock = a_million_in_flight()
        for first in range(0, 100_000, 10_000):
            fleet.job("J1").page(clock.at, state=TaskState.CANCELED, first=first, size=100)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
