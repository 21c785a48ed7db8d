"""From the files of a policy folder to a `Policy`, or to every complaint about them at once.

Bytes in, values out; `folder.read_folder` reads the disk. Files are merged by adding up: in which file something
stands means nothing, and a name that is given twice is an error that names both places. The language is taught in
`policies/README.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeVar

from bot.model import Instance
from bot.operations import Kind, Operations
from bot.policy.compiled import Policy, compile_policy
from bot.policy.complaints import Complaints, Mark, place, shown
from bot.policy.declarations import read_groups, read_instances
from bot.policy.drafts import Draft, read_rules
from bot.policy.nodes import Scalar, Spot, Unread, read_tree
from bot.policy.reading import Page, fields
from bot.policy.rules import ANYONE, TERMINAL_ID, USER_ID, Group, Rule, RuleKind, listed

__all__ = ["Policy", "is_policy_file", "load"]

_SECTIONS = ("groups", "instances", "rules")
_GLOB = re.compile(r"[*?\[]")
_NAMES_SHOWN = 8

Value = TypeVar("Value")


@dataclass(slots=True)
class _Merged:
    """What all files declare, and where each name was seen first."""

    groups: dict[str, Group] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    rules: dict[str, Draft] = field(default_factory=dict)
    without_account: list[tuple[Page, Mark, str]] = field(default_factory=list)
    places: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, page: Page, at: Mark, *, kind: str, name: str, value: Value, to: dict[str, Value]) -> None:
        here = place(page.file, at)
        first = self.places.setdefault((kind, name), here)
        if first == here:
            to[name] = value
        else:
            page.wrong(at, f"the {kind} {shown(name)} stands at {first} already", expected="a name of its own")


def is_policy_file(name: str) -> bool:
    """Whether a file of the folder is part of the policy: its tests and hidden files are not."""
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    return suffix in ("yaml", "yml") and bool(stem) and not stem.startswith(".") and not stem.endswith("_test")


def load(files: Mapping[str, bytes], *, operations: Operations) -> Policy:
    """The policy in `files`, by name. Raises `PolicyInvalid` with every complaint."""
    complaints = Complaints()
    merged = _Merged()
    names = sorted(name for name in files if is_policy_file(name))
    were_read = [_read_file(Page(name, complaints), files[name], merged) for name in names]
    if len(merged.instances) > 1:
        for page, at, name in merged.without_account:
            wrong = f"the instance {shown(name)} has no account, and there are several instances"
            page.wrong(at, wrong, expected="account: and a word for whose Alibaba Cloud account it is")
    are_all_read = all(were_read)
    # A name that an unread file may declare is not a mistake.
    rules = [_resolved(draft, merged, operations) for draft in merged.rules.values()] if are_all_read else []
    if not rules and not complaints:
        _complain_about_no_rule(complaints, names)
    complaints.raise_if_any()
    return compile_policy(rules, groups=merged.groups, instances=merged.instances, operations=operations)


def _complain_about_no_rule(complaints: Complaints, names: list[str]) -> None:
    complaints.add(
        names[0] if names else "policies",
        Spot(0, 0),
        "there is no rule here, so nobody may do anything",
        expected="rules: with at least one allow, as in policies/README.md",
    )


def _read_file(page: Page, content: bytes, merged: _Merged) -> bool:
    """Adds what a file declares; False if it could not be read at all."""
    try:
        root = read_tree(page.file, content, page.complaints)
    except Unread:
        return False
    if root is None:
        return True
    sections = fields(page, root, of="the file", known=_SECTIONS)
    if "groups" in sections:
        for name, (at, group) in read_groups(page, sections["groups"][1]).items():
            merged.add(page, at, kind="group", name=name, value=group, to=merged.groups)
    if "instances" in sections:
        for name, (at, (instance, has_account)) in read_instances(page, sections["instances"][1]).items():
            merged.add(page, at, kind="instance", name=name, value=instance, to=merged.instances)
            if not has_account:
                merged.without_account.append((page, at, name))
    if "rules" in sections:
        for draft in read_rules(page, sections["rules"][1]):
            merged.add(page, draft.at, kind="rule", name=draft.name, value=draft, to=merged.rules)
    return True


def _resolved(draft: Draft, merged: _Merged, operations: Operations) -> Rule:
    """The rule with its words looked up."""
    found = [_operations(draft.page, word, operations) for word in draft.operations]
    for word in draft.who:
        _check_person(draft.page, word, merged.groups, may_be_anyone=True)
    for word in draft.excepted:
        _check_person(draft.page, word, merged.groups, may_be_anyone=False)
    for word in draft.instances:
        _check_instance(draft.page, word, merged.instances)
    return Rule(
        name=draft.name,
        kind=draft.kind,
        operations=_reaching(draft.kind, frozenset().union(*found), operations),
        who=_texts(draft.who),
        instances=_texts(draft.instances),
        products=draft.products,
        channels=draft.channels,
        touches=draft.touches,
        devices=draft.devices,
        excepted=_texts(draft.excepted),
        requires=draft.requires,
        note=draft.note,
        source=f"{draft.page.file}:{draft.at.line + 1}",
    )


def _reaching(kind: RuleKind, named: frozenset[str], operations: Operations) -> frozenset[str]:
    """What a deny or a require says of an operation holds for those under it as well; an allow says what it names."""
    if kind is RuleKind.ALLOW:
        return named
    return named | {name for name, operation in operations.by_name.items() if operation.under in named}


def _texts(words: list[Scalar]) -> tuple[str, ...]:
    return tuple(word.text for word in words)


def _operations(page: Page, word: Scalar, operations: Operations) -> frozenset[str]:
    """`reads`, `changes`, a full name, or a glob over names."""
    if word.text in operations.by_name:
        return frozenset((word.text,))
    if word.text in ("reads", "changes"):
        return frozenset(operations.names(Kind.READ if word.text == "reads" else Kind.CHANGE))
    found = frozenset(name for name in operations.names() if fnmatchcase(name, word.text))
    if not found:
        right = ("reads", "changes", *operations.names())
        near = page.complaints.nearest(word.text, right)
        page.wrong(word.at, f"unknown operation {shown(word.text)}", expected=", ".join(right), instead_of=near)
    return found


def _check_person(page: Page, word: Scalar, groups: Mapping[str, Group], *, may_be_anyone: bool) -> None:
    if word.text in groups or USER_ID.fullmatch(word.text) or (may_be_anyone and word.text == ANYONE):
        return
    if TERMINAL_ID.fullmatch(word.text):
        wrong = f"{shown(word.text)} is a person at a terminal, whom only a group may name"
        page.wrong(word.at, wrong, expected=f"a group, and under groups: {{terminal: [{word.text}]}}")
        return
    right = (*sorted(groups), ANYONE) if may_be_anyone else tuple(sorted(groups))
    names = [*right[:_NAMES_SHOWN], "a user's id such as U012AB3CD"]
    near = page.complaints.nearest(word.text, right)
    wrong = f"{shown(word.text)} is neither a group of this policy nor a user's id"
    page.wrong(word.at, wrong, expected=listed(names), instead_of=near)


def _check_instance(page: Page, word: Scalar, instances: Mapping[str, Instance]) -> None:
    """A rule that means no instance is a mistake: as a deny it would protect nothing."""
    if word.text in instances or any(fnmatchcase(name, word.text) for name in instances):
        return
    near = page.complaints.nearest(word.text, instances)
    names = listed(sorted(instances)[:_NAMES_SHOWN]) if instances else "instances: to be declared"
    what = "no instance matches" if _GLOB.search(word.text) else "unknown instance"
    page.wrong(word.at, f"{what} {shown(word.text)}", expected=names, instead_of=near)
