"""The operations on a job (a batch of OTA tasks): show, list, tasks, cancel, halt, rate.

To add an operation: declare it here, give it a rule in `policies/`, and write its test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from bot.model import OPEN_STATES, Job, JobKind, JobState, Part, Preview, Step, StepKind, Target, Task, TaskState, Touch
from bot.operations import Direction, Kind, Operation, Param, Params, Subject, each_part, value_of

STOP_FLAGS = "[--queued --notified --in-progress --unconfirmed --scheduled]"
REST = "[--dry-run] [because …]"
STOP_PARAMS = (
    Param("queued", "queued", "tasks whose device has not been told yet", Touch.QUEUED),
    Param("notified", "notified", "tasks whose device was told and may be flashing unreported", Touch.NOTIFIED),
    Param(
        "in_progress",
        "in-progress",
        "tasks whose device reported progress: may leave it half flashed",
        Touch.IN_PROGRESS,
    ),
    Param("unconfirmed", "unconfirmed", "tasks that wait for a confirmation in the app", Touch.CONFIRM),
    Param("scheduled", "scheduled", "tasks of a batch whose hour has not come", Touch.SCHEDULED),
)
PER_MINUTE = Param("per_minute", "", "how many devices are told per minute", takes=(10, 10_000))
"""The bounds are the cloud's: https://help.aliyun.com/zh/iot/developer-reference/api-updateotajob"""

STATE_PARAMS = tuple(
    Param(state.value.casefold(), state.value.casefold().replace("_", "-"), f"only tasks that are {state.value}")
    for state in TaskState
)
OPEN_TOUCHES = frozenset(Touch(state.value) for state in OPEN_STATES)
"""What a call by device names: it cannot spare a device in progress."""

DEVICES_A_CALL = 200
T = TypeVar("T")
_DEFAULT = frozenset({Touch.QUEUED, Touch.NOTIFIED, Touch.CONFIRM})


def stop_touches(params: Params, job: Job) -> frozenset[Touch]:
    """What a stop names: the given switches, or by default everything but devices in progress."""
    given = frozenset(param.touch for param in STOP_PARAMS if param.name in params and param.touch)
    if given:
        return given
    return _DEFAULT | {Touch.SCHEDULED} if job.state is JobState.PLANNED else _DEFAULT


def target_of(preview: Preview, part: Part) -> Target:
    """The batch that a step is about."""
    job = part.job
    return Target(preview.target.instance, job.job_id, job.firmware_id, job.product)


def cancel_steps(preview: Preview, part: Part) -> tuple[Step, ...]:
    return (Step(StepKind.CANCEL_TASKS, target_of(preview, part), part.touches),)


def halt_steps(preview: Preview, part: Part) -> tuple[Step, ...]:
    """A dynamic batch keeps matching new devices until its strategy is cancelled, so that comes first."""
    if part.job.kind is JobKind.DYNAMIC:
        return (Step(StepKind.CANCEL_STRATEGY, target_of(preview, part)), *cancel_steps(preview, part))
    return cancel_steps(preview, part)


def device_steps(preview: Preview, part: Part, tasks: Sequence[Task]) -> tuple[Step, ...]:
    """The cancels of these devices' tasks in one batch, 200 names a call."""
    names = dict.fromkeys(task.device for task in tasks)
    target = target_of(preview, part)
    return tuple(
        Step(StepKind.CANCEL_DEVICES, target, OPEN_TOUCHES, devices=some) for some in batches(names, DEVICES_A_CALL)
    )


def rate_steps(preview: Preview, params: Params) -> tuple[Step, ...]:
    """All settings that were read are sent again with the new rate: what is left out, the cloud forgets."""
    settings, wanted = preview.job.settings, value_of(params, PER_MINUTE.name)
    if settings is None or wanted is None:
        return ()
    target = target_of(preview, preview.parts[0])
    return (Step(StepKind.SET_RATE, target, settings=replace(settings, per_minute=wanted)),)


def states_asked(params: Params) -> tuple[TaskState, ...]:
    """The task states that the switches name; all of them if none does."""
    named = tuple(state for state in TaskState if state.value.casefold() in params)
    return named or tuple(TaskState)


def batches(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch


SHOW = Operation(
    name="job.show",
    verb="status",
    kind=Kind.READ,
    usage="status <job> [on <instance>]",
    help="Show a rollout: its state, how many devices are in each state, and why devices failed.",
    examples=("status 7glPHmaDYLAYMD1HHutT02",),
)

LIST = Operation(
    name="job.list",
    verb="jobs",
    kind=Kind.READ,
    subject=Subject.CATALOG,
    usage="jobs [<product|firmware|version>] [on <instance>]",
    help="List the rollouts that I know of, running ones first, as they were when I last looked.",
    examples=("jobs", "jobs a1Gateway01"),
)

TASKS = Operation(
    name="job.tasks",
    verb="tasks",
    kind=Kind.READ,
    usage="tasks <job> [<state>] [on <instance>]",
    help="Send you the devices of a rollout as a CSV file, all of them or those in one state.",
    examples=("tasks 7glPHmaDYLAYMD1HHutT02 failed",),
    params=STATE_PARAMS,
)

CANCEL = Operation(
    name="job.cancel",
    verb="cancel",
    kind=Kind.CHANGE,
    usage=f"cancel <job> [on <instance>] {STOP_FLAGS} {REST}",
    help="Stop the tasks of a rollout. With no flags: queued, notified and unconfirmed ones, and scheduled ones while "
    "the rollout is planned; never devices in progress. With flags: only those that are named.",
    examples=(
        "cancel 7glPHmaDYLAYMD1HHutT02 because 4.2.1 bricks gateways",
        "cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai --queued",
    ),
    params=STOP_PARAMS,
    touches=stop_touches,
    steps=each_part(cancel_steps),
)

HALT = Operation(
    name="job.halt",
    verb="halt",
    kind=Kind.CHANGE,
    usage=f"halt <job> [on <instance>] {STOP_FLAGS} {REST}",
    help="Stop a rollout for good: first the strategy of a dynamic batch, which matches new devices, then its tasks "
    "(with flags: only those that are named).",
    examples=("halt 7glPHmaDYLAYMD1HHutT02 because 4.2.1 bricks gateways",),
    params=STOP_PARAMS,
    touches=stop_touches,
    steps=each_part(halt_steps),
    by_device=device_steps,
)

RATE = Operation(
    name="job.rate",
    verb="rate",
    kind=Kind.CHANGE,
    direction=Direction.TUNE,
    usage=f"rate <job> <devices per minute> [on <instance>] {REST}",
    help="Slow a rollout down, or speed it up again: how many devices are told per minute (10 to 10,000). It cannot "
    "pause; everything else that the rollout was made with stays.",
    examples=("rate 7glPHmaDYLAYMD1HHutT02 10 because support is swamped",),
    params=(PER_MINUTE,),
    steps=rate_steps,
)

OPERATIONS = (SHOW, LIST, TASKS, CANCEL, HALT, RATE)
