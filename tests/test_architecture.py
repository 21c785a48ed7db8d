"""Imports go one way, and the house keeps the caps it has set itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

BOT = Path(__file__).parents[1] / "bot"
CORE = {"model", "exchange", "errors", "operations", "proposals", "audit", "ports", "policy"}
ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(CORE, CORE),
    "ops": CORE,
    "workflow": CORE,
    "discovery": CORE,
    "charts": {"model", "errors"},
    "painting": set(),
    "slack": CORE | {"workflow", "charts"},
    "terminal": CORE | {"workflow", "slack"},
    "alibaba": {"model", "errors", "ports"},
    "storage": CORE,
    "telemetry": CORE | {"workflow"},
    "health": {"storage"},
    "metrics": CORE | {"storage", "telemetry"},
    "settings": {"errors"},
    "logs": set(),
    "wiring": CORE
    | {
        "ops",
        "starting",
        "workflow",
        "discovery",
        "charts",
        "slack",
        "alibaba",
        "storage",
        "settings",
        "logs",
        "telemetry",
        "health",
        "metrics",
        "terminal",
    },
    "terminal_wiring": CORE | {"alibaba", "settings", "storage", "terminal", "wiring", "workflow"},
    "starting": {"errors", "settings", "slack", "storage", "workflow"},
    "server": {"discovery", "errors", "logs", "settings", "wiring"},
}
NO_INPUT_OUTPUT = {
    "asyncio",
    "httpx",
    "aiohttp",
    "sqlalchemy",
    "slack_sdk",
    "slack_bolt",
    "socket",
    "os",
    "time",
    "threading",
}


def modules() -> Iterator[Path]:
    yield from sorted(BOT.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(BOT).with_suffix("").parts
    return parts[0]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "bot")


@pytest.mark.parametrize(
    "path", [path for path in modules() if room(path) in ALLOWED], ids=lambda path: str(path.relative_to(BOT))
)
def test_each_room_imports_only_what_it_may(path: Path) -> None:
    here = room(path)
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("bot.")}
    assert rooms - ALLOWED[here] - {here} == set()


def test_the_sandbox_is_imported_by_the_command_line_alone() -> None:
    importers = {room(path) for path in modules() if any(name.startswith("bot.sandbox") for name in imported(path))}
    assert importers <= {"cli", "sandbox"}


READS_FILES = BOT / "policy" / "folder.py"
"""The one place among the core's rooms that reads the disk; only wiring uses it."""


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if room(path) in CORE and path != READS_FILES],
    ids=lambda path: str(path.relative_to(BOT)),
)
def test_the_core_does_no_input_or_output(path: Path) -> None:
    assert {name.split(".")[0] for name in imported(path)} & NO_INPUT_OUTPUT == set()


def test_only_the_road_and_wiring_know_how_to_change_the_cloud() -> None:
    knowing = {room(path) for path in modules() if "CloudChanges" in path.read_text()}
    assert knowing <= {"ports", "workflow", "wiring", "alibaba"}


def test_only_the_settings_and_the_command_line_read_the_environment() -> None:
    reading = {room(path) for path in modules() if "environ" in path.read_text() and "os" in set(imported(path))}
    assert reading <= {"settings", "cli", "commands"}
