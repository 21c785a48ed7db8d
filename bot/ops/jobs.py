"""The operations on a job (a batch of OTA tasks): show, cancel, halt.

To add an operation: declare it here, give it a rule in `policies/`, and write its test.
"""

from __future__ import annotations

from bot.model import Job, JobKind, JobState, Preview, Step, StepKind, Touch
from bot.operations import Kind, Operation, Param, Params

_STOP_USAGE = (
    "<job> [on <instance>] [--queued --notified --in-progress --unconfirmed --scheduled] [--dry-run] [because …]"
)
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
_DEFAULT = frozenset({Touch.QUEUED, Touch.NOTIFIED, Touch.CONFIRM})


def stop_touches(params: Params, job: Job) -> frozenset[Touch]:
    """What a stop names: the given switches, or by default everything but devices in progress."""
    given = frozenset(param.touch for param in STOP_PARAMS if param.name in params and param.touch)
    if given:
        return given
    return _DEFAULT | {Touch.SCHEDULED} if job.state is JobState.PLANNED else _DEFAULT


def cancel_steps(preview: Preview) -> tuple[Step, ...]:
    return (Step(StepKind.CANCEL_TASKS, preview.target, preview.touches),)


def halt_steps(preview: Preview) -> tuple[Step, ...]:
    """A dynamic batch keeps matching new devices until its strategy is cancelled, so that comes first."""
    if preview.job.kind is JobKind.DYNAMIC:
        return (Step(StepKind.CANCEL_STRATEGY, preview.target), *cancel_steps(preview))
    return cancel_steps(preview)


SHOW = Operation(
    name="job.show",
    verb="status",
    kind=Kind.READ,
    usage="status <job> [on <instance>]",
    help="Show a rollout: its state, and how many devices are in each state.",
    examples=("status 7glPHmaDYLAYMD1HHutT02",),
)

CANCEL = Operation(
    name="job.cancel",
    verb="cancel",
    kind=Kind.CHANGE,
    usage=f"cancel {_STOP_USAGE}",
    help="Stop the tasks of a rollout. With no flags: queued, notified and unconfirmed ones, and scheduled ones while "
    "the rollout is planned; never devices in progress.",
    examples=(
        "cancel 7glPHmaDYLAYMD1HHutT02 because 4.2.1 bricks gateways",
        "cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai --queued",
    ),
    params=STOP_PARAMS,
    touches=stop_touches,
    steps=cancel_steps,
)

HALT = Operation(
    name="job.halt",
    verb="halt",
    kind=Kind.CHANGE,
    usage=f"halt {_STOP_USAGE}",
    help="Stop a rollout for good: first the strategy of a dynamic batch, which matches new devices, then its tasks.",
    examples=("halt 7glPHmaDYLAYMD1HHutT02 because 4.2.1 bricks gateways",),
    params=STOP_PARAMS,
    touches=stop_touches,
    steps=halt_steps,
)

OPERATIONS = (SHOW, CANCEL, HALT)
