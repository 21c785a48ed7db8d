"""Records what a release leaves in its database: run in a checkout of it, with the release's own code.

    cd CHECKOUT && python RECORDING OUT.json       (RECORDING: the path of this file)

The release's bot runs between its own fakes, on a clock that stands until it is moved, and after each commit the whole
SQLite file is looked at. A moment is kept when its flow first comes to it: exactly what a `kill -9` after that commit
would have left. Rows are as they stand in the file; only bytes are written as text. What it does not do: know the
tables, or write a row by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

import httpx

from bot.sandbox.iot_faults import Fault, FaultKind
from bot.sandbox.server import Sandbox, sandbox
from bot.storage import database as storage
from bot.storage.tables import SCHEMA

Tables = dict[str, list[dict[str, Any]]]

STATIC, DYNAMIC = "7glPHmaDYLAYMD1HHutT02", "dYn4m1cRq2WsXe8RtGv501"
FIRMWARE, CONFIRMED = "Gw421aFq8LkT2nVb6Wc001", "C0nf1rmLp9OkMjUh7Yb601"
INCIDENT = "C0INCIDENT"
BECAUSE = "because 4.2.1 bricks gateways"
ONCALL, RELEASE, MEMBER = "U0ONCALLA1", "U0RELEASE1", "U0MEMBER01"
TASKS = "CancelOTATaskByJob"


class Clock:
    """Stands until it is moved; `sleep` moves it and returns at once."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 3, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        await asyncio.sleep(0)


def dump(path: Path) -> Tables:
    """All rows of the file as they are now."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        tables = [row["name"] for row in names if row["name"] not in ("alembic_version", "sqlite_sequence")]
        return {table: [_plain(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables}


def _plain(row: sqlite3.Row) -> dict[str, Any]:
    return {name: cell.decode() if isinstance(cell, bytes) else cell for name, cell in dict(row).items()}


class Camera:
    """Keeps the first moment of each name; `watch` says which proposal is looked at, and under which prefix."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.moments: dict[str, Tables] = {}
        self.messages: list[dict[str, Any]] = []
        self.prefix = ""
        self.wanted: frozenset[str] = frozenset()

    def look(self) -> None:
        if not self.wanted:
            return
        now = dump(self.path)
        for name in self._names(now):
            if name in self.wanted:
                self.moments.setdefault(f"{self.prefix}{name}", now)

    def _names(self, now: Tables) -> list[str]:
        names = [now["proposals"][-1]["state"]] if now["proposals"] else []
        opened = [json.loads(row["body"])["content"] for row in now["inbox"] if row["handled_at"] is None]
        names += ["click written"] if any("choice" in content for content in opened) else []
        names += ["ask written"] if any("operation" in content for content in opened) else []
        return names

    @contextlib.contextmanager
    def keeping(self, prefix: str, *names: str):
        self.prefix, self.wanted = prefix, frozenset(names)
        yield
        self.wanted = frozenset()


def install(camera: Camera) -> None:
    """Looks after each commit, in the writer's own thread, before anybody hears of it."""
    commit = storage.SqliteDatabase._commit

    def committed(self: Any, batch: Any) -> None:
        commit(self, batch)
        camera.look()

    storage.SqliteDatabase._commit = committed


def _message(message: Any) -> dict[str, Any]:
    """A message as it stands in the fake Slack: what people still see, and click, after the upgrade."""
    kept = ("channel", "ts", "user", "text", "blocks", "bot_id", "thread_ts", "is_broadcast", "edited_ts", "metadata")
    return {name: getattr(message, name) for name in kept}


class Person:
    def __init__(self, at: Sandbox, http: httpx.AsyncClient, user: str) -> None:
        self.at, self.http, self.user = at, http, user

    async def _does(self, gesture: str, **what: Any) -> None:
        answer = await self.http.post(f"{self.at.slack_url}/_sandbox/{gesture}", json={"user": self.user} | what)
        assert answer.status_code == 200, answer.text
        for _ in range(3):
            await self.at.bot.road.drain()
            await self.at.bot.notifier.drain()

    async def types(self, text: str) -> None:
        await self._does("command", channel=INCIDENT, text=f"/ota {text}")

    async def clicks(self, action: str = "proposal.confirm") -> None:
        [*_, card] = [one for one in self.at.slack.workspace.messages(INCIDENT) if one.thread_ts is None]
        buttons = self.at.slack.workspace.messages(INCIDENT, card.ts)[1]
        await self._does("click", channel=INCIDENT, ts=buttons.ts, action_id=action)


@contextlib.asynccontextmanager
async def scene(path: Path) -> AsyncIterator[tuple[Sandbox, Callable[[str], Person]]]:
    clock = Clock()
    options: dict[str, Any] = {"clock": clock, "sleep": clock.sleep, "database_url": f"sqlite:///{path}"}
    if SCHEMA == "0001":
        from bot.alibaba.budget import Budget
        from tests.test_app import AtOnce

        options["budget"] = Budget(timer=AtOnce())
    else:
        from tests.slots import OpenSlots

        options["slots"] = OpenSlots
    async with httpx.AsyncClient(timeout=20) as http, sandbox(**options) as at:
        yield at, lambda user: Person(at, http, user)


async def budgeted(at: Sandbox) -> None:
    """One call's place in the budget, which the flows do not take from the database: its seconds are real ones."""
    from bot.ports import Lane
    from bot.storage.slots import SqlSlots

    lane = Lane("sandbox", "QueryOTAJob", 5)
    await SqlSlots(at.bot.database).claim(lane, foreground=2, background=0, hold_seconds=5)


async def discovered(at: Sandbox) -> None:
    """What discovery learns of one package, with its own reads and its own way to keep them."""
    means = at.bot.road._means
    [package] = await means.reads.fetch_firmware("prod-shanghai", firmware_id=FIRMWARE)
    jobs = await means.reads.fetch_jobs_of("prod-shanghai", FIRMWARE)
    await means.found.save_found("prod-shanghai", [package], jobs, seen_at=means.clock())


async def lived_in(person: Callable[[str], Person]) -> None:
    """What an ordinary day leaves: a read, a no, a proposal that was dismissed."""
    await person(ONCALL).types(f"status {STATIC}")
    await person(MEMBER).types(f"cancel {STATIC} on prod-shanghai")
    await person(ONCALL).types(f"cancel {CONFIRMED} {BECAUSE}")
    await person(ONCALL).clicks("proposal.dismiss")


async def cancelled(path: Path, camera: Camera) -> None:
    """One cancel from its command to its last line, and the messages that stand while it waits."""
    async with scene(path) as (at, person):
        if SCHEMA != "0001":
            await budgeted(at)
            await discovered(at)
        await lived_in(person)
        with camera.keeping("cancel: ", "ask written", "received", "offered"):
            await person(ONCALL).types(f"cancel {STATIC} {BECAUSE}")
        camera.moments["cancel: waiting"] = dump(path)
        camera.messages = [_message(one) for one in at.slack.workspace.messages(INCIDENT)]
        camera.messages += [
            _message(reply)
            for one in at.slack.workspace.messages(INCIDENT)
            for reply in at.slack.workspace.messages(INCIDENT, one.ts)[1:]
        ]
        with camera.keeping("cancel: ", "click written", "approved", "calling", "following"):
            await person(ONCALL).clicks()
        camera.moments["cancel: over"] = dump(path)


async def halted(path: Path, camera: Camera) -> None:
    """A halt of a dynamic batch, both of whose answers are lost."""
    async with scene(path) as (at, person):
        await person(ONCALL).types(f"halt {DYNAMIC} {BECAUSE}")
        for action in ("CancelOTAStrategyByJob", TASKS):
            at.iot.state.faults.add(Fault(FaultKind.ACCEPT_THEN_CLOSE, action=action, calls=1))
        with camera.keeping("halt: ", "calling", "unknown", "following"):
            await person(ONCALL).clicks()


async def halted_firmware(path: Path, camera: Camera) -> None:
    """All batches of a package."""
    async with scene(path) as (at, person):
        await person(ONCALL).types(f"halt firmware {FIRMWARE} on prod-shanghai {BECAUSE}")
        camera.moments["firmware: waiting"] = dump(path)
        at.iot.state.faults.add(Fault(FaultKind.ACCEPT_THEN_CLOSE, action=TASKS, calls=1))
        with camera.keeping("firmware: ", "calling", "unknown", "following"):
            await person(ONCALL).clicks()


async def retried(path: Path, camera: Camera) -> None:
    """What was cancelled runs again; and a rate is changed."""
    async with scene(path) as (at, person):
        await person(ONCALL).types(f"cancel {STATIC} {BECAUSE}")
        await person(ONCALL).clicks()
        await person(RELEASE).types(f"retry {STATIC} --cancelled --limit 15 because 4.2.2 is mended")
        camera.moments["retry: waiting"] = dump(path)
        at.iot.state.faults.add(Fault(FaultKind.ACCEPT_THEN_CLOSE, action="ReupgradeOTATask", calls=1))
        with camera.keeping("retry: ", "calling", "unknown", "following"):
            await person(RELEASE).clicks()
        await person(ONCALL).types(f"rate {DYNAMIC} 10 {BECAUSE}")
        camera.moments["rate: waiting"] = dump(path)


FLOWS = {"0001": (cancelled, halted), "0003": (cancelled, halted, halted_firmware, retried)}


def main(out: Path) -> None:
    kept: dict[str, Tables] = {}
    messages: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, flow in enumerate(FLOWS[SCHEMA]):
            camera = Camera(Path(folder) / f"{number}.db")
            install(camera)
            asyncio.run(flow(camera.path, camera))
            kept |= camera.moments
            messages += camera.messages
    recorded = {**pooled(kept), "messages": messages}
    out.write_text(json.dumps(recorded, ensure_ascii=False, indent=0) + "\n")


def pooled(kept: dict[str, Tables]) -> dict[str, Any]:
    """Each row once: a moment is the places of its rows."""
    rows: dict[str, int] = {}
    moments = {
        name: [
            rows.setdefault(json.dumps([table, row], ensure_ascii=False), len(rows))
            for table, those in tables.items()
            for row in those
        ]
        for name, tables in kept.items()
    }
    return {"revision": SCHEMA, "moments": moments, "rows": [json.loads(row) for row in rows]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
