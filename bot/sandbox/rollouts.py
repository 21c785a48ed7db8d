"""One rollout of the simulated fleet: its tasks as a function of time.

Every task carries the moves it will make, computed once from a seed; what it is now is looked up. So nothing runs in
the background, and the same seed, clock and calls give the same fleet. A cancel cuts the moves of tasks that obey.

It knows no HTTP and no parameters, and it doesn't keep one device out of two rollouts. What the states mean:
https://help.aliyun.com/document_detail/202667.htm
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from random import Random

from bot.model import OPEN_STATES, JobKind, JobState, TaskState

Move = tuple[float, TaskState]

_DEVICE_TOLD = (TaskState.NOTIFIED, TaskState.IN_PROGRESS)
_STUCK_AT = 42.0
_FAILURES = (
    "report version is not conform",
    "upgrade failed",
    "download failed",
    "verification failed",
    "flash failed",
)


@dataclass(frozen=True, slots=True)
class Course:
    """How the devices of a rollout behave. Durations are middle values in seconds: each device takes 0.5 to 1.5 of it.

    `confirm_seconds` None: no confirmation is needed. Shares are between 0 and 1: `unconfirmed` devices are never
    confirmed, `silent` ones stay NOTIFIED, `stuck` ones stay IN_PROGRESS, `failing` ones end as FAILED, `ignoring` ones
    go on although a cancel named their state. (A device that was never told cannot ignore: CONFIRM and QUEUED always
    obey.) `enrol_per_minute` is how many devices a dynamic rollout finds while its strategy stands, until
    `enrol_at_most` tasks exist.
    """

    devices: int
    per_minute: float = 600.0
    answer_seconds: float = 8.0
    update_seconds: float = 18.0
    confirm_seconds: float | None = None
    unconfirmed: float = 0.0
    silent: float = 0.0
    stuck: float = 0.0
    failing: float = 0.0
    ignoring: float = 0.0
    timeout_minutes: int | None = None
    enrol_per_minute: float = 0.0
    enrol_at_most: int = 10_000

    def __post_init__(self) -> None:
        shares = (self.unconfirmed, self.silent, self.stuck, self.failing, self.ignoring)
        if self.devices < 0 or self.per_minute <= 0 or not all(0 <= share <= 1 for share in shares):
            raise ValueError("devices must be 0 or more, per_minute more than 0, shares between 0 and 1")


@dataclass(frozen=True, slots=True)
class Task:
    """One device in one rollout. `moves` is never empty; before its first move the task does not exist."""

    number: int
    device_name: str
    moves: tuple[Move, ...]
    ignores: bool = False
    ends_at: float = inf
    failure: str = ""

    @property
    def created_at(self) -> float:
        return self.moves[0][0]

    def move_at(self, now: float) -> Move:
        """The last move made by `now`."""
        made = self.moves[0]
        for move in self.moves:
            if move[0] > now:
                break
            made = move
        return made

    def progress_at(self, now: float) -> float:
        """Percent, as the device reports it."""
        changed_at, state = self.move_at(now)
        started_at = next((at for at, entered in self.moves if entered is TaskState.IN_PROGRESS and at <= now), None)
        if state is TaskState.SUCCEEDED:
            return 100.0
        if started_at is None:
            return 0.0
        if self.ends_at == inf:
            return _STUCK_AT
        seen_at = now if state is TaskState.IN_PROGRESS else changed_at
        return min(99.0, 100.0 * (seen_at - started_at) / (self.ends_at - started_at))


@dataclass(frozen=True, slots=True)
class Facts:
    """What is written on a rollout. Times are seconds since the epoch; `scheduled` ones start at `starts_at`."""

    job_id: str
    instance_id: str
    product_key: str
    firmware_id: str
    kind: JobKind
    created_at: float
    starts_at: float
    device_prefix: str
    first_device: int = 1
    description: str = ""
    target_selection: str = "ALL"
    gray_percent: str | None = None
    src_versions: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


class Rollout:
    """A batch and its tasks. Reads and cancels take the time; a read never changes what another read sees."""

    def __init__(self, facts: Facts, course: Course, *, seed: int, state_after_cancel: JobState) -> None:
        self.facts = facts
        self.course = course
        self._random = Random(f"{seed}/{facts.job_id}")  # noqa: S311 - a game of chance, not a secret
        self._state_after_cancel = state_after_cancel
        self._strategy_cancelled_at = inf
        self._tasks_cancelled_at = inf
        self._tasks: list[Task] = []
        self._numbered = 0
        self._found = 0
        self._entered: dict[TaskState, list[float]] = {}
        self._left: dict[TaskState, list[float]] = {}
        for _ in range(course.devices):
            self._tasks.append(self._next_task(facts.created_at))
        self._index()

    def counts(self, now: float) -> dict[str, int]:
        """How many tasks are in each state."""
        self._enrol(now)
        return {
            state.value: bisect_right(self._entered[state], now) - bisect_right(self._left[state], now)
            for state in TaskState
        }

    def state(self, now: float) -> JobState:
        if now >= self._strategy_cancelled_at:
            return JobState.CANCELED
        open_tasks = sum(count for state, count in self.counts(now).items() if TaskState(state) in OPEN_STATES)
        if not open_tasks and self.facts.kind is not JobKind.DYNAMIC:
            return self._state_after_cancel if now >= self._tasks_cancelled_at else JobState.COMPLETED
        return JobState.PLANNED if self.is_planned(now) else JobState.IN_PROGRESS

    def is_planned(self, now: float) -> bool:
        """Whether the hour of a scheduled rollout has not come."""
        return self.facts.kind is JobKind.SCHEDULED and now < self.facts.starts_at

    def changed_at(self, now: float) -> float:
        """When the rollout last changed: its last cancel, or its start."""
        times = (self.facts.created_at, self.facts.starts_at, self._tasks_cancelled_at, self._strategy_cancelled_at)
        return max(at for at in times if at <= now or at == self.facts.created_at)

    def ended_at(self, now: float) -> float | None:
        """When the rollout ended, if it has."""
        if self.state(now) not in (JobState.COMPLETED, JobState.CANCELED):
            return None
        last = max((task.move_at(now)[0] for task in self._existing(now)), default=self.facts.created_at)
        return self._strategy_cancelled_at if self._strategy_cancelled_at <= now else last

    def tasks(
        self, now: float, *, state: TaskState | None = None, names: Collection[str] | None = None
    ) -> Iterator[Task]:
        """The tasks that exist at `now`, in the order of their numbers."""
        self._enrol(now)
        for task in self._existing(now):
            if (state is None or task.move_at(now)[1] is state) and (names is None or task.device_name in names):
                yield task

    def cancel_tasks(
        self,
        states: Collection[TaskState],
        now: float,
        *,
        lag_seconds: float = 0.0,
        return_after_seconds: float | None = None,
    ) -> int:
        """Cancels the tasks that are in `states` at `now`, and says how many will obey.

        The cloud marks them `lag_seconds` later, if they are still open then. A dynamic rollout may take cancelled
        devices back after `return_after_seconds`, as new tasks.
        """
        self._enrol(now)
        cut_at = now + lag_seconds
        obeying = 0
        returning: list[Task] = []
        for place, task in enumerate(self._tasks):
            if task.created_at > now or not _obeys(task, states, now, cut_at):
                continue
            kept = tuple(move for move in task.moves if move[0] <= cut_at)
            self._tasks[place] = replace(task, moves=(*kept, (cut_at, TaskState.CANCELED)))
            obeying += 1
            if return_after_seconds is not None and self.facts.kind is JobKind.DYNAMIC:
                returning.append(self._next_task(cut_at + return_after_seconds, device_name=task.device_name))
        self._tasks += returning
        self._tasks_cancelled_at = min(self._tasks_cancelled_at, cut_at)
        self._index()
        return obeying

    def cancel_strategy(self, now: float) -> None:
        """A dynamic rollout finds no more devices. Tasks that exist go on."""
        self._enrol(now)
        self._strategy_cancelled_at = min(self._strategy_cancelled_at, now)
        self._tasks = [task for task in self._tasks if task.created_at <= now]
        self._index()

    def _existing(self, now: float) -> Iterator[Task]:
        return (task for task in self._tasks if task.created_at <= now)

    def _enrol(self, now: float) -> None:
        """Adds the devices that a dynamic rollout has found by `now`."""
        course = self.course
        if self.facts.kind is not JobKind.DYNAMIC or course.enrol_per_minute <= 0:
            return
        until = min(now, self._strategy_cancelled_at)
        found = int(max(0.0, until - self.facts.starts_at) * course.enrol_per_minute / 60)
        wanted = min(course.devices + found, course.enrol_at_most)
        if self._found >= wanted - course.devices:
            return
        while self._found < wanted - course.devices:
            self._found += 1
            self._tasks.append(self._next_task(self.facts.starts_at + self._found * 60 / course.enrol_per_minute))
        self._index()

    def _next_task(self, created_at: float, *, device_name: str | None = None) -> Task:
        """The next task; the draws for it are always as many, so that one setting doesn't shift the others."""
        number = self._numbered
        self._numbered += 1
        slot = number if created_at <= self.facts.starts_at else 0
        told_at = max(created_at, self.facts.starts_at) + (slot + 1) * 60 / self.course.per_minute
        name = device_name or f"{self.facts.device_prefix}{self.facts.first_device + number:05d}"
        return _plan(number, name, self.course, created_at, told_at, [self._random.random() for _ in range(9)])

    def _index(self) -> None:
        """Counting is a look-up in two sorted lists per state: when tasks entered it, when they left it."""
        self._entered = {state: [] for state in TaskState}
        self._left = {state: [] for state in TaskState}
        for task in self._tasks:
            before: TaskState | None = None
            for at, state in task.moves:
                self._entered[state].append(at)
                if before is not None:
                    self._left[before].append(at)
                before = state
        for times in (*self._entered.values(), *self._left.values()):
            times.sort()


def _obeys(task: Task, states: Collection[TaskState], now: float, cut_at: float) -> bool:
    state = task.move_at(now)[1]
    if state not in states or task.move_at(cut_at)[1] not in OPEN_STATES:
        return False
    return not (task.ignores and state in _DEVICE_TOLD)


def _plan(number: int, name: str, course: Course, created_at: float, told_at: float, draws: list[float]) -> Task:
    moves: list[Move] = []
    ignores = draws[0] < course.ignoring

    def task(ends_at: float = inf, failure: str = "") -> Task:
        return Task(number, name, tuple(moves), ignores=ignores, ends_at=ends_at, failure=failure)

    at = created_at
    if course.confirm_seconds is not None:
        moves.append((at, TaskState.CONFIRM))
        if draws[1] < course.unconfirmed:
            return task()
        at += course.confirm_seconds * (0.5 + draws[2])
    moves.append((at, TaskState.QUEUED))
    at = max(at, told_at)
    moves.append((at, TaskState.NOTIFIED))
    if draws[3] < course.silent:
        return task()
    at += course.answer_seconds * (0.5 + draws[4])
    moves.append((at, TaskState.IN_PROGRESS))
    ends_at = inf if draws[5] < course.stuck else at + course.update_seconds * (0.5 + draws[6])
    times_out_at = inf if course.timeout_minutes is None else at + course.timeout_minutes * 60
    if times_out_at < ends_at:
        moves.append((times_out_at, TaskState.FAILED))
        return task(ends_at, "timeout")
    if ends_at == inf:
        return task()
    if draws[7] < course.failing:
        moves.append((ends_at, TaskState.FAILED))
        return task(ends_at, _FAILURES[int(draws[8] * len(_FAILURES))])
    moves.append((ends_at, TaskState.SUCCEEDED))
    return task(ends_at)
