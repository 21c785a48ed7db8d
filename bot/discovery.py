"""Discovery: which packages and which batches there are, learnt in the background and kept, so that no list waits.

A round looks at one instance: its packages, then the batches of the newest ones, a call at a time and in the lowest
class of the call budget. A package on which nothing runs and nothing is new is looked into less often. What is kept
says when it was seen, and nothing here decides anything. What it does not do: count devices, or look into packages
beyond the newest; what was known of those stays as it was seen, and is forgotten after a month.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from bot.errors import CloudError, CloudRefused, StoreUnavailable
from bot.model import Firmware, Instance, Job, JobState, Target
from bot.ports import CloudReads, Found, FoundJob, Purpose, Watched

NEWEST = 50
"""How many packages of an instance are looked into."""

_OVER = (JobState.COMPLETED, JobState.CANCELED)


class Turns(Protocol):
    """The part of `Readings` by which one of several processes goes round an instance at a time."""

    async def may_read(self, watched: Watched, *, hold_seconds: float) -> float: ...

    async def put_off(self, watched: Watched, *, pause_seconds: float) -> None: ...


class Log(Protocol):
    """The part of a structlog logger that discovery needs."""

    def info(self, event: str, **facts: object) -> object: ...

    def error(self, event: str, **facts: object) -> object: ...


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Spans in seconds, and how many failures a round bears. `new_seconds` is how long a package or batch is new."""

    tick_seconds: float = 5
    round_seconds: float = 60
    most_seconds: float = 600
    hold_seconds: float = 60
    quiet_seconds: float = 600
    new_seconds: float = 86_400
    kept_seconds: float = 30 * 86_400
    failures: int = 3


@dataclass(frozen=True, slots=True)
class Tools:
    """What rounds work with; `wiring` makes it, tests make their own. `instances` are those of the policy now."""

    reads: CloudReads
    found: Found
    turns: Turns
    instances: Callable[[], Mapping[str, Instance]]
    clock: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
    log: Log
    rhythm: Rhythm = field(default_factory=Rhythm)


@dataclass(slots=True)
class _Course:
    """How it goes with one instance in this process.

    `asked_at`: when the batches of a package were last asked for. `refused`: packages whose batches could not be had.
    `told`: what went wrong since all was well, so that it is told once.
    """

    due_at: datetime
    pause_seconds: float
    asked_at: dict[str, datetime] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)


class Discovery:
    """Owns the rounds. Use it as a context: `async with Discovery(tools)`; it stops at once."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._courses: dict[str, _Course] = {}
        self._rounds: dict[str, asyncio.Task[None]] = {}
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Discovery:
        self._ticker = asyncio.create_task(self._tick_on(), name="discovery")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        tasks = [*([self._ticker] if self._ticker else []), *self._rounds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def behind(self) -> tuple[str, ...]:
        """The instances of which something could not be read when it was tried last."""
        return tuple(name for name, course in self._courses.items() if course.told)

    async def drain(self) -> None:
        """Waits until no round is under way."""
        while self._rounds:
            await asyncio.gather(*self._rounds.values(), return_exceptions=True)

    async def _tick_on(self) -> None:
        while True:
            self.tick()
            await self._tools.sleep(self._tools.rhythm.tick_seconds)

    def tick(self) -> None:
        """Begins a round for every instance that is due and has none under way: none of them waits for another."""
        now, rhythm = self._tools.clock(), self._tools.rhythm
        known = self._courses
        self._courses = {
            name: known.get(name) or _Course(now, rhythm.round_seconds) for name in self._tools.instances()
        }
        for name, course in self._courses.items():
            is_later = now < course.due_at <= now + timedelta(seconds=rhythm.most_seconds)
            if not is_later and name not in self._rounds:
                self._begin(name, course)

    def _begin(self, name: str, course: _Course) -> None:
        task = asyncio.create_task(_go_round(self._tools, name, course), name=f"discovery of {name}")
        self._rounds[name] = task
        task.add_done_callback(lambda _: self._rounds.pop(name, None))


async def _go_round(tools: Tools, name: str, course: _Course) -> None:
    """One boundary around a round: trouble makes the next one later, and ends no other."""
    began_at = tools.clock()
    try:
        wait = await tools.turns.may_read(Watched(Target(name)), hold_seconds=tools.rhythm.hold_seconds)
        if wait == 0:
            wait = await _Round(tools, name, course, began_at).go()
    except StoreUnavailable:
        wait = _later(tools, name, course, {"the database cannot be used"})
    except Exception as error:  # whatever it was, the next round is tried
        if (fault := type(error).__name__) not in course.told:
            tools.log.error("discovery failed", instance=name, exc_info=error)
        wait = _later(tools, name, course, {fault})
    course.due_at = began_at + timedelta(seconds=wait)


def _later(tools: Tools, name: str, course: _Course, troubles: set[str]) -> float:
    """Seconds until the next round after one that was given up: each time twice as many."""
    course.pause_seconds = min(course.pause_seconds * 2, tools.rhythm.most_seconds)
    _tell(tools, name, course, troubles)
    return course.pause_seconds


def _tell(tools: Tools, name: str, course: _Course, troubles: set[str]) -> None:
    """What goes wrong is told once, and once that all is well again."""
    if course.told and not troubles:
        tools.log.info("discovery is well again", instance=name)
        course.told.clear()
    for trouble in sorted(troubles - course.told):
        tools.log.error("discovery is behind", instance=name, why=trouble, next_seconds=course.pause_seconds)
    course.told |= troubles


class _Round:
    """One look at one instance."""

    def __init__(self, tools: Tools, name: str, course: _Course, began_at: datetime) -> None:
        self._tools = tools
        self._name = name
        self._course = course
        self._began_at = began_at
        self._held_at = began_at

    async def go(self) -> float:
        """Seconds from its beginning until the next one."""
        try:
            listed = await self._tools.reads.fetch_firmware(self._name, purpose=Purpose.DISCOVERY)
        except CloudError as error:
            return _later(self._tools, self._name, self._course, {_trouble(error)})
        newest = listed[:NEWEST]
        await self._tools.found.save_found(self._name, newest, (), seen_at=self._began_at)
        known = await self._tools.found.fetch_found_jobs([self._name])
        troubles = []
        for firmware in self._due(newest, known):
            await self._hold()
            troubles += await self._look_into(firmware)
            if len(troubles) >= self._tools.rhythm.failures:
                return _later(self._tools, self._name, self._course, set(troubles))
        return await self._end(newest, set(troubles))

    async def _end(self, newest: Sequence[Firmware], troubles: set[str]) -> float:
        tools, course = self._tools, self._course
        await tools.found.forget_unseen(self._name, before=self._began_at - _span(tools.rhythm.kept_seconds))
        names = {firmware.firmware_id for firmware in newest}
        course.asked_at = {name: at for name, at in course.asked_at.items() if name in names}
        course.refused &= names
        course.pause_seconds = tools.rhythm.round_seconds
        _tell(tools, self._name, course, troubles)
        left = course.pause_seconds - (tools.clock() - self._began_at).total_seconds()
        await tools.turns.put_off(Watched(Target(self._name)), pause_seconds=max(0.0, left))
        return course.pause_seconds

    def _due(self, newest: Sequence[Firmware], known: Sequence[FoundJob]) -> list[Firmware]:
        """The packages to look into, the newest first; one that was refused before comes last."""
        jobs: dict[str, list[FoundJob]] = defaultdict(list)
        for found in known:
            jobs[found.job.firmware_id].append(found)
        due = [firmware for firmware in newest if self._is_due(firmware, jobs[firmware.firmware_id])]
        return sorted(due, key=lambda firmware: firmware.firmware_id in self._course.refused)

    def _is_due(self, firmware: Firmware, jobs: Sequence[FoundJob]) -> bool:
        """A quiet package waits, by what this process or another one saw last."""
        asked = self._course.asked_at.get(firmware.firmware_id)
        looks = [found.seen_at for found in jobs] + ([asked] if asked is not None else [])
        if not looks or not self._is_quiet(firmware, [found.job for found in jobs]):
            return True
        return self._began_at - max(looks) >= _span(self._tools.rhythm.quiet_seconds)

    def _is_quiet(self, firmware: Firmware, jobs: Sequence[Job]) -> bool:
        """Nothing runs, and nothing was made lately, as far as is known."""
        made = [each for each in (firmware.created_at, *(job.created_at for job in jobs)) if each is not None]
        is_old = bool(made) and self._began_at - max(made) > _span(self._tools.rhythm.new_seconds)
        return is_old and all(job.state in _OVER for job in jobs)

    async def _look_into(self, firmware: Firmware) -> list[str]:
        """What went wrong, if anything did: one package that cannot be read does not hide the others."""
        asked_at = self._tools.clock()
        try:
            listed = await self._tools.reads.fetch_jobs_of(self._name, firmware.firmware_id, purpose=Purpose.DISCOVERY)
        except CloudError as error:
            self._course.refused.add(firmware.firmware_id)
            return [_trouble(error)]
        self._course.refused.discard(firmware.firmware_id)
        self._course.asked_at[firmware.firmware_id] = asked_at
        jobs = [_with_names(job, firmware) for job in listed]
        await self._tools.found.save_found(self._name, (firmware,), jobs, seen_at=asked_at)
        return []

    async def _hold(self) -> None:
        """Keeps the turn during a long round; nothing breaks if it is lost, two processes only ask the same."""
        now = self._tools.clock()
        if now - self._held_at >= _span(self._tools.rhythm.hold_seconds / 3):
            self._held_at = now
            turn = Watched(Target(self._name))
            await self._tools.turns.put_off(turn, pause_seconds=self._tools.rhythm.hold_seconds)


def _with_names(job: Job, firmware: Firmware) -> Job:
    """A list of batches does not tell what they install; the package that it was asked of does."""
    return replace(
        job,
        firmware_id=job.firmware_id or firmware.firmware_id,
        firmware=job.firmware or firmware.name,
        product=job.product or firmware.product,
        dest_version=job.dest_version or firmware.dest_version,
    )


def _trouble(error: CloudError) -> str:
    """What went wrong, in words that are the same each time: the cloud's own text may hold what is not for a log."""
    return error.code if isinstance(error, CloudRefused) else type(error).__name__


def _span(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
