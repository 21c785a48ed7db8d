"""The operations on a firmware (an update package): list, and halt everything that rolls it out."""

from __future__ import annotations

from bot.operations import Kind, Operation, Subject, each_part
from bot.ops.jobs import REST, STOP_FLAGS, STOP_PARAMS, device_steps, halt_steps, stop_touches

LIST = Operation(
    name="firmware.list",
    verb="firmware",
    kind=Kind.READ,
    subject=Subject.CATALOG,
    usage="firmware [<product>] [on <instance>]",
    help="List the newest firmware that I know of, with its running rollouts.",
    examples=("firmware", "firmware a1Gateway01"),
)

HALT = Operation(
    name="firmware.halt",
    verb="halt firmware",
    kind=Kind.CHANGE,
    subject=Subject.FIRMWARE,
    usage=f"halt firmware <id|version> [on <instance>] {STOP_FLAGS} {REST}",
    help="Halt every running rollout of a firmware, the worst one first: one confirmation, an outcome for each.",
    examples=("halt firmware 4.2.1 because it bricks gateways",),
    params=STOP_PARAMS,
    under="job.halt",
    touches=stop_touches,
    steps=each_part(halt_steps),
    by_device=device_steps,
)

OPERATIONS = (LIST, HALT)
