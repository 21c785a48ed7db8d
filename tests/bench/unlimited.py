"""A bot for whole flows: its call budget is no limit, it may be asked in any channel, and it draws nothing.

All of it is given to the bot from outside, in a process of the benchmark. Taking a slot and giving it back cost what
they cost, but a slot is free again at once, and an account has many. A picture would be drawn in a child process that
takes about a second of a core, whatever the flow: with it, the benchmark would measure pictures.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bot.alibaba.budget import LIMITS
from bot.charts import Curve
from bot.ports import Freed
from bot.sandbox.server import sandbox_settings
from bot.settings import Settings
from bot.storage.slots import SqlSlots

SLOTS = 200
INSTANCE = "prod-shanghai"

_POLICY = """
groups:
  firmware-oncall: {usergroup: S0614TZR7}
instances:
  prod-shanghai: {region: cn-shanghai, instance_id: iot-cn-0pp1n8t0001, account: sandbox, endpoint: "ENDPOINT"}
rules:
  - {name: the team looks, allow: [reads], who: [firmware-oncall]}
  - {name: on-call stops rollouts, allow: [job.cancel, job.halt], who: [firmware-oncall]}
  - {name: maybe flashing, require: {reason: true}, for: [job.cancel, job.halt], when: {touches: [IN_PROGRESS]}}
"""
_SMALLEST_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


class FreeAgain(SqlSlots):
    """A slot is always free, as when somebody reads the card first; taking and giving back cost what they cost."""

    async def release(self, freed: Sequence[Freed]) -> None:
        await super().release([replace(each, at=0.0) for each in freed])


def lift_limits() -> None:
    """From now on this process takes every account for one that may make many calls at once."""
    for action in LIMITS:
        LIMITS[action] = SLOTS


def unlimited_settings(folder: Path, *, iot_url: str, slack_url: str, database_url: str | None) -> Settings:
    """The settings of such a bot."""
    settings = sandbox_settings(folder, iot_url=iot_url, slack_url=slack_url, database_url=database_url)
    for source in settings.policies.glob("*.yaml"):
        source.unlink()
    (settings.policies / "policy.yaml").write_text(_POLICY.replace("ENDPOINT", iot_url), encoding="utf-8")
    return settings


async def draw_nothing(curve: Curve) -> bytes:
    return _SMALLEST_PICTURE
