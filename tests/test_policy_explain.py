"""What a person at a terminal reads about a decision. (That it is the decision's own trace: test_policy_decide.)"""

from __future__ import annotations

from bot.model import UNKNOWN, Touch
from bot.policy.evaluate import Condition
from bot.policy.explain import Verdict, explain, render
from tests.policies import ONCALL, policy, question

RULES = (
    "name: look, allow: [reads], who: [iot-team]",
    "name: stop, allow: [changes], who: [firmware-oncall], where: {instances: [prod-*], channels: [C0INCIDENT]}",
    "name: big, require: {reason: true}, for: [changes], when: {devices: {more_than: 500}}, note: say why",
    "name: sensors, deny: [changes], where: {products: [a1Sensor*]}, except: [firmware-oncall]",
)


def test_an_allowed_call_shows_what_matched_what_did_not_and_why() -> None:
    trace = explain(policy(*RULES), question(ONCALL, devices=UNKNOWN))
    assert render(trace).split("\n") == [
        "job.cancel on prod-shanghai, in C0INCIDENT, by U0SOMEBODY (S0614TZR7)",
        "products: a1Gateway01; touches: NOTIFIED+QUEUED; devices: unknown",
        f"allowed, with a reason and a click (policy {trace.decision.policy[:12]})",
        "  Rule “big” requires a reason: say why",
        "",
        "Rules that match:",
        "  require big (rules.yaml:4): devices unknown, wanted 501 or more",
        "  allow   stop (rules.yaml:3)",
        "",
        "Rules that do not match:",
        "  deny    sensors (rules.yaml:5): products is a1Gateway01, not a1Sensor*; except firmware-oncall",
        "",
        "About other operations: look",
    ]


def test_a_denied_call_shows_every_condition_that_failed() -> None:
    shown = render(explain(policy(*RULES), question(channel=None, instance="staging-singapore", product=None)))
    assert (
        "job.cancel on staging-singapore, outside of any channel, by U0SOMEBODY (no user group of the policy)" in shown
    )
    assert "denied (policy" in shown
    assert (
        "  allow   stop (rules.yaml:3): who is U0SOMEBODY, not firmware-oncall; channels is none, not C0INCIDENT; "
        "instances is staging-singapore, not prod-*"
    ) in shown
    assert "  deny    sensors (rules.yaml:5): products is none, not a1Sensor*" in shown


def test_a_call_that_needs_a_click_alone_says_so() -> None:
    shown = render(explain(policy(*RULES), question(ONCALL)))
    assert "allowed, with a click (policy" in shown
    assert "About other operations" in shown
    assert "About other operations" not in render(explain(policy(*RULES[1:]), question(ONCALL)))


def test_the_trace_holds_every_rule_with_its_conditions() -> None:
    trace = explain(policy(*RULES), question(ONCALL, product=UNKNOWN, touches=frozenset({Touch.QUEUED})))
    considered = {each.rule.name: each for each in trace.considered}
    assert set(considered) == {"look", "stop", "big", "sensors"}
    assert considered["sensors"].having(Verdict.UNKNOWN) == (Condition.PRODUCTS,)
    assert considered["sensors"].is_excepted
    assert not considered["sensors"].is_match
    assert considered["look"].having(Verdict.FAILS) == (Condition.OPERATION, Condition.WHO)
    assert considered["stop"].having(Verdict.HOLDS) == (
        Condition.OPERATION,
        Condition.WHO,
        Condition.CHANNELS,
        Condition.INSTANCES,
    )
