"""The documents say what is there: settings, commands and tables are held against the code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from bot.cli import main
from bot.ops import KNOWN

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAP = (ROOT / "bot" / "README.md").read_text()


def commands(group: click.Group, path: str = "otabrake") -> list[str]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, f"{path} {name}")
        else:
            found.append(f"{path} {name}")
    return found


@pytest.mark.parametrize("command", commands(main))
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"`{command}" in README


def test_every_setting_is_in_the_readme() -> None:
    source = (ROOT / "bot" / "settings.py").read_text()
    names = set(re.findall(r'"((?:SLACK|OTABRAKE)_[A-Z_]+[A-Z]|HOST|PORT|METRICS_PORT)"', source))
    assert len(names) > 8
    assert {name for name in names if f"`{name}`" not in README} == set()


def test_every_operation_is_in_the_readme() -> None:
    shown = re.findall(r"^\| `/ota ([^`]*)`", README, re.MULTILINE)
    for operation in KNOWN.by_name.values():
        usage = operation.usage.partition(" [on ")[0].partition(" [--")[0]
        assert usage in [line.replace("\\|", "|") for line in shown]


def test_every_room_is_in_the_code_map() -> None:
    rooms = [path.name + ("/" if path.is_dir() else "") for path in (ROOT / "bot").iterdir()]
    shown = [room for room in rooms if not room.startswith("__") and room != "README.md"]
    assert [room for room in shown if f"`{room}`" not in MAP] == []


def test_every_dependency_has_its_reason() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    assert listed is not None
    names = re.findall(r'"([A-Za-z0-9-]+)', listed[1])
    assert [name for name in names if name.lower() not in MAP.lower()] == []


def test_links_lead_to_files() -> None:
    for page in ROOT.glob("**/README.md"):
        if ".venv" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"
