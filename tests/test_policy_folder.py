"""Reading a policy folder, and the two folders that we ship."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bot.errors import PolicyInvalid
from bot.model import Touch
from bot.policy.decide import allowed_instances, decide
from bot.policy.folder import read_folder
from bot.policy.load import Policy, load
from bot.policy.nodes import MOST_BYTES
from tests.policies import ONCALL, OPERATIONS, TEAM, question

ROOT = Path(__file__).parents[1]
STARTING, SANDBOX = ROOT / "policies", ROOT / "bot" / "sandbox" / "policies"


def loaded(folder: Path) -> Policy:
    return load(read_folder(folder), operations=OPERATIONS)


def complaint(folder: Path) -> str:
    with pytest.raises(PolicyInvalid) as caught:
        loaded(folder)
    return "\n".join(caught.value.complaints)


def test_the_policy_files_right_in_the_folder_are_read(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "a_test.yaml", ".c.yaml", "notes.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "inner.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    assert read_folder(tmp_path) == {"a.yaml": b"a.yaml", "b.yml": b"b.yml"}


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    said = complaint(tmp_path / "nowhere")
    assert "there is no such folder" in said
    assert "Set OTABRAKE_POLICIES" in said


def test_a_file_in_place_of_the_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "policies").write_text("")
    assert "this is a file" in complaint(tmp_path / "policies")


def test_a_folder_without_policies_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "only_test.yaml").write_text("cases: []")
    assert "no *.yaml file" in complaint(tmp_path)


def test_a_folder_whose_files_hold_no_rule_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    assert complaint(tmp_path).startswith("a.yaml:1:1: there is no rule here")


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(1 << 40)
    assert len(read_folder(tmp_path)["a.yaml"]) == MOST_BYTES + 1
    assert complaint(tmp_path).startswith("a.yaml:1:1: the file is larger than 1 MiB")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "a.yaml").touch()
    monkeypatch.setattr(Path, "open", refuse)
    assert complaint(tmp_path) == "a.yaml:1:1: the file cannot be read (Permission denied); expected a readable file"


def test_a_folder_that_cannot_be_listed_says_why() -> None:
    said = complaint(Path("x" * 5000))
    assert "the folder cannot be read (File name too long)" in said
    assert "Set OTABRAKE_POLICIES" in said


@pytest.mark.parametrize("folder", [STARTING, SANDBOX], ids=["to start from", "sandbox"])
def test_both_folders_that_we_ship_let_the_on_call_stop_rollouts_and_strangers_nothing(folder: Path) -> None:
    policy = loaded(folder)
    oncall, stranger = question(ONCALL), question()
    for operation in OPERATIONS.names():
        asked = {"operation": operation, "channel": "C0INCIDENT"}
        if operation == "task.retry":
            manager = question(user="U0RELEASE1")
            assert not decide(policy, question(ONCALL, operation=operation)).is_allowed
            assert decide(policy, replace(manager, operation=operation)).requirements.reason
            continue
        assert "prod-shanghai" in allowed_instances(policy, actor=oncall.actor, **asked)
        assert decide(policy, question(ONCALL, operation=operation)).is_allowed
        assert allowed_instances(policy, actor=stranger.actor, **asked) == ()
        assert not decide(policy, question(operation=operation)).is_allowed
    assert policy.usergroups == {TEAM, ONCALL}


@pytest.mark.parametrize("folder", [STARTING, SANDBOX], ids=["to start from", "sandbox"])
def test_both_folders_that_we_ship_want_a_reason_when_devices_may_be_flashing(folder: Path) -> None:
    policy = loaded(folder)
    assert not decide(policy, question(ONCALL)).requirements.reason
    assert decide(policy, question(ONCALL, touches=frozenset({Touch.IN_PROGRESS}))).requirements.reason


def test_the_policy_to_start_from_wants_a_reason_for_a_big_stop() -> None:
    policy = loaded(STARTING)
    assert not decide(policy, question(ONCALL, devices=500)).requirements.reason
    assert decide(policy, question(ONCALL, devices=501)).requirements.reason


@pytest.mark.parametrize("folder", [STARTING, SANDBOX], ids=["to start from", "sandbox"])
def test_the_team_stops_rollouts_in_staging_alone(folder: Path) -> None:
    policy = loaded(folder)
    assert decide(policy, question(TEAM, instance="staging-singapore")).is_allowed
    assert not decide(policy, question(TEAM)).is_allowed


def test_the_sandbox_stops_production_from_its_channels_alone() -> None:
    policy = loaded(SANDBOX)
    assert decide(policy, question(ONCALL, channel="C0GENERAL1")).is_allowed
    assert not decide(policy, question(ONCALL, channel="C0PRIVATE1")).is_allowed
    assert not decide(policy, question(ONCALL, channel=None)).is_allowed
