"""Every row of the policy's table of rules, results and reasons is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot.model import UNKNOWN, Actor, Question, Touch
from bot.operations import Operations
from bot.ops.jobs import OPERATIONS
from bot.policy.decide import decide
from bot.policy.load import load
from tests.values import AT

README = (Path(__file__).parents[1] / "policies" / "README.md").read_text()
KNOWN = Operations.of(OPERATIONS)
HEAD = "groups:\n  oncall: {usergroup: S1AA}\n  managers: {users: [U9AA]}\n"
INSTANCES = "instances:\n  prod: {region: cn-shanghai}\n"


def rows() -> list[tuple[str, str, str]]:
    table = README.split("| rules | asked | result | why |")[1]
    found = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ") and "`{" in line]
    return [(cells[0], cells[1], cells[2]) for cells in found]


def ids(text: str) -> str:
    """Slack's ids are longer than the table's."""
    return re.sub(r"\b(U1|U9|S1|C1)\b", r"\1AA", text)


@pytest.mark.parametrize(("rules", "asked", "result"), rows())
def test_each_row_of_the_table_is_true(rules: str, asked: str, result: str) -> None:
    text = "rules:\n" + "".join(f"  - {ids(rule)}\n" for rule in re.findall(r"`(\{.*?\})`", rules))
    policy = load({"policy.yaml": (HEAD + INSTANCES + text).encode()}, operations=KNOWN)
    question = Question(
        actor=Actor("U1AA", frozenset({"S1AA"} if "in S1" in asked else ()), AT),
        operation="job.cancel",
        channel=None if "in no channel" in asked else "C1AA",
        instance="prod",
        product=UNKNOWN if "product unknown" in asked else "a1Gateway01",
        touches=frozenset({Touch.QUEUED, Touch.NOTIFIED}),
        devices=UNKNOWN if "devices unknown" in asked else 300,
    )
    decision = decide(policy, question)
    said = "allowed" if decision.is_allowed else "denied"
    assert said + (" with a reason" if decision.requirements.reason else "") == result


def test_the_table_is_read() -> None:
    assert len(rows()) == 15


def test_the_words_shown_are_words_that_load() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    policy = load({"policy.yaml": example.encode()}, operations=KNOWN)
    assert [rule.name for rule in policy.rules] == ["on-call stops rollouts"]
