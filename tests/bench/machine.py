"""Processes of the benchmark: started on a core of their own, asked over standard input, ended by their own id.

A child is a module of this package. It prints one JSON line when it is ready, then answers each JSON line with another,
and ends when its standard input does. What it writes to standard error is kept in a file and shown if it breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

START_SECONDS = 60
STOP_SECONDS = 15
ANSWER_SECONDS = 90
_MOST_BYTES = 16 * 1024 * 1024

Json = dict[str, Any]
Core = int | frozenset[int] | None
"""Where a process runs: one core, any of these, or wherever its parent does."""


class Broken(Exception):
    """The benchmark could not measure; the text says what went wrong."""


@functools.cache
def cores() -> tuple[int | None, int | None]:
    """The core of the server that is measured, and that of everything else; None where processes cannot be pinned.

    Told once: later this process is pinned itself.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[-1]


@functools.cache
def all_cores() -> frozenset[int] | None:
    """Every core of the machine, for what is not to be pinned; told once, like `cores`."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


@contextlib.contextmanager
def pinned(core: Core) -> Iterator[None]:
    """What is started inside the block stays on `core`."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} if isinstance(core, int) else core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without proxies and without settings of a bot that may be meant for another one."""
    foreign = ("SLACK_", "OTABRAKE_", "ALIBABA_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }
    return kept | dict(extra or {})


class Child:
    """A running child; `ready` is what it said first."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path, name: str) -> None:
        self._process = process
        self._errors = errors
        self._name = name
        self.ready: Json = {}

    @property
    def port(self) -> int:
        return int(self.ready["port"])

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, *, within_seconds: float = ANSWER_SECONDS, **what: Any) -> Json:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        return await self.hear(within_seconds)

    async def hear(self, seconds: float) -> Json:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise Broken(f"{self._name} did not answer within {seconds:g} s\n{self._last_words()}") from None
        if not line:
            raise Broken(f"{self._name} ended by itself\n{self._last_words()}")
        answer: Json = json.loads(line)
        return answer

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _last_words(self) -> str:
        return self._errors.read_text(errors="replace")[-2000:]


@contextlib.asynccontextmanager
async def child(
    module: str, folder: Path, /, *, core: Core, extra: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Child]:
    """Runs `tests.bench.<module>` with `options`; its files are in `folder`, `extra` is added to its environment."""
    errors = folder / f"{module}-{secrets.token_hex(4)}.err"
    with errors.open("wb") as sink, pinned(core):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"tests.bench.{module}",
            json.dumps(options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=sink,
            env=environment(extra),
            limit=_MOST_BYTES,
        )
    started = Child(process, errors, f"{module} {options.get('kind', '')}".strip())
    try:
        started.ready = await started.hear(START_SECONDS)
        yield started
    finally:
        await started.end()


def be_a_child(main: Callable[[Json], Coroutine[Any, Any, None]]) -> None:
    """What a child module does: runs `main` with its options, on the loop that `otabrake serve` runs on."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(json.loads(sys.argv[1])))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def answer_asks(ready: Json, answer: Callable[[Json], Awaitable[Json]]) -> None:
    """Says that this child is ready, and answers until its standard input ends."""
    reader = asyncio.StreamReader(limit=_MOST_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say(ready)
    while line := await reader.readline():
        _say(await answer(json.loads(line)))


def _say(what: Json) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, with the children that it has waited for; 0 where nobody can tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
