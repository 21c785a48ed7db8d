"""`otabrake job …` as a process: pipes, a terminal with a person at it, and Ctrl-C at each moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.terminal.identity import person_here
from tests.bench.machine import environment
from tests.conftest import Clock
from tests.seats import CLOSED, STATIC, Site, open_site
from tests.serving import ROOT, eventually

TASKS = "CancelOTATaskByJob"
RULES = f"""
groups: {{terminal: {{terminal: ['{person_here()}']}}}}
rules: [{{name: terminals, allow: [reads, job.cancel, job.halt], who: [terminal]}}]
"""


@dataclass
class Ahead:
    """The fleet's clock: the real one, and so much more."""

    seconds: float = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)


@dataclass
class Place:
    site: Site
    ahead: Ahead

    @property
    def settings(self) -> dict[str, str]:
        """Nothing of Slack's but an address that is not right."""
        environ = {name: value for name, value in self.site.settings.environ.items() if not name.startswith("SLACK_")}
        return environ | {"SLACK_API_URL": CLOSED, "SLACK_BOT_TOKEN": "xapp-wrong", "PORT": "no"}


@pytest.fixture
async def place(clock: Clock, tmp_path: Path, sqlite_url: str) -> AsyncIterator[Place]:
    ahead = Ahead()
    async with open_site(clock, tmp_path, sqlite_url, rules=RULES, now=ahead) as site:
        yield Place(site, ahead)


@dataclass
class Command:
    """A running `otabrake`. `said` is what it has written on standard output and standard error so far."""

    process: asyncio.subprocess.Process
    type: Callable[[str], None]
    said: str = ""
    readers: list[asyncio.Task[None]] = field(default_factory=list)

    async def reads(self, stream: asyncio.StreamReader) -> None:
        while part := await stream.read(4096):
            self.said += part.decode()

    async def has_said(self, text: str) -> None:
        await eventually(lambda: text in self.said or self.process.returncode is not None, 30)
        assert text in self.said, self.said

    async def code(self) -> int:
        async with asyncio.timeout(30):
            code = await self.process.wait()
            await asyncio.gather(*self.readers)
        return code


@contextlib.asynccontextmanager
async def otabrake(place: Place, *arguments: str, is_terminal: bool = False) -> AsyncIterator[Command]:
    ours, theirs = pty.openpty() if is_terminal else (None, None)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        # Whoever runs the tests may ignore SIGINT, and a child inherits that.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from bot.cli import main; main()",
        *arguments,
        cwd=ROOT,
        env=environment(place.settings),
        stdin=asyncio.subprocess.PIPE if theirs is None else theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    def types(text: str) -> None:
        if ours is not None:
            os.write(ours, text.encode())
        elif process.stdin is not None:
            process.stdin.write(text.encode())

    command = Command(process, types)
    assert process.stdout is not None
    assert process.stderr is not None
    command.readers = [asyncio.create_task(command.reads(each)) for each in (process.stdout, process.stderr)]
    try:
        yield command
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await asyncio.gather(*command.readers)
        for descriptor in (ours, theirs):
            if descriptor is not None:
                os.close(descriptor)


async def test_an_id_is_piped_in_and_the_exit_code_is_that_of_the_outcome(place: Place) -> None:
    async with otabrake(place, "job", "cancel", STATIC, "--queued", "--because", "it bricks") as command:
        command.type(f"{STATIC}\r\n")
        await command.has_said("The cloud accepted")
        place.ahead.seconds = 300
        assert await command.code() == 0, command.said
        assert "Type the job id" not in command.said
        assert f"stopped: Cancel {STATIC} on prod-shanghai" in command.said
    assert place.site.effects() == [TASKS]
    assert ("proposal:confirmed", person_here()) in await place.site.audit()


async def test_nothing_piped_in_confirms_nothing(place: Place) -> None:
    async with otabrake(place, "job", "cancel", STATIC) as command:
        assert command.process.stdin is not None
        command.process.stdin.close()
        assert await command.code() == 1
        assert "no job id was piped in" in command.said
    assert place.site.effects() == []


async def test_a_person_at_a_terminal_is_asked_and_types_the_id(place: Place) -> None:
    async with otabrake(place, "job", "cancel", STATIC, "--queued", is_terminal=True) as command:
        await command.has_said("Type the job id to confirm: ")
        command.type(f"{STATIC}\n")
        await command.has_said("The cloud accepted")
        place.ahead.seconds = 300
        assert await command.code() == 0, command.said
    assert place.site.effects() == [TASKS]


async def test_ctrl_c_at_the_question_leaves_the_offer_waiting(place: Place) -> None:
    async with otabrake(place, "job", "cancel", STATIC, is_terminal=True) as command:
        await command.has_said("Type the job id to confirm: ")
        command.process.send_signal(signal.SIGINT)
        assert await command.code() == 1
        assert "Interrupted, and not confirmed. Nothing was sent" in command.said
        assert "otabrake job approve" in command.said
        assert "Traceback" not in command.said
    [proposal] = await place.site.proposals()
    assert (proposal["state"], place.site.effects()) == ("offered", [])


async def test_ctrl_c_while_it_is_followed_leaves_the_rest_to_the_bot_which_repeats_nothing(place: Place) -> None:
    site = place.site
    async with otabrake(place, "job", "cancel", STATIC, "--json") as command:
        command.type(f"{STATIC}\n")
        await command.has_said("The cloud accepted")
        command.process.send_signal(signal.SIGINT)
        assert await command.code() == 1
        assert "I no longer look, but it goes on" in command.said
        assert "Traceback" not in command.said
    [proposal] = await site.proposals()
    assert proposal["state"] == "following"
    assert await site.rows("SELECT count(*) FROM leases WHERE until > 0 AND name LIKE 'proposal:%'") == [(0,)]
    site.clock.at = place.ahead()
    place.ahead.seconds = 300
    async with site.slack_is_back():
        [proposal] = await site.proposals()
        assert proposal["outcome"]["code"] in ("stopped", "partly_stopped", "not_stopped")
    assert site.effects() == [TASKS]
    assert len(site.iot.state.calls.arrivals(TASKS)) == 1


async def test_the_bot_goes_on_when_the_terminal_is_killed(place: Place) -> None:
    site = place.site
    async with otabrake(place, "job", "cancel", STATIC) as command:
        command.type(f"{STATIC}\n")
        await command.has_said("The cloud accepted")
        command.process.kill()
        await command.code()
    site.clock.at = place.ahead()
    place.ahead.seconds = 300
    await site.let_leases_lapse()
    async with site.slack_is_back():
        [proposal] = await site.proposals()
        assert proposal["state"] == "finished"
    assert len(site.iot.state.calls.arrivals(TASKS)) == 1
