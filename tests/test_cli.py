"""The command line: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bot.cli import main

ROOT = Path(__file__).parents[1]
GOOD = {
    "SLACK_BOT_TOKEN": "xoxb-1",
    "SLACK_SIGNING_SECRET": "s",
    "SLACK_API_URL": "http://127.0.0.1:1/api/",
    "OTABRAKE_POLICIES": str(ROOT / "policies"),
    "PROD_ACCESS_KEY_ID": "id",
    "PROD_ACCESS_KEY_SECRET": "secret-1",
    "STAGING_ACCESS_KEY_ID": "id",
    "STAGING_ACCESS_KEY_SECRET": "secret-2",
}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("SLACK_", "OTABRAKE_", "ALIBABA_", "PROD_", "STAGING_")) or name in ("HOST", "PORT"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


def test_every_problem_of_the_configuration_is_listed_at_once() -> None:
    result = run("serve", env={"OTABRAKE_POLICIES": str(ROOT / "policies"), "OTABRAKE_POLICY": "x", "PORT": "x"})
    assert result.exit_code == 2
    for problem in (
        "SLACK_BOT_TOKEN is missing",
        "SLACK_SIGNING_SECRET is missing",
        "Did you mean OTABRAKE_POLICIES?",
        "PORT must be a number",
        "PROD_ACCESS_KEY_ID",
        "STAGING_ACCESS_KEY_SECRET",
    ):
        assert problem in result.output


def test_a_database_that_cannot_be_written_ends_the_start_with_3(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'no' / 'folder.db'}"
    result = run("serve", env=GOOD | {"OTABRAKE_DATABASE_URL": url, "PORT": "0"})
    assert result.exit_code == 3
    assert "Check OTABRAKE_DATABASE_URL" in result.output
    assert "secret" not in result.output


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", env=GOOD | {"PORT": port})
    assert result.exit_code == 2
    assert f"port {port}" in result.output


def test_the_shipped_policy_is_valid() -> None:
    result = run("policy", "check", "--policies", str(ROOT / "policies"))
    assert (result.exit_code, "8 rules, 2 instances" in result.output) == (0, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such folder"),
        ("", "there is no rule"),
        ("rules: [{name: a, alow: [reads], who: [anyone]}]", "policy.yaml:1:19"),
        ("rules: [", "policy.yaml:2:1"),
    ],
)
def test_a_policy_that_is_missing_empty_or_broken_is_explained(tmp_path: Path, content: str | None, said: str) -> None:
    folder = tmp_path / "policies"
    if content is not None:
        folder.mkdir()
        (folder / "policy.yaml").write_text(content)
    result = run("policy", "check", "--policies", str(folder))
    assert result.exit_code == 2
    assert said in result.output
    as_json = run("policy", "check", "--json", "--policies", str(folder))
    assert (as_json.exit_code, json.loads(as_json.output)["ok"]) == (2, False)


EXPLAIN = ("policy", "explain", "job.cancel", "--policies", str(ROOT / "policies"), "--user", "U0ONCALLA1")


def test_an_allowed_question_is_explained_with_0() -> None:
    job = ("--instance", "prod-shanghai", "--product", "a1Gateway01", "--touches", "QUEUED", "--devices", "10")
    result = run(*EXPLAIN, "--group", "S0614TZR7", "--channel", "C0INCIDENT", *job)
    assert result.exit_code == 0
    assert "on-call stops rollouts in production" in result.output


def test_a_denied_question_is_explained_with_1() -> None:
    result = run(*EXPLAIN, "--instance", "prod-shanghai")
    assert result.exit_code == 1
    assert "denied" in result.output


@pytest.mark.parametrize(
    "arguments",
    [("--instance", "nowhere"), ("--instance", "prod-shanghai", "--touches", "FLASHING")],
)
def test_a_question_about_nothing_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*EXPLAIN, *arguments).exit_code == 2


def test_the_database_is_checked_and_upgraded(empty_database_url: str) -> None:
    env = {"OTABRAKE_DATABASE_URL": empty_database_url.replace("+psycopg", "")}
    before = run("db", "check", env=env)
    assert (before.exit_code, "the database is empty" in before.output) == (1, True)
    assert run("db", "upgrade", env=env).output == "upgraded\n"
    assert run("db", "upgrade", env=env).output == "already up to date\n"
    after = run("db", "check", env=env)
    assert (after.exit_code, after.output) == (0, "up to date\n")


def test_a_database_that_is_away_is_said_with_3() -> None:
    result = run("db", "check", env={"OTABRAKE_DATABASE_URL": "postgresql://postgres@127.0.0.1:1/none"})
    assert result.exit_code == 3


def test_a_database_of_another_kind_is_said_with_2() -> None:
    assert run("db", "check", env={"OTABRAKE_DATABASE_URL": "mysql://x"}).exit_code == 2


def test_every_command_has_a_help_line() -> None:
    for arguments in ((), ("sandbox",), ("policy",), ("db",), ("serve",), ("policy", "explain")):
        result = run(*arguments, "--help")
        assert result.exit_code == 0
        assert result.output.strip()
