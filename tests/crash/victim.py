"""A real `otabrake serve` that may die, with the bot's settings in its environment (the `nursery` forks it).

Differs from production in what is waited for (`TIMINGS`), in slots that are free again at once, and in a picture that
is not drawn; and in the points at which it counts and dies (`points`).

* `OTABRAKE_TEST_TOLD`: the file that says in the end which points it passed, and where it died;
* `OTABRAKE_TEST_KILL_KIND` and `OTABRAKE_TEST_KILL_AT`: it ends itself at the n-th point whose name begins so
  (without a number: never);
* `OTABRAKE_TEST_COUNT_FROM`: `start`, or `delivery` (points before the first delivery are not counted);
* `OTABRAKE_TEST_OFFER_SECONDS`: how long an offer stands.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bot import cli, server
from bot.charts import Curve
from bot.ports import Freed
from bot.storage.slots import SqlSlots
from bot.wiring import running
from bot.workflow.means import Timings
from tests.crash.points import Points, watch

TIMINGS = Timings(follow_seconds=20, poll_seconds=0.2, poll_most_seconds=0.5, progress_seconds=0.4, restart_seconds=10)
_NOTHING_TO_SEE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
"""A PNG of one pixel."""


class _FreeAgain(SqlSlots):
    """A slot is free again as soon as its call is over; claiming and giving back cost what they cost."""

    async def release(self, freed: Sequence[Freed]) -> None:
        await super().release([replace(each, at=0.0) for each in freed])


async def _draw(curve: Curve) -> bytes:
    return _NOTHING_TO_SEE


def main() -> None:
    environ = os.environ
    kill_at = environ.get("OTABRAKE_TEST_KILL_AT")
    points = Points(
        kind=environ.get("OTABRAKE_TEST_KILL_KIND", ""),
        kill_at=int(kill_at) if kill_at else None,
        told=Path(environ["OTABRAKE_TEST_TOLD"]),
        is_counting=environ.get("OTABRAKE_TEST_COUNT_FROM") == "start",
    )
    watch(points)
    timings = replace(TIMINGS, offer_seconds=float(environ.get("OTABRAKE_TEST_OFFER_SECONDS", "900")))
    vars(server).update(running=partial(running, timings=timings, slots=_FreeAgain, draw=_draw))
    try:
        cli.main(["serve"])
    finally:
        points.tell()
