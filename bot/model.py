"""The words of the core as values.

Everything here is frozen and holds facts only: no I/O, no clock, no Slack, no Alibaba. Times are aware UTC.
A number that is not known is `None`, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum


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


class Unknown(Enum):
    """A fact that exists but could not be learnt. (`None` says that the operation has no such fact.)"""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: an identity that was checked at `verified_at`.

    `groups` are the ids of the Slack user groups this person is in, among those that the policy names.
    """

    user_id: str
    groups: frozenset[str]
    verified_at: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was asked: a channel id, or none (a direct message, a terminal)."""

    channel: str | None
    thread: str | None = None


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
    """What an operation touches: a job on an instance (both by name)."""

    instance: str
    job: str


@dataclass(frozen=True, slots=True)
class Job:
    """One batch as the cloud described it. `firmware` is the package's name, versions as the cloud spells them."""

    job_id: str
    state: JobState
    kind: JobKind
    firmware_id: str
    firmware: str = ""
    product: str = ""
    dest_version: str = ""
    src_versions: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks were in each state; None where the number could not be read."""

    by_state: Mapping[TaskState, int | None]
    read_at: datetime

    def of(self, states: Iterable[TaskState]) -> int | None:
        """The sum over `states`, or None if any of them is unknown."""
        numbers = [self.by_state.get(state) for state in states]
        known = [number for number in numbers if number is not None]
        return sum(known) if len(known) == len(numbers) else None


@dataclass(frozen=True, slots=True)
class Preview:
    """What the target looked like, and what this call names."""

    target: Target
    job: Job
    counts: Counts
    touches: frozenset[Touch]

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
        """How many devices the call touches, as last read."""
        return self.counts.of(self.touched_states)


class Effect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Confirm(StrEnum):
    CLICK = "click"


@dataclass(frozen=True, slots=True)
class Requirements:
    """What people must still do before an allowed call is made."""

    confirm: Confirm = Confirm.CLICK
    reason: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says.

    `rules` are the names of the rules that decided, `reasons` one sentence each (with the rule's `note`), `policy`
    the digest of the policy that was asked.
    """

    effect: Effect
    rules: tuple[str, ...]
    reasons: tuple[str, ...]
    policy: str
    requirements: Requirements = field(default_factory=Requirements)

    @property
    def is_allowed(self) -> bool:
        return self.effect is Effect.ALLOW


@dataclass(frozen=True, slots=True)
class Question:
    """What the policy is asked about. `UNKNOWN`: could not be learnt; `None`: this operation has no such fact."""

    actor: Actor
    operation: str
    channel: str | None
    instance: str
    product: str | Unknown | None = None
    touches: frozenset[Touch] | Unknown | None = None
    devices: int | Unknown | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One preview of one proposal, put before people. `offer_id` is 128 random bits in hex: all that a button holds."""

    offer_id: str
    preview: Preview
    decision: Decision
    made_at: datetime
    expires_at: datetime


class OutcomeCode(StrEnum):
    """How a proposal ended. Stable for ever."""

    STOPPED = "stopped"
    PARTLY_STOPPED = "partly_stopped"
    NOT_STOPPED = "not_stopped"
    NOTHING_TO_STOP = "nothing_to_stop"
    GOAL_REACHED_UNCONFIRMED = "goal_reached_unconfirmed"
    DONE = "done"
    NOT_DONE = "not_done"
    REFUSED_BY_CLOUD = "refused_by_cloud"
    UNKNOWN_OUTCOME = "unknown_outcome"
    DENIED = "denied"
    DISMISSED = "dismissed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell a person, as plain text: no markup of any kind is in it, and an edge adds what it needs.

    `text` is the sentence that must arrive, `lines` what follows it, `command` a line to copy, `reference` an id under
    which the log knows it.
    """

    text: str
    lines: tuple[str, ...] = ()
    command: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a proposal ended, with the devices' movement since the baseline (None: not known, or never called)."""

    code: OutcomeCode
    notice: Notice
    stopped: int | None = None
    finished_anyway: int | None = None
    failed: int | None = None
    still_moving: int | None = None


class StepKind(StrEnum):
    """One change at the cloud."""

    CANCEL_STRATEGY = "cancel_strategy"
    CANCEL_TASKS = "cancel_tasks"


@dataclass(frozen=True, slots=True)
class Step:
    """One change to be made at the cloud: what, to which target, and which tasks it names."""

    kind: StepKind
    target: Target
    touches: frozenset[Touch] = frozenset()


@dataclass(frozen=True, slots=True)
class Intent:
    """One attempt at a step, written down before it is sent, so that it can be sent again byte for byte.

    `nonce` and `date` are what the signature is made of, `key_id` the access key's id (its secret is not here),
    `deadline` the time by which an answer must have come.
    """

    step: Step
    nonce: str
    date: datetime
    key_id: str
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """The cloud accepted a call. That says nothing about the devices."""

    request_id: str | None
