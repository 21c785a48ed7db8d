"""The evaluator: its clauses one by one, and what must hold for any policy and any question."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.model import UNKNOWN, Actor, Effect, Question, Touch
from bot.policy.decide import allowed_instances, decide, may_ask
from bot.policy.explain import explain, render
from bot.policy.rules import Circle, Policy, Rule, RuleKind, Span
from tests.values import AT

OPERATIONS = ("job.show", "job.cancel", "job.halt")
ANYONE = Circle(("anyone",), is_anyone=True)
ONCALL = Circle(("oncall",), usergroups=frozenset({"S1"}))
U1 = Actor("U1", frozenset(), AT)
IN_S1 = replace(U1, groups=frozenset({"S1"}))
ASKED = Question(U1, "job.cancel", "C1", "prod", "a1", frozenset({Touch.QUEUED}), 10)


def policy(*rules: Rule) -> Policy:
    by_operation = {name: tuple(rule for rule in rules if name in rule.operations) for name in OPERATIONS}
    return Policy(rules, {"prod": None, "staging": None}, "digest", frozenset({"S1"}), by_operation)  # type: ignore[dict-item]


def rule(kind: RuleKind, name: str = "r", **conditions: Any) -> Rule:
    return Rule(name, kind, **{"operations": frozenset({"job.cancel"}), **conditions})


def allow(**conditions: Any) -> Rule:
    return rule(RuleKind.ALLOW, "allow", **{"who": ANYONE, **conditions})


def deny(**conditions: Any) -> Rule:
    return rule(RuleKind.DENY, "deny", **conditions)


def test_a_denial_names_its_rule_and_its_note() -> None:
    decision = decide(policy(allow(), deny(note="ask a release manager")), ASKED)
    assert decision.rules == ("deny",)
    assert decision.reasons == ("Rule “deny” denies it: ask a release manager",)


def test_a_denial_without_a_rule_names_those_who_could() -> None:
    decision = decide(policy(allow(who=ONCALL)), ASKED)
    assert decision.reasons == ("No rule allows job.cancel here for you. Those who could: oncall.",)


def test_a_denial_for_the_place_names_the_right_one() -> None:
    decision = decide(policy(allow(channels=frozenset({"C2"}))), ASKED)
    assert decision.reasons == ("No rule allows job.cancel here for you. You could do it in another channel (C2).",)


def test_a_decision_carries_the_policys_digest_and_its_rules() -> None:
    decision = decide(policy(allow(), rule(RuleKind.REQUIRE, "why")), ASKED)
    assert (decision.effect, decision.rules, decision.policy) == (Effect.ALLOW, ("allow", "why"), "digest")


def test_another_operation_is_not_allowed_by_the_way() -> None:
    assert not decide(policy(allow()), replace(ASKED, operation="job.halt")).is_allowed


@pytest.mark.parametrize(
    "condition", [{"products": ("a*",)}, {"touches": frozenset({Touch.QUEUED})}, {"devices": Span(0)}]
)
def test_an_unknown_fact_never_allows_and_always_denies(condition: dict[str, Any]) -> None:
    asked = replace(ASKED, product=UNKNOWN, touches=UNKNOWN, devices=UNKNOWN)
    assert not decide(policy(allow(**condition)), asked).is_allowed
    assert not decide(policy(allow(), deny(**condition)), asked).is_allowed


@pytest.mark.parametrize(
    "condition", [{"products": ("a*",)}, {"touches": frozenset({Touch.QUEUED})}, {"devices": Span(0)}]
)
def test_a_fact_that_the_operation_does_not_have_makes_its_condition_false(condition: dict[str, Any]) -> None:
    asked = replace(ASKED, product=None, touches=None, devices=None)
    assert not decide(policy(allow(**condition)), asked).is_allowed
    assert decide(policy(allow(), deny(**condition)), asked).is_allowed


def test_whoever_could_be_allowed_may_ask() -> None:
    strict = policy(allow(who=ONCALL, instances=("prod",), products=("zz",), devices=Span(most=0)))
    ask = {"operation": "job.cancel", "channel": "C1"}
    assert may_ask(strict, actor=IN_S1, instance="prod", **ask)
    assert may_ask(strict, actor=IN_S1, instance=None, **ask)
    assert not may_ask(strict, actor=IN_S1, instance="staging", **ask)
    assert not may_ask(strict, actor=U1, instance="prod", **ask)
    assert allowed_instances(strict, actor=IN_S1, **ask) == ("prod",)


def test_an_explanation_says_of_each_rule_why_it_did_not_match() -> None:
    text = render(explain(policy(allow(who=ONCALL), deny(devices=Span(500))), ASKED))
    assert "no match  allow   allow (who does not hold)" in text
    assert "no match  deny    deny (devices does not hold)" in text
    assert text.startswith("job.cancel on prod: denied")


_circles = st.sampled_from([ANYONE, ONCALL, Circle(("U1",), users=frozenset({"U1"}))])
_rules = st.builds(
    Rule,
    name=st.text("abc", min_size=1, max_size=3),
    kind=st.sampled_from(RuleKind),
    operations=st.sampled_from([frozenset({"job.cancel"}), frozenset({"job.halt"}), frozenset(OPERATIONS)]),
    who=_circles,
    exempt=st.none() | _circles,
    instances=st.none() | st.sampled_from([("prod",), ("st*",)]),
    products=st.none() | st.sampled_from([("a1",), ("b*",)]),
    channels=st.none() | st.sampled_from([frozenset({"C1"}), frozenset({"C2"})]),
    touches=st.none() | st.sampled_from([frozenset({Touch.QUEUED}), frozenset({Touch.IN_PROGRESS})]),
    devices=st.none() | st.sampled_from([Span(least=11), Span(most=10)]),
)
_questions = st.builds(
    Question,
    actor=st.sampled_from([U1, IN_S1]),
    operation=st.sampled_from(OPERATIONS),
    channel=st.sampled_from(["C1", "C2", None]),
    instance=st.sampled_from(["prod", "staging"]),
    product=st.sampled_from(["a1", "b1", UNKNOWN, None]),
    touches=st.sampled_from([frozenset({Touch.QUEUED}), frozenset({Touch.IN_PROGRESS, Touch.QUEUED}), UNKNOWN, None]),
    devices=st.sampled_from([5, 50, UNKNOWN, None]),
)


@given(st.lists(_rules, max_size=6), _questions, st.randoms())
def test_the_order_of_rules_means_nothing(rules: list[Rule], question: Question, random: Any) -> None:
    shuffled = random.sample(rules, len(rules))
    first, second = decide(policy(*rules), question), decide(policy(*shuffled), question)
    assert (first.effect, first.requirements, set(first.rules)) == (
        second.effect,
        second.requirements,
        set(second.rules),
    )


@given(st.lists(_rules, max_size=6), _rules, _questions)
def test_one_more_deny_never_allows_and_one_more_allow_never_denies(
    rules: list[Rule], more: Rule, question: Question
) -> None:
    before = decide(policy(*rules), question)
    with_deny = decide(policy(*rules, replace(more, kind=RuleKind.DENY)), question)
    with_allow = decide(policy(*rules, replace(more, kind=RuleKind.ALLOW)), question)
    assert before.is_allowed or not with_deny.is_allowed
    assert with_allow.is_allowed or not before.is_allowed


@given(st.lists(_rules, max_size=6), _questions, st.sampled_from(["a1", "b1"]), st.sampled_from([5, 50]))
def test_not_knowing_never_allows_more_than_knowing(
    rules: list[Rule], question: Question, product: str, devices: int
) -> None:
    touches = frozenset({Touch.QUEUED})
    known = decide(policy(*rules), replace(question, product=product, devices=devices, touches=touches))
    unknown = decide(policy(*rules), replace(question, product=UNKNOWN, devices=UNKNOWN, touches=UNKNOWN))
    assert known.is_allowed or not unknown.is_allowed


@given(st.lists(_rules, max_size=6), _questions)
def test_the_explanation_is_of_the_same_decision(rules: list[Rule], question: Question) -> None:
    trace = explain(policy(*rules), question)
    assert trace.decision == decide(policy(*rules), question)
    assert render(trace)


@given(st.lists(_rules, max_size=6), _questions)
def test_whoever_is_allowed_may_ask(rules: list[Rule], question: Question) -> None:
    asked = {"actor": question.actor, "operation": question.operation, "channel": question.channel}
    if decide(policy(*rules), question).is_allowed:
        assert may_ask(policy(*rules), instance=question.instance, **asked)
        assert question.instance in allowed_instances(policy(*rules), **asked)
