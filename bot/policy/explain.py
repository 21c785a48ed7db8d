"""Why the policy decides as it does: the same evaluator, with every rule that it considered kept and put in words."""

from __future__ import annotations

from dataclasses import dataclass

from bot.model import Decision, Question
from bot.policy.decide import Considered, decide
from bot.policy.rules import Policy


@dataclass(frozen=True, slots=True)
class Trace:
    """A decision, and each rule that names the operation as it was considered."""

    question: Question
    decision: Decision
    considered: tuple[Considered, ...]


def explain(policy: Policy, question: Question) -> Trace:
    """The decision with its trace."""
    considered: list[Considered] = []
    decision = decide(policy, question, sink=considered.append)
    return Trace(question, decision, tuple(considered))


def render(trace: Trace) -> str:
    """The trace as text for a terminal."""
    lines = [_line(each) for each in trace.considered]
    if not lines:
        lines = [f"no rule names {trace.question.operation}"]
    verdict = "allowed" if trace.decision.is_allowed else "denied"
    if trace.decision.is_allowed:
        verdict += " after a reason and a click" if trace.decision.requirements.reason else " after a click"
    head = f"{trace.question.operation} on {trace.question.instance}: {verdict}"
    return "\n".join([head, *lines, *trace.decision.reasons, f"policy {trace.decision.policy[:12]}"])


def _line(each: Considered) -> str:
    mark = "matches " if each.is_match else "no match"
    why = f" ({each.why_not} does not hold)" if each.why_not else ""
    unknown = f" (unknown: {', '.join(each.unknown)})" if each.unknown else ""
    return f"  {mark}  {each.rule.kind:<7} {each.rule.name}{why}{unknown}"
