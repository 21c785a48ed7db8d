"""(f) Whole flows a second: a command, its card, a click, the calls, the last line; and the same flow on DBOS.

Real servers on PostgreSQL (1, 2 and 4 processes) and SQLite, signed deliveries over HTTP to each in turn, a light Slack
and the engineers in one process, the IoT simulator without limits in another. Fifty flows are under way at a time, each
with a job and a channel of its own; what ends in a window after the first seconds is counted. The call budget is no
limit (`unlimited`). Then the same flow without Slack, by our road (`engine`) and by DBOS (`dbos_flow`), in the same
rounds. Nothing is pinned: all of them share the cores, and what each used is told.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import create_engine, text

from bot.settings import database_url
from tests.bench.figures import Goal, at_least, median, print_table, ratio_row, spelt
from tests.bench.machine import Broken, Child, Json, all_cores, child, cpu_seconds
from tests.bench.postgres import backends, postgres_database

AT_ONCE, SECONDS, WARM_SECONDS, MOST_ROUNDS = 50, 20.0, 5.0, 3
JOBS = 4000
SETTLE_SECONDS = 20.0

_LEFT = (
    "SELECT (SELECT count(*) FROM proposals WHERE state <> 'finished') AS unfinished, "
    "(SELECT count(*) FROM outbox WHERE settled_at IS NULL) AS owed"
)


@dataclass(frozen=True, slots=True)
class Variant:
    """What is measured: the module that is run, how many of it, and its options."""

    name: str
    module: str
    processes: int = 1
    is_sqlite: bool = False
    options: Json = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        return self.module != "dbos_flow"


def _server(processes: int, *, is_sqlite: bool = False) -> Variant:
    where = f"{'SQLite' if is_sqlite else 'PostgreSQL'}, {processes} process{'es' * (processes > 1)}"
    options = {"kind": "bot", "is_working": True, "is_for_flows": True}
    return Variant(f"whole bot, {where}", "servers", processes, is_sqlite, options)


ONE, TWO, FOUR, ON_SQLITE = _server(1), _server(2), _server(4), _server(1, is_sqlite=True)
ROAD = Variant("road without Slack", "engine", options={"is_thin": False})
ROAD_THIN = Variant("road without Slack, one call a look", "engine", options={"is_thin": True})
_DBOS = {"pool": 20}
DBOS = Variant("DBOS, the same calls and posts", "dbos_flow", options={**_DBOS, "is_thin": False, "is_short": False})
DBOS_THIN = Variant(
    "DBOS, the same, one call a look", "dbos_flow", options={**_DBOS, "is_thin": True, "is_short": False}
)
DBOS_SHORT = Variant(
    "DBOS, in short: call, two reads", "dbos_flow", options={**_DBOS, "is_thin": True, "is_short": True}
)

_RATIOS: list[tuple[Variant, Variant, Goal | None]] = [
    (TWO, ONE, None),
    (FOUR, ONE, None),
    (ON_SQLITE, ONE, None),
    (ROAD, DBOS, at_least(5)),
    (ROAD_THIN, DBOS_THIN, at_least(5)),
    (ROAD_THIN, DBOS_SHORT, None),
    (ONE, DBOS, None),
]


@dataclass(frozen=True, slots=True)
class Run:
    """One run: flows a second in the window, how long one took, and milliseconds of CPU a flow by who used them."""

    rate: float
    took: float
    calls: float
    posts: float
    cpu: dict[str, float]
    share: float


async def measure(folder: Path, *, rounds: int) -> None:
    """Measures and prints the table."""
    rounds, runs = min(rounds, MOST_ROUNDS), defaultdict[str, list[Run]](list)
    async with AsyncExitStack() as stack:
        has_postgres = stack.enter_context(postgres_database()) is not None
        crowd = await stack.enter_async_context(child("crowd", folder, core=all_cores()))
        fleet = await stack.enter_async_context(child("fleet", folder, core=all_cores()))
        variants = _variants(has_postgres=has_postgres)
        for at in range(rounds):
            for variant in variants[at % len(variants) :] + variants[: at % len(variants)]:
                run = await _run(folder, variant, crowd, fleet)
                runs[variant.name].append(run)
                print(f"{variant.name}: {run.rate:.1f} flows/s", flush=True)
            print(f"flows: round {at + 1} of {rounds}", flush=True)
    _report(runs, rounds=rounds)


def _variants(*, has_postgres: bool) -> list[Variant]:
    if not has_postgres:
        return [ON_SQLITE]
    if importlib.util.find_spec("dbos") is None:
        print("DBOS is skipped: it is not installed (it comes with the extra `bench`)")
        return [ONE, TWO, FOUR, ON_SQLITE, ROAD, ROAD_THIN]
    return [ONE, TWO, FOUR, ON_SQLITE, ROAD, DBOS, ROAD_THIN, DBOS_THIN, DBOS_SHORT]


async def _run(folder: Path, variant: Variant, crowd: Child, fleet: Child) -> Run:
    own = folder / secrets.token_hex(4)
    own.mkdir()
    with postgres_database(is_wanted=not variant.is_sqlite) as postgres:
        url = f"sqlite:///{own / 'flows.db'}" if postgres is None else database_url({"OTABRAKE_DATABASE_URL": postgres})
        async with _standing(own, variant, url, crowd=crowd, fleet=fleet) as bots:
            run = await _drive(variant, bots, crowd, fleet, database=url.rpartition("/")[2])
            if variant.is_ours:
                await _check_nothing_left(url)
            return run


@asynccontextmanager
async def _standing(own: Path, variant: Variant, url: str, *, crowd: Child, fleet: Child) -> AsyncIterator[list[Child]]:
    async with AsyncExitStack() as stack:
        bots = []
        for at in range(variant.processes):
            place = own / str(at)
            place.mkdir()
            shared: Json = {
                "folder": str(place),
                "iot_url": f"http://127.0.0.1:{fleet.port}",
                "slack_url": f"http://127.0.0.1:{crowd.port}",
                "database_url": url,
            }
            started = child(variant.module, own, core=all_cores(), **shared, **variant.options)
            bots.append(await stack.enter_async_context(started))
        yield bots


async def _drive(variant: Variant, bots: Sequence[Child], crowd: Child, fleet: Child, *, database: str) -> Run:
    jobs = (await fleet.ask(ask="jobs", count=JOBS))["jobs"]
    driver = crowd if variant.module == "servers" else bots[0]
    ports = {"ports": [each.port for each in bots]} if variant.module == "servers" else {}
    asking = driver.ask(ask="run", within_seconds=300, jobs=jobs, at_once=AT_ONCE, seconds=SECONDS, **ports)
    running = asyncio.create_task(asking)
    await asyncio.sleep(WARM_SECONDS)
    began_at, before = time.monotonic(), _used(bots, crowd, fleet, database)
    await asyncio.sleep(SECONDS - WARM_SECONDS)
    ended_at, after = time.monotonic(), _used(bots, crowd, fleet, database)
    told = await running
    if "broken" in told:
        raise Broken(f"{variant.name}: {told['broken']}")
    effects = await fleet.ask(ask="effects")
    flows, counted = len(told["at"]), sum(began_at <= at < ended_at for at in told["at"])
    if not effects["effects"] == effects["jobs"] == flows or not counted:
        raise Broken(f"{variant.name}: {flows} flows ended ({counted} counted), the simulator saw {effects}")
    used = {who: after[who] - before[who] for who in before}
    return Run(
        rate=counted / (ended_at - began_at),
        took=median(told["took"]),
        calls=effects["calls"] / flows,
        posts=told.get("posts", 0) / flows,
        cpu={who: seconds / counted * 1000 for who, seconds in used.items()},
        share=sum(used.values()) / (ended_at - began_at) / (os.cpu_count() or 1),
    )


def _used(bots: Sequence[Child], crowd: Child, fleet: Child, database: str) -> dict[str, float]:
    """Seconds of CPU so far."""
    return {
        "bots": sum(cpu_seconds(each.pid) for each in bots),
        "PostgreSQL": sum(map(cpu_seconds, backends(database))),
        "simulator": cpu_seconds(fleet.pid),
        "Slack and people": cpu_seconds(crowd.pid),
    }


async def _check_nothing_left(url: str) -> None:
    """Every proposal is finished, and nothing is owed to anybody."""
    engine = create_engine(url)
    until = time.monotonic() + SETTLE_SECONDS
    try:
        while True:
            with engine.connect() as connection:
                left = connection.execute(text(_LEFT)).one()
            if tuple(left) == (0, 0):
                return
            if time.monotonic() >= until:
                raise Broken(f"after the flows, {left.unfinished} proposals are unfinished and {left.owed} posts owed")
            await asyncio.sleep(0.2)
    finally:
        engine.dispose()


def _report(runs: dict[str, list[Run]], *, rounds: int) -> None:
    rows = [_row(name, of) for name, of in runs.items()]
    heads = ("flow", "flows/s", "range", "one took", "calls", "to Slack", "CPU a flow, ms", "of all cores")
    about = f"{AT_ONCE} at once, {SECONDS - WARM_SECONDS:g} s of each run counted, {rounds} interleaved rounds"
    print_table(f"(f) Whole flows, {about}", heads, rows)
    ratios = [
        ratio_row(f"{ours.name} / {theirs.name}", _rates(runs, ours), _rates(runs, theirs), goal)
        for ours, theirs, goal in _RATIOS
        if ours.name in runs and theirs.name in runs
    ]
    print_table("(f) Ratios of flows/s, taken round by round", ("ratio", "median", "range", "goal"), ratios)


def _rates(runs: dict[str, list[Run]], variant: Variant) -> list[float]:
    return [run.rate for run in runs[variant.name]]


def _row(name: str, of: Sequence[Run]) -> tuple[str, ...]:
    rates = [run.rate for run in of]
    used = ", ".join(f"{who} {spelt(_middle(of, who))}" for who in of[0].cpu if _middle(of, who) >= 0.5)
    return (
        name,
        spelt(median(rates)),
        f"{spelt(min(rates))}–{spelt(max(rates))}",
        f"{median([run.took for run in of]):.1f} s",
        f"{median([run.calls for run in of]):.0f}",
        f"{median([run.posts for run in of]):.0f}",
        used,
        f"{median([run.share for run in of]):.0%}",
    )


def _middle(of: Sequence[Run], who: str) -> float:
    return median([run.cpu[who] for run in of])
