"""What a loaded policy is: groups, instances and rules, compiled for asking. `load` makes it, `decide` asks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bot.model import Instance, Requirements, Touch

ANYONE = "anyone"


class RuleKind(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class Circle:
    """Some people: user ids, ids of user groups, or anyone. `names` are the words that the policy used for them."""

    names: tuple[str, ...]
    users: frozenset[str] = frozenset()
    usergroups: frozenset[str] = frozenset()
    is_anyone: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A range of numbers, both ends included; None: no end there."""

    least: int | None = None
    most: int | None = None

    def holds(self, number: int) -> bool:
        return (self.least is None or number >= self.least) and (self.most is None or number <= self.most)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. A condition that is None was not written, and holds for everything."""

    name: str
    kind: RuleKind
    operations: frozenset[str]
    who: Circle | None = None
    exempt: Circle | None = None
    instances: tuple[str, ...] | None = None
    products: tuple[str, ...] | None = None
    channels: frozenset[str] | None = None
    touches: frozenset[Touch] | None = None
    devices: Span | None = None
    requirements: Requirements = field(default_factory=Requirements)
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was loaded without a complaint. `digest` is the SHA-256 of its files, in hex."""

    rules: tuple[Rule, ...]
    instances: Mapping[str, Instance]
    digest: str
    usergroups: frozenset[str]
    by_operation: Mapping[str, tuple[Rule, ...]]
