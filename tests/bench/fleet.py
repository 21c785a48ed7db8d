"""The IoT simulator without limits as a process of its own, with a rollout for each flow.

The devices of each were told of the update long ago and never began, so a cancel stops all of them at once.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from starlette.types import Receive, Scope, Send

from bot.model import JobKind
from bot.sandbox.courses import Course
from bot.sandbox.facts import Facts
from bot.sandbox.fleet import Fleet
from bot.sandbox.iot import create_iot_app, load_seed
from bot.sandbox.rollouts import Rollout
from bot.server import served
from tests.bench.machine import Json, answer_asks, be_a_child

DEVICES = 3
_AGO_SECONDS = 600.0
_COURSE = Course(devices=DEVICES, per_minute=6000, silent=1.0)


async def _main(options: Json) -> None:
    fleet = Fleet.from_seed(load_seed(), now=time.time, seed=7)
    iot = create_iot_app(fleet, now=time.time, is_throttling=False)

    calls = 0

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        await iot(scope, receive, send)

    async def answer(what: Json) -> Json:
        nonlocal calls
        if what["ask"] == "jobs":
            calls = 0
            return {"jobs": _make_jobs(fleet, what["count"])}
        stopped = [effect.job_id for effect in fleet.history if effect.action == "CancelOTATaskByJob"]
        return {"effects": len(stopped), "jobs": len(set(stopped)), "calls": calls}

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(served(counting))
        await answer_asks({"port": port}, answer)


def _make_jobs(fleet: Fleet, count: int) -> list[str]:
    """Fresh rollouts in the place of the old ones; their ids."""
    began_at = time.time() - _AGO_SECONDS
    fleet.rollouts.clear()
    fleet.history.clear()
    for number in range(count):
        job = f"Bench{number:017}"
        facts = Facts(
            job_id=job,
            instance_id="iot-cn-0pp1n8t0001",
            product_key="a1Gateway01",
            firmware_id="Gw421aFq8LkT2nVb6Wc001",
            kind=JobKind.STATIC,
            created_at=began_at,
            starts_at=began_at,
            device_prefix=f"gw-{number}-",
            src_versions=("4.1.9",),
        )
        fleet.rollouts[job] = Rollout(facts, _COURSE, seed=7, habits=fleet.habits)
    return list(fleet.rollouts)


if __name__ == "__main__":
    be_a_child(_main)
