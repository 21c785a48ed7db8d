"""`python -m tests.crash [--kills n] [--database sqlite|postgresql] [--seed n]`, or `--takeover n`; see README.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.bench.machine import loop_factory
from tests.bench.postgres import POSTGRES
from tests.crash.databases import Databases, postgres_databases, sqlite_files
from tests.crash.episodes import Episode, plans, play_all
from tests.crash.report import print_report
from tests.crash.takeovers import measure_takeovers

BOTH = ("sqlite", "postgresql")


def main() -> int:
    """0: everything held. 1: something did not; it is printed with the number of its kill."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kills otabrake where it hurts.")
    parser.add_argument("--kills", type=int, default=200, help="how many on each database (default 200)")
    parser.add_argument("--database", choices=BOTH, help="without it, both")
    parser.add_argument("--seed", type=int, default=1, help="everything that is drawn follows from it (default 1)")
    parser.add_argument("--at-once", type=int, default=4, help="so many flows, each with its own world (default 4)")
    parser.add_argument("--only", type=int, action="append", help="only the kill of this number; may be repeated")
    parser.add_argument("--takeover", type=int, metavar="N", help="measure N takeovers instead")
    given = parser.parse_args()
    if given.kills < 1 or given.at_once < 1 or (given.takeover is not None and given.takeover < 1):
        parser.error("--kills, --at-once and --takeover must be positive")
    if not sys.warnoptions:
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(given))


async def _run(given: argparse.Namespace) -> int:
    wrong = 0
    for kind in [given.database] if given.database else BOTH:
        async with _databases(kind) as databases:
            if given.takeover is not None:
                await _takeovers(given.takeover, kind, databases)
            else:
                wrong += await _kills(given, kind, databases)
    return 1 if wrong else 0


@contextlib.asynccontextmanager
async def _databases(kind: str) -> AsyncIterator[Databases]:
    if kind == "postgresql":
        async with postgres_databases(POSTGRES) as made:
            yield made
        return
    with tempfile.TemporaryDirectory(prefix="otabrake-crash-") as folder:
        async with sqlite_files(Path(folder)) as made:
            yield made


async def _kills(given: argparse.Namespace, kind: str, databases: Databases) -> int:
    """How many kills had a complaint."""
    began = time.monotonic()

    def tell(episode: Episode) -> None:
        print(episode, f"({episode.seconds:.1f} s)", flush=True)

    chosen = [plan for plan in plans(given.kills, seed=given.seed) if not given.only or plan.number in given.only]
    episodes = await play_all(chosen, databases, at_once=given.at_once, told=tell)
    took = time.monotonic() - began
    print_report(f"**{kind}**, seed {given.seed}, {len(episodes)} flows in {took:.0f} s", episodes)
    return sum(bool(episode.complaints) for episode in episodes)


async def _takeovers(count: int, kind: str, databases: Databases) -> None:
    def tell(middle: str, seconds: float) -> None:
        print(f"{kind}: killed in the middle of a {middle}, gone on with after {seconds:.2f} s", flush=True)

    seconds = await measure_takeovers(databases, count=count, told=tell)
    middle, most = statistics.median(seconds), max(seconds)
    print(f"{kind}: takeover after kill -9, {count} kills: p50 {middle:.2f} s, max {most:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
