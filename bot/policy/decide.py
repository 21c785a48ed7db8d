"""The evaluator: a question and a policy in, a decision out, independent of the order of rules.

1. No matching `allow`: denied. 2. A matching `deny`, minus its `except`: denied. 3. All matching `require`s apply.
A fact that could not be learnt counts as matching in deny and require, and as not matching in allow; a fact that an
operation does not have makes its condition false everywhere. `explain` is this evaluator with its trace kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bot.model import UNKNOWN, Actor, Decision, Effect, Question, Requirements
from bot.policy.rules import Circle, Policy, Rule, RuleKind


@dataclass(frozen=True, slots=True)
class Considered:
    """One rule as it was considered: whether it matched, and the first condition that did not hold (or was unknown)."""

    rule: Rule
    is_match: bool
    why_not: str | None = None
    unknown: tuple[str, ...] = ()


Sink = Callable[[Considered], None]

_CONDITIONS = ("who", "instances", "products", "channels", "touches", "devices")


def decide(policy: Policy, question: Question, *, sink: Sink | None = None) -> Decision:
    """What the policy says. `sink` is told of every rule that names the operation."""
    matching: dict[RuleKind, list[Rule]] = {kind: [] for kind in RuleKind}
    for rule in policy.by_operation.get(question.operation, ()):
        considered = consider(rule, question)
        if sink is not None:
            sink(considered)
        if considered.is_match:
            matching[rule.kind].append(rule)
    if not matching[RuleKind.ALLOW]:
        return Decision(Effect.DENY, (), (_nobody_allows(policy, question),), policy.digest)
    if denies := matching[RuleKind.DENY]:
        return Decision(Effect.DENY, _names(denies), tuple(_denies(rule) for rule in denies), policy.digest)
    requires = matching[RuleKind.REQUIRE]
    return Decision(
        Effect.ALLOW,
        _names([*matching[RuleKind.ALLOW], *requires]),
        tuple(_requires(rule) for rule in requires),
        policy.digest,
        Requirements(reason=any(rule.requirements.reason for rule in requires)),
    )


def may_ask(policy: Policy, *, actor: Actor, operation: str, channel: str | None, instance: str | None) -> bool:
    """Whether some allow could match, taking every fact of the job as matching. No decision: only worth a look."""
    question = Question(actor, operation, channel, instance or "")
    skipped = {"products", "touches", "devices"} | (set() if instance is not None else {"instances"})
    return any(
        rule.kind is RuleKind.ALLOW and _holds_but(rule, question, skipped)
        for rule in policy.by_operation.get(operation, ())
    )


def allowed_instances(policy: Policy, *, actor: Actor, operation: str, channel: str | None) -> tuple[str, ...]:
    """The instances on which this person may ask for the operation here."""
    return tuple(
        name
        for name in policy.instances
        if may_ask(policy, actor=actor, operation=operation, channel=channel, instance=name)
    )


def consider(rule: Rule, question: Question) -> Considered:
    """Holds the rule's conditions against the question."""
    counts_unknown_as = rule.kind is not RuleKind.ALLOW
    unknown: list[str] = []
    for name in _CONDITIONS:
        verdict = _holds(rule, question, name)
        if verdict is None:
            unknown.append(name)
            verdict = counts_unknown_as
        if not verdict:
            return Considered(rule, False, name, tuple(unknown))
    if rule.exempt is not None and _is_in(rule.exempt, question.actor):
        return Considered(rule, False, "except", tuple(unknown))
    return Considered(rule, True, None, tuple(unknown))


def _holds(rule: Rule, question: Question, name: str) -> bool | None:
    """Whether one condition holds; None if the fact it needs is unknown."""
    match name:
        case "who":
            return rule.who is None or _is_in(rule.who, question.actor)
        case "instances":
            return rule.instances is None or _globs(rule.instances, question.instance)
        case "channels":
            return rule.channels is None or question.channel in rule.channels
        case "products":
            if rule.products is None or question.product is None:
                return rule.products is None
            return None if question.product is UNKNOWN else _globs(rule.products, question.product)
        case "touches":
            if rule.touches is None or question.touches is None:
                return rule.touches is None
            return None if question.touches is UNKNOWN else not rule.touches.isdisjoint(question.touches)
        case _:
            if rule.devices is None or question.devices is None:
                return rule.devices is None
            return None if question.devices is UNKNOWN else rule.devices.holds(question.devices)


def _holds_but(rule: Rule, question: Question, skipped: set[str]) -> bool:
    return all(_holds(rule, question, name) for name in _CONDITIONS if name not in skipped)


def _is_in(circle: Circle, actor: Actor) -> bool:
    return circle.is_anyone or actor.user_id in circle.users or not circle.usergroups.isdisjoint(actor.groups)


def _globs(patterns: tuple[str, ...], value: str) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _names(rules: list[Rule]) -> tuple[str, ...]:
    return tuple(rule.name for rule in rules)


def _denies(rule: Rule) -> str:
    return f"Rule “{rule.name}” denies it{f': {rule.note}' if rule.note else '.'}"


def _requires(rule: Rule) -> str:
    what = "a reason" if rule.requirements.reason else "a confirmation"
    return f"Rule “{rule.name}” requires {what}{f': {rule.note}' if rule.note else '.'}"


def _nobody_allows(policy: Policy, question: Question) -> str:
    """Says that no rule allows it, and who could: those whom a rule would allow just this."""
    able: dict[str, None] = {}
    elsewhere: dict[str, None] = {}
    for rule in policy.by_operation.get(question.operation, ()):
        if rule.kind is not RuleKind.ALLOW or rule.who is None:
            continue
        misses = [name for name in _CONDITIONS if _holds(rule, question, name) is False]
        if misses == ["who"]:
            able |= dict.fromkeys(rule.who.names)
        elif misses == ["channels"]:
            elsewhere |= dict.fromkeys(sorted(rule.channels or ()))
    said = f"No rule allows {question.operation} here for you."
    if elsewhere:
        return f"{said} You could do it in another channel ({', '.join(elsewhere)})."
    return f"{said} Those who could: {', '.join(able)}." if able else said
