"""The operations: what a call names, and in which steps it is carried out."""

from __future__ import annotations

import pytest

from bot.model import JobKind, JobSettings, JobState, StepKind, Target, Task, TaskState, Touch
from bot.operations import Kind, Operation, Operations, Subject, value_of
from bot.ops import KNOWN
from bot.ops.devices import RETRY, states_to_retry
from bot.ops.jobs import CANCEL, DEVICES_A_CALL, HALT, SHOW, device_steps, stop_touches
from tests.values import job, part, preview

DEFAULT = frozenset({Touch.QUEUED, Touch.NOTIFIED, Touch.CONFIRM})
NONE: frozenset[str] = frozenset()


def tasks(count: int) -> tuple[Task, ...]:
    return tuple(Task(f"t{number}", f"gw-{number}", TaskState.FAILED) for number in range(count))


def test_with_no_flags_a_stop_spares_devices_in_progress() -> None:
    assert stop_touches(NONE, job()) == DEFAULT


def test_with_no_flags_a_planned_rollout_is_stopped_before_its_hour() -> None:
    assert stop_touches(NONE, job(state=JobState.PLANNED)) == DEFAULT | {Touch.SCHEDULED}


def test_flags_name_exactly_what_they_say() -> None:
    assert stop_touches(frozenset({"queued", "in_progress"}), job()) == {Touch.QUEUED, Touch.IN_PROGRESS}


@pytest.mark.parametrize("kind", [kind for kind in JobKind if kind is not JobKind.DYNAMIC])
def test_halting_a_batch_without_a_strategy_cancels_its_tasks(kind: JobKind) -> None:
    steps = HALT.steps(preview(job=job(kind=kind)), NONE)
    assert [step.kind for step in steps] == [StepKind.CANCEL_TASKS]


def test_halting_a_dynamic_batch_cancels_its_strategy_first() -> None:
    steps = HALT.steps(preview(job=job(kind=JobKind.DYNAMIC)), NONE)
    assert [step.kind for step in steps] == [StepKind.CANCEL_STRATEGY, StepKind.CANCEL_TASKS]
    assert steps[1].touches == preview().touches


def test_cancelling_a_dynamic_batch_leaves_its_strategy() -> None:
    dynamic = preview(job=job(kind=JobKind.DYNAMIC))
    assert [step.kind for step in CANCEL.steps(dynamic, NONE)] == [StepKind.CANCEL_TASKS]


def test_a_scheduled_stop_touches_what_waits_as_queued() -> None:
    planned = part(job=job(state=JobState.PLANNED), touches=frozenset({Touch.SCHEDULED}))
    assert planned.touched_states == (TaskState.QUEUED,)


def test_halting_a_firmware_goes_through_its_rollouts_one_by_one() -> None:
    two = preview(part(job=job(job_id="a", kind=JobKind.DYNAMIC)), part(job=job(job_id="b")))
    steps = KNOWN["firmware.halt"].steps(two, NONE)
    assert [(step.kind, step.target.job) for step in steps] == [
        (StepKind.CANCEL_STRATEGY, "a"),
        (StepKind.CANCEL_TASKS, "a"),
        (StepKind.CANCEL_TASKS, "b"),
    ]


def test_a_call_by_device_names_at_most_as_many_as_the_cloud_takes() -> None:
    steps = device_steps(preview(), part(), tasks(450))
    assert [len(step.devices) for step in steps] == [DEVICES_A_CALL, DEVICES_A_CALL, 50]
    assert steps[0].target == Target("prod-shanghai", job().job_id, "fw-421", "a1Gateway01")


def test_a_device_that_stands_twice_is_named_once() -> None:
    assert [step.devices for step in device_steps(preview(), part(), tasks(2) * 2)] == [("gw-0", "gw-1")]


def test_tasks_are_run_again_ten_a_call_with_their_devices() -> None:
    steps = RETRY.steps(preview(part(tasks=tasks(23))), NONE)
    assert [len(step.tasks) for step in steps] == [10, 10, 3]
    assert steps[2].devices == ("gw-20", "gw-21", "gw-22")


@pytest.mark.parametrize(
    ("params", "states"),
    [
        (NONE, (TaskState.FAILED,)),
        (frozenset({"cancelled"}), (TaskState.CANCELED,)),
        (frozenset({"failed", "cancelled", "limit=3"}), (TaskState.FAILED, TaskState.CANCELED)),
    ],
)
def test_without_a_word_it_is_the_failed_tasks_that_run_again(
    params: frozenset[str], states: tuple[TaskState, ...]
) -> None:
    assert states_to_retry(params) == states


def test_a_rate_is_set_with_everything_else_as_it_was() -> None:
    settings = JobSettings(600, 60, "GRAY", "STATIC", ("4.1.9",), (("ring", "3"),))
    [step] = KNOWN["job.rate"].steps(preview(job=job(settings=settings)), frozenset({"per_minute=10"}))
    assert step.settings == JobSettings(10, 60, "GRAY", "STATIC", ("4.1.9",), (("ring", "3"),))


def test_a_rate_without_the_settings_of_the_rollout_has_no_step() -> None:
    assert KNOWN["job.rate"].steps(preview(), frozenset({"per_minute=10"})) == ()


def test_an_operation_cannot_be_declared_twice() -> None:
    with pytest.raises(ValueError, match=r"job\.show is declared twice"):
        Operations.of((SHOW, SHOW))


def test_operations_are_found_by_name_kind_and_verb() -> None:
    assert KNOWN["job.cancel"] is CANCEL
    assert KNOWN.names(Kind.READ)[0] == "job.show"
    assert KNOWN.with_verb("halt") is HALT
    assert KNOWN.with_verb("stop") is None


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["halt", "firmware", "4.2.1"], ("firmware.halt", 2)),
        (["HALT", "7glPHmaDYLAYMD1HHutT02"], ("job.halt", 1)),
        (["cancel", "device", "a1", "gw"], ("device.cancel", 2)),
        (["halt"], ("job.halt", 1)),
    ],
)
def test_the_longest_verb_is_meant(words: list[str], found: tuple[str, int]) -> None:
    starting = KNOWN.starting(words)
    assert starting is not None
    assert (starting[0].name, starting[1]) == found


def test_a_value_is_read_from_its_switch_alone() -> None:
    assert value_of(frozenset({"limit=12", "failed"}), "limit") == 12
    assert value_of(frozenset({"failed"}), "limit") is None


@pytest.mark.parametrize("operation", KNOWN.by_name.values(), ids=lambda each: each.name)
def test_every_operation_says_how_it_is_typed_and_gives_an_example_that_begins_so(operation: Operation) -> None:
    assert operation.usage.startswith(operation.verb)
    assert operation.examples
    assert all(example.startswith(operation.verb) for example in operation.examples)
    assert operation.help.endswith(".")


def test_what_an_operation_stands_under_exists_and_is_of_its_kind() -> None:
    for operation in KNOWN.by_name.values():
        if operation.under is not None:
            assert KNOWN[operation.under].kind is operation.kind


def test_only_what_restarts_devices_is_never_repeated() -> None:
    never = [each.name for each in KNOWN.by_name.values() if each.repeat.value == "never"]
    assert never == ["task.retry"]


def test_a_target_of_many_devices_has_a_key_that_fits_its_column_and_tells_them_apart() -> None:
    devices = tuple(f"gateway-with-a-long-name-{number:04}" for number in range(50))
    one, other = Target("i", product="p", devices=devices), Target("i", product="p", devices=devices[:-1])
    assert len(one.key) <= 200
    assert one.key != other.key
    assert one.key == Target("i", product="p", devices=devices[::-1]).key


def test_catalog_operations_take_at_most_a_word() -> None:
    assert {each.name for each in KNOWN.by_name.values() if each.subject is Subject.CATALOG} == {
        "job.list",
        "firmware.list",
    }
