"""(c) From `otabrake serve` to `/readyz`: time and peak memory, against importing its own third-party stack alone.

The stack is what a serving process really imported: once, before the measurement, a `serve` tells its modules when it
is ready, and those that are installed from elsewhere are imported, in the same order, by a process that does nothing
else. Beside it, the import of Alibaba's official SDK, which the bot does not use.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bot.sandbox.server import sandbox_settings
from tests.bench.figures import at_most, print_table, ratio_row, row
from tests.bench.machine import Broken, cores, environment, pinned
from tests.bench.slack_side import SlackSide, slack_side

READY_SECONDS = 60
OURS, STACK, SDK = "otabrake serve, to /readyz", "importing its third-party stack", "importing the official SDK"
SDK_IMPORT = "from alibabacloud_iot20180120.client import Client"
_SAYS_READY = "import sys; sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read()"
_SERVE = ("-c", "from bot.cli import main; main()", "serve")

Usage = tuple[float, float]
"""Seconds to readiness, and peak memory in MiB."""


async def measure(folder: Path, *, rounds: int) -> None:
    """Measures and prints the table."""
    if sys.platform != "linux":
        print("(c) is skipped: peak memory is read from /proc, which this system does not have")
        return
    usages: dict[str, list[Usage]] = defaultdict(list)
    async with slack_side() as side:
        settings = _settings(folder, side)
        await _migrate(settings)
        modules = await _third_party(folder, settings)
        imports = "\n".join(f"import {name}" for name in modules)
        for _ in range(rounds):
            usages[OURS].append(await _until_ready(folder, settings))
            usages[STACK].append(await _until_imported(folder, imports))
            usages[SDK].append(await _until_imported(folder, SDK_IMPORT))
    _report(usages, rounds=rounds, modules=modules)


def _settings(folder: Path, side: SlackSide) -> dict[str, str]:
    """The environment of `otabrake serve`, on the sandbox's policy."""
    made = sandbox_settings(folder, iot_url="http://127.0.0.1:9", slack_url=side.url)
    return dict(made.environ)


async def _migrate(settings: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *_SERVE[:2], "db", "upgrade", env=environment(settings), stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise Broken("otabrake db upgrade failed")


async def _third_party(folder: Path, settings: dict[str, str]) -> list[str]:
    """The names of the installed modules that a serving process has imported when it is ready, in that order."""
    async with _serving(folder, settings, ("-m", "tests.bench.start_modules")) as (process, _):
        assert process.stdout is not None
        process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(READY_SECONDS):
            names: list[str] = json.loads(await process.stdout.readline())
    return names


async def _until_ready(folder: Path, settings: dict[str, str]) -> Usage:
    async with _serving(folder, settings, _SERVE) as (process, seconds):
        return seconds, _peak_mib(process.pid)


@contextlib.asynccontextmanager
async def _serving(
    folder: Path, settings: dict[str, str], arguments: Sequence[str]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, float]]:
    """A `serve` that is ready, and how many seconds that took; ended afterwards."""
    port = _free_port()
    log = folder / "serve.log"
    with log.open("wb") as sink, pinned(cores()[0]):
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            env=environment(settings | {"HOST": "127.0.0.1", "PORT": str(port)}),
            stdout=asyncio.subprocess.PIPE,
            stderr=sink,
            limit=1024 * 1024,
        )
    try:
        while not await _is_ready(port):
            if process.returncode is not None or time.monotonic() - started > READY_SECONDS:
                raise Broken(f"otabrake serve did not become ready\n{log.read_text(errors='replace')[-2000:]}")
            await asyncio.sleep(0.002)
        yield process, time.monotonic() - started
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()


async def _until_imported(folder: Path, imports: str) -> Usage:
    program = folder / "imports.py"
    program.write_text(f"{imports}\n{_SAYS_READY}\n")
    with pinned(cores()[0]):
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(program),
            env=environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    line = await process.stdout.readline()
    usage = time.monotonic() - started, _peak_mib(process.pid) if line else 0.0
    process.stdin.close()
    await process.wait()
    if line != b"ready\n":
        raise Broken(f"these imports fail on their own:\n{imports[:500]}")
    return usage


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise Broken(f"process {pid} has no VmHWM")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _report(usages: dict[str, list[Usage]], *, rounds: int, modules: Sequence[str]) -> None:
    absolute, ratios = [], []
    for name, values in usages.items():
        absolute.append(row(f"{name}: time", [seconds * 1000 for seconds, _ in values], unit="ms"))
        absolute.append(row(f"{name}: peak memory", [peak for _, peak in values], unit="MiB"))
    goals = {STACK: (at_most(1.5), at_most(1.3)), SDK: (None, None)}
    for peer, (time_goal, memory_goal) in goals.items():
        for at, what, goal in ((0, "time", time_goal), (1, "peak memory", memory_goal)):
            ours, theirs = ([each[at] for each in usages[name]] for name in (OURS, peer))
            ratios.append(ratio_row(f"serve / {peer}: {what}", ours, theirs, goal))
    tops = sorted({name.partition(".")[0] for name in modules})
    print_table(f"(c) Start, {rounds} interleaved rounds", ("figure", "median", "range"), absolute)
    print_table("(c) Ratios, taken round by round", ("ratio", "median", "range", "goal"), ratios)
    print(f"The stack: {len(modules)} modules of {len(tops)} packages: {', '.join(tops)}.")
    print("Database migrated, policy valid, Slack answers on loopback.")
