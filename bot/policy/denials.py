"""Why the policy says no, in sentences for the person it says no to: which rule, its note, and who could.

Nothing here changes a decision. A hint is about the nearest rules only, never the whole policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bot.model import Question
from bot.policy.compiled import Policy, RuleSet, members
from bot.policy.evaluate import Condition, Evaluation
from bot.policy.rules import Rule, RuleKind, listed

_MOST_HINTS = 3
_MOST_NAMES = 5

_FACTS = {
    Condition.PRODUCTS: "which product it is",
    Condition.TOUCHES: "which devices the call touches",
    Condition.DEVICES: "how many devices it touches",
}
_LIMITS: dict[Condition, Callable[[Rule], str]] = {
    Condition.CHANNELS: lambda rule: f"in channel {_some(rule.channels)}, not here",
    Condition.INSTANCES: lambda rule: f"on {_some(rule.instances)} alone",
    Condition.PRODUCTS: lambda rule: f"for the product {_some(rule.products)} alone",
    Condition.TOUCHES: lambda rule: f"if the call touches {_some(sorted(rule.touches))}",
    Condition.DEVICES: lambda rule: f"for {rule.devices} devices",
}


def why_stopped(policy: Policy, evaluation: Evaluation, denies: RuleSet) -> tuple[str, ...]:
    """One sentence for each deny that matches."""
    return tuple(_denial(policy.rules[number], _not_learnt(evaluation, number)) for number in members(denies))


def why_not_allowed(policy: Policy, question: Question, evaluation: Evaluation) -> tuple[str, ...]:
    """That no rule allows it, who could, and what of the call keeps the nearest rules from allowing it."""
    operation = question.operation
    sentences = [f"No rule allows {operation} here for you."]
    others = _allows_but_for(policy, evaluation, Condition.WHO)
    if able := [word for word, rules in policy.index.who.by_word.items() if rules & others]:
        sentences.append(f"Those who could: {_some(sorted(able))}.")
    for condition in _LIMITS:
        nearest = _allows_but_for(policy, evaluation, condition)
        sentences += [_hint(policy.rules[number], condition, evaluation, number) for number in _first(nearest)]
    return tuple(sentences[: 2 + _MOST_HINTS])


def _allows_but_for(policy: Policy, evaluation: Evaluation, condition: Condition) -> RuleSet:
    """The allows in which this condition alone fails; what could not be learnt is not held against the others."""
    found = policy.index.kinds[RuleKind.ALLOW]
    for reading in evaluation.readings:
        if reading.condition is condition:
            found &= ~reading.holds
        else:
            found &= reading.holds | reading.unknown
    return found


def _first(rules: RuleSet) -> Iterable[int]:
    return (number for number, _ in zip(members(rules), range(_MOST_HINTS), strict=False))


def _hint(rule: Rule, condition: Condition, evaluation: Evaluation, number: int) -> str:
    if condition in _not_learnt(evaluation, number):
        return f"Rule “{rule.name}” might allow it, but {_FACTS[condition]} could not be learnt."
    return f"Rule “{rule.name}” allows it {_LIMITS[condition](rule)}."


def _denial(rule: Rule, not_learnt: tuple[Condition, ...]) -> str:
    parts = [f"Rule “{rule.name}” denies it"]
    if not_learnt:
        facts = listed([_FACTS[condition] for condition in not_learnt], last="and")
        parts.append(f", because {facts} could not be learnt")
    parts.append(f": {rule.note}" if rule.note else ".")
    if rule.excepted:
        end = "" if parts[-1].endswith((".", "!", "?")) else "."
        parts.append(f"{end} It does not stop {_some(rule.excepted)}.")
    return "".join(parts)


def _not_learnt(evaluation: Evaluation, number: int) -> tuple[Condition, ...]:
    return tuple(reading.condition for reading in evaluation.readings if reading.unknown >> number & 1)


def _some(words: Iterable[str]) -> str:
    given = list(words)
    more = [f"{len(given) - _MOST_NAMES} more"] if len(given) > _MOST_NAMES else []
    return listed([*given[:_MOST_NAMES], *more])
