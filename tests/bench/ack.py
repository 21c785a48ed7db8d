"""(a) The whole acknowledgement path against a bare Bolt echo: p50 at concurrency 1, requests/s at concurrency 10.

Ours: HTTP, gate, Bolt's dispatch, parsing, one inbox row committed with `synchronous=FULL`, reply. The echo: Bolt's
AsyncApp behind Bolt's ASGI adapter, which verifies, dispatches and answers with the text. Same uvicorn configuration,
loop, core and load; every server is measured in every round, and the ratios are those within a round.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from bot.sandbox.server import SIGNING_SECRET
from tests.bench.figures import Goal, at_least, at_most, median, print_table, ratio_row, row
from tests.bench.machine import Broken, Child, Json, child, cores
from tests.bench.postgres import postgres_database
from tests.bench.slack_side import SlackSide, slack_side

CONCURRENCIES = (1, 10)
STOPPING = "cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai because 4.2.1 bricks gateways"
TURNED_DOWN = "cancel J1 on nowhere"

ECHO, PBR = "Bolt echo, defaults", "Bolt echo, process_before_response"
OURS, OURS_WORKING = "ours, SQLite FULL", "ours, SQLite FULL, road working"
OURS_PG, OURS_PG_WORKING = "ours, PostgreSQL", "ours, PostgreSQL, road working"

Figures = dict[tuple[str, int, str], list[float]]

_GOALS: dict[tuple[str, str, int], Goal] = {
    (OURS, ECHO, 1): at_most(0.2),
    (OURS, ECHO, 10): at_least(3.5),
    (OURS_PG, ECHO, 1): at_most(0.2),
    (OURS_PG, ECHO, 10): at_least(1.5),
    (OURS, PBR, 10): at_least(0.5, is_stretch=True),
}


async def measure(folder: Path, *, rounds: int, seconds: float) -> None:
    """Measures and prints the table."""
    figures: Figures = defaultdict(list)
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(postgres_database())
        side = await stack.enter_async_context(slack_side())
        load = await stack.enter_async_context(child("load", folder, core=cores()[1]))
        standing = {
            ECHO: await stack.enter_async_context(_echo(folder, side, is_pbr=False)),
            PBR: await stack.enter_async_context(_echo(folder, side, is_pbr=True)),
            OURS: await stack.enter_async_context(_bot(folder, side, None, is_working=False)),
        }
        if postgres is not None:
            standing[OURS_PG] = await stack.enter_async_context(_bot(folder, side, postgres, is_working=False))
        for name, server in standing.items():
            await _check(name, server, load, side)
        print(f"one fdatasync of 4 KB here: {_sync_us(folder):.0f} us (median of 200)", flush=True)
        for at in range(rounds):
            names = list(standing)
            for name in names[at % len(names) :] + names[: at % len(names)]:
                await _round(name, standing[name], load, side, figures, seconds=seconds)
            async with _bot(folder, side, None, is_working=True) as server:
                await _round(OURS_WORKING, server, load, side, figures, seconds=seconds)
            with postgres_database(is_wanted=postgres is not None) as fresh:
                if fresh is None:
                    continue
                async with _bot(folder, side, fresh, is_working=True) as server:
                    await _round(OURS_PG_WORKING, server, load, side, figures, seconds=seconds)
            print(f"ack: round {at + 1} of {rounds}", flush=True)
    _report(figures, rounds=rounds, seconds=seconds)


async def _round(name: str, server: Child, load: Child, side: SlackSide, figures: Figures, *, seconds: float) -> None:
    text = TURNED_DOWN if name in (OURS_WORKING, OURS_PG_WORKING) else STOPPING
    for concurrency in CONCURRENCIES:
        before = await server.ask(ask="forget")
        told = await load.ask(ask="run", **_to(server, side), text=text, concurrency=concurrency, seconds=seconds)
        after = await server.ask(ask="cpu")
        count = told["count"]
        if told["statuses"] != {"200": count} or not count:
            raise Broken(f"{name} answered {told['statuses']}")
        if after["rows"] is not None and after["rows"] != count:
            raise Broken(f"{name} acknowledged {count} commands and wrote {after['rows']} down")
        figures[name, concurrency, "rps"].append(told["rps"])
        figures[name, concurrency, "p50"].append(told["p50_us"])
        figures[name, concurrency, "cpu"].append((after["cpu_seconds"] - before["cpu_seconds"]) / count * 1e6)


async def _check(name: str, server: Child, load: Child, side: SlackSide) -> None:
    """A good signature, its copy and a forged one, before anything is measured."""
    before = await server.ask(ask="forget")
    told = await load.ask(ask="check", **_to(server, side), text=STOPPING)
    after = await server.ask(ask="rows")
    rows = None if after["rows"] is None else after["rows"] - before["rows"]
    if told != {"good": 200, "copy": 200, "forged": 401} or rows not in (None, 1):
        raise Broken(f"{name}: {told}, rows written for one command and its copy: {rows}")
    print(f"checked: {name}: good 200, copy 200, forged 401" + ("" if rows is None else ", one row"), flush=True)


def _sync_us(folder: Path) -> float:
    """What this disk asks for a commit; on a disk that asks nothing, FULL would be for free."""
    took = []
    sync = getattr(os, "fdatasync", os.fsync)
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(200):
            started = time.perf_counter()
            file.write(bytes(4096))
            sync(file.fileno())
            took.append((time.perf_counter() - started) * 1e6)
    return median(took)


def _to(server: Child, side: SlackSide) -> Json:
    return {"port": server.port, "secret": SIGNING_SECRET, "response_url": side.response_url}


@contextlib.asynccontextmanager
async def _echo(folder: Path, side: SlackSide, *, is_pbr: bool) -> AsyncIterator[Child]:
    async with child("servers", folder, core=cores()[0], kind="echo", slack_url=side.url, is_pbr=is_pbr) as server:
        yield server


@contextlib.asynccontextmanager
async def _bot(folder: Path, side: SlackSide, database_url: str | None, *, is_working: bool) -> AsyncIterator[Child]:
    own = folder / secrets.token_hex(4)
    own.mkdir()
    async with child(
        "servers",
        folder,
        core=cores()[0],
        kind="bot",
        folder=str(own),
        iot_url="http://127.0.0.1:9",
        slack_url=side.url,
        database_url=database_url,
        is_working=is_working,
    ) as server:
        yield server


def _report(figures: Figures, *, rounds: int, seconds: float) -> None:
    names = list(dict.fromkeys(name for name, _, _ in figures))
    absolute, ratios = [], []
    for name in names:
        p50, rps = figures[name, 1, "p50"], figures[name, 10, "rps"]
        absolute.append(row(f"{name}: p50, c=1", p50, unit="us"))
        absolute.append(row(f"{name}: requests/s, c=10", rps, unit="/s"))
        absolute.append(row(f"{name}: CPU a request, c=10", figures[name, 10, "cpu"], unit="us"))
        if name in (ECHO, PBR):
            continue
        for peer in (ECHO, PBR):
            ratios.append(
                ratio_row(f"{name} / {peer}: p50, c=1", p50, figures[peer, 1, "p50"], _GOALS.get((name, peer, 1)))
            )
            ratios.append(
                ratio_row(f"{name} / {peer}: rps, c=10", rps, figures[peer, 10, "rps"], _GOALS.get((name, peer, 10)))
            )
    about = f"{rounds} interleaved rounds of {seconds:g} s"
    print_table(f"(a) Acknowledgement, {about}", ("figure", "median", "range"), absolute)
    print_table("(a) Ratios, taken round by round", ("ratio", "median", "range", "goal"), ratios)
    print(
        f'"road working": the commands are "{TURNED_DOWN}", and the road turns each of them down (audit entry, answer '
        "at its response_url) while the\nnext ones arrive. Elsewhere the road does nothing with what is written: the "
        "row and its lease are all that an acknowledgement waits for."
    )
