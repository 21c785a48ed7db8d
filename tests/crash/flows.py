"""What somebody wants done in a crash test, and rollouts that move fast enough to be watched to their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bot.sandbox.slack_gestures import Impossible
from tests.crash.world import RELEASE, World

PRODUCT, FIRMWARE, INSTANCE = "a1Gateway01", "Gw421aFq8LkT2nVb6Wc001", "iot-cn-0pp1n8t0001"
OPERATIONS = ("cancel", "halt", "retry", "forget")
_IS_OVER = ("🛑", "⚠️", "⚪", "❔", "⛔", "⌛", "✅ done", "❓ outcome")
"""How the text of a card begins when its change is over."""

_TICK_SECONDS = 0.05
_PATIENCE_SECONDS = 1.0
"""So long a person waits after something failed, or after a click that changed nothing, before doing it again."""

_COURSES: Mapping[str, Mapping[str, Any]] = {
    "cancel": {"devices": 240, "per_minute": 60, "answer_seconds": 0.5, "update_seconds": 0.6, "ignoring": 0.15},
    "halt": {
        "devices": 80,
        "per_minute": 60,
        "answer_seconds": 0.5,
        "update_seconds": 0.6,
        "enrol_per_minute": 40,
        "enrol_at_most": 900,
    },
    "retry": {"devices": 40, "per_minute": 1200, "answer_seconds": 0.3, "update_seconds": 0.4, "failing": 0.6},
}


@dataclass(frozen=True, slots=True)
class Flow:
    """One change of one rollout of its own; `forget` is a cancel that nobody answers, until its offer expires."""

    operation: str
    job: str
    user: str

    @property
    def typed(self) -> str:
        if self.operation == "retry":
            return f"retry {self.job} on prod-shanghai --failed --limit 15 because they failed"
        verb = "cancel" if self.operation == "forget" else self.operation
        return f"{verb} {self.job} on prod-shanghai because it bricks gateways"

    @property
    def rollout(self) -> dict[str, Any]:
        """The rollout as a row of a fleet's seed."""
        kind = "dynamic" if self.operation == "halt" else "static"
        course = _COURSES.get(self.operation, _COURSES["cancel"])
        return {
            "job_id": self.job,
            "instance_id": INSTANCE,
            "product_key": PRODUCT,
            "firmware_id": FIRMWARE,
            "kind": kind,
            "description": f"to be stopped by {self.operation}",
            "starts_in_seconds": -600 if self.operation == "retry" else -10,
            "src_versions": ["4.1.9"],
            "device_prefix": f"gw-{self.job[:8].lower()}-",
            "course": dict(course),
        }


def flow(operation: str, number: int) -> Flow:
    user = RELEASE if operation == "retry" else ("U0ONCALLA1", "U0ONCALLB2")[number % 2]
    return Flow(operation, f"Cr4sh{number:03d}{operation.capitalize():>8}Zq1".replace(" ", "x"), user)


async def carry_out(world: World, flow: Flow, replica: Callable[[], str | None], *, within_seconds: float) -> bool:
    """Does what a person would until the card says that it is over: types, clicks, and does both again when they
    fail, or when only a private word came back.

    `replica` tells where Slack delivers now (None: nowhere). False: it was not over in time.
    """
    until = time.monotonic() + within_seconds
    wait_until, told_before, has_typed = 0.0, 0, False
    while time.monotonic() < until:
        cards = world.cards(flow.job)
        if any(card.text.startswith(_IS_OVER) for card in cards):
            return True
        has_typed = has_typed and (bool(cards) or len(world.told(flow.user)) == told_before)
        at, button = replica(), world.live_button(flow.job)
        if at is not None and time.monotonic() >= wait_until:
            if not cards and not has_typed:
                told_before = len(world.told(flow.user))
                has_typed = (await world.types(at, flow.user, flow.typed)).is_taken
                wait_until = time.monotonic() + _PATIENCE_SECONDS
            elif button is not None and flow.operation != "forget":
                await _click(world, at, flow.user, button)
                wait_until = time.monotonic() + _PATIENCE_SECONDS
        await asyncio.sleep(_TICK_SECONDS)
    return False


async def _click(world: World, at: str, user: str, ts: str) -> None:
    try:
        await world.clicks(at, user, ts)
    except Impossible:  # the buttons went away under the cursor
        return
