"""`python -m tests.bench [ack|click|start|flows …] [--rounds N] [--seconds S]`: measures and prints; see README.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.machine import Broken, all_cores, cores, loop_factory

PARTS = ("ack", "click", "start", "budget", "preview", "flows", "full")


def main() -> int:
    """0: measured, whatever came out of it. 1: something broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="The numbers of otabrake's road.")
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS), help="what to measure; without it, all")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds (default 7)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of load for each server in each round of ack")
    parser.add_argument("--clicks", type=int, default=30, help="for each variant in each round of click")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}")
    if given.rounds < 1 or given.clicks < 1 or given.seconds <= 0:
        parser.error("--rounds, --clicks and --seconds must be positive")
    _say_where()
    if not sys.warnoptions:
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="otabrake-bench-", ignore_cleanup_errors=True) as folder,
            asyncio.Runner(loop_factory=loop_factory()) as runner,
        ):
            runner.run(_measure(given, Path(folder)))
    except Broken as error:
        print(f"broken: {error}", file=sys.stderr)
        return 1
    return 0


async def _measure(given: argparse.Namespace, folder: Path) -> None:
    parts = given.parts or list(PARTS)
    all_cores()
    _stay_off_the_server()
    began = time.monotonic()
    if "ack" in parts:
        from tests.bench import ack

        await ack.measure(folder, rounds=given.rounds, seconds=given.seconds)
    if "click" in parts:
        from tests.bench import click

        await click.measure(folder, rounds=given.rounds, clicks=given.clicks)
    if "start" in parts:
        from tests.bench import start

        await start.measure(folder, rounds=given.rounds)
    if "budget" in parts:
        from tests.bench import budget

        await budget.measure(folder, rounds=given.rounds)
    if "preview" in parts:
        from tests.bench import preview

        await preview.measure(folder, rounds=given.rounds)
    if "flows" in parts:
        from tests.bench import flows

        await flows.measure(folder, rounds=given.rounds)
    if "full" in parts:
        from tests.bench import full

        await full.measure(folder, rounds=given.rounds, seconds=given.seconds)
    print(f"\nTook {time.monotonic() - began:.0f} s; load average now {_load()}.")


def _stay_off_the_server() -> None:
    """This process (with the fake Slack in it) shares the core of the load generator."""
    if (core := cores()[1]) is not None:
        os.sched_setaffinity(0, {core})


def _say_where() -> None:
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {platform.platform()}")
    print(f"server on core {cores()[0]}, everything else on core {cores()[1]}; load average {_load()}")


def _load() -> str:
    return ", ".join(f"{each:.2f}" for each in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"


if __name__ == "__main__":
    sys.exit(main())
