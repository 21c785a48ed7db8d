"""The tasks of a rollout of a million devices, without a million objects.

A few hundred *profiles* are drawn, and device `n` behaves like profile `n` modulo their number. When a device is made
and when it is notified are straight lines in `n` (`lines`), so in each profile the devices of one state are neighbours,
and counting them is arithmetic. A cut splits a profile into spans; what concerns single devices (named in a cancel, run
again) becomes a task object, taken out of its span. Only these two grow with the calls that are made, nothing grows
with the devices.

It differs from `TaskList` in four things: shares are exact to one profile only, cancelled devices don't return to a
dynamic rollout, the order of the latest change is that of numbers, and a changed timeout is shown but not kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from heapq import merge
from random import Random

from bot.model import TaskState
from bot.sandbox.bands import Band, Profile, bands_of
from bot.sandbox.courses import DRAWS, Course, Cut, Task, planned, stable_id
from bot.sandbox.facts import Facts
from bot.sandbox.habits import TaskOrder
from bot.sandbox.spans import Span, ranked
from bot.sandbox.task_list import IndexedTasks

PROFILES = 500
_MASK = 0x5DEECE66


class VastTasks:
    """The same as `TaskList`, by formulas."""

    def __init__(self, facts: Facts, course: Course, *, seed: int) -> None:
        self._facts = facts
        self._course = course
        draw = Random(f"{seed}/{facts.job_id}").random  # noqa: S311 - a game of chance, not a secret
        drawn = [
            planned(number, "", course, created_at=0.0, told_at=0.0, draws=[draw() for _ in range(DRAWS)])
            for number in range(PROFILES)
        ]
        self._bands = bands_of(facts, course, [Profile.of(task) for task in drawn])
        self._width = max(5, len(str(facts.first_device + self._bands[-1].end)))
        self._singled = IndexedTasks()

    def counts(self, now: float) -> dict[TaskState, int]:
        counts = self._singled.counts(now)
        for band in self._bands:
            band.count(now, counts)
        return counts

    def tasks(
        self, now: float, *, state: TaskState | None = None, names: Collection[str] | None = None
    ) -> Iterator[Task]:
        """The tasks that exist at `now`, in the order of their numbers, each made when it is asked for."""
        if names is not None:
            numbers = sorted({number for name in names if (number := self._number(name, now)) is not None})
            found = (self._task(number) for number in numbers)
            return (task for task in found if state is None or task.move_at(now)[1] is state)
        if state is None:
            return (self._task(number) for number in self._existing(now))
        return (self._task(number) for number in merge(*(span.numbers for span in self._spans(now, state))))

    def page(self, now: float, *, state: TaskState | None, order: TaskOrder, first: int, size: int) -> list[Task]:
        spans = [Span(band.first, band.existing(now), 1) for band in self._bands]
        if state is not None:
            spans = self._spans(now, state)
        total = sum(len(span.numbers) for span in spans)
        last = min(first + size, total)
        if order is TaskOrder.NEWEST:
            first, last = max(0, total - first - size), total - first
        found = [self._task(number) for number in ranked(spans, first, last)] if first < last else []
        return found[::-1] if order is TaskOrder.NEWEST else found

    def names(self, now: float) -> Iterator[str]:
        return (self._name(number) for number in self._existing(now))

    def last_move(self, now: float) -> float:
        """When a task last moved; the moment of creation if there is none."""
        moved = (task.move_at(now)[0] for task in self._singled.existing(now))
        return max([self._facts.created_at, *moved, *(band.last_move(now) for band in self._bands)])

    def cut(self, cut: Cut) -> int:
        """Closes what the cut hits. Devices that it names are singled out first."""
        if cut.names is None:
            return len(self._singled.cut(cut)) + sum(band.cut(cut) for band in self._bands)
        hit = [task for task in self.tasks(cut.now, names=cut.names) if cut.hits(task)]
        self.put([cut.applied(task) for task in hit])
        return len(hit)

    def put(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            self._band(task.number).single_out(task.number)
        self._singled.put(tasks)

    def set_course(self, now: float, course: Course) -> None:
        """Devices that wait are notified at the rate of `course`, one by one: those that were singled out first."""
        if course.per_minute == self._course.per_minute:
            return
        self._course = course
        step, start = 60 / course.per_minute, max(now, self._facts.starts_at)
        start += step * self._singled.tell_anew(now, start + step, step)
        for band in self._bands:
            start = band.tell_anew(now, start, step)

    def stop_finding(self, now: float) -> None:
        """No more devices are found."""
        for band in self._bands:
            band.stop(now)

    def task_id(self, number: int) -> str:
        """An id from which the number can be had back: nobody keeps a million of them."""
        return f"{self._id_prefix}{number ^ _MASK:08x}"

    def with_id(self, task_id: str, now: float) -> Task | None:
        prefix, number = task_id[:14], task_id[14:]
        if prefix != self._id_prefix or len(number) != 8 or set(number) - set("0123456789abcdef"):
            return None
        found = int(number, 16) ^ _MASK
        return self._task(found) if self._exists(found, now) else None

    @property
    def _id_prefix(self) -> str:
        return stable_id(self._facts.job_id, 14)

    def _band(self, number: int) -> Band:
        return next(band for band in self._bands if number < band.end)

    def _exists(self, number: int, now: float) -> bool:
        return 0 <= number < self._bands[-1].end and number < self._band(number).existing(now)

    def _existing(self, now: float) -> Iterator[int]:
        for band in self._bands:
            yield from range(band.first, band.existing(now))

    def _name(self, number: int) -> str:
        return f"{self._facts.device_prefix}{self._facts.first_device + number:0{self._width}d}"

    def _number(self, name: str, now: float) -> int | None:
        digits = name.removeprefix(self._facts.device_prefix)
        if not (digits.isascii() and digits.isdigit()) or len(digits) > self._width:
            return None
        number = int(digits) - self._facts.first_device
        return number if self._exists(number, now) and self._name(number) == name else None

    def _task(self, number: int) -> Task:
        singled = self._singled.rows
        place = bisect_left(singled, number, key=lambda task: task.number)
        if place < len(singled) and singled[place].number == number:
            return singled[place]
        return self._band(number).task(number, self._name(number))

    def _spans(self, now: float, state: TaskState) -> list[Span]:
        """Where the devices in `state` are; each singled one is a span of its own."""
        single = [
            Span(task.number, task.number + 1, 1)
            for task in self._singled.existing(now)
            if task.move_at(now)[1] is state
        ]
        return [*single, *(span for band in self._bands for span in band.spans(now, state))]
