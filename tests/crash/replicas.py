"""Replicas of the bot: real processes, started, killed, stopped and gone on with, always by their own id."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.machine import environment

ROOT = Path(__file__).parents[2]
START_SECONDS = 60
STOP_SECONDS = 15
LINES_KEPT = 300


class NotServing(Exception):
    """A replica did not come up; the text has its last lines."""


@dataclass(frozen=True, slots=True)
class Doom:
    """Where a replica ends itself: at its n-th point of a kind (None: nowhere).

    Points are counted from its first `delivery`, or from its `start`.
    """

    kill_at: int | None = None
    kind: str = ""
    count_from: str = "delivery"


class Replica:
    """One running process; `url` is where it takes deliveries."""

    def __init__(self, process: asyncio.subprocess.Process, told: Path) -> None:
        self._process = process
        self._told = told
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._reader = asyncio.create_task(self._read_on())
        self._port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.url = ""

    async def serving(self) -> Replica:
        """Returns when it takes deliveries. Raises `NotServing`."""
        try:
            async with asyncio.timeout(START_SECONDS):
                self.url = f"http://127.0.0.1:{await asyncio.shield(self._port)}"
        except (TimeoutError, EOFError):
            raise NotServing(self.last_words()) from None
        return self

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self) -> None:
        await self._process.wait()

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()

    async def end(self) -> None:
        """As an orchestrator would: SIGTERM, and SIGKILL for who does not listen."""
        if self.is_alive:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self.ended()
            except TimeoutError:
                await self.kill()
        await self._reader
        if self._port.done() and not self._port.cancelled():
            self._port.exception()
        self._port.cancel()

    def log(self) -> list[dict[str, Any]]:
        """What it logged last."""
        return [json.loads(line) for line in self._lines if line.startswith("{")]

    def last_words(self, most: int = 25) -> str:
        return "\n".join(list(self._lines)[-most:])

    def passed(self) -> list[str]:
        """The points that it passed, once it has ended."""
        return list(json.loads(self._told.read_text())["passed"]) if self._told.exists() else []

    @property
    def died_at(self) -> str | None:
        """The point at which it ended itself."""
        return json.loads(self._told.read_text())["died"] if self._told.exists() else None

    async def _read_on(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._lines.append(line)
            if '"event": "serving"' in line and not self._port.done():
                self._port.set_result(int(json.loads(line)["port"]))
        if not self._port.done():
            self._port.set_exception(EOFError("it ended before it served"))


class Replicas:
    """All replicas that a test starts; they are ended when the block is."""

    def __init__(self, settings: Mapping[str, str], folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self.all: list[Replica] = []

    async def start(self, doom: Doom | None = None, *, offer_seconds: float = 900) -> Replica:
        doom = doom or Doom()
        told = self._folder / f"replica-{len(self.all)}.json"
        extra = {
            "OTABRAKE_TEST_TOLD": str(told),
            "OTABRAKE_TEST_COUNT_FROM": doom.count_from,
            "OTABRAKE_TEST_KILL_KIND": doom.kind,
            "OTABRAKE_TEST_OFFER_SECONDS": str(offer_seconds),
            **({"OTABRAKE_TEST_KILL_AT": str(doom.kill_at)} if doom.kill_at is not None else {}),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.crash.victim",
            cwd=ROOT,
            env=environment({**self._settings, **extra}),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
        )
        replica = Replica(process, told)
        self.all.append(replica)
        return await replica.serving()

    @property
    def alive(self) -> list[Replica]:
        return [replica for replica in self.all if replica.is_alive and replica.url]


@contextlib.asynccontextmanager
async def replicas(settings: Mapping[str, str], folder: Path) -> AsyncIterator[Replicas]:
    started = Replicas(settings, folder)
    try:
        yield started
    finally:
        await asyncio.gather(*(replica.end() for replica in started.all))
