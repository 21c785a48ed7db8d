"""(g) Acknowledging with a million rows in each table against empty tables: p50 at concurrency 1.

The same servers as in (a), on databases with and without 1,000,000 proposals, audit entries, deliveries and posts (and
the rows that go with a proposal), all of them finished, on SQLite and PostgreSQL. Each server is measured in every
round, once with its road at rest and once with it at work, turning each command down.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from bot.sandbox.server import SIGNING_SECRET
from bot.settings import database_url
from bot.storage.database import open_database
from bot.storage.migrations import upgrade
from tests.bench.ack import STOPPING, TURNED_DOWN
from tests.bench.figures import at_most, print_table, ratio_row, row
from tests.bench.filling import fill_postgres, fill_sqlite
from tests.bench.machine import Broken, Child, Json, child, cores
from tests.bench.postgres import postgres_database
from tests.bench.slack_side import SlackSide, slack_side

ROWS = 1_000_000
REST, WORK = "road at rest", "road at work"
_GOAL = at_most(1.2)

Fill = Callable[[Path], None]


async def measure(folder: Path, *, rounds: int, seconds: float, rows: int = ROWS) -> None:
    """Measures and prints the table."""
    figures: dict[tuple[str, bool, str], list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        pattern = await _pattern(folder)
        side = await stack.enter_async_context(slack_side())
        load = await stack.enter_async_context(child("load", folder, core=cores()[1]))
        databases: dict[tuple[str, bool], str] = {}
        for name, is_full, url in _databases(folder, stack):
            await _prepared(url, pattern, count=rows if is_full else 0)
            databases[name, is_full] = url
        for at in range(rounds):
            keys = list(databases)
            for name, is_full in keys[at % len(keys) :] + keys[: at % len(keys)]:
                for mode in (REST, WORK):
                    p50 = await _p50(folder, databases[name, is_full], mode, side, load, seconds=seconds)
                    figures[name, is_full, mode].append(p50)
            print(f"full: round {at + 1} of {rounds}", flush=True)
    _report(figures, rows=rows, rounds=rounds, seconds=seconds)


async def _pattern(folder: Path) -> Path:
    """A database in which one flow ran."""
    own = folder / "pattern"
    own.mkdir()
    async with child("crowd", own, core=None) as crowd, child("fleet", own, core=None) as fleet:
        shared: Json = {"iot_url": f"http://127.0.0.1:{fleet.port}", "slack_url": f"http://127.0.0.1:{crowd.port}"}
        options: Json = {"kind": "bot", "database_url": None, "is_working": True, "is_for_flows": True}
        async with child("servers", own, core=None, folder=str(own), **shared, **options) as bot:
            jobs = (await fleet.ask(ask="jobs", count=1))["jobs"]
            told = await crowd.ask(ask="run", ports=[bot.port], jobs=jobs, at_once=1, seconds=0.2)
            if len(told.get("at", ())) != 1:
                raise Broken(f"the flow that is multiplied did not end: {told}")
            await bot.ask(ask="settle")
    return own / "otabrake.db"


def _databases(folder: Path, stack: AsyncExitStack) -> list[tuple[str, bool, str]]:
    """Names, whether they are to be filled, and URLs."""
    found = [("SQLite FULL", is_full, f"sqlite:///{folder / f'full-{is_full}.db'}") for is_full in (False, True)]
    for is_full in (False, True):
        postgres = stack.enter_context(postgres_database())
        if postgres is not None:
            found.append(("PostgreSQL", is_full, postgres))
    return found


async def _prepared(url: str, pattern: Path, *, count: int) -> None:
    database = open_database(database_url({"OTABRAKE_DATABASE_URL": url}))
    await upgrade(database)
    await database.close()
    began = time.monotonic()
    if url.startswith("sqlite"):
        fill_sqlite(Path(url.removeprefix("sqlite:///")), pattern, count=count)
    else:
        fill_postgres(url, pattern, count=count)
    if count:
        kind = url.partition(":")[0]
        print(f"{kind}: filled with {count:,} rows a table in {time.monotonic() - began:.0f} s", flush=True)


@contextlib.asynccontextmanager
async def _bot(folder: Path, side: SlackSide, url: str, *, is_working: bool) -> AsyncIterator[Child]:
    own = folder / secrets.token_hex(4)
    own.mkdir()
    options: Json = {"kind": "bot", "folder": str(own), "iot_url": "http://127.0.0.1:9", "is_working": is_working}
    async with child("servers", folder, core=cores()[0], slack_url=side.url, database_url=url, **options) as server:
        yield server


async def _p50(folder: Path, url: str, mode: str, side: SlackSide, load: Child, *, seconds: float) -> float:
    """Microseconds. What was written at rest is removed again."""
    to: Json = {"secret": SIGNING_SECRET, "response_url": side.response_url}
    text = STOPPING if mode == REST else TURNED_DOWN
    async with _bot(folder, side, url, is_working=mode == WORK) as server:
        run = partial(load.ask, ask="run", port=server.port, text=text, concurrency=1, **to)
        await run(seconds=0.3)
        before = await server.ask(ask="open")
        told = await run(seconds=seconds)
        after = await server.ask(ask="open" if mode == REST else "settle")
        if told["statuses"] != {"200": told["count"]} or not told["count"]:
            raise Broken(f"{url} answered {told['statuses']}")
        if mode == REST and after["open"] - before["open"] != told["count"]:
            raise Broken(f"acknowledged {told['count']} commands, wrote {after['open'] - before['open']} down")
        await server.ask(ask="forget_open")
        return float(told["p50_us"])


def _report(figures: dict[tuple[str, bool, str], list[float]], *, rows: int, rounds: int, seconds: float) -> None:
    absolute, ratios = [], []
    for (name, is_full, mode), times in figures.items():
        absolute.append(row(f"{name}, {mode}, {f'{rows:,} rows' if is_full else 'empty'}: p50, c=1", times, unit="us"))
        if is_full:
            empty = figures[name, False, mode]
            ratios.append(ratio_row(f"{name}, {mode}: full / empty", times, empty, _GOAL))
    about = f"{rounds} interleaved rounds of {seconds:g} s"
    print_table(f"(g) Acknowledgement with full tables, {about}", ("figure", "median", "range"), absolute)
    print_table("(g) Ratios, taken round by round", ("ratio", "median", "range", "goal"), ratios)
