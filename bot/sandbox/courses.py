"""How one device goes through a rollout: its task with every move that it will make, worked out ahead from draws.

What a task is at a moment is looked up, so nothing runs in the background. A cancel cuts the moves that come after it,
another rate shifts them, and running a task again appends to them. It knows no rollout and no order among devices. What
the states mean: https://help.aliyun.com/document_detail/202667.htm
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf

from bot.model import OPEN_STATES, TaskState

Move = tuple[float, TaskState]

DRAWS = 9
"""How many draws a plan takes, used or not: one setting must not shift the draws of the others."""

DEVICE_TOLD = (TaskState.NOTIFIED, TaskState.IN_PROGRESS)
_MARKS = (TaskState.CONFIRM, TaskState.QUEUED, TaskState.IN_PROGRESS)
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
        if state is TaskState.SUCCEEDED:
            return 100.0
        started_at = self._started_at(now)
        if started_at is None:
            return 0.0
        if self.ends_at == inf:
            return _STUCK_AT
        seen_at = now if state is TaskState.IN_PROGRESS else changed_at
        return min(99.0, 100.0 * (seen_at - started_at) / (self.ends_at - started_at))

    def _started_at(self, now: float) -> float | None:
        """When the device began, in the run that the task is in."""
        marks = [move for move in self.moves if move[0] <= now and move[1] in _MARKS]
        return marks[-1][0] if marks and marks[-1][1] is TaskState.IN_PROGRESS else None


class Heeding(Enum):
    """Who of the devices that were told heeds a cut: those that their course lets, nobody, or everybody."""

    BY_COURSE = auto()
    NOBODY = auto()
    EVERYBODY = auto()


@dataclass(frozen=True, slots=True)
class Cut:
    """Open tasks that are in `states` at `now` are closed at `at`, if they are still open then.

    `names` None: every device. `returns_at`: when a dynamic rollout takes the devices back, as new tasks.
    """

    now: float
    at: float
    states: Collection[TaskState]
    names: Collection[str] | None = None
    end: TaskState = TaskState.CANCELED
    heeding: Heeding = Heeding.BY_COURSE
    returns_at: float | None = None

    def stops(self, state: TaskState, *, ignores: bool) -> bool:
        """Whether a task in `state` is closed, as far as its state and its device go."""
        if state not in self.states:
            return False
        if state not in DEVICE_TOLD or self.heeding is Heeding.EVERYBODY:
            return True
        return self.heeding is Heeding.BY_COURSE and not ignores

    def hits(self, task: Task) -> bool:
        if task.created_at > self.now or (self.names is not None and task.device_name not in self.names):
            return False
        is_open_then = task.move_at(self.at)[1] in OPEN_STATES
        return is_open_then and self.stops(task.move_at(self.now)[1], ignores=task.ignores)

    def applied(self, task: Task) -> Task:
        return replace(task, moves=(*(move for move in task.moves if move[0] <= self.at), (self.at, self.end)))


def planned(
    number: int, name: str, course: Course, *, created_at: float, told_at: float, draws: Sequence[float]
) -> Task:
    """The task of a device that the rollout notifies at `told_at` at the earliest."""
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


def run_again(
    task: Task, state: TaskState, course: Course, *, now: float, told_at: float, draws: Sequence[float]
) -> Task:
    """The task with what it did by `now`, and then a new run that begins in `state`.

    A run that begins in CONFIRM where the course has no confirmation waits until somebody confirms it.
    """
    course = course if state is TaskState.CONFIRM else replace(course, confirm_seconds=None)
    if state is TaskState.CONFIRM and course.confirm_seconds is None:
        course = replace(course, confirm_seconds=0.0, unconfirmed=1.0)
    told_at = now if state is TaskState.NOTIFIED else max(now, told_at)
    fresh = planned(task.number, task.device_name, course, created_at=now, told_at=told_at, draws=draws)
    moves = fresh.moves[1:] if state is TaskState.NOTIFIED else fresh.moves
    return replace(fresh, moves=(*(move for move in task.moves if move[0] <= now), *moves))


def waits_at(task: Task, now: float) -> bool:
    """Whether the task exists, and its device is still to be notified."""
    return task.created_at <= now and any(at > now and state is TaskState.NOTIFIED for at, state in task.moves)


def told_anew(task: Task, told_at: float) -> Task:
    """A waiting task with its notification at `told_at` at the earliest, and what follows shifted with it."""
    place = max(place for place, (_, state) in enumerate(task.moves) if state is TaskState.NOTIFIED)
    if task.moves[-1][1] is TaskState.CANCELED:
        return task
    shift = max(task.moves[place - 1][0], told_at) - task.moves[place][0]
    shifted = tuple((at + shift, state) for at, state in task.moves[place:])
    return replace(task, moves=(*task.moves[:place], *shifted), ends_at=task.ends_at + shift)


def stable_id(of: str, length: int) -> str:
    """An id that is the same for the same thing, in every run."""
    return hashlib.sha256(of.encode()).hexdigest()[:length]


def iot_id(product_key: str, device_name: str) -> str:
    """The id that the platform gives a device."""
    return stable_id(f"{product_key}/{device_name}", 20) + "000100"
