"""Reading `rules:` of one file into drafts: rules whose words for operations, people and instances are still words.

What those words mean is known when all files have been read; see `load`.
"""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass

from bot.model import Confirm, Requirements, Touch
from bot.policy.complaints import Mark
from bot.policy.declarations import CHANNEL_EXPECTED, CHANNEL_ID
from bot.policy.nodes import Node, Scalar
from bot.policy.reading import Page, entries, fields, is_empty, one_of, shaped, text, whole_number, words
from bot.policy.rules import Bounds, RuleKind

RULE_KEYS = ("name", "allow", "deny", "require", "for", "who", "where", "when", "except", "note")
_KINDS = tuple(kind.value for kind in RuleKind)
_TOUCHES = tuple(touch.value for touch in Touch)
_LOWER = {"at_least": 0, "more_than": 1}
_UPPER = {"less_than": 0, "at_most": 1}
_NAME_LENGTH = 80
_NOTE_LENGTH = 500

Fields = AbstractMapping[str, tuple[Mark, Node]]


@dataclass(slots=True)
class Draft:
    """A rule as written; `page` and `at` are where."""

    page: Page
    at: Mark
    name: str
    kind: RuleKind
    operations: list[Scalar]
    who: list[Scalar]
    excepted: list[Scalar]
    instances: list[Scalar]
    products: tuple[str, ...]
    channels: tuple[str, ...]
    touches: frozenset[Touch]
    devices: Bounds | None
    requires: Requirements | None
    note: str | None


def read_rules(page: Page, node: Node) -> list[Draft]:
    drafts = [read_rule(page, entry) for entry in entries(page, node, of="rules")]
    return [draft for draft in drafts if draft is not None]


def read_rule(page: Page, node: Node) -> Draft | None:
    """One rule; None if it cannot even be told what it is."""
    found = fields(page, node, of="a rule", known=RULE_KEYS)
    if not found:
        if is_empty(node):
            page.wrong(node.at, "the rule is empty", expected=", ".join(RULE_KEYS))
        return None
    name = text(page, found["name"][1], of="name", most=_NAME_LENGTH) if "name" in found else None
    if "name" not in found:
        page.wrong(node.at, "the rule has no name", expected="a name: of its own, which decisions and the audit show")
    kind = _read_kind(page, node, found)
    if kind is not None:
        _check_keys(page, node, found, kind)
    where = _part(page, found, "where", ("instances", "products", "channels"))
    when = _part(page, found, "when", ("touches", "devices"))
    channels = _listed(page, where, "channels")
    draft = Draft(
        page=page,
        at=found["name"][0] if "name" in found else node.at,
        name=name or "",
        kind=kind or RuleKind.ALLOW,
        operations=_read_operations(page, found, kind),
        who=_listed(page, found, "who"),
        excepted=_listed(page, found, "except"),
        instances=_listed(page, where, "instances"),
        products=tuple(word.text for word in _listed(page, where, "products")),
        channels=_checked_channels(page, channels),
        touches=_checked_touches(page, _listed(page, when, "touches")),
        devices=_read_devices(page, when["devices"][1]) if "devices" in when else None,
        requires=_read_requirements(page, found["require"][1]) if kind is RuleKind.REQUIRE else None,
        note=text(page, found["note"][1], of="note", most=_NOTE_LENGTH) if "note" in found else None,
    )
    return draft if name and kind else None


def _read_kind(page: Page, node: Node, found: Fields) -> RuleKind | None:
    kinds = [kind for kind in _KINDS if kind in found]
    if len(kinds) == 1:
        return RuleKind(kinds[0])
    has = " and ".join(kinds) if kinds else "none of allow, deny and require"
    page.wrong(node.at, f"the rule has {has}", expected="exactly one of allow, deny and require")
    return None


def _check_keys(page: Page, node: Node, found: Fields, kind: RuleKind) -> None:
    """Which keys go with which kind of rule."""
    if kind is RuleKind.ALLOW and "who" not in found:
        page.wrong(node.at, "the rule allows, but does not say whom", expected="who: [a group], or who: [anyone]")
    if kind is RuleKind.ALLOW and "except" in found:
        page.wrong(found["except"][0], "except in an allow", expected="except in deny and require alone; here, who")
    if kind is RuleKind.REQUIRE and "for" not in found:
        page.wrong(node.at, "the rule requires, but does not say for what", expected="for: [operations]")
    if kind is not RuleKind.REQUIRE and "for" in found:
        page.wrong(found["for"][0], f"for in a rule with {kind}", expected=f"the operations under {kind} itself")


def _read_operations(page: Page, found: Fields, kind: RuleKind | None) -> list[Scalar]:
    if kind is None:
        return []
    return _listed(page, found, "for" if kind is RuleKind.REQUIRE else kind.value)


def _part(page: Page, found: Fields, key: str, known: tuple[str, ...]) -> Fields:
    if key not in found:
        return {}
    node = found[key][1]
    if is_empty(node):
        page.wrong(node.at, f"{key} is empty", expected=", ".join(known))
    return fields(page, node, of=key, known=known)


def _listed(page: Page, found: Fields, key: str) -> list[Scalar]:
    return words(page, found[key][1], of=key) if key in found else []


def _checked_channels(page: Page, channels: list[Scalar]) -> tuple[str, ...]:
    for channel in channels:
        if not CHANNEL_ID.fullmatch(channel.text):
            shaped(page, channel, CHANNEL_ID, of="a channel", expected=CHANNEL_EXPECTED)
    return tuple(channel.text for channel in channels)


def _checked_touches(page: Page, touches: list[Scalar]) -> frozenset[Touch]:
    found = (one_of(page, touch, _TOUCHES, of="a state in touches") for touch in touches)
    return frozenset(Touch(word) for word in found if word is not None)


def _read_devices(page: Page, node: Node) -> Bounds | None:
    """At most one bound on each side, as a half-open range."""
    found = fields(page, node, of="devices", known=(*_LOWER, *_UPPER))
    if is_empty(node):
        page.wrong(node.at, "devices is empty", expected="a bound, such as {more_than: 500}")
    for side in (_LOWER, _UPPER):
        given = [key for key in side if key in found]
        if len(given) > 1:
            page.wrong(found[given[1]][0], f"{' and '.join(given)} in one rule", expected="one of them")
    numbers = {key: whole_number(page, part, of=key) for key, (_, part) in found.items() if key in _LOWER | _UPPER}
    low = next((number + _LOWER[key] for key, number in numbers.items() if key in _LOWER and number is not None), None)
    high = next((number + _UPPER[key] for key, number in numbers.items() if key in _UPPER and number is not None), None)
    if high is not None and (low or 0) >= high:
        page.wrong(node.at, "no number of devices is within these bounds", expected="a range that is not empty")
    return Bounds(low, high)


def _read_requirements(page: Page, node: Node) -> Requirements:
    found = fields(page, node, of="require", known=("confirm", "reason"))
    if is_empty(node):
        page.wrong(node.at, "require is empty", expected="{reason: true}, {confirm: click} or both")
    if "confirm" in found:
        one_of(page, found["confirm"][1], tuple(Confirm), of="confirm")
    if "reason" in found:
        one_of(page, found["reason"][1], ("true",), of="reason")
    return Requirements(Confirm.CLICK, reason="reason" in found)
