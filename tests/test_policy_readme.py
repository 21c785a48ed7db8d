"""The page that teaches the policy's language tells the truth: its blocks load, each row of its table decides so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bot.model import UNKNOWN, Actor, Question, Touch
from bot.policy.decide import decide
from bot.policy.drafts import RULE_KEYS
from bot.policy.folder import read_folder
from bot.policy.load import load
from tests.policies import OPERATIONS
from tests.values import AT

FOLDER = Path(__file__).parents[1] / "policies"
PAGE = (FOLDER / "README.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## Rules → result → why")[2].split("\n")
    if line.startswith("| `{")
]
PEOPLE = {
    "iot-team": ("U0SOMEBODY", {"S0614TZAA"}),
    "firmware-oncall": ("U0SOMEBODY", {"S0614TZR7"}),
    "release-managers": ("U0RELEASE1", set[str]()),
    "somebody": ("U0SOMEBODY", set[str]()),
    "terminal": ("alice@ops1", set[str]()),
}


def asked(text: str) -> Question:
    who, operation, *given = text.split()
    facts: dict[str, Any] = {
        "channel": "C0INCIDENT",
        "instance": "prod-shanghai",
        "product": "a1Gateway01",
        "touches": frozenset({Touch.QUEUED}),
        "devices": 12,
    }
    for name, _, value in (each.partition("=") for each in given):
        if value in ("none", "unknown"):
            facts[name] = None if value == "none" else UNKNOWN
        elif name == "touches":
            facts[name] = frozenset(Touch(word) for word in value.split("+"))
        else:
            facts[name] = int(value) if name == "devices" else value
    user, groups = PEOPLE[who]
    return Question(Actor(user, frozenset(groups), AT), operation, **facts)


def test_the_table_has_rows() -> None:
    assert len(ROWS) >= 15
    assert all(len(row) == 4 for row in ROWS)


@pytest.mark.parametrize(("rules", "question", "result", "why"), ROWS)
def test_each_row_of_the_table_is_what_the_policy_decides(rules: str, question: str, result: str, why: str) -> None:
    files = {name: content for name, content in read_folder(FOLDER).items() if name != "rules.yaml"}
    files["row.yaml"] = ("rules:\n" + "".join(f"- {rule}\n" for rule in re.findall(r"`(.+?)`", rules))).encode()
    decision = decide(load(files, operations=OPERATIONS), asked(question.strip("`")))
    found = "allowed" if decision.is_allowed else "denied"
    assert found + (" with a reason" if decision.requirements.reason else "") == result
    assert set(decision.rules) == set(re.findall(r'"(.+?)"', why))


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
def test_every_block_of_yaml_loads(block: str) -> None:
    assert load({"block.yaml": block.encode()}, operations=OPERATIONS).rules


def test_every_key_and_word_of_the_language_is_on_the_page() -> None:
    words = {*RULE_KEYS, *OPERATIONS.names(), *(touch.value for touch in Touch), "reads", "changes", "anyone"}
    assert {word for word in words if f"`{word}" not in PAGE} == set()
