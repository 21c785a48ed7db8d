"""The edges of a terminal: who sits there, what is typed and shown, what the command line makes of its arguments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import socket
import sqlite3
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bot.cli import main
from bot.commands import job as commands
from bot.errors import CloudLost, CloudRefused, CloudThrottled, ConfigurationError, PeopleUnavailable
from bot.exchange import File, FileKind
from bot.model import Actor, Notice, Target, Task, TaskPage, TaskState, is_from_terminal
from bot.ops.jobs import STOP_PARAMS
from bot.policy.rules import TERMINAL_ID, USER_ID
from bot.ports import TASKS_A_PAGE, Person
from bot.terminal.identity import person_here
from bot.terminal.keyboard import LINE_BYTES, StandardInput
from bot.terminal.pages import in_shell_words
from bot.terminal.people import TerminalPeople
from bot.terminal.screen import LINE_LENGTH, Screen, harmless
from bot.terminal.tasks import show_tasks
from tests.conftest import Clock
from tests.values import AT

ROOT = Path(__file__).parents[1]
JOB = "7glPHmaDYLAYMD1HHutT02"


# Who sits there


def test_a_person_is_the_os_user_at_the_short_name_of_the_machine_whatever_variables_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "OPS1.example.com")
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME", "SUDO_USER"):
        monkeypatch.setenv(name, "mallory")
    assert person_here() == f"{pwd.getpwuid(os.getuid()).pw_name}@ops1"
    assert TERMINAL_ID.fullmatch(person_here())


def test_a_user_without_a_name_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user_id: int) -> None:
        raise KeyError(user_id)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(ConfigurationError, match="has no name for its user"):
        person_here()


def test_a_machine_without_a_name_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "")
    with pytest.raises(ConfigurationError, match="machine has no name"):
        person_here()


class InSlack:
    async def identify(self, user_id: str, *, max_age_seconds: float) -> Person:
        return Person(Actor(user_id, frozenset({"S0614TZAA"}), AT))


async def test_people_at_terminals_are_known_as_of_now_and_all_others_to_slack(clock: Clock) -> None:
    people = TerminalPeople(clock=clock, others=InSlack())
    assert (await people.identify("alice@ops1", max_age_seconds=0)).actor == Actor("alice@ops1", frozenset(), clock())
    assert (await people.identify("U0ONCALLA1", max_age_seconds=0)).actor.groups == {"S0614TZAA"}
    with pytest.raises(PeopleUnavailable):
        await TerminalPeople(clock=clock).identify("U0ONCALLA1", max_age_seconds=0)


def test_no_id_of_slack_is_one_of_a_terminal() -> None:
    assert is_from_terminal("alice@ops1")
    assert not is_from_terminal("U0ONCALLA1")
    assert not USER_ID.fullmatch("alice@ops1")


# What is shown


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b]0;title\x07",
        "\x9b2J",
        "a\rb\nc\u2028d\x85e",
        "\u202egnol\u202c \u2066x\u2069 \u200b",
        "\x00\x08\x7f",
        "\ud800",
        "\U000e0041",
    ],
)
def test_nothing_in_a_line_is_a_command_or_another_line(text: str) -> None:
    shown = harmless(f"a{text}b")
    assert shown.isprintable()
    assert shown.startswith("a")
    assert shown.endswith("b")
    lines: list[str] = []
    for is_json in (False, True):
        screen = Screen(lines.append, prompt=lines.append, is_json=is_json)
        screen.say("line", Notice(text, (text,), f"run {text}", text), said=text)
        screen.row("task", text, device=text)
    assert all(line.isprintable() for line in lines)


def test_ordinary_text_is_left_as_it_is() -> None:
    text = "🛑 gestoppt: 网关 ≈12 – “ja” ⚠️"
    assert harmless(text) == text


def test_long_lines_are_cut_but_a_line_to_copy_is_whole() -> None:
    lines: list[str] = []
    long = "x" * 5_000
    Screen(lines.append, prompt=lines.append).say("line", Notice(long, (long,), f"{long}\nand {long}"))
    assert [len(line) for line in lines] == [LINE_LENGTH, LINE_LENGTH + 2, 5_004, 5_008]


def test_a_notice_for_a_script_is_one_object() -> None:
    lines: list[str] = []
    screen = Screen(lines.append, prompt=lines.append, is_json=True)
    screen.say("line", Notice("a", ("b",), reference="r"), count=1)
    assert json.loads(lines[0]) == {"kind": "line", "text": "a", "lines": ["b"], "reference": "r", "count": 1}


@pytest.mark.parametrize(
    ("slack", "shell"),
    [
        (
            f"/ota cancel {JOB} on prod-a --queued because …",
            f"otabrake job cancel {JOB} --on prod-a --queued --because …",
        ),
        (f"See what there is: /ota halt {JOB}", f"See what there is: otabrake job halt {JOB}"),
        ("see: /ota jobs", "see: otabrake job list"),
        ("Look with /ota status before", "Look with otabrake job show before"),
        ("/ota halt firmware 4.2.1 on prod-a because …", "/ota halt firmware 4.2.1 on prod-a because …"),
        ("/ota cancel device a1 gw-1", "/ota cancel device a1 gw-1"),
        ("Ask again with /ota.", "Ask again with /ota."),
        ("It stays on the new version because it is flashed.", "It stays on the new version because it is flashed."),
    ],
)
def test_lines_to_type_are_those_of_a_shell_where_it_has_them(slack: str, shell: str) -> None:
    assert in_shell_words(Notice(slack, (slack,))) == Notice(shell, (shell,))


# What is typed


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Any:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield SimpleNamespace(write=lambda text: os.write(writing, text), close=lambda: os.close(writing))
        for thread in threading.enumerate():  # one that still reads would take what the next test types
            if thread.name == "keyboard":
                thread.join(10)


async def test_lines_come_one_by_one_however_they_arrive(piped: Any) -> None:
    keyboard = StandardInput()
    assert not keyboard.is_terminal
    piped.write(b"one\r\ntwo\nth")
    assert await keyboard.read_line() == "one"
    assert await keyboard.read_line() == "two"
    third = asyncio.create_task(keyboard.read_line())
    piped.write(b"ree")
    piped.close()
    assert await third == "three"
    assert await keyboard.read_line() is None
    assert await keyboard.read_line() is None


async def test_a_flood_without_an_end_of_line_is_one_line_that_confirms_nothing(piped: Any) -> None:
    piped.write(b"x" * (2 * LINE_BYTES))
    line = await StandardInput().read_line()
    assert line is not None
    assert set(line) == {"x"}
    piped.close()


async def test_while_nobody_types_everything_else_goes_on(piped: Any) -> None:
    waiting = asyncio.create_task(StandardInput().read_line())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    piped.close()


async def test_without_any_standard_input_nothing_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    keyboard = StandardInput()
    assert (keyboard.is_terminal, await keyboard.read_line()) == (False, None)


# Lists of tasks


class Pages:
    """`CloudReads.fetch_task_page`: errors first, then a page and a half in each state that is asked for."""

    def __init__(self, *errors: Exception, total: int | None = TASKS_A_PAGE + 50) -> None:
        self.errors = list(errors)
        self.total = total

    async def fetch_task_page(self, target: Target, page: int, *, state: TaskState, purpose: object) -> TaskPage:
        if self.errors:
            raise self.errors.pop(0)
        count = {1: TASKS_A_PAGE, 2: 50}.get(page, 0)
        tasks = tuple(Task(f"t{page}-{number}", f"gw-{page}-{number}", state) for number in range(count))
        return TaskPage(tasks, self.total)


FILE = File(FileKind.TASKS, Target("prod", JOB), (TaskState.QUEUED, TaskState.FAILED))


async def listed(pages: Any, clock: Clock) -> list[str]:
    lines: list[str] = []
    await show_tasks(Screen(lines.append, prompt=lines.append), FILE, pages, sleep=clock.sleep)
    return lines


@pytest.mark.parametrize("total", [TASKS_A_PAGE + 50, None])
async def test_every_page_of_every_state_is_listed(clock: Clock, total: int | None) -> None:
    assert len(await listed(Pages(total=total), clock)) == 2 * (TASKS_A_PAGE + 50)


async def test_a_page_that_fails_in_passing_is_read_again(clock: Clock) -> None:
    throttled = CloudThrottled("Throttling.User", "slow", retry_after_seconds=7)
    assert len(await listed(Pages(throttled, CloudLost("gone")), clock)) == 2 * (TASKS_A_PAGE + 50)
    assert clock.slept == [7, 4]


async def test_a_refusal_ends_the_list(clock: Clock) -> None:
    with pytest.raises(CloudRefused):
        await listed(Pages(CloudRefused("iot.ota.JobNotFound", "no")), clock)
    assert clock.slept == []


# The command line


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("SLACK_", "OTABRAKE_", "ALIBABA_", "PROD_", "STAGING_")) or name in ("HOST", "PORT"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, **env: str) -> Result:
    given = {
        "OTABRAKE_POLICIES": str(ROOT / "policies"),
        "PROD_ACCESS_KEY_ID": "id",
        "PROD_ACCESS_KEY_SECRET": "secret-1",
    } | env
    return CliRunner().invoke(main, ("job", *arguments), env=given)


def test_the_switches_and_states_are_those_of_the_operations() -> None:
    assert list(commands.FLAGS) == [param.flag for param in STOP_PARAMS]
    assert {flag.replace("-", "_") for flag in commands.FLAGS} == {param.name for param in STOP_PARAMS}
    assert {state.replace("-", "_").upper() for state in commands.STATES} == {state.value for state in TaskState}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cancel",), "Missing argument 'JOB'"),
        (("cancel", "no such\x1bjob"), "copy it again"),
        (("cancel", JOB, "--on", "prod shanghai"), "copy it again"),
        (("cancel", JOB, "--all"), "No such option"),
        (("cancel", JOB, "--break-glass"), "--break-glass needs a reason"),
        (("cancel", JOB, "--break-glass", "--because", " \x1b "), "otabrake cannot be used here"),
        (("tasks", JOB, "flashing"), "is not one of"),
        (("approve", "3f2"), "copy it from where the offer was shown"),
        (("approve", "3f2a91zz"), "copy it from where the offer was shown"),
    ],
)
def test_wrong_usage_is_said_with_2(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments, PROD_ACCESS_KEY_ID="", PROD_ACCESS_KEY_SECRET="")
    assert (result.exit_code, said in result.output) == (2, True), result.output


def test_every_problem_of_the_configuration_is_listed_and_slack_is_none() -> None:
    result = run("show", JOB, OTABRAKE_DATABASE_URI="sqlite:///x.db", OTABRAKE_DATABASE_URL="mysql://x", PORT="no")
    assert result.exit_code == 2
    assert "Did you mean OTABRAKE_DATABASE_URL?" in result.output
    assert "must begin with sqlite:///" in result.output
    assert "SLACK" not in result.output
    assert "PORT must" not in result.output


def test_no_key_at_all_is_said_and_one_is_enough(sqlite_url: str) -> None:
    nothing = run("show", JOB, PROD_ACCESS_KEY_ID="", PROD_ACCESS_KEY_SECRET="", OTABRAKE_DATABASE_URL=sqlite_url)
    assert nothing.exit_code == 2
    assert "PROD_ACCESS_KEY_ID" in nothing.output
    assert "STAGING_ACCESS_KEY_ID" in nothing.output
    assert run("list", OTABRAKE_DATABASE_URL=sqlite_url).exit_code == 1  # as far as the policy, which knows nobody here


def test_a_policy_that_is_not_valid_is_explained_with_2(tmp_path: Path, sqlite_url: str) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text("rules: [{name: a, alow: [reads], who: [anyone]}]")
    result = run("show", JOB, OTABRAKE_POLICIES="policies", OTABRAKE_DATABASE_URL=sqlite_url)
    assert (result.exit_code, "p.yaml:1:19" in result.output) == (2, True)


def test_a_database_that_is_not_there_is_said_with_3_and_none_is_made(tmp_path: Path) -> None:
    missing = run("show", JOB)
    assert (missing.exit_code, "There is no database otabrake.db" in missing.output) == (3, True)
    assert list(tmp_path.iterdir()) == []
    away = run("show", JOB, OTABRAKE_DATABASE_URL="postgresql://postgres@127.0.0.1:1/none")
    assert (away.exit_code, "The database cannot be used" in away.output) == (3, True)


def test_a_database_of_another_version_is_left_alone_with_3(tmp_path: Path) -> None:
    (tmp_path / "otabrake.db").touch()
    result = run("show", JOB)
    assert (result.exit_code, "otabrake db upgrade" in result.output) == (3, True)
    with contextlib.closing(sqlite3.connect(tmp_path / "otabrake.db")) as database:
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_every_command_has_a_help_line() -> None:
    assert isinstance(commands.job.commands, dict)
    for name in commands.job.commands:
        result = run(name, "--help")
        assert (result.exit_code, len(result.output) > 100) == (0, True)
    assert "cannot require approvals yet" in " ".join(run("cancel", "--help").output.split())
