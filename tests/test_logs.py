"""How the log is written: one JSON object a line, on standard error, and little of what libraries say."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.contextvars import bind_contextvars

from bot.logs import configure_logs, get_log
from bot.ports import Lease, of_proposal
from bot.workflow.tasks import LeasedTasks

QUIET = ("slack_bolt", "slack_sdk", "httpx", "httpcore")


class Written:
    """What was written to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """The process's log is as it was, afterwards."""
    before, levels = structlog.get_config(), {name: logging.getLogger(name).level for name in QUIET}
    yield Written(capsys)
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines(stderr: Written) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.getvalue().splitlines()]


def test_what_is_not_watched_by_a_person_is_json_with_time_and_level(stderr: Written) -> None:
    configure_logs()
    get_log().info("delivery:ended", actor="U1", job=None)
    [line] = lines(stderr)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "delivery:ended", "actor": "U1", "job": None, "level": "info"}


def test_an_exception_is_a_traceback_without_the_values_of_variables(stderr: Written) -> None:
    configure_logs(is_json=True)
    secret = "sesame"
    try:
        raise RuntimeError(f"{len(secret)} characters")
    except RuntimeError as error:
        get_log().error("work failed", exc_info=error)
    [line] = lines(stderr)
    assert "RuntimeError: 6 characters" in line["exception"]
    assert "test_logs.py" in line["exception"]
    assert "sesame" not in stderr.getvalue().replace('secret = "sesame"', "")


def test_a_person_gets_words(stderr: Written) -> None:
    configure_logs(is_json=False)
    get_log().info("serving", port=3000)
    assert "serving" in stderr.getvalue()
    assert "port=3000" in stderr.getvalue()
    assert "\x1b[" not in stderr.getvalue()


def test_hostile_text_stays_on_its_line(stderr: Written) -> None:
    configure_logs(is_json=True)
    get_log().info("call:ended", code='x\n{"event": "serving"}\u2028\x1b[31m')
    [line] = lines(stderr)
    assert line["code"] == 'x\n{"event": "serving"}\u2028\x1b[31m'
    assert stderr.getvalue().isascii()


@pytest.mark.parametrize(("name", "level"), [("slack_bolt", "WARNING"), ("slack_sdk", "DEBUG"), ("httpx", "INFO")])
def test_libraries_that_print_bodies_and_addresses_are_not_heard(stderr: Written, name: str, level: str) -> None:
    configure_logs(is_json=True)
    assert not logging.getLogger(name).isEnabledFor(logging.getLevelName(level))


class NoLeases:
    async def release(self, leases: object) -> None:
        """There is nothing to give back."""


async def test_every_line_that_comes_of_a_piece_of_work_names_it(stderr: Written) -> None:
    configure_logs(is_json=True)
    log = get_log()

    async def work() -> None:
        log.info("one")
        await asyncio.gather(*(asyncio.create_task(child()) for _ in range(2)))

    async def child() -> None:
        log.info("of a task that it began")

    bind_contextvars(key="what began it")
    async with LeasedTasks(NoLeases(), log) as tasks:  # type: ignore[arg-type]
        for name in ("p1", "p2"):
            tasks.start(Lease(of_proposal(name), "me", 1), work())
        await tasks.drain()
    log.info("outside")
    found = lines(stderr)
    assert sorted(line["key"] for line in found[:-1]) == ["proposal:p1"] * 3 + ["proposal:p2"] * 3
    assert found[-1]["key"] == "what began it"
