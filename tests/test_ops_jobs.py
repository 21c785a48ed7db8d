"""The operations on a job: what a call names, and in which steps it is carried out."""

from __future__ import annotations

import pytest

from bot.model import JobKind, JobState, StepKind, TaskState, Touch
from bot.operations import Kind, Operations
from bot.ops.jobs import CANCEL, HALT, OPERATIONS, SHOW, stop_touches
from tests.values import job, preview

DEFAULT = frozenset({Touch.QUEUED, Touch.NOTIFIED, Touch.CONFIRM})


def test_with_no_flags_a_stop_spares_devices_in_progress() -> None:
    assert stop_touches(frozenset(), job()) == DEFAULT


def test_with_no_flags_a_planned_rollout_is_stopped_before_its_hour() -> None:
    assert stop_touches(frozenset(), job(state=JobState.PLANNED)) == DEFAULT | {Touch.SCHEDULED}


def test_flags_name_exactly_what_they_say() -> None:
    assert stop_touches(frozenset({"queued", "in_progress"}), job()) == {Touch.QUEUED, Touch.IN_PROGRESS}


@pytest.mark.parametrize("kind", [kind for kind in JobKind if kind is not JobKind.DYNAMIC])
def test_halting_a_batch_without_a_strategy_cancels_its_tasks(kind: JobKind) -> None:
    steps = HALT.steps(preview(job=job(kind=kind)))
    assert [step.kind for step in steps] == [StepKind.CANCEL_TASKS]


def test_halting_a_dynamic_batch_cancels_its_strategy_first() -> None:
    steps = HALT.steps(preview(job=job(kind=JobKind.DYNAMIC)))
    assert [step.kind for step in steps] == [StepKind.CANCEL_STRATEGY, StepKind.CANCEL_TASKS]
    assert steps[1].touches == preview().touches


def test_cancelling_a_dynamic_batch_leaves_its_strategy() -> None:
    assert [step.kind for step in CANCEL.steps(preview(job=job(kind=JobKind.DYNAMIC)))] == [StepKind.CANCEL_TASKS]


def test_a_scheduled_stop_touches_what_waits_as_queued() -> None:
    planned = preview(job=job(state=JobState.PLANNED), touches=frozenset({Touch.SCHEDULED}))
    assert planned.touched_states == (TaskState.QUEUED,)


def test_an_operation_cannot_be_declared_twice() -> None:
    with pytest.raises(ValueError, match=r"job\.show is declared twice"):
        Operations.of((SHOW, SHOW))


def test_operations_are_found_by_name_kind_and_verb() -> None:
    operations = Operations.of(OPERATIONS)
    assert operations["job.cancel"] is CANCEL
    assert operations.names(Kind.CHANGE) == ("job.cancel", "job.halt")
    assert operations.with_verb("halt") is HALT
    assert operations.with_verb("stop") is None
