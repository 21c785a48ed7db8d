"""The tasks of a rollout as a list of objects, with an index that makes counting a look-up.

For rollouts of up to some ten thousand devices, and for the exceptions of vast ones. The draws come from one stream, in
the order in which tasks are made.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Iterable, Iterator, Sequence
from random import Random

from bot.model import JobKind, TaskState
from bot.sandbox.courses import DRAWS, Course, Cut, Task, planned, stable_id, told_anew, waits_at
from bot.sandbox.facts import Facts
from bot.sandbox.habits import TaskOrder


class IndexedTasks:
    """Tasks, and when they entered and left each state."""

    def __init__(self) -> None:
        self.rows: list[Task] = []
        self._entered: dict[TaskState, list[float]] = {}
        self._left: dict[TaskState, list[float]] = {}
        self.index()

    def index(self) -> None:
        """To be called after `rows` changed. Counting is then a look-up in two sorted lists per state."""
        self._entered = {state: [] for state in TaskState}
        self._left = {state: [] for state in TaskState}
        for task in self.rows:
            before: TaskState | None = None
            for at, state in task.moves:
                self._entered[state].append(at)
                if before is not None:
                    self._left[before].append(at)
                before = state
        for times in (*self._entered.values(), *self._left.values()):
            times.sort()

    def counts(self, now: float) -> dict[TaskState, int]:
        return {
            state: bisect_right(self._entered[state], now) - bisect_right(self._left[state], now) for state in TaskState
        }

    def existing(self, now: float) -> Iterator[Task]:
        return (task for task in self.rows if task.created_at <= now)

    def cut(self, cut: Cut) -> list[Task]:
        """Closes what the cut hits, and says which tasks those were."""
        hit = [(place, task) for place, task in enumerate(self.rows) if cut.hits(task)]
        for place, task in hit:
            self.rows[place] = cut.applied(task)
        self.index()
        return [task for _, task in hit]

    def put(self, tasks: Iterable[Task]) -> None:
        """The tasks in the place of those with their numbers, or as new ones."""
        places = {task.number: place for place, task in enumerate(self.rows)}
        for task in tasks:
            if task.number in places:
                self.rows[places[task.number]] = task
            else:
                insort(self.rows, task, key=lambda row: row.number)
        self.index()

    def tell_anew(self, now: float, first_at: float, step: float) -> int:
        """Notifies the waiting devices from `first_at`, one a `step`; says how many there are."""
        waiting = [place for place, task in enumerate(self.rows) if waits_at(task, now)]
        for turn, place in enumerate(waiting):
            self.rows[place] = told_anew(self.rows[place], first_at + turn * step)
        self.index()
        return len(waiting)


class TaskList:
    """All tasks of a rollout, and those that a dynamic one is still to find."""

    def __init__(self, facts: Facts, course: Course, *, seed: int) -> None:
        self._facts = facts
        self._course = course
        self._random = Random(f"{seed}/{facts.job_id}")  # noqa: S311 - a game of chance, not a secret
        self._numbered = 0
        self._found = 0
        self._stops_finding_at: float | None = None
        self._last_told_at: float | None = None
        self._tasks = IndexedTasks()
        self._tasks.rows = [self._next_task(facts.created_at) for _ in range(course.devices)]
        self._tasks.index()

    def counts(self, now: float) -> dict[TaskState, int]:
        self._enrol(now)
        return self._tasks.counts(now)

    def tasks(
        self, now: float, *, state: TaskState | None = None, names: Collection[str] | None = None
    ) -> Iterator[Task]:
        """The tasks that exist at `now`, in the order of their numbers."""
        self._enrol(now)
        for task in self._tasks.existing(now):
            if (state is None or task.move_at(now)[1] is state) and (names is None or task.device_name in names):
                yield task

    def page(self, now: float, *, state: TaskState | None, order: TaskOrder, first: int, size: int) -> list[Task]:
        found = list(self.tasks(now, state=state))
        if order is TaskOrder.NEWEST:
            found.reverse()
        if order is TaskOrder.NAME:
            found.sort(key=lambda task: task.device_name)
        if order is TaskOrder.CHANGED:
            found.sort(key=lambda task: -task.move_at(now)[0])
        return found[first : first + size]

    def names(self, now: float) -> Iterator[str]:
        return (task.device_name for task in self.tasks(now))

    def last_move(self, now: float) -> float:
        """When a task last moved; the moment of creation if there is none."""
        return max((task.move_at(now)[0] for task in self._tasks.existing(now)), default=self._facts.created_at)

    def cut(self, cut: Cut) -> int:
        self._enrol(cut.now)
        hit = self._tasks.cut(cut)
        if cut.returns_at is not None and self._facts.kind is JobKind.DYNAMIC:
            self._tasks.rows += [self._next_task(cut.returns_at, device_name=task.device_name) for task in hit]
            self._tasks.index()
        return len(hit)

    def put(self, tasks: Sequence[Task]) -> None:
        self._tasks.put(tasks)

    def set_course(self, now: float, course: Course) -> None:
        """Tasks that are made from now on follow `course`; devices that wait are notified at its rate, one by one."""
        self._enrol(now)
        has_another_rate = course.per_minute != self._course.per_minute
        self._course = course
        if has_another_rate:
            step, start = 60 / course.per_minute, max(now, self._facts.starts_at)
            self._last_told_at = start + step * self._tasks.tell_anew(now, start + step, step)

    def stop_finding(self, now: float) -> None:
        """No more devices are found, and none that was to return does."""
        self._enrol(now)
        self._stops_finding_at = now
        self._tasks.rows = list(self._tasks.existing(now))
        self._tasks.index()

    def task_id(self, number: int) -> str:
        return stable_id(f"{self._facts.job_id}/{number}", 22)

    def with_id(self, task_id: str, now: float) -> Task | None:
        return next((task for task in self.tasks(now) if self.task_id(task.number) == task_id), None)

    def _enrol(self, now: float) -> None:
        """Adds the devices that a dynamic rollout has found by `now`."""
        course, facts = self._course, self._facts
        if facts.kind is not JobKind.DYNAMIC or course.enrol_per_minute <= 0:
            return
        until = now if self._stops_finding_at is None else min(now, self._stops_finding_at)
        found = int(max(0.0, until - facts.starts_at) * course.enrol_per_minute / 60)
        wanted = min(course.devices + found, course.enrol_at_most)
        if self._found >= wanted - course.devices:
            return
        while self._found < wanted - course.devices:
            self._found += 1
            self._tasks.rows.append(self._next_task(facts.starts_at + self._found * 60 / course.enrol_per_minute))
        self._tasks.index()

    def _next_task(self, created_at: float, *, device_name: str | None = None) -> Task:
        number = self._numbered
        self._numbered += 1
        slot = number if created_at <= self._facts.starts_at else 0
        told_at = max(created_at, self._facts.starts_at) + (slot + 1) * 60 / self._course.per_minute
        if self._last_told_at is not None:
            told_at = self._last_told_at = max(created_at, self._last_told_at) + 60 / self._course.per_minute
        name = device_name or f"{self._facts.device_prefix}{self._facts.first_device + number:05d}"
        draws = [self._random.random() for _ in range(DRAWS)]
        return planned(number, name, self._course, created_at=created_at, told_at=told_at, draws=draws)
