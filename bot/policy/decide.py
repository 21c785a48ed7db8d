"""A question and a policy in, a decision out, independent of the order of rules.

1. No matching `allow`: denied. 2. A matching `deny`, minus its `except`: denied. 3. All matching `require`s apply.
Which rules match is found in `evaluate`; the sentences of a denial are made in `denials`.
"""

from __future__ import annotations

from bot.model import Actor, Confirm, Decision, Effect, Question, Requirements
from bot.policy.compiled import Policy, RuleSet, members
from bot.policy.denials import why_not_allowed, why_stopped
from bot.policy.evaluate import Evaluation, evaluate, read_place
from bot.policy.rules import Rule, RuleKind

_WHAT = {False: "a click", True: "a reason"}


def decide(policy: Policy, question: Question) -> Decision:
    """What the policy says."""
    return conclude(policy, question, evaluate(policy.index, question))


def conclude(policy: Policy, question: Question, evaluation: Evaluation) -> Decision:
    """The decision that follows from an evaluation of the question."""
    kinds, matching = policy.index.kinds, evaluation.matching
    allows, denies = matching & kinds[RuleKind.ALLOW], matching & kinds[RuleKind.DENY]
    if not allows:
        denies &= ~evaluation.unknown  # what nobody looked up stops nobody who may not anyway
        reasons = (*why_not_allowed(policy, question, evaluation), *why_stopped(policy, evaluation, denies))
        return Decision(Effect.DENY, _names(policy, denies), reasons, policy.digest)
    if denies:
        return Decision(Effect.DENY, _names(policy, denies), why_stopped(policy, evaluation, denies), policy.digest)
    requires = matching & kinds[RuleKind.REQUIRE]
    applying = [policy.rules[number] for number in members(requires)]
    return Decision(
        Effect.ALLOW,
        _names(policy, allows) + tuple(rule.name for rule in applying),
        tuple(_requirement(rule) for rule in applying),
        policy.digest,
        Requirements(Confirm.CLICK, reason=any(_wants_reason(rule) for rule in applying)),
    )


def may_ask(policy: Policy, *, actor: Actor, operation: str, channel: str | None, instance: str | None) -> bool:
    """Whether some allow matches if every fact of the job is taken as matching: worth a look, no decision."""
    allows = _asking(policy, actor, operation, channel)
    return bool(allows if instance is None else allows & policy.index.instances.passing(instance))


def allowed_instances(policy: Policy, *, actor: Actor, operation: str, channel: str | None) -> tuple[str, ...]:
    """The instances on which this person may ask for the operation here."""
    allows = _asking(policy, actor, operation, channel)
    return tuple(name for name in policy.instances if allows & policy.index.instances.passing(name))


def _asking(policy: Policy, actor: Actor, operation: str, channel: str | None) -> RuleSet:
    """The allows that match who, operation and channel."""
    found = policy.index.kinds[RuleKind.ALLOW]
    for reading in read_place(policy.index, actor, operation, channel):
        found &= reading.holds
    return found


def _names(policy: Policy, rules: RuleSet) -> tuple[str, ...]:
    return tuple(policy.rules[number].name for number in members(rules))


def _wants_reason(rule: Rule) -> bool:
    return rule.requires is not None and rule.requires.reason


def _requirement(rule: Rule) -> str:
    note = f": {rule.note}" if rule.note else "."
    return f"Rule “{rule.name}” requires {_WHAT[_wants_reason(rule)]}{note}"
