"""What can be done, declared once. Help, grammar, policy names, audit and documents derive from it.

An `Operation` says in the core's words which parameters it takes, which tasks a call with them names, and which steps
carry it out. It calls nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bot.model import Job, Preview, Step, Touch


class Kind(StrEnum):
    READ = "read"
    CHANGE = "change"


class Repeat(StrEnum):
    """What may be done about a call whose answer was lost."""

    AFTER_READ_BACK = "after_read_back"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Param:
    """One switch: `name` in code and audit, `flag` as typed (without dashes), `touch` what it makes the call name."""

    name: str
    flag: str
    help: str
    touch: Touch | None = None


Params = frozenset[str]
"""The names of the switches that were given."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be done to a job.

    `name` as in policy and audit (`job.cancel`), `verb` as typed after `/ota`, `touches` the tasks that a call with
    these params names on this job, `steps` the changes that carry out what a preview showed, in order.
    """

    name: str
    verb: str
    kind: Kind
    usage: str
    help: str
    examples: tuple[str, ...] = ()
    params: tuple[Param, ...] = ()
    repeat: Repeat = Repeat.AFTER_READ_BACK
    touches: Callable[[Params, Job], frozenset[Touch]] = lambda params, job: frozenset()
    steps: Callable[[Preview], tuple[Step, ...]] = lambda preview: ()


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

    def verbs(self) -> tuple[str, ...]:
        return tuple(operation.verb for operation in self.by_name.values())
