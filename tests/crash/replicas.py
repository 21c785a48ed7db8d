"""Replicas of the bot: real processes, started, killed, stopped and gone on with, always by their own id."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.bench.machine import environment

ROOT = Path(__file__).parents[2]
START_SECONDS = 60
STOP_SECONDS = 15


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


class Nursery:
    """The process that replicas are forked from (`tests.crash.nursery`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._names = map(str, count())
        self._starting: dict[str, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Event] = {}
        self.reader = asyncio.create_task(self._read_on())

    async def start(self, environ: Mapping[str, str], log: Path) -> tuple[int, asyncio.Event]:
        """The id of a new process, and what is set when it has ended."""
        name = next(self._names)
        starting = self._starting[name] = asyncio.get_running_loop().create_future()
        self._ask(start=name, environ=dict(environ), log=str(log))
        pid = await starting
        return pid, self._ended[pid]

    def signal(self, pid: int, number: signal.Signals) -> None:
        self._ask(signal=int(number), pid=pid)

    def _ask(self, **what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")

    async def _read_on(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "started" in told:
                self._ended[told["pid"]] = asyncio.Event()
                self._starting.pop(told["started"]).set_result(told["pid"])
            else:
                self._ended[told["ended"]].set()


@contextlib.asynccontextmanager
async def nursery() -> AsyncIterator[Nursery]:
    """Whatever was born there is gone with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.crash.nursery",
        cwd=ROOT,
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    made = Nursery(process)
    try:
        yield made
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await made.reader


class Replica:
    """One process; `url` is where it takes deliveries, once it does."""

    def __init__(self, of: Nursery, pid: int, has_ended: asyncio.Event, *, log: Path, told: Path) -> None:
        self._nursery = of
        self._pid = pid
        self._has_ended = has_ended
        self._log = log
        self._told = told
        self.url = ""

    async def serving(self) -> Replica:
        """Returns when it takes deliveries. Raises `NotServing`."""
        until = time.monotonic() + START_SECONDS
        while self.is_alive and time.monotonic() < until:
            for line in self.log():
                if line.get("event") == "serving":
                    self.url = f"http://127.0.0.1:{line['port']}"
                    return self
            await asyncio.sleep(0.01)
        raise NotServing(self.last_words())

    @property
    def is_alive(self) -> bool:
        return not self._has_ended.is_set()

    def signal(self, number: signal.Signals) -> None:
        if self.is_alive:
            self._nursery.signal(self._pid, number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self._has_ended.wait()

    async def end(self) -> None:
        """As an orchestrator would: SIGTERM, and SIGKILL for who does not listen."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._has_ended.wait()
        except TimeoutError:
            await self.kill()

    def log(self) -> list[dict[str, Any]]:
        """What it logged, oldest first."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def last_words(self, most: int = 25) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-most:])

    def passed(self) -> list[str]:
        """The points that it passed, if it could tell in the end."""
        return list(json.loads(self._told.read_text())["passed"]) if self._told.exists() else []

    @property
    def died_at(self) -> str | None:
        """The point at which it ended itself."""
        return json.loads(self._told.read_text())["died"] if self._told.exists() else None


class Replicas:
    """All replicas of one world."""

    def __init__(self, of: Nursery, settings: Mapping[str, str], folder: Path) -> None:
        self._nursery = of
        self._settings = settings
        self._folder = folder
        self._numbers = count()
        self.all: list[Replica] = []

    async def start(self, doom: Doom | None = None, *, offer_seconds: float = 900) -> Replica:
        doom, number = doom or Doom(), next(self._numbers)
        log, told = self._folder / f"replica-{number}.log", self._folder / f"replica-{number}.json"
        extra = {
            "OTABRAKE_TEST_TOLD": str(told),
            "OTABRAKE_TEST_COUNT_FROM": doom.count_from,
            "OTABRAKE_TEST_KILL_KIND": doom.kind,
            "OTABRAKE_TEST_OFFER_SECONDS": str(offer_seconds),
            **({"OTABRAKE_TEST_KILL_AT": str(doom.kill_at)} if doom.kill_at is not None else {}),
        }
        environ = environment({**self._settings, **extra})
        pid, has_ended = await self._nursery.start(environ, log)
        self.all.append(Replica(self._nursery, pid, has_ended, log=log, told=told))
        return await self.all[-1].serving()

    @property
    def alive(self) -> list[Replica]:
        """Those that take deliveries."""
        return [replica for replica in self.all if replica.is_alive and replica.url]


@contextlib.asynccontextmanager
async def replicas(of: Nursery, settings: Mapping[str, str], folder: Path) -> AsyncIterator[Replicas]:
    """They are ended with the block."""
    started = Replicas(of, settings, folder)
    try:
        yield started
    finally:
        await asyncio.gather(*(replica.end() for replica in started.all))
