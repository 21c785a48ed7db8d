"""What the policy decides: each clause of its semantics, and what holds for all policies and questions."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.model import UNKNOWN, Actor, Confirm, Instance, Question, Requirements, Touch
from bot.policy.compiled import Policy, compile_policy
from bot.policy.decide import allowed_instances, decide, may_ask
from bot.policy.explain import explain
from bot.policy.rules import Bounds, Group, Rule, RuleKind
from tests.policies import BASE, ONCALL, OPERATIONS, TEAM, policy, question
from tests.values import AT

ALLOW = "name: on-call stops, allow: [job.cancel, job.halt], who: [firmware-oncall]"
ANYBODY = "name: anybody, allow: [job.*], who: [anyone]"


def is_allowed(*rules: str, asked: Question) -> bool:
    return decide(policy(*rules), asked).is_allowed


def test_what_no_rule_allows_is_denied_and_the_denial_says_who_could() -> None:
    decision = decide(policy(ALLOW), question())
    assert not decision.is_allowed
    assert decision.rules == ()
    assert decision.reasons == (
        "No rule allows job.cancel here for you.",
        "Those who could: firmware-oncall.",
    )


def test_an_allow_that_matches_allows_after_a_click() -> None:
    allowing = policy(ALLOW)
    decision = decide(allowing, question(ONCALL))
    assert decision.is_allowed
    assert decision.rules == ("on-call stops",)
    assert decision.policy == allowing.digest
    assert decision.requirements == Requirements(Confirm.CLICK, reason=False)


def test_a_deny_wins_and_its_note_and_its_exceptions_are_told() -> None:
    deny = "name: freeze, deny: [job.cancel], except: [release-managers], note: ask a release manager"
    decision = decide(policy(ANYBODY, deny), question())
    assert not decision.is_allowed
    assert decision.rules == ("freeze",)
    assert decision.reasons == ("Rule “freeze” denies it: ask a release manager. It does not stop release-managers.",)
    assert is_allowed(ANYBODY, deny, asked=question(user="U0RELEASE1"))
    assert is_allowed(ANYBODY, deny, asked=question(operation="job.halt"))


def test_who_is_not_allowed_and_denied_too_is_told_both() -> None:
    decision = decide(policy(ALLOW, "name: freeze, deny: [job.cancel], note: until Monday"), question())
    assert decision.reasons[0] == "No rule allows job.cancel here for you."
    assert decision.reasons[-1] == "Rule “freeze” denies it: until Monday"
    assert decision.rules == ("freeze",)


def test_every_require_that_matches_applies() -> None:
    reason = "name: say why, require: {reason: true}, for: [job.cancel], note: for the audit"
    click = "name: sure, require: {confirm: click}, for: [changes]"
    decision = decide(policy(ANYBODY, reason, click), question())
    assert decision.requirements.reason
    assert decision.rules == ("anybody", "say why", "sure")
    assert decision.reasons == ("Rule “say why” requires a reason: for the audit", "Rule “sure” requires a click.")
    assert not decide(policy(ANYBODY, reason), question(operation="job.halt")).requirements.reason


def test_a_require_spares_those_it_excepts() -> None:
    rules = (ANYBODY, "name: say why, require: {reason: true}, for: [changes], except: [firmware-oncall]")
    assert decide(policy(*rules), question(TEAM)).requirements.reason
    assert not decide(policy(*rules), question(ONCALL)).requirements.reason


@pytest.mark.parametrize(
    ("who", "groups", "user", "is_meant"),
    [
        ("iot-team", {TEAM}, "U0SOMEBODY", True),
        ("iot-team", {ONCALL}, "U0SOMEBODY", False),
        ("release-managers", set(), "U0RELEASE1", True),
        ("release-managers", set(), "W0RELEASE2", True),
        ("release-managers", {TEAM}, "U0SOMEBODY", False),
        ("U0SOMEBODY", set(), "U0SOMEBODY", True),
        ("U0SOMEBODY", set(), "U0SOMEBODYELSE", False),
        ("anyone", set(), "U0SOMEBODY", True),
        ("iot-team, U0SOMEBODY", set(), "U0SOMEBODY", True),
    ],
)
def test_who_means_groups_ids_or_anyone(who: str, groups: set[str], user: str, is_meant: bool) -> None:
    rule = f"name: x, allow: [changes], who: [{who}]"
    assert is_allowed(rule, asked=question(*groups, user=user)) is is_meant


@pytest.mark.parametrize(
    ("condition", "bent", "holds"),
    [
        ("where: {instances: [prod-shanghai]}", {}, True),
        ("where: {instances: ['prod-*']}", {}, True),
        ("where: {instances: [staging-*]}", {}, False),
        ("where: {instances: [staging-*, prod-shangha?]}", {}, True),
        ("where: {products: [a1Gateway01]}", {}, True),
        ("where: {products: [a1Gateway*]}", {}, True),
        ("where: {products: [a1gateway*]}", {}, False),
        ("where: {products: [a1Sensor0002]}", {}, False),
        ("where: {products: ['*']}", {"product": None}, False),
        ("where: {channels: [C0INCIDENT]}", {}, True),
        ("where: {channels: [C0OTHER]}", {}, False),
        ("where: {channels: [C0INCIDENT]}", {"channel": None}, False),
        ("note: no channels", {"channel": None}, True),
        ("where: {instances: [prod-*], channels: [C0OTHER]}", {}, False),
        ("when: {touches: [NOTIFIED]}", {}, True),
        ("when: {touches: [NOTIFIED, IN_PROGRESS]}", {}, True),
        ("when: {touches: [IN_PROGRESS]}", {}, False),
        ("when: {touches: [QUEUED]}", {"touches": frozenset()}, False),
        ("when: {touches: [QUEUED]}", {"touches": None}, False),
        ("when: {devices: {more_than: 11}}", {}, True),
        ("when: {devices: {more_than: 12}}", {}, False),
        ("when: {devices: {at_least: 12}}", {}, True),
        ("when: {devices: {at_least: 13}}", {}, False),
        ("when: {devices: {less_than: 13}}", {}, True),
        ("when: {devices: {less_than: 12}}", {}, False),
        ("when: {devices: {at_most: 12}}", {}, True),
        ("when: {devices: {at_most: 11}}", {}, False),
        ("when: {devices: {at_least: 12, at_most: 12}}", {}, True),
        ("when: {devices: {at_least: 0}}", {"devices": None}, False),
        ("when: {touches: [QUEUED], devices: {more_than: 500}}", {}, False),
    ],
)
def test_every_condition_of_a_rule_must_hold(condition: str, bent: dict[str, Any], holds: bool) -> None:
    asked = question(**bent)
    assert is_allowed(f"name: x, allow: [changes], who: [anyone], {condition}", asked=asked) is holds
    assert is_allowed(ANYBODY, f"name: x, deny: [changes], {condition}", asked=asked) is not holds
    required = decide(policy(ANYBODY, f"name: x, require: {{reason: true}}, for: [changes], {condition}"), asked)
    assert required.requirements.reason is holds


@pytest.mark.parametrize(
    ("condition", "unknown"),
    [
        ("where: {products: [a1Gateway01]}", "product"),
        ("when: {touches: [QUEUED]}", "touches"),
        ("when: {devices: {less_than: 5}}", "devices"),
    ],
)
def test_an_unknown_fact_counts_as_true_in_deny_and_require_and_as_false_in_allow(condition: str, unknown: str) -> None:
    asked = question(**{unknown: UNKNOWN})
    assert not is_allowed(f"name: x, allow: [changes], who: [anyone], {condition}", asked=asked)
    denied = decide(policy(ANYBODY, f"name: x, deny: [changes], {condition}"), asked)
    assert not denied.is_allowed
    assert "could not be learnt" in denied.reasons[0]
    required = decide(policy(ANYBODY, f"name: x, require: {{reason: true}}, for: [changes], {condition}"), asked)
    assert required.requirements.reason


def test_an_unknown_fact_does_not_undo_an_exception() -> None:
    deny = "name: x, deny: [changes], when: {devices: {more_than: 5}}, except: [firmware-oncall]"
    assert is_allowed(ANYBODY, deny, asked=question(ONCALL, devices=UNKNOWN))


def test_an_unknown_fact_does_not_make_a_condition_that_failed_already() -> None:
    deny = "name: x, deny: [changes], where: {products: [a1Sensor*]}, when: {devices: {more_than: 5}}"
    assert is_allowed(ANYBODY, deny, asked=question(devices=UNKNOWN))


READS = {"job.show", "job.list", "job.tasks", "firmware.list", "device.show"}


@pytest.mark.parametrize(
    ("words", "reached"),
    [
        ("reads", READS),
        ("changes", set(OPERATIONS.names()) - READS),
        ("job.*", {"job.show", "job.list", "job.tasks", "job.cancel", "job.halt", "job.rate"}),
        ("'*'", set(OPERATIONS.names())),
        ("job.halt, reads", READS | {"job.halt"}),
    ],
)
def test_words_for_operations(words: str, reached: set[str]) -> None:
    allowing = policy(f"name: x, allow: [{words}], who: [anyone]")
    assert {name for name in OPERATIONS.names() if decide(allowing, question(operation=name)).is_allowed} == reached


@pytest.mark.parametrize("kind", ["deny: [job.halt]", "require: {reason: true}, for: [job.halt]"])
def test_what_holds_a_halt_back_holds_back_the_halt_of_a_firmware(kind: str) -> None:
    rules = policy("name: all, allow: [changes], who: [anyone]", f"name: x, {kind}")
    decision = decide(rules, question(operation="firmware.halt"))
    assert "x" in decision.rules


def test_halting_a_firmware_needs_an_allow_of_its_own() -> None:
    assert not is_allowed("name: x, allow: [job.halt], who: [anyone]", asked=question(operation="firmware.halt"))


def test_an_operation_that_nobody_declared_is_denied() -> None:
    assert not is_allowed("name: x, allow: ['*'], who: [anyone]", asked=question(operation="job.explode"))


def test_a_denial_says_what_would_have_to_be_otherwise() -> None:
    allow = "name: mornings, allow: [changes], who: [anyone], "
    near = [
        ("where: {channels: [C0OTHER]}", "Rule “mornings” allows it in channel C0OTHER, not here."),
        ("where: {instances: [staging-*]}", "Rule “mornings” allows it on staging-* alone."),
        ("where: {products: [a1Sensor*]}", "Rule “mornings” allows it for the product a1Sensor* alone."),
        ("when: {touches: [CONFIRM]}", "Rule “mornings” allows it if the call touches CONFIRM."),
        ("when: {devices: {at_most: 9}}", "Rule “mornings” allows it for fewer than 10 devices."),
    ]
    for condition, sentence in near:
        assert decide(policy(allow + condition), question()).reasons[1:] == (sentence,)


def test_a_denial_over_an_unknown_number_says_that() -> None:
    rule = "name: small, allow: [changes], who: [anyone], when: {devices: {at_most: 9}}"
    reasons = decide(policy(rule), question(devices=UNKNOWN)).reasons
    assert reasons[1] == "Rule “small” might allow it, but how many devices it touches could not be learnt."


def test_a_denial_before_the_job_was_read_blames_no_fact_of_the_job() -> None:
    deny = "name: sensors, deny: [changes], where: {products: [a1Sensor*]}"
    asked = question(product=UNKNOWN, touches=UNKNOWN, devices=UNKNOWN)
    decision = decide(policy(ALLOW, deny), asked)
    assert decision.reasons == (
        "No rule allows job.cancel here for you.",
        "Those who could: firmware-oncall.",
    )
    assert decision.rules == ()


def test_a_denial_stays_short_however_many_rules_are_near() -> None:
    rules = [f"name: r{n}, allow: [changes], who: [U0PERSON{n:02}]" for n in range(40)]
    rules += [f"name: s{n}, allow: [changes], who: [anyone], where: {{channels: [C0X{n:02}]}}" for n in range(40)]
    reasons = decide(policy(*rules), question()).reasons
    assert len(reasons) == 5
    assert reasons[1].endswith("U0PERSON04 or 35 more.")


def test_may_ask_takes_every_fact_of_the_job_as_matching() -> None:
    rules = policy(
        "name: x, allow: [job.cancel], who: [firmware-oncall], where: {instances: [prod-*], products: [a1No], "
        "channels: [C0INCIDENT]}, when: {touches: [IN_PROGRESS], devices: {more_than: 500}}",
        "name: freeze, deny: [job.cancel]",
    )
    actor = question(ONCALL).actor
    asks: dict[str, Any] = {"operation": "job.cancel", "channel": "C0INCIDENT", "instance": "prod-shanghai"}
    assert may_ask(rules, actor=actor, **asks)
    assert may_ask(rules, actor=actor, **(asks | {"instance": None}))
    assert not may_ask(rules, actor=question(TEAM).actor, **asks)
    for otherwise in ({"operation": "job.halt"}, {"channel": None}, {"instance": "staging-singapore"}):
        assert not may_ask(rules, actor=actor, **(asks | otherwise))


def test_the_instances_on_which_somebody_may_ask() -> None:
    rules = policy(
        "name: x, allow: [job.cancel], who: [firmware-oncall]",
        "name: y, allow: [job.cancel], who: [iot-team], where: {instances: [staging-*]}",
    )
    for groups, expected in (
        ({ONCALL}, ("prod-shanghai", "staging-singapore")),
        ({TEAM}, ("staging-singapore",)),
        (set(), ()),
    ):
        actor = question(*groups).actor
        assert allowed_instances(rules, actor=actor, operation="job.cancel", channel=None) == expected


# What holds for all policies and all questions.

USERS = ("U0AA", "U0BB", "U0RELEASE1")
GROUPS = {
    "team": Group("team", usergroup="S0TT"),
    "oncall": Group("oncall", usergroup="S0OO"),
    "managers": Group("managers", users=frozenset({"U0RELEASE1"})),
}
INSTANCES = {name: Instance(name, "cn-shanghai", account="a") for name in ("prod-a", "prod-b", "staging-a")}


def some(*words: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(words), max_size=3).map(tuple)


bounds = st.one_of(
    st.none(),
    st.builds(Bounds, at_least=st.integers(0, 20), less_than=st.integers(20, 40)),
    st.builds(Bounds, at_least=st.integers(0, 40)),
    st.builds(Bounds, less_than=st.integers(1, 40)),
)


@st.composite
def written(draw: st.DrawFn, kinds: tuple[RuleKind, ...] = tuple(RuleKind), name: str = "") -> Rule:
    kind = draw(st.sampled_from(kinds))
    who = draw(some("team", "oncall", "managers", "anyone", "U0AA"))
    return Rule(
        name=name,
        kind=kind,
        operations=frozenset(draw(st.lists(st.sampled_from(OPERATIONS.names()), min_size=1))),
        who=who or ("anyone",) if kind is RuleKind.ALLOW else who,
        instances=draw(some("prod-a", "prod-*", "*-a", "staging-a")),
        products=draw(some("a1", "b2", "a*", "?2")),
        channels=draw(some("C0A", "C0B")),
        touches=frozenset(map(Touch, draw(some("QUEUED", "NOTIFIED", "IN_PROGRESS")))),
        devices=draw(bounds),
        excepted=() if kind is RuleKind.ALLOW else draw(some("oncall", "managers", "U0BB")),
        requires=Requirements(reason=draw(st.booleans())) if kind is RuleKind.REQUIRE else None,
    )


rule_lists = st.lists(written(), max_size=8).map(
    lambda rules: [replace(rule, name=f"rule {number}") for number, rule in enumerate(rules)]
)
touch_sets = st.frozensets(st.sampled_from(Touch))
questions = st.builds(
    Question,
    actor=st.builds(
        Actor, st.sampled_from(USERS), groups=st.frozensets(st.sampled_from(("S0TT", "S0OO"))), verified_at=st.just(AT)
    ),
    operation=st.sampled_from(OPERATIONS.names()),
    channel=st.sampled_from((None, "C0A", "C0B", "C0C")),
    instance=st.sampled_from(tuple(INSTANCES)),
    product=st.sampled_from((None, UNKNOWN, "a1", "b2", "c3")),
    touches=st.one_of(st.none(), st.just(UNKNOWN), touch_sets),
    devices=st.one_of(st.none(), st.just(UNKNOWN), st.integers(0, 50)),
)


def compiled(rules: list[Rule]) -> Policy:
    return compile_policy(rules, groups=GROUPS, instances=INSTANCES, operations=OPERATIONS)


def plainly_matches(rule: Rule, asked: Question) -> bool:
    """The semantics once more, one rule at a time and as slowly as they are written down."""

    def is_one_of(words: tuple[str, ...]) -> bool:
        for word in words:
            group = GROUPS.get(word)
            if word in ("anyone", asked.actor.user_id):
                return True
            if group and (group.usergroup in asked.actor.groups or asked.actor.user_id in group.users):
                return True
        return False

    def fact(value: object, holds: Any) -> bool:
        if value is None:
            return False
        return rule.kind is not RuleKind.ALLOW if value is UNKNOWN else holds(value)

    def globs(words: tuple[str, ...]) -> Any:
        return lambda value: any(fnmatchcase(value, word) for word in words)

    def within(devices: int) -> bool:
        assert rule.devices is not None
        low, high = rule.devices.at_least, rule.devices.less_than
        return (low is None or devices >= low) and (high is None or devices < high)

    return (
        asked.operation in rule.operations
        and (not rule.who or is_one_of(rule.who))
        and (not rule.instances or fact(asked.instance, globs(rule.instances)))
        and (not rule.products or fact(asked.product, globs(rule.products)))
        and (not rule.channels or asked.channel in rule.channels)
        and (not rule.touches or fact(asked.touches, lambda touches: bool(touches & rule.touches)))
        and (rule.devices is None or fact(asked.devices, within))
        and not is_one_of(rule.excepted)
    )


AT_TERMINALS = BASE.replace("instances:", "  terminal: {terminal: [alice@ops1]}\ninstances:")


@pytest.mark.parametrize(
    ("who", "where", "actor", "is_allowed"),
    [
        ("[terminal]", "", "alice@ops1", True),
        ("[iot-team, terminal]", "", "alice@ops1", True),
        ("[anyone]", "", "alice@ops1", True),
        ("[terminal]", "", "alice@ops2", False),
        ("[terminal]", "", "Alice@ops1", False),
        ("[terminal]", "", "U0SOMEBODY", False),
        ("[release-managers]", "", "alice@ops1", False),
        ("[terminal]", ", where: {channels: [C0INCIDENT]}", "alice@ops1", False),
    ],
)
def test_a_person_at_a_terminal_is_one_of_the_group_that_names_them_and_in_no_channel(
    who: str, where: str, actor: str, is_allowed: bool
) -> None:
    rules = policy(f"name: stop, allow: [job.cancel], who: {who}{where}", base=AT_TERMINALS)
    assert decide(rules, question(user=actor, channel=None)).is_allowed is is_allowed


def test_a_deny_can_except_people_at_terminals() -> None:
    rules = policy(
        "name: stop, allow: [job.cancel], who: [anyone]",
        "name: freeze, deny: [changes], except: [terminal]",
        base=AT_TERMINALS,
    )
    assert decide(rules, question(user="alice@ops1", channel=None)).is_allowed
    assert not decide(rules, question(user="bob@ops1", channel=None)).is_allowed


@given(rule_lists, questions)
def test_the_decision_is_the_one_that_the_plain_semantics_give(rules: list[Rule], asked: Question) -> None:
    matching = [rule for rule in rules if plainly_matches(rule, asked)]
    kinds = {rule.kind for rule in matching}
    decision = decide(compiled(rules), asked)
    assert decision.is_allowed is (RuleKind.ALLOW in kinds and RuleKind.DENY not in kinds)
    if decision.is_allowed:
        assert set(decision.rules) == {rule.name for rule in matching}
        assert decision.requirements.reason is any(rule.requires and rule.requires.reason for rule in matching)
    else:
        assert decision.reasons
        assert set(decision.rules) <= {rule.name for rule in matching if rule.kind is RuleKind.DENY}


@given(rule_lists, questions, st.randoms(use_true_random=False))
def test_the_order_of_rules_means_nothing(rules: list[Rule], asked: Question, random: Any) -> None:
    shuffled = random.sample(rules, len(rules))
    assert decide(compiled(shuffled), asked) == decide(compiled(rules), asked)


@given(rule_lists, written((RuleKind.DENY, RuleKind.REQUIRE), "added"), questions)
def test_another_deny_or_require_never_allows_more(rules: list[Rule], added: Rule, asked: Question) -> None:
    before, after = decide(compiled(rules), asked), decide(compiled([*rules, added]), asked)
    assert before.is_allowed or not after.is_allowed
    if after.is_allowed:
        assert after.requirements.reason or not before.requirements.reason


@given(rule_lists, written((RuleKind.ALLOW,), "added"), questions)
def test_another_allow_never_denies(rules: list[Rule], added: Rule, asked: Question) -> None:
    before, after = decide(compiled(rules), asked), decide(compiled([*rules, added]), asked)
    assert after.is_allowed or not before.is_allowed


@given(rule_lists, questions, st.sampled_from(("product", "touches", "devices")))
def test_not_knowing_never_allows_what_knowing_denies(rules: list[Rule], asked: Question, fact: str) -> None:
    knowing, unknowing = decide(compiled(rules), asked), decide(compiled(rules), replace(asked, **{fact: UNKNOWN}))
    assert knowing.is_allowed or not unknowing.is_allowed
    if unknowing.is_allowed:
        assert unknowing.requirements.reason or not knowing.requirements.reason


@given(rule_lists, questions)
def test_who_may_not_ask_is_never_allowed(rules: list[Rule], asked: Question) -> None:
    asking: dict[str, Any] = {"actor": asked.actor, "operation": asked.operation, "channel": asked.channel}
    rules_compiled = compiled(rules)
    if decide(rules_compiled, asked).is_allowed:
        assert may_ask(rules_compiled, instance=asked.instance, **asking)
        assert may_ask(rules_compiled, instance=None, **asking)
        assert asked.instance in allowed_instances(rules_compiled, **asking)


@given(rule_lists, questions)
def test_explaining_decides_the_same_and_its_trace_is_the_plain_semantics(rules: list[Rule], asked: Question) -> None:
    trace = explain(compiled(rules), asked)
    assert trace.decision == decide(compiled(rules), asked)
    assert {each.rule.name for each in trace.considered} == {rule.name for rule in rules}
    assert all(each.is_match is plainly_matches(each.rule, asked) for each in trace.considered)
