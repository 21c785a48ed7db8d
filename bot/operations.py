"""What can be done, declared once. Help, grammar, policy names, audit and documents derive from it.

An `Operation` says in the core's words which parameters it takes, which tasks a call with them names, and which steps
carry it out. It calls nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bot.model import Job, Part, Preview, Step, Task, TaskState, Touch


class Kind(StrEnum):
    READ = "read"
    CHANGE = "change"


class Subject(StrEnum):
    """What an operation is about, and so which words follow its verb."""

    JOB = "job"
    FIRMWARE = "firmware"
    DEVICES = "devices"
    CATALOG = "catalog"
    """Nothing in particular, or a product or a firmware to narrow it down."""


class Direction(StrEnum):
    """Which way a change goes. A stop wins over everything else on the same job."""

    STOP = "stop"
    TUNE = "tune"
    RESTART = "restart"


class Repeat(StrEnum):
    """What may be done about a call whose answer was lost."""

    AFTER_READ_BACK = "after_read_back"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Param:
    """One switch: `name` in code and audit, `flag` as typed (without dashes), `touch` what it makes the call name.

    With `takes` it has a value, a whole number between these bounds. A param without a flag is the word after the job.
    """

    name: str
    flag: str
    help: str
    touch: Touch | None = None
    takes: tuple[int, int] | None = None


Params = frozenset[str]
"""The switches that were given, by name; one that has a value as `name=value`."""


def value_of(params: Params, name: str) -> int | None:
    """The value of a switch that takes one, if it was given."""
    return next((int(given.partition("=")[2]) for given in params if given.startswith(f"{name}=")), None)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be done.

    `name` as in policy and audit (`job.cancel`), `verb` as typed after `/ota` (one word or two), `touches` the tasks
    that a call with these params names on this job, `retries` the task states whose tasks it names one by one (at most
    `most_tasks`), `steps` the changes that carry out what a preview showed, in order. `by_device` are those that cancel
    given tasks by name, where a batch takes no other cancel any more. `under` names the operation whose every deny and
    require applies to this one too.
    """

    name: str
    verb: str
    kind: Kind
    usage: str
    help: str
    subject: Subject = Subject.JOB
    direction: Direction = Direction.STOP
    examples: tuple[str, ...] = ()
    params: tuple[Param, ...] = ()
    repeat: Repeat = Repeat.AFTER_READ_BACK
    under: str | None = None
    touches: Callable[[Params, Job], frozenset[Touch]] = lambda params, job: frozenset()
    retries: Callable[[Params], tuple[TaskState, ...]] = lambda params: ()
    most_tasks: Callable[[Params], int] = lambda params: 0
    steps: Callable[[Preview, Params], tuple[Step, ...]] = lambda preview, params: ()
    by_device: Callable[[Preview, Part, Sequence[Task]], tuple[Step, ...]] | None = None

    @property
    def is_stop(self) -> bool:
        return self.kind is Kind.CHANGE and self.direction is Direction.STOP


def each_part(steps: Callable[[Preview, Part], tuple[Step, ...]]) -> Callable[[Preview, Params], tuple[Step, ...]]:
    """The steps of every batch of a preview, one batch after the other."""
    return lambda preview, params: tuple(step for part in preview.parts for step in steps(preview, part))


@dataclass(frozen=True, slots=True)
class Operations:
    """The operations a running bot has, by name and by verb."""

    by_name: Mapping[str, Operation] = field(default_factory=dict)

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Operations:
        by_name: dict[str, Operation] = {}
        for operation in operations:
            if operation.name in by_name:
                raise ValueError(f"operation {operation.name} is declared twice")
            by_name[operation.name] = operation
        return cls(by_name)

    def __getitem__(self, name: str) -> Operation:
        return self.by_name[name]

    def names(self, kind: Kind | None = None) -> tuple[str, ...]:
        return tuple(name for name, operation in self.by_name.items() if kind in (None, operation.kind))

    def with_verb(self, verb: str) -> Operation | None:
        return next((operation for operation in self.by_name.values() if operation.verb == verb), None)

    def starting(self, words: Sequence[str]) -> tuple[Operation, int] | None:
        """The operation whose verb these words begin with (the longest), and how many words that takes."""
        for length in (2, 1):
            operation = self.with_verb(" ".join(words[:length]).casefold())
            if operation is not None and len(words) >= length:
                return operation, length
        return None

    def verbs(self) -> tuple[str, ...]:
        return tuple(operation.verb for operation in self.by_name.values())
