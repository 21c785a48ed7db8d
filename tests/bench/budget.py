"""(d) Fifty calls at once at five a second: when the last one arrives, and how many the server sees in any second.

The server is this process: it notes when each call arrives, by the machine's monotonic clock. The calls come from one,
two or four processes on one database; each takes 0–20 ms on its way and 0–20 ms back. The ideal is 9.0 s: five at once,
and five more each second. The peer is what people write by hand, in one process: a semaphore, held for a second after
the call. This module is the calling process as well.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.alibaba.budget import LIMITS, Budget, CallClass
from bot.settings import database_url
from bot.storage.database import open_database
from bot.storage.migrations import upgrade
from bot.storage.slots import SqlSlots
from tests.bench.figures import at_most, median, print_table
from tests.bench.machine import Broken, Child, Json, answer_asks, be_a_child, child, cores
from tests.bench.postgres import postgres_database

ACTION, CALLS, LIMIT = "CancelOTATaskByJob", 50, LIMITS["CancelOTATaskByJob"]
IDEAL_SECONDS = float(CALLS // LIMIT - 1)
JITTER_SECONDS = 0.02
MOST_ROUNDS = 5
PEER = "semaphore and a second's sleep, 1 process"

_GOAL = at_most(1.06)


@dataclass(frozen=True, slots=True)
class Drain:
    """One run: seconds until the last call arrived, and the most calls in any sliding second."""

    seconds: float
    most: int


async def measure(folder: Path, *, rounds: int) -> None:
    """Measures and prints the table."""
    rounds = min(rounds, MOST_ROUNDS)
    drains: dict[str, list[Drain]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(postgres_database())
        cloud = await stack.enter_async_context(_cloud())
        teams: dict[str, list[Child]] = {}
        for name, url, size in _teams(folder, postgres):
            callers = [child("budget", folder, core=cores()[at % 2], url=url, port=cloud.port) for at in range(size)]
            teams[name] = [await stack.enter_async_context(each) for each in callers]
        for at in range(rounds):
            for name, callers in teams.items():
                drains[name].append(await _drain(cloud, callers))
            print(f"budget: round {at + 1} of {rounds}", flush=True)
    _report(drains, rounds=rounds)


def _teams(folder: Path, postgres: str | None) -> list[tuple[str, str | None, int]]:
    teams: list[tuple[str, str | None, int]] = [
        ("ours, SQLite, 1 process", f"sqlite:///{folder / 'budget.db'}", 1),
        (PEER, None, 1),
    ]
    if postgres is not None:
        url = database_url({"OTABRAKE_DATABASE_URL": postgres})
        teams += [(f"ours, PostgreSQL, {size} process{'es' * (size > 1)}", url, size) for size in (1, 2, 4)]
    return teams


class _Arrivals:
    """The server: answers each line with one, and notes when it came."""

    def __init__(self) -> None:
        self.port = 0
        self.times: list[float] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            self.times.append(time.monotonic())
            writer.write(b"taken\n")
        writer.close()


@asynccontextmanager
async def _cloud() -> AsyncIterator[_Arrivals]:
    arrivals = _Arrivals()
    async with await asyncio.start_server(arrivals.serve, "127.0.0.1", 0) as server:
        arrivals.port = server.sockets[0].getsockname()[1]
        yield arrivals


async def _drain(cloud: _Arrivals, callers: list[Child]) -> Drain:
    cloud.times.clear()
    account = secrets.token_hex(4)
    shares = [len(range(at, CALLS, len(callers))) for at in range(len(callers))]
    began = time.monotonic()
    asking = [each.ask(account=account, calls=share) for each, share in zip(callers, shares, strict=True)]
    await asyncio.gather(*asking)
    times = sorted(cloud.times)
    if len(times) != CALLS:
        raise Broken(f"{len(times)} calls arrived, not {CALLS}")
    most = max(sum(begin <= at <= begin + 1 for at in times) for begin in times)
    return Drain(times[-1] - began, most)


def _report(drains: dict[str, list[Drain]], *, rounds: int) -> None:
    rows = []
    for name, runs in drains.items():
        seconds = [each.seconds for each in runs]
        worst, most = max(seconds) / IDEAL_SECONDS, max(each.most for each in runs)
        ratios = f"{median(seconds) / IDEAL_SECONDS:.3f}×, at worst {worst:.3f}×"
        verdict = "" if name == PEER else f"{_GOAL.verdict(worst)}; ≤ {LIMIT}: {'met' if most <= LIMIT else 'NOT MET'}"
        rows.append((name, f"{min(seconds):.2f}–{max(seconds):.2f} s", ratios, str(most), verdict))
    print_table(
        f"(d) {CALLS} calls at {LIMIT} a second, {rounds} runs, 0–20 ms each way",
        ("budget", "last arrival", f"of {IDEAL_SECONDS:.1f} s", "most in any second", "goal, in every run"),
        rows,
    )


Call = Callable[[], Awaitable[None]]


async def _main(options: Json) -> None:
    connections = [await asyncio.open_connection("127.0.0.1", options["port"]) for _ in range(LIMIT)]

    async def call() -> None:
        reader, writer = connections.pop()
        await asyncio.sleep(random.uniform(0, JITTER_SECONDS))
        writer.write(b"call\n")
        await reader.readline()
        await asyncio.sleep(random.uniform(0, JITTER_SECONDS))
        connections.append((reader, writer))

    if options["url"] is None:
        await answer_asks({}, lambda what: _by_semaphore(call, what["calls"]))
        return
    database = open_database(options["url"])
    await upgrade(database)
    async with Budget(SqlSlots(database)) as budget:
        await _by_budget(budget, _nothing, account="warm", calls=LIMIT)
        await answer_asks({}, lambda what: _by_budget(budget, call, account=what["account"], calls=what["calls"]))
    await database.close()


async def _nothing() -> None:
    """A call that takes no time."""


async def _by_budget(budget: Budget, call: Call, *, account: str, calls: int) -> Json:
    async def one() -> None:
        async with budget.slot(account, ACTION, CallClass.STOP):
            await call()

    await asyncio.gather(*(one() for _ in range(calls)))
    return {}


async def _by_semaphore(call: Call, calls: int) -> Json:
    semaphore = asyncio.Semaphore(LIMIT)

    async def one() -> None:
        async with semaphore:
            await call()
            await asyncio.sleep(1)

    await asyncio.gather(*(one() for _ in range(calls)))
    return {}


if __name__ == "__main__":
    be_a_child(_main)
