"""Where a victim may die: before, in and after each commit, and before, during and after each call and each post.

The victim's own classes are wrapped, so nothing of this lives in `bot`. Points are counted in the order in which they
are passed; at the one that it was told, the process ends itself with SIGKILL: no `finally`, no farewell. What discovery
does in the background is not counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

from bot.alibaba.cloud import Cloud
from bot.alibaba.reads import Reads
from bot.discovery import Discovery
from bot.slack.attachments import Attachments
from bot.slack.messages import Messages
from bot.storage.database import PostgresDatabase, SqliteDatabase
from bot.storage.store import SqlStore
from bot.workflow.road import Road

CALL_ON_THE_WAY = ((0.020, "the call is on its way"), (0.055, "the answer is on its way"))
POST_ON_THE_WAY = ((0.012, "Slack has it, its answer is on its way"),)
"""So many seconds after sending; the world answers slowly enough that these are what they say."""

_READS = ("fetch_job", "fetch_counts", "fetch_tasks_of", "fetch_task_page")
_CLAIM = "SqlSlots.claim"
_BUDGET = (_CLAIM, "SqlSlots.release")
"""Places in the call budget: so many that only the end of a claim is a point, at which a place is held by the dead."""

_is_counted: ContextVar[bool] = ContextVar("is_counted", default=True)
_writing: ContextVar[str] = ContextVar("writing", default="")


class Points:
    """Counts the points of one kind (those whose names begin so) and dies at number `kill_at` (None: never).

    All that it passed stands in `told` afterwards.
    """

    def __init__(self, *, kind: str, kill_at: int | None, told: Path, is_counting: bool) -> None:
        self.is_counting = is_counting
        self._kind = kind
        self._kill_at = kill_at
        self._count = 0
        self._told = told
        self._passed: list[str] = []
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        with self._lock:
            if not self.is_counting:
                return
            self._passed.append(name)
            self._count += name.startswith(self._kind)
            if self._count == self._kill_at and name.startswith(self._kind):
                self.tell(name)
                os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, died: str | None = None) -> None:
        self._told.write_text(json.dumps({"died": died, "passed": self._passed}))


def watch(points: Points) -> None:
    """Wraps everything that has a point. Once in a process."""
    _watch_commits(points)
    for name in _READS:
        _wrap(Reads, name, partial(_around, points=points, name_of=_called(name)))
    for name in ("post", "update", "reply"):
        _wrap(Messages, name, partial(_around, points=points, name_of=_called(f"Slack {name}"), late=POST_ON_THE_WAY))
    _wrap(Cloud, "send", partial(_around, points=points, name_of=_name_of_call, late=CALL_ON_THE_WAY))
    _wrap(Attachments, "send", partial(_around, points=points, name_of=_name_of_file))
    _wrap(SqlStore, "save", _naming)
    _wrap(Discovery, "__aenter__", _uncounted)
    _wrap(Road, "receive", partial(_counting_from, points=points))


def _wrap(kind: type, name: str, around: Callable[[Any], Any]) -> None:
    setattr(kind, name, around(getattr(kind, name)))


def _called(name: str) -> Callable[[Sequence[Any]], str]:
    return lambda _: name


def _name_of_call(arguments: Sequence[Any]) -> str:
    return f"call {arguments[0].step.kind.value}"


def _name_of_file(arguments: Sequence[Any]) -> str:
    return f"file {arguments[0].kind.value}"


def _watch_commits(points: Points) -> None:
    def committing(commit: Callable[..., None]) -> Callable[..., None]:
        def watched(self: Any, batch: Sequence[Any], *more: Any) -> None:
            commit(self, batch, *more)
            for waiting in batch:
                if waiting.error is None:
                    _reach_committed(points, waiting.unit)

        return watched

    def writing(write: Callable[..., Any]) -> Callable[..., Any]:
        def watched(self: Any, unit: Any, *more: Any) -> Any:
            result = write(self, unit, *more)
            _reach_committed(points, unit)
            return result

        return watched

    _wrap(SqliteDatabase, "_commit", committing)
    _wrap(PostgresDatabase, "_write", writing)
    for kind in (SqliteDatabase, PostgresDatabase):
        _wrap(kind, "run", partial(_watched_run, points=points))


def _watched_run(run: Callable[..., Awaitable[Any]], *, points: Points) -> Callable[..., Awaitable[Any]]:
    async def watched(self: Any, unit: Callable[[Any], Any], **more: Any) -> Any:
        if not _is_counted.get():
            return await run(self, unit, **more)
        name = _writing.get() or _name_of(unit)
        if name in _BUDGET:
            result = await run(self, unit, **more)
            if name == _CLAIM:
                points.reach(f"committed: {name}")
            return result
        points.reach(f"before writing: {name}")

        def carried_out(connection: Any) -> Any:
            result = unit(connection)
            points.reach(f"written, not committed: {name}")
            return result

        carried_out.point = name  # type: ignore[attr-defined]
        return await run(self, carried_out, **more)

    return watched


def _reach_committed(points: Points, unit: Any) -> None:
    name = getattr(unit, "point", None)
    if name is not None:
        points.reach(f"committed: {name}")


def _name_of(unit: Callable[[Any], Any]) -> str:
    """`SqlStore.receive.<locals>.<lambda>` is SqlStore.receive."""
    inner = getattr(unit, "func", unit)
    return str(getattr(inner, "__qualname__", type(inner).__name__)).partition(".<locals>")[0]


def _around(
    carry_out: Callable[..., Awaitable[Any]],
    *,
    points: Points,
    name_of: Callable[[Sequence[Any]], str],
    late: Sequence[tuple[float, str]] = (),
) -> Callable[..., Awaitable[Any]]:
    """With a point before and one after, and so many seconds later those of `late`."""

    async def watched(self: Any, *arguments: Any, **named: Any) -> Any:
        if not _is_counted.get():
            return await carry_out(self, *arguments, **named)
        name, loop = name_of(arguments), asyncio.get_running_loop()
        points.reach(f"before: {name}")
        timers = [loop.call_later(seconds, points.reach, f"{what}: {name}") for seconds, what in late]
        try:
            return await carry_out(self, *arguments, **named)
        finally:
            for timer in timers:
                timer.cancel()
            points.reach(f"after: {name}")

    return watched


def _naming(save: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """What is committed is named after its first audit entry."""

    async def named(self: Any, transition: Any, *arguments: Any, **more: Any) -> Any:
        entries = transition.entries
        token = _writing.set(entries[0].name.value if entries else "what was read meanwhile")
        try:
            return await save(self, transition, *arguments, **more)
        finally:
            _writing.reset(token)

    return named


def _uncounted(begin: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The tasks that it starts inherit that they are not counted."""

    async def quiet(self: Any) -> Any:
        token = _is_counted.set(False)
        try:
            return await begin(self)
        finally:
            _is_counted.reset(token)

    return quiet


def _counting_from(receive: Callable[..., Awaitable[Any]], *, points: Points) -> Callable[..., Awaitable[Any]]:
    async def counting(self: Any, *arguments: Any, **named: Any) -> Any:
        points.is_counting = True
        return await receive(self, *arguments, **named)

    return counting
