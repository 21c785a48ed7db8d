"""Rollouts as the cloud describes them: instances, batches, tasks, counts, and what a call names of them.

Numbers that are not known are `None`, never 0; versions, names and details are the cloud's own text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256


class TaskState(StrEnum):
    """What one device's task is in, in the order in which a device moves."""

    CONFIRM = "CONFIRM"
    QUEUED = "QUEUED"
    NOTIFIED = "NOTIFIED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


OPEN_STATES = (TaskState.CONFIRM, TaskState.QUEUED, TaskState.NOTIFIED, TaskState.IN_PROGRESS)
"""The states that a task can still leave, in the direction in which a device moves."""


class Touch(StrEnum):
    """What a call to stop names: the open task states, and the tasks of a batch whose hour has not come."""

    SCHEDULED = "SCHEDULED"
    CONFIRM = "CONFIRM"
    QUEUED = "QUEUED"
    NOTIFIED = "NOTIFIED"
    IN_PROGRESS = "IN_PROGRESS"


class JobState(StrEnum):
    PLANNED = "PLANNED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


class JobKind(StrEnum):
    STATIC = "static"
    DYNAMIC = "dynamic"
    SCHEDULED = "scheduled"
    VERIFICATION = "verification"


REGIONS = (
    "cn-shanghai",
    "cn-beijing",
    "cn-shenzhen",
    "ap-southeast-1",
    "ap-northeast-1",
    "us-west-1",
    "us-east-1",
    "eu-central-1",
)
"""The regions that serve IoT (https://www.alibabacloud.com/help/doc-detail/30560.htm)."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One IoT instance as the policy folder describes it. No secret is in it.

    `instance_id` is None for an account whose console shows none. `credentials` is the prefix of the environment
    variables that hold the key. `channel` is where cards go when the place of asking cannot take them.
    """

    name: str
    region: str
    instance_id: str | None = None
    account: str = "default"
    credentials: str | None = None
    channel: str | None = None
    language: str = "en"
    endpoint: str | None = None
    signature: str = "v3"


@dataclass(frozen=True, slots=True)
class Target:
    """What an operation touches on an instance: a job, a firmware (by id), or devices of a product; "" is not given."""

    instance: str
    job: str = ""
    firmware: str = ""
    product: str = ""
    devices: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What to call it in a sentence."""
        if self.devices:
            first, *more = self.devices
            return f"{first} and {len(more)} more" if more else first
        return self.job or self.firmware or self.product

    @property
    def key(self) -> str:
        """One text for what is touched, the same for the same thing, of at most 200 characters."""
        parts = [self.job, self.firmware, self.product, *sorted(self.devices)]
        spelt = "/".join(part for part in parts if part)
        return spelt if len(spelt) <= 120 else f"{spelt[:120]}…{sha256(spelt.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class JobSettings:
    """What a batch was made with, as far as it can be changed: all of it is sent again when one of it changes.

    `per_minute` is how many devices are told per minute, `timeout_minutes` None where there is no time-out,
    `upgrade_type` the cloud's STATIC or DYNAMIC, `tags` in the cloud's order.
    """

    per_minute: int | None = None
    timeout_minutes: int | None = None
    target_selection: str = ""
    upgrade_type: str = ""
    src_versions: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One batch as the cloud described it. `firmware` is the package's name, versions as the cloud spells them.

    `settings` is None where only a list was read, which does not tell them.
    """

    job_id: str
    state: JobState
    kind: JobKind
    firmware_id: str
    firmware: str = ""
    product: str = ""
    dest_version: str = ""
    src_versions: tuple[str, ...] = ()
    description: str = ""
    created_at: datetime | None = None
    planned_for: datetime | None = None
    settings: JobSettings | None = None


@dataclass(frozen=True, slots=True)
class Firmware:
    """One update package, without its download link."""

    firmware_id: str
    name: str = ""
    product: str = ""
    dest_version: str = ""
    src_version: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One device in one batch. `progress` in percent and `detail` (what went wrong) as the cloud wrote them."""

    task_id: str
    device: str
    state: TaskState
    job_id: str = ""
    firmware_id: str = ""
    product: str = ""
    progress: str = ""
    detail: str = ""
    src_version: str = ""
    dest_version: str = ""
    created_at: datetime | None = None
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskPage:
    """One page of a batch's tasks; `total` is how many there are in all, None where the cloud did not say."""

    tasks: tuple[Task, ...]
    total: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks were in each state; None where the number could not be read.

    `failures` are the reasons among the failed tasks that were looked at, each with how often it stood there.
    """

    by_state: Mapping[TaskState, int | None]
    read_at: datetime
    failures: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int | None:
        return self.of(TaskState)

    def of(self, states: Iterable[TaskState]) -> int | None:
        """The sum over `states`, or None if any of them is unknown."""
        numbers = [self.by_state.get(state) for state in states]
        known = [number for number in numbers if number is not None]
        return sum(known) if len(known) == len(numbers) else None


@dataclass(frozen=True, slots=True)
class Part:
    """What one batch of the target looked like, and what the call names of it.

    `tasks` are those that the call names one by one; with none, it names all that are in a touched state.
    """

    job: Job
    counts: Counts
    touches: frozenset[Touch] = frozenset()
    tasks: tuple[Task, ...] = ()

    @property
    def touched_states(self) -> tuple[TaskState, ...]:
        """The task states whose tasks the call may cancel. A scheduled task waits as QUEUED."""
        planned = Touch.SCHEDULED in self.touches and self.job.state is JobState.PLANNED
        return tuple(
            state
            for state in OPEN_STATES
            if Touch(state.value) in self.touches or (planned and state is TaskState.QUEUED)
        )

    @property
    def devices(self) -> int | None:
        """How many devices the call touches, as last read; None if that is not known, or the call touches none."""
        if self.touches:
            return self.counts.of(self.touched_states)
        return len(self.tasks) if self.tasks else None


@dataclass(frozen=True, slots=True)
class Preview:
    """What the target looked like, batch by batch, the one with the most at stake first.

    `left_out` says how much is beyond what one call of this kind names (tasks, or whole batches).
    """

    target: Target
    parts: tuple[Part, ...]
    left_out: int = 0

    @property
    def job(self) -> Job:
        return self.parts[0].job

    @property
    def counts(self) -> Counts:
        return self.parts[0].counts

    @property
    def touches(self) -> frozenset[Touch]:
        return frozenset().union(*(part.touches for part in self.parts))

    @property
    def devices(self) -> int | None:
        """How many devices the call touches, over all batches; None if any number is unknown."""
        numbers = [part.devices for part in self.parts]
        known = [number for number in numbers if number is not None]
        return sum(known) if len(known) == len(numbers) else None
