"""The operations on devices and their tasks: show and cancel devices by name, run tasks again."""

from __future__ import annotations

from bot.model import Job, Part, Preview, Step, StepKind, TaskState, Touch
from bot.operations import Direction, Kind, Operation, Param, Params, Repeat, Subject, each_part, value_of
from bot.ops.jobs import OPEN_TOUCHES, REST, batches, device_steps, target_of

TASKS_A_CALL = 10
MOST_TASKS = 1_000
"""As many tasks as one confirmation may run again; what is beyond is left out, and said."""

LIMIT = Param("limit", "limit", f"how many tasks at most (1 to {MOST_TASKS:,})", takes=(1, MOST_TASKS))
RETRY_PARAMS = (
    Param("failed", "failed", "tasks that failed (the default)"),
    Param("cancelled", "cancelled", "tasks that were cancelled"),
    LIMIT,
)


def by_device_steps(preview: Preview, part: Part) -> tuple[Step, ...]:
    return device_steps(preview, part, part.tasks)


def retry_steps(preview: Preview, part: Part) -> tuple[Step, ...]:
    target = target_of(preview, part)
    return tuple(
        Step(
            StepKind.RETRY_TASKS,
            target,
            devices=tuple(task.device for task in some),
            tasks=tuple(task.task_id for task in some),
        )
        for some in batches(part.tasks, TASKS_A_CALL)
    )


def device_touches(params: Params, job: Job) -> frozenset[Touch]:
    return OPEN_TOUCHES


def states_to_retry(params: Params) -> tuple[TaskState, ...]:
    states = []
    if "failed" in params or "cancelled" not in params:
        states.append(TaskState.FAILED)
    if "cancelled" in params:
        states.append(TaskState.CANCELED)
    return tuple(states)


def most_tasks(params: Params) -> int:
    return value_of(params, LIMIT.name) or MOST_TASKS


SHOW = Operation(
    name="device.show",
    verb="device",
    kind=Kind.READ,
    subject=Subject.DEVICES,
    usage="device <product> <device> [on <instance>]",
    help="Show what is open for a device: its unfinished tasks and the rollouts that they belong to.",
    examples=("device a1Gateway01 gw-sh-00042",),
)

CANCEL = Operation(
    name="device.cancel",
    verb="cancel device",
    kind=Kind.CHANGE,
    subject=Subject.DEVICES,
    usage=f"cancel device <product> <device…> [on <instance>] {REST}",
    help="Cancel every open task of the named devices, also of those in progress: by name the cloud spares none.",
    examples=("cancel device a1Gateway01 gw-sh-00042 gw-sh-00043 because they are in a ship",),
    touches=device_touches,
    steps=each_part(by_device_steps),
)

RETRY = Operation(
    name="task.retry",
    verb="retry",
    kind=Kind.CHANGE,
    direction=Direction.RESTART,
    repeat=Repeat.NEVER,
    usage=f"retry <job> [--failed] [--cancelled] [--limit <n>] [on <instance>] {REST}",
    help="Run failed (or cancelled) tasks of a rollout again: the way back after a stop. Devices are flashed again.",
    examples=("retry 7glPHmaDYLAYMD1HHutT02 --cancelled --limit 10 because 4.2.2 is out",),
    params=RETRY_PARAMS,
    retries=states_to_retry,
    most_tasks=most_tasks,
    steps=each_part(retry_steps),
)

OPERATIONS = (SHOW, CANCEL, RETRY)
