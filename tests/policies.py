"""Policies and questions that the policy's tests start from."""

from __future__ import annotations

from typing import Any

from bot.model import Actor, Question, Touch
from bot.ops import KNOWN
from bot.policy.load import Policy, load
from tests.values import AT

OPERATIONS = KNOWN
BASE = """\
groups:
  iot-team: {usergroup: S0614TZAA}
  firmware-oncall: {usergroup: S0614TZR7}
  release-managers: {users: [U0RELEASE1, W0RELEASE2]}
instances:
  prod-shanghai: {region: cn-shanghai, account: prod, channel: C0INCIDENT}
  staging-singapore: {region: ap-southeast-1, account: staging}
"""
TEAM, ONCALL = "S0614TZAA", "S0614TZR7"


def policy(*rules: str, base: str = BASE) -> Policy:
    """The base with rules, each written in one line."""
    written = "rules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules)
    return load({"base.yaml": base.encode(), "rules.yaml": written.encode()}, operations=OPERATIONS)


def question(*groups: str, user: str = "U0SOMEBODY", **bent: Any) -> Question:
    """Cancelling 12 queued or notified gateways in production, in the incident's channel."""
    facts: dict[str, Any] = {
        "operation": "job.cancel",
        "channel": "C0INCIDENT",
        "instance": "prod-shanghai",
        "product": "a1Gateway01",
        "touches": frozenset({Touch.QUEUED, Touch.NOTIFIED}),
        "devices": 12,
    }
    return Question(actor=Actor(user, frozenset(groups), AT), **(facts | bent))
