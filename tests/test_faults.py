"""Every fault of the simulated cloud in every operation, over the whole bot: nothing breaks, somebody is told how it
ended, nothing is claimed that the fleet contradicts, and nothing happens twice that must not.

What must be true at every end stands in `scenarios.truth`. The lists of rollouts and packages are not here: they come
from the database, and what discovery does with a broken cloud is `test_discovery`'s.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from bot.sandbox.iot_faults import Fault, FaultKind
from bot.workflow.means import Timings
from tests.scenarios.ground import Ground, grounded, staged
from tests.scenarios.stage import Stage
from tests.scenarios.story import seed_of
from tests.scenarios.truth import untruths
from tests.scenarios.wire import CHANGES, READS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ON_CALL, RELEASE = "U0ONCALLA1", "U0RELEASE1"
DEVICES = 12
IS_WHOLE = os.environ.get("OTABRAKE_TEST_WHOLE_MATRIX") == "1"
AFTERWARDS_SECONDS = 15
QUICK = Timings(follow_seconds=60, retry_seconds=20, poll_seconds=2, poll_most_seconds=30, restart_seconds=30)
"""So many spans of the story's clock that a follow takes a handful of looks."""

_IN_MID_FLIGHT = {"starts_in_seconds": -6, "course": {"devices": DEVICES, "per_minute": 60, "answer_seconds": 4}}
_DYNAMIC = {**_IN_MID_FLIGHT, "kind": "dynamic"}
_CANCELLED = {**_IN_MID_FLIGHT, "starts_in_seconds": -7200, "canceled_seconds_ago": 7198}


@dataclass(frozen=True, slots=True)
class Operation:
    """What somebody types, and the rollouts that it is about. `{0}` is the id of the first one."""

    name: str
    line: str
    rollouts: tuple[Mapping[str, Any], ...] = (_IN_MID_FLIGHT,)
    user: str = ON_CALL

    def __str__(self) -> str:
        return self.name


READ = (
    Operation("job.show", "status {0} on prod-shanghai"),
    Operation("job.tasks", "tasks {0} on prod-shanghai"),
    Operation("device.show", "device a1Gateway01 {0}-00001 on prod-shanghai"),
    Operation("a dry run", "cancel {0} on prod-shanghai --dry-run"),
)
CHANGE = (
    Operation("job.cancel", "cancel {0} because it bricks"),
    Operation("job.halt", "halt {0} because it bricks", (_DYNAMIC,)),
    Operation("firmware.halt", "halt firmware 4.2.1 because it bricks", (_IN_MID_FLIGHT, _DYNAMIC)),
    Operation("job.rate", "rate {0} 10 because it bricks"),
    Operation("device.cancel", "cancel device a1Gateway01 {0}-00011 {0}-00012 because they fly"),
    Operation("task.retry", "retry {0} --cancelled because it is mended", (_CANCELLED,), RELEASE),
)

FAULTS = (
    *(Fault(kind) for kind in FaultKind if kind is not FaultKind.LATENCY),
    Fault(FaultKind.LATENCY, seconds=3, jitter=2),
    Fault(FaultKind.HTML_PAGE, status=200),
    Fault(FaultKind.THROTTLE, status=429, seconds=2),
    Fault(FaultKind.THROTTLE, code="iot.common.TooManyRequest", status=200),
    Fault(FaultKind.REFUSE, code="Forbidden.RAM", status=403),
    Fault(FaultKind.REFUSE, code="iot.system.SystemException", status=200),
    Fault(FaultKind.REFUSE, code="iot.ota.JobHasFinished", status=400),
    Fault(FaultKind.REFUSE, code="a.code.nobody.knows", status=418),
    Fault(FaultKind.ACCEPT_THEN_ERROR, code="iot.system.SystemException", status=200),
    Fault(FaultKind.ACCEPT_THEN_ERROR, code="ServiceUnavailable", status=503),
)
ids = count(1)


class When(Enum):
    """When a fault stands."""

    ASKED = "in every read before the card"
    ONCE = "in the first call"
    ALWAYS = "in every call"
    AFTERWARDS = "in every read for a while after the call"


def named(fault: Fault) -> str:
    return " ".join(str(part) for part in (fault.kind, fault.code, fault.status or "") if part)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground() -> AsyncIterator[Ground]:
    async with grounded() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(ground: Ground) -> AsyncIterator[Stage]:
    async with staged(ground, seed_of([]), timings=QUICK) as made:
        yield made


async def asked(stage: Stage, operation: Operation, fault: Fault | None = None) -> None:
    """A new scene in which somebody asks; the fault stands from before that on."""
    jobs = [{"job_id": f"Job{next(ids):04}", **row} for row in operation.rollouts]
    stage.begin_anew(seed_of(jobs))
    if fault is not None:
        stage.wire.break_down(fault)
    await stage.types(operation.user, operation.line.format(*(job["job_id"] for job in jobs)))


async def confirmed(stage: Stage, user: str) -> None:
    message = stage.with_button("proposal.confirm", user=user)
    assert message is not None, stage.as_seen()
    await stage.clicks(user, message, "proposal.confirm")


async def check(stage: Stage) -> None:
    """Nothing is untrue, nothing waits, and the one who asked was told something."""
    said = await untruths(stage)
    waiting = [proposal.state for proposal in await stage.proposals() if proposal.outcome is None]
    assert [*said, *waiting] == [], "\n".join([*said, *waiting, "As people see it:", stage.as_seen()])
    assert stage.told(ON_CALL) or stage.told(RELEASE) or stage.thread()


@pytest.mark.parametrize("fault", FAULTS, ids=named)
@pytest.mark.parametrize("operation", READ, ids=str)
async def test_a_read_is_answered_whatever_the_cloud_does(stage: Stage, operation: Operation, fault: Fault) -> None:
    await asked(stage, operation, fault)
    await check(stage)
    lists = [content for name, content in stage.files().items() if name.endswith(".csv")]
    assert all(content.count("\r\n") == DEVICES + 1 for content in lists), "half a list was sent"
    assert not stage.fleet.history


def cells() -> list[tuple[Operation, Fault, When]]:
    """Every fault in every change, at a moment that differs from cell to cell, or at all of them."""
    moments = tuple(When)
    found = []
    for row, operation in enumerate(CHANGE):
        for column, fault in enumerate(FAULTS):
            own = moments[(row + column) % len(moments)]
            found += [(operation, fault, when) for when in moments if IS_WHOLE or when is own]
    return found


def in_words(cell: object) -> str:
    return named(cell) if isinstance(cell, Fault) else cell.value if isinstance(cell, When) else str(cell)


@pytest.mark.parametrize(("operation", "fault", "when"), cells(), ids=in_words)
async def test_a_change_ends_truly_whatever_the_cloud_does(
    stage: Stage, operation: Operation, fault: Fault, when: When
) -> None:
    await asked(stage, operation, fault if when is When.ASKED else None)
    if when is When.ASKED:
        stage.wire.mend()
        assert not stage.fleet.history
    break_down(stage, fault, when)
    if when is not When.ASKED or stage.with_button("proposal.confirm", user=operation.user) is not None:
        await confirmed(stage, operation.user)
    await check(stage)
    if when is When.ONCE:
        assert len(stage.iot.state.faults.standing) < len(CHANGES), "no call met the fault"


def break_down(stage: Stage, fault: Fault, when: When) -> None:
    if when is When.AFTERWARDS:

        async def begin() -> None:
            for action in READS:
                stage.wire.break_down(replace(fault, action=action), seconds=AFTERWARDS_SECONDS)

        stage.wire.act_at_next(begin, is_change=True)
    elif when is not When.ASKED:
        for action in CHANGES:
            stage.wire.break_down(replace(fault, action=action, calls=1 if when is When.ONCE else None))
