"""A policy made ready for questions: for each condition, which rules let a given fact through.

A set of rules is an integer with one bit for each rule, so that a condition is one look-up and a question a handful of
`&`, however many rules there are. What the sets mean together is said in `decide` alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import translate
from functools import lru_cache
from itertools import accumulate
from operator import or_
from typing import TypeVar

from bot.model import Actor, Instance, Touch
from bot.operations import Operations
from bot.policy.rules import ANYONE, Group, Rule, RuleKind

Word = TypeVar("Word")

RuleSet = int
"""Bit n stands for rule n of the policy."""

_GLOB = re.compile(r"[*?\[]")
_REMEMBERED = 4096
"""How many words of one condition are remembered with their rules: product keys come from outside without end."""


@dataclass(frozen=True, slots=True)
class Words:
    """A condition on a word. `free` are the rules that have no such condition."""

    free: RuleSet
    passing: Callable[[str], RuleSet]


@dataclass(frozen=True, slots=True)
class People:
    """A condition on who asks. `by_word` is keyed by the words of the policy, the others by ids."""

    free: RuleSet
    by_user: Mapping[str, RuleSet]
    by_usergroup: Mapping[str, RuleSet]
    by_word: Mapping[str, RuleSet]

    def passing(self, actor: Actor) -> RuleSet:
        found = self.free | self.by_user.get(actor.user_id, 0)
        for group in actor.groups:
            found |= self.by_usergroup.get(group, 0)
        return found


@dataclass(frozen=True, slots=True)
class Numbers:
    """A condition on a number. Each `…_sets[n]` are the rules that pass if n of the limits are not above the number."""

    free: RuleSet
    lower_limits: tuple[int, ...]
    lower_sets: tuple[RuleSet, ...]
    upper_limits: tuple[int, ...]
    upper_sets: tuple[RuleSet, ...]

    def passing(self, number: int) -> RuleSet:
        lower = self.lower_sets[bisect_right(self.lower_limits, number)]
        return lower & self.upper_sets[bisect_right(self.upper_limits, number)]


@dataclass(frozen=True, slots=True)
class Index:
    """Every condition of every rule."""

    kinds: Mapping[RuleKind, RuleSet]
    everything: RuleSet
    operations: Mapping[str, RuleSet]
    who: People
    excepted: People
    instances: Words
    products: Words
    channels: Words
    touches_free: RuleSet
    touches: Mapping[Touch, RuleSet]
    devices: Numbers


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was loaded without a complaint.

    `rules` are in the order of their names: the order in the files means nothing. The same `digest` (SHA-256, hex)
    means the same decisions: it is over the content, not over the files. `usergroups` are the ids of the user groups
    of which a decision must know whether the actor is in them.
    """

    rules: tuple[Rule, ...]
    groups: Mapping[str, Group]
    instances: Mapping[str, Instance]
    operations: Operations
    digest: str
    usergroups: frozenset[str]
    index: Index = field(repr=False, compare=False)


def compile_policy(
    rules: Iterable[Rule], *, groups: Mapping[str, Group], instances: Mapping[str, Instance], operations: Operations
) -> Policy:
    """The rules made ready. Every word in them must have been checked by the caller."""
    ordered = tuple(sorted(rules, key=lambda rule: rule.name))
    index = _indexed(ordered, groups)
    return Policy(
        rules=ordered,
        groups=groups,
        instances=instances,
        operations=operations,
        digest=_digest(ordered, groups, instances),
        usergroups=frozenset(index.who.by_usergroup) | frozenset(index.excepted.by_usergroup),
        index=index,
    )


def members(rules: RuleSet) -> Iterator[int]:
    """The numbers of the rules in a set, ascending."""
    while rules:
        lowest = rules & -rules
        yield lowest.bit_length() - 1
        rules ^= lowest


def _indexed(rules: tuple[Rule, ...], groups: Mapping[str, Group]) -> Index:
    everything = (1 << len(rules)) - 1
    kinds = _by_word((rule.kind,) for rule in rules)
    touches = _by_word(rule.touches for rule in rules)
    return Index(
        kinds={kind: kinds.get(kind, 0) for kind in RuleKind},
        everything=everything,
        operations=_by_word(rule.operations for rule in rules),
        who=_people([rule.who for rule in rules], groups, free=_without(rule.who for rule in rules)),
        excepted=_people([rule.excepted for rule in rules], groups, free=0),
        instances=_words([rule.instances for rule in rules]),
        products=_words([rule.products for rule in rules]),
        channels=_words([rule.channels for rule in rules]),
        touches_free=_without(rule.touches for rule in rules),
        touches=touches,
        devices=_numbers(rules, everything),
    )


def _by_word(conditions: Iterable[Iterable[Word]]) -> dict[Word, RuleSet]:
    found: dict[Word, RuleSet] = {}
    for number, words in enumerate(conditions):
        for word in words:
            found[word] = found.get(word, 0) | 1 << number
    return found


def _without(conditions: Iterable[object]) -> RuleSet:
    """The rules without this condition."""
    return sum(1 << number for number, condition in enumerate(conditions) if not condition)


def _people(conditions: list[tuple[str, ...]], groups: Mapping[str, Group], *, free: RuleSet) -> People:
    by_word = _by_word(conditions)
    by_user: dict[str, RuleSet] = {}
    by_usergroup: dict[str, RuleSet] = {}
    for word, rules in by_word.items():
        group = groups.get(word)
        if word == ANYONE:
            free |= rules
        elif group is None:
            by_user[word] = by_user.get(word, 0) | rules
        elif group.usergroup is not None:
            by_usergroup[group.usergroup] = by_usergroup.get(group.usergroup, 0) | rules
        else:
            for user in group.people:
                by_user[user] = by_user.get(user, 0) | rules
    return People(free, by_user, by_usergroup, by_word)


def _words(conditions: list[tuple[str, ...]]) -> Words:
    free = _without(conditions)
    by_word = _by_word(conditions)
    exact = {word: free | rules for word, rules in by_word.items()}
    globs = [(re.compile(translate(word)).match, rules) for word, rules in by_word.items() if _GLOB.search(word)]
    if not globs:
        return Words(free, lambda word: exact.get(word, free))

    @lru_cache(_REMEMBERED)
    def passing(word: str) -> RuleSet:
        found = exact.get(word, free)
        for matches, rules in globs:
            if matches(word):
                found |= rules
        return found

    return Words(free, passing)


def _numbers(rules: tuple[Rule, ...], everything: RuleSet) -> Numbers:
    bounds = [rule.devices for rule in rules]
    lower = _by_word(() if each is None or each.at_least is None else (each.at_least,) for each in bounds)
    upper = _by_word(() if each is None or each.less_than is None else (each.less_than,) for each in bounds)
    lower_limits, upper_limits = sorted(lower), sorted(upper)
    unbounded = everything & ~_union(lower.values())
    over = list(accumulate((upper[limit] for limit in upper_limits), or_, initial=0))
    return Numbers(
        free=_without(bounds),
        lower_limits=tuple(lower_limits),
        lower_sets=tuple(accumulate((lower[limit] for limit in lower_limits), or_, initial=unbounded)),
        upper_limits=tuple(upper_limits),
        upper_sets=tuple(everything & ~passed for passed in over),
    )


def _union(sets: Iterable[RuleSet]) -> RuleSet:
    found = 0
    for each in sets:
        found |= each
    return found


def _digest(rules: tuple[Rule, ...], groups: Mapping[str, Group], instances: Mapping[str, Instance]) -> str:
    content = {
        "rules": [_canonical(rule) for rule in rules],
        "groups": {name: _members(group) for name, group in groups.items()},
        "instances": {name: asdict(instance) for name, instance in instances.items()},
    }
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _members(group: Group) -> list[object]:
    """What a group consists of; a policy that names nobody at a terminal keeps the digest it had before one could."""
    at_terminals = [sorted(group.terminal)] if group.terminal else []
    return [group.usergroup, sorted(group.users), *at_terminals]


def _canonical(rule: Rule) -> list[object]:
    """All of a rule but where it stands, with sets in one order."""
    return [
        rule.name,
        rule.kind,
        sorted(rule.operations),
        sorted(set(rule.who)),
        sorted(set(rule.instances)),
        sorted(set(rule.products)),
        sorted(set(rule.channels)),
        sorted(rule.touches),
        [rule.devices.at_least, rule.devices.less_than] if rule.devices else None,
        sorted(set(rule.excepted)),
        [rule.requires.confirm, rule.requires.reason] if rule.requires else None,
        rule.note,
    ]
