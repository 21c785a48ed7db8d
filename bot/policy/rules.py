"""What a policy consists of once it has been read: rules and groups as values.

Nothing here reads text (that is `load`) or decides (that is `decide`). An empty tuple means that the rule has no such
condition; the language has no empty lists, so the two cannot be confused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from bot.model import Requirements, Touch

ANYONE = "anyone"
USER_ID = re.compile(r"[UW][A-Z0-9]{2,20}")
"""A person's id at Slack."""

TERMINAL_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+$\\@-]{0,127}@[a-z0-9][a-z0-9_-]{0,62}")
"""A person at a terminal: the OS user, which may hold a domain, at the short name of the machine."""


class RuleKind(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class Group:
    """People under one name: a Slack user group by its id, a list of user ids, or a list of people at terminals."""

    name: str
    usergroup: str | None = None
    users: frozenset[str] = frozenset()
    terminal: frozenset[str] = frozenset()

    @property
    def people(self) -> frozenset[str]:
        """The actors whom the policy names one by one."""
        return self.users | self.terminal


@dataclass(frozen=True, slots=True)
class Bounds:
    """A range of numbers of devices, half open; None: no bound on that side."""

    at_least: int | None = None
    less_than: int | None = None

    def __str__(self) -> str:
        parts = []
        if self.at_least is not None:
            parts.append(f"{self.at_least} or more")
        if self.less_than is not None:
            parts.append(f"fewer than {self.less_than}")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    `operations` are full names, `who` and `excepted` group names, user ids or `anyone` as written. `requires` is set on
    a require alone. `source` is where it stands (``file:line``) and takes no part in comparison.
    """

    name: str
    kind: RuleKind
    operations: frozenset[str]
    who: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    touches: frozenset[Touch] = frozenset()
    devices: Bounds | None = None
    excepted: tuple[str, ...] = ()
    requires: Requirements | None = None
    note: str | None = None
    source: str = field(default="", compare=False)


def listed(words: Iterable[str], *, last: str = "or") -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *head, tail = words
    return f"{', '.join(head)} {last} {tail}" if head else tail
