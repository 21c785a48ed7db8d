"""Why the policy decides as it does: the evaluation behind a decision, kept and put in words for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from bot.model import Decision, Question, Unknown
from bot.policy.compiled import Policy, RuleSet
from bot.policy.decide import conclude
from bot.policy.evaluate import Condition, Evaluation, evaluate
from bot.policy.rules import Rule


class Verdict(StrEnum):
    """What one condition of one rule made of the question."""

    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Considered:
    """One rule: whether it matches, what each of its conditions said, and whether its `except` spares the actor."""

    rule: Rule
    is_match: bool
    conditions: tuple[tuple[Condition, Verdict], ...]
    is_excepted: bool

    def having(self, verdict: Verdict) -> tuple[Condition, ...]:
        return tuple(condition for condition, found in self.conditions if found is verdict)


@dataclass(frozen=True, slots=True)
class Trace:
    """A decision, and every rule of the policy as it was considered."""

    question: Question
    decision: Decision
    considered: tuple[Considered, ...]


def explain(policy: Policy, question: Question) -> Trace:
    """The decision with its trace."""
    evaluation = evaluate(policy.index, question)
    decision = conclude(policy, question, evaluation)
    considered = (_considered(rule, number, evaluation) for number, rule in enumerate(policy.rules))
    return Trace(question, decision, tuple(considered))


def _considered(rule: Rule, number: int, evaluation: Evaluation) -> Considered:
    verdicts = tuple(
        (condition, _verdict(number, holds, unknown))
        for condition, holds, unknown in evaluation.readings
        if _has(rule, condition)
    )
    is_excepted = _is_in(number, evaluation.excepted)
    return Considered(rule, _is_in(number, evaluation.matching), verdicts, is_excepted)


def _verdict(number: int, holds: RuleSet, unknown: RuleSet) -> Verdict:
    if _is_in(number, unknown):
        return Verdict.UNKNOWN
    return Verdict.HOLDS if _is_in(number, holds) else Verdict.FAILS


def _is_in(number: int, rules: RuleSet) -> bool:
    return bool(rules >> number & 1)


def _has(rule: Rule, condition: Condition) -> bool:
    written = {
        Condition.OPERATION: rule.operations,
        Condition.WHO: rule.who,
        Condition.CHANNELS: rule.channels,
        Condition.INSTANCES: rule.instances,
        Condition.PRODUCTS: rule.products,
        Condition.TOUCHES: rule.touches,
        Condition.DEVICES: rule.devices,
    }
    return bool(written[condition])


def render(trace: Trace) -> str:
    """The trace as text for a terminal: the decision, then the rules that matched, then those that did not."""
    about = [each for each in trace.considered if Condition.OPERATION not in each.having(Verdict.FAILS)]
    elsewhere = [each.rule.name for each in trace.considered if each not in about]
    lines = [*_head(trace), *(f"  {reason}" for reason in trace.decision.reasons)]
    for title, is_match in (("Rules that match:", True), ("Rules that do not match:", False)):
        if chosen := [each for each in about if each.is_match is is_match]:
            lines += ["", title, *(_line(each, trace.question) for each in chosen)]
    if elsewhere:
        lines += ["", f"About other operations: {', '.join(elsewhere)}"]
    return "\n".join(lines)


def _head(trace: Trace) -> Iterable[str]:
    question, decision = trace.question, trace.decision
    where = f"in {question.channel}" if question.channel else "outside of any channel"
    groups = ", ".join(sorted(question.actor.groups)) or "no user group of the policy"
    yield f"{question.operation} on {question.instance}, {where}, by {question.actor.user_id} ({groups})"
    yield "; ".join(f"{name}: {_fact(question, name)}" for name in _OF_THE_JOB)
    verdict = "denied"
    if decision.is_allowed:
        verdict = "allowed, with a reason and a click" if decision.requirements.reason else "allowed, with a click"
    yield f"{verdict} (policy {decision.policy[:12]})"


_OF_THE_JOB = (Condition.PRODUCTS, Condition.TOUCHES, Condition.DEVICES)


def _line(each: Considered, question: Question) -> str:
    rule = each.rule
    why = [f"{name} is {_fact(question, name)}, not {_wanted(rule, name)}" for name in each.having(Verdict.FAILS)]
    why += [f"{name} unknown, wanted {_wanted(rule, name)}" for name in each.having(Verdict.UNKNOWN)]
    if each.is_excepted:
        why.append(f"except {', '.join(rule.excepted)}")
    source = f" ({rule.source})" if rule.source else ""
    return f"  {rule.kind:<7} {rule.name}{source}{': ' if why else ''}{'; '.join(why)}"


def _fact(question: Question, condition: Condition) -> str:
    found: object = {
        Condition.OPERATION: question.operation,
        Condition.WHO: question.actor.user_id,
        Condition.CHANNELS: question.channel,
        Condition.INSTANCES: question.instance,
        Condition.PRODUCTS: question.product,
        Condition.TOUCHES: question.touches,
        Condition.DEVICES: question.devices,
    }[condition]
    if isinstance(found, frozenset):
        return "+".join(sorted(found)) or "none"
    if isinstance(found, Unknown):
        return "unknown"
    return "none" if found is None else str(found)


def _wanted(rule: Rule, condition: Condition) -> str:
    words: Iterable[str] = {
        Condition.OPERATION: sorted(rule.operations),
        Condition.WHO: rule.who,
        Condition.CHANNELS: rule.channels,
        Condition.INSTANCES: rule.instances,
        Condition.PRODUCTS: rule.products,
        Condition.TOUCHES: sorted(rule.touches),
        Condition.DEVICES: [str(rule.devices)],
    }[condition]
    return " | ".join(words)
