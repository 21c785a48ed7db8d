"""One rollout of the simulated fleet: its state, its settings, and what a cancel does to its tasks.

The tasks are a list of objects, or formulas where there are too many devices for that; both are functions of the time,
so the same seed, clock and calls give the same fleet. It knows no HTTP and no parameters, and it doesn't keep one
device out of two rollouts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from math import inf
from random import Random

from bot.model import OPEN_STATES, JobKind, JobState, TaskState
from bot.sandbox.courses import DRAWS, Course, Cut, Heeding, Task, run_again
from bot.sandbox.facts import Facts, Settings
from bot.sandbox.habits import AtFinish, Habits
from bot.sandbox.task_list import TaskList
from bot.sandbox.vast_tasks import VastTasks

LISTED_AT_MOST = 20_000
"""So many devices are objects; for more of them the draws would take longer than a test may."""

_AT_FINISH = {AtFinish.CANCEL: TaskState.CANCELED, AtFinish.FAIL: TaskState.FAILED}


class Rollout:
    """A batch and its tasks. Reads and cancels take the time; a read never changes what another read sees."""

    def __init__(self, facts: Facts, course: Course, *, seed: int, habits: Habits) -> None:
        self.facts = facts
        self.course = course
        self.settings = Settings(course.per_minute, course.timeout_minutes, facts.src_versions, facts.tags)
        self.habits = habits
        self._seed = seed
        self._strategy_cancelled_at = inf
        self._tasks_cancelled_at = inf
        self._changed_at = [facts.created_at, facts.starts_at]
        self._is_window_over = False
        self._reruns = 0
        finds_more = facts.kind is JobKind.DYNAMIC and course.enrol_per_minute > 0
        at_most = max(course.devices, course.enrol_at_most if finds_more else 0)
        kind = VastTasks if at_most > LISTED_AT_MOST else TaskList
        self._tasks: TaskList | VastTasks = kind(facts, course, seed=seed)

    def counts(self, now: float) -> dict[str, int]:
        """How many tasks are in each state."""
        self._settle(now)
        return {state.value: count for state, count in self._tasks.counts(now).items()}

    def state(self, now: float) -> JobState:
        if now >= self._strategy_cancelled_at:
            return JobState.CANCELED
        is_static = self.facts.kind is not JobKind.DYNAMIC
        is_cancelled = now >= self._tasks_cancelled_at
        if is_static and is_cancelled and self.habits.cancels_job_at_once:
            return JobState.CANCELED
        counts = self.counts(now)
        if is_static and not any(counts[state] for state in OPEN_STATES):
            ended = self.habits.state_after_cancel if is_cancelled else JobState.COMPLETED
            if ended is not JobState.IN_PROGRESS:
                return ended
        if self.facts.finishes_at is not None and now >= self.facts.finishes_at:
            return JobState.COMPLETED
        return JobState.PLANNED if self.is_planned(now) else JobState.IN_PROGRESS

    def is_planned(self, now: float) -> bool:
        """Whether the hour of a scheduled rollout has not come."""
        return self.facts.kind is JobKind.SCHEDULED and now < self.facts.starts_at

    def has_strategy(self, now: float) -> bool:
        """Whether a dynamic rollout still finds devices."""
        return self.facts.kind is JobKind.DYNAMIC and now < self._strategy_cancelled_at

    def changed_at(self, now: float) -> float:
        """When the rollout last changed: by a call, or by its start."""
        return max((at for at in self._changed_at if at <= now), default=self.facts.created_at)

    def ended_at(self, now: float) -> float | None:
        """When the rollout ended, if it has."""
        if self.state(now) not in (JobState.COMPLETED, JobState.CANCELED):
            return None
        return self._strategy_cancelled_at if self._strategy_cancelled_at <= now else self._tasks.last_move(now)

    def tasks(
        self, now: float, *, state: TaskState | None = None, names: Collection[str] | None = None
    ) -> Iterator[Task]:
        """The tasks that exist at `now`, in the order of their numbers."""
        self._settle(now)
        return self._tasks.tasks(now, state=state, names=names)

    def page(self, now: float, *, state: TaskState | None = None, first: int, size: int) -> list[Task]:
        """`size` tasks in the order of this cloud, without the `first` ones."""
        self._settle(now)
        return self._tasks.page(now, state=state, order=self.habits.task_order, first=first, size=size)

    def names(self, now: float) -> Iterator[str]:
        """The names of the devices that have a task."""
        return self._tasks.names(now)

    def task_id(self, task: Task) -> str:
        return self._tasks.task_id(task.number)

    def with_id(self, task_id: str, now: float) -> Task | None:
        """The task of an id, if it is one of this rollout's."""
        self._settle(now)
        return self._tasks.with_id(task_id, now)

    def cancel_tasks(self, states: Collection[TaskState], now: float, *, names: Collection[str] | None = None) -> int:
        """Cancels the tasks that are in `states` at `now` (of devices in `names`), and says how many will obey.

        The cloud marks them after its lag, if they are still open then. A dynamic rollout may take cancelled devices
        back, as new tasks.
        """
        self._settle(now)
        habits = self.habits
        cut_at, back_after = now + habits.cancel_lag_seconds, habits.return_after_seconds
        hit = self._tasks.cut(
            Cut(
                now=now,
                at=cut_at,
                states=states,
                names=names,
                heeding=Heeding.BY_COURSE if habits.stops_told_devices else Heeding.NOBODY,
                returns_at=None if back_after is None or not self.has_strategy(now) else cut_at + back_after,
            )
        )
        if names is None:
            self._tasks_cancelled_at = min(self._tasks_cancelled_at, cut_at)
        self._changed_at.append(cut_at)
        return hit

    def cancel_strategy(self, now: float) -> None:
        """A dynamic rollout finds no more devices. Tasks that exist go on."""
        self._strategy_cancelled_at = min(self._strategy_cancelled_at, now)
        self._tasks.stop_finding(now)
        self._changed_at.append(now)

    def run_again(self, tasks: Sequence[Task], now: float, *, state: TaskState) -> None:
        """The devices begin anew in `state`, which is CONFIRM if the rollout wants every device confirmed."""
        self._reruns += 1
        fresh: list[Task] = []
        for task in tasks:
            draw = Random(f"{self._seed}/{self.facts.job_id}/{task.number}/{self._reruns}").random  # noqa: S311 - as in task_list
            told_at = max(now, self.facts.starts_at) + 60 / self.settings.per_minute
            draws = [draw() for _ in range(DRAWS)]
            fresh.append(run_again(task, state, self.course, now=now, told_at=told_at, draws=draws))
        self._tasks.put(fresh)
        self._changed_at.append(now)

    def change_settings(self, settings: Settings, now: float) -> None:
        """From now on, devices that wait are notified at the rate of `settings`."""
        self._settle(now)
        self.settings = settings
        self.course = replace(self.course, per_minute=settings.per_minute, timeout_minutes=settings.timeout_minutes)
        self._tasks.set_course(now, self.course)
        self._changed_at.append(now)

    def _settle(self, now: float) -> None:
        """Does what the end of the window does, once it has come."""
        finishes_at, end = self.facts.finishes_at, _AT_FINISH.get(self.habits.at_schedule_finish)
        if finishes_at is None or now < finishes_at or self._is_window_over:
            return
        self._is_window_over = True
        if end is not None:
            self._tasks.cut(Cut(finishes_at, finishes_at, OPEN_STATES, end=end, heeding=Heeding.EVERYBODY))
