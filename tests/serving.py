"""Real `otabrake serve` processes for tests: started, signalled and read from outside, always by their own id."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.bench.machine import environment

ROOT = Path(__file__).parents[1]
SERVE = ("-c", "from bot.cli import main; main()", "serve")
START_SECONDS = 30
END_SECONDS = 15

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended: its exit code (below zero: the signal that ended it), and how long that took."""

    code: int
    seconds: float


class Process:
    """A running bot; `url` is where it takes deliveries, once `serving` has returned."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []
        self.url = ""
        self._reader = asyncio.create_task(self._read_on())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> list[Line]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def logged(self, event: str) -> list[Line]:
        return [line for line in self.log if line["event"] == event]

    async def serving(self) -> Process:
        await eventually(lambda: self.logged("serving") or self._process.returncode is not None, START_SECONDS)
        if not self.logged("serving"):
            await self._reader
            raise AssertionError("it ended before it served\n" + "\n".join(self.lines[-20:]))
        self.url = f"http://127.0.0.1:{self.logged('serving')[0]['port']}"
        return self

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self, within_seconds: float = END_SECONDS) -> Ending:
        began = time.monotonic()
        async with asyncio.timeout(within_seconds):
            code = await self._process.wait()
            await self._reader
        return Ending(code, time.monotonic() - began)

    async def stopped(self, number: signal.Signals = signal.SIGTERM, within_seconds: float = END_SECONDS) -> Ending:
        """Tells it to stop, and waits until it has."""
        self.send(number)
        return await self.ended(within_seconds)

    async def close(self) -> None:
        if self._process.returncode is None:
            self.send(signal.SIGKILL)
        await self._process.wait()
        await self._reader

    async def readiness(self, http: httpx.AsyncClient) -> tuple[int, list[str]]:
        answer = await http.get(f"{self.url}/readyz", timeout=5)
        return answer.status_code, answer.json()["reasons"]

    async def _read_on(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.lines.append(line.decode(errors="replace").rstrip())


Start = Callable[..., Awaitable[Process]]


@contextlib.asynccontextmanager
async def processes() -> AsyncIterator[Start]:
    """A function that starts bots; they are killed at the end, if they have not ended by then.

    `arguments` are those of Python, by default those of `otabrake serve`; `preparing` runs in the child before them.
    """
    started: list[Process] = []

    async def start(
        settings: Mapping[str, str],
        *,
        arguments: Sequence[str] = SERVE,
        preparing: Callable[[], None] | None = None,
    ) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=ROOT,
            env=environment(settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
            preexec_fn=preparing,
        )
        started.append(Process(process))
        return started[-1]

    try:
        yield start
    finally:
        for each in started:
            await each.close()


async def eventually(is_so: Callable[[], object], within_seconds: float = 10.0) -> float:
    """Waits until something of the world outside is so (`is_so` may be async); how many seconds that took."""
    began = time.monotonic()
    while True:
        found = is_so()
        if await found if inspect.isawaitable(found) else found:
            return time.monotonic() - began
        assert time.monotonic() - began < within_seconds, "it did not come true in time"
        await asyncio.sleep(0.01)
