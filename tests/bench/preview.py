"""(e) What a preview and the last look cost in round trips; and a CSV of 100,000 tasks in constant memory.

A preview is the job and the counts of all seven states at once, with the reasons of failures; the last look at the
click is the same without reasons. Both go through `Cloud` and the real budget on SQLite, which is free each time: that
takes a second's pause. A round trip is one bare request of the same HTTP client. This module is the asking process as
well.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

import httpx

from bot.alibaba.budget import Budget
from bot.alibaba.client import open_http
from bot.alibaba.cloud import Cloud
from bot.alibaba.credentials import Credentials
from bot.alibaba.key_sources import StaticKey
from bot.model import Instance, Target, TaskState
from bot.ports import Purpose, Slots
from bot.storage.database import open_database
from bot.storage.migrations import upgrade
from bot.storage.slots import SqlSlots
from bot.workflow.rows import BEGINNING, HEADER, csv_lines, task_row
from tests.bench.figures import at_most, print_table, ratio_row, row
from tests.bench.machine import Child, Json, answer_asks, be_a_child, child, cores
from tests.slots import OpenSlots

LATENCY_SECONDS = 0.05
PAUSE_SECONDS = 1.1
TASKS = 100_000
PAGES = TASKS // 100
TARGET = Target("prod", "7glPHmaDYLAYMD1HHutT02")
TRIP, PREVIEW, RECHECK = "one bare round trip", "preview: job, all counts, reasons", "last look: job, all counts"

_GOAL = at_most(1.3)
_MEMORY_GOAL = at_most(1.1)


async def measure(folder: Path, *, rounds: int) -> None:
    """Measures and prints two tables."""
    seconds: dict[str, list[float]] = defaultdict(list)
    sizes: list[Json] = []
    async with AsyncExitStack() as stack:

        async def pair(latency_seconds: float, *, is_limited: bool) -> Child:
            cloud = await stack.enter_async_context(
                child("latent", folder, core=cores()[1], latency_seconds=latency_seconds, tasks=TASKS)
            )
            options = {"port": cloud.port, "folder": str(folder), "is_limited": is_limited}
            return await stack.enter_async_context(child("preview", folder, core=cores()[0], **options))

        asking = await pair(LATENCY_SECONDS, is_limited=True)
        for at in range(rounds + 1):
            for name in _turned((TRIP, PREVIEW, RECHECK), at):
                await asyncio.sleep(PAUSE_SECONDS)
                told = await asking.ask(ask=name)
                if at:  # the first round warms connections and database
                    seconds[name].append(told["seconds"] * 1000)
        for _ in range(3):
            listing = await pair(0.0, is_limited=False)
            sizes.append(await listing.ask(ask="CSV"))
    _print(seconds, sizes)


def _print(seconds: dict[str, list[float]], sizes: list[Json]) -> None:
    print_table(
        f"(e) Reading a job at {LATENCY_SECONDS * 1000:g} ms latency, {len(seconds[TRIP])} interleaved rounds",
        ("figure", "median", "range", "goal"),
        [
            *(row(name, seconds[name], unit="ms") for name in (TRIP, PREVIEW, RECHECK)),
            *(ratio_row(f"{name} / {TRIP}", seconds[name], seconds[TRIP], _GOAL) for name in (PREVIEW, RECHECK)),
        ],
    )
    early, late = [each["early_mib"] for each in sizes], [each["late_mib"] for each in sizes]
    print_table(
        f"(e) CSV of {TASKS:,} tasks, page by page, without latency or limits, {len(sizes)} runs",
        ("figure", "median", "range", "goal"),
        [
            row("time", [each["seconds"] for each in sizes], unit="s"),
            row("size of the file", [each["file_mib"] for each in sizes], unit="MiB"),
            row(f"peak memory after {PAGES // 10} pages", early, unit="MiB"),
            row(f"peak memory after {PAGES} pages", late, unit="MiB"),
            ratio_row("memory at the end / after a tenth", late, early, _MEMORY_GOAL),
        ],
    )


def _turned(names: tuple[str, ...], by: int) -> tuple[str, ...]:
    by %= len(names)
    return names[by:] + names[:by]


# The asking process.


async def _main(options: Json) -> None:
    gc.freeze()  # as `otabrake serve` does with what is imported
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(open_http())
        budget = await stack.enter_async_context(Budget(await _slots(stack, options)))
        url = f"http://127.0.0.1:{options['port']}"
        cloud = Cloud(
            {"prod": Instance("prod", "cn-shanghai", endpoint=url)},
            keys={"prod": StaticKey(Credentials("testid", "testsecret"))},
            http=http,
            budget=budget,
            now=lambda: datetime.now(UTC),
            new_nonce=lambda: token_hex(16),
        )
        work: dict[str, Callable[[], Awaitable[Json]]] = {
            TRIP: lambda: _trip(http, url),
            PREVIEW: lambda: _look(cloud, Purpose.PREVIEW),
            RECHECK: lambda: _look(cloud, Purpose.STOP),
            "CSV": lambda: _csv(cloud, Path(options["folder"])),
        }

        async def answer(what: Json) -> Json:
            began = time.perf_counter()
            told = await work[what["ask"]]()
            return {"seconds": time.perf_counter() - began, **told}

        await answer_asks({"port": 0}, answer)


async def _slots(stack: AsyncExitStack, options: Json) -> Slots:
    if not options["is_limited"]:
        return OpenSlots()
    database = open_database(f"sqlite:///{options['folder']}/preview.db")
    stack.push_async_callback(database.close)
    await upgrade(database)
    return SqlSlots(database)


async def _trip(http: httpx.AsyncClient, url: str) -> Json:
    (await http.post(f"{url}/", headers={"x-acs-action": "QueryOTAJob"})).raise_for_status()
    return {}


async def _look(cloud: Cloud, purpose: Purpose) -> Json:
    job, counts = await asyncio.gather(
        cloud.fetch_job(TARGET, purpose=purpose), cloud.fetch_counts(TARGET, tuple(TaskState), purpose=purpose)
    )
    assert job.job_id == TARGET.job
    assert set(counts.by_state.values()) == {TASKS}
    assert bool(counts.failures) is (purpose is Purpose.PREVIEW)
    return {}


async def _csv(cloud: Cloud, folder: Path) -> Json:
    path, early_mib = folder / f"{token_hex(4)}.csv", 0.0
    with path.open("wb") as file:
        file.write(BEGINNING + csv_lines([HEADER]))
        for number in range(1, PAGES + 1):
            page = await cloud.fetch_task_page(TARGET, number)
            assert len(page.tasks) == 100
            as_of = datetime.now(UTC)
            file.write(csv_lines(task_row(task, as_of) for task in page.tasks))
            if number == PAGES // 10:
                early_mib = _peak_mib()
    return {"early_mib": early_mib, "late_mib": _peak_mib(), "file_mib": path.stat().st_size / 2**20}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    be_a_child(_main)
