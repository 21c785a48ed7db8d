"""Loading: what is right is taken as it is meant, and each thing that is wrong is said with its place and the mend."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import PolicyInvalid
from bot.model import Touch
from bot.operations import Operations
from bot.ops.jobs import OPERATIONS
from bot.policy.folder import MAX_BYTES, read_folder
from bot.policy.load import load
from bot.policy.rules import Span

KNOWN = Operations.of(OPERATIONS)
ROOT = Path(__file__).parents[1]
ALLOW = "rules:\n- {name: a, allow: [job.cancel], who: [anyone]}\n"


def complaints(text: str | bytes, **more: str) -> list[str]:
    files = {"p.yaml": text if isinstance(text, bytes) else text.encode()}
    with pytest.raises(PolicyInvalid) as raised:
        load(files | {f"{name}.yaml": content.encode() for name, content in more.items()}, operations=KNOWN)
    return list(raised.value.complaints)


def rule(text: str) -> str:
    return f"rules:\n- {{name: a, {text}}}\n"


def instance(text: str) -> str:
    return ALLOW + f"instances:\n  prod: {{{text}}}\n"


REGIONS = "ap-northeast-1, ap-southeast-1, cn-beijing, cn-shanghai, cn-shenzhen, eu-central-1, us-east-1, us-west-1"

BROKEN = [
    ("", "p.yaml:1:1: there is no rule, so nobody may do anything; write `rules:`"),
    ("# nothing\n", "p.yaml:1:1: there is no rule, so nobody may do anything; write `rules:`"),
    ("rulez: []", "p.yaml:1:1: unknown key 'rulez' in the file; did you mean 'rules'?"),
    ("- a", "p.yaml:1:1: the file must be a mapping of `key: value`"),
    ("rules: {}", "p.yaml:1:8: rules must be a list, such as [a, b]"),
    ("rules: []", "p.yaml:1:8: rules must not be empty; name at least one, or leave the key out"),
    ("rules:\n- a", "p.yaml:2:3: a rule must be a mapping of `key: value`"),
    ("rules:\n- {allow: [reads], who: [anyone]}", "p.yaml:2:3: the rule has no name; every rule needs one"),
    (rule("alow: [reads], who: [anyone]"), "p.yaml:2:13: unknown key 'alow' in a rule; did you mean 'allow'?"),
    (rule("who: [anyone]"), "p.yaml:2:3: rule 'a' must have exactly one of allow, deny and require"),
    (rule("allow: [reads], deny: [reads]"), "p.yaml:2:3: rule 'a' must have exactly one of allow, deny and require"),
    (rule("allow: [reads]"), "p.yaml:2:3: rule 'a' allows something and must say who; write `who: [a group]`"),
    (
        rule("allow: [], who: [anyone]"),
        "p.yaml:2:20: operations must not be empty; name at least one, or leave the key out",
    ),
    (rule("allow: reads, who: [anyone]"), "p.yaml:2:20: operations must be a list, such as [a, b]"),
    (
        rule("allow: [job.cancle], who: [anyone]"),
        "p.yaml:2:21: unknown operation 'job.cancle'; did you mean 'job.cancel'?",
    ),
    (rule("allow: [reads], who: []"), "p.yaml:2:34: who must not be empty; name at least one, or leave the key out"),
    (
        rule("allow: [reads], who: [alice]"),
        "p.yaml:2:35: 'alice' in who is neither a group of this policy nor a user's id; expected one of anyone",
    ),
    (
        "groups: {oncall: {usergroup: S0AAA}}\n" + rule("allow: [reads], who: [on-call]"),
        "p.yaml:3:35: 'on-call' in who is neither a group of this policy nor a user's id; did you mean 'oncall'?",
    ),
    (
        rule("allow: [reads], who: [anyone], except: [anyone]"),
        "p.yaml:2:52: except belongs to deny and require; an allow names only whom it means",
    ),
    (
        rule("require: {reason: true}"),
        "p.yaml:2:3: rule 'a' requires something and must say for what; write `for: [job.cancel]`",
    ),
    (rule("deny: [reads], for: [reads]"), "p.yaml:2:33: for belongs to require; deny names its operations itself"),
    (rule("require: {}, for: [reads]"), "p.yaml:2:22: require needs something to require, such as {reason: true}"),
    (
        rule("require: {reason: maybe}, for: [reads]"),
        "p.yaml:2:31: reason cannot be 'maybe'; expected one of false, true",
    ),
    (rule("require: {confirm: typed}, for: [reads]"), "p.yaml:2:32: confirm cannot be 'typed'; expected one of click"),
    (
        rule("deny: [changes], when: {touches: [FLASHING]}"),
        "p.yaml:2:47: touches cannot be 'FLASHING'; expected one of CONFIRM, IN_PROGRESS, NOTIFIED, QUEUED, SCHEDULED",
    ),
    (
        rule("deny: [changes], when: {touches: [IN_PROGRES]}"),
        "p.yaml:2:47: touches cannot be 'IN_PROGRES'; did you mean 'IN_PROGRESS'?",
    ),
    (rule("deny: [changes], when: {devices: {}}"), "p.yaml:2:46: devices needs a bound, such as {more_than: 500}"),
    (
        rule("deny: [changes], when: {devices: {more_than: many}}"),
        "p.yaml:2:58: more_than must be a whole number, not 'many'",
    ),
    (
        rule("deny: [changes], when: {devices: {more_than: 5, less_than: 6}}"),
        "p.yaml:2:46: no number lies within these bounds, so the rule can never match",
    ),
    (
        rule("deny: [changes], where: {instance: [prod]}"),
        "p.yaml:2:38: unknown key 'instance' in where; did you mean 'instances'?",
    ),
    (
        rule("deny: [changes], where: {instances: [prod]}"),
        "p.yaml:2:50: no instance is called 'prod'; there is none to name",
    ),
    (
        rule("deny: [changes], where: {channels: ['#incidents']}"),
        "p.yaml:2:49: '#incidents' is not a channel's id (C…); names can change, so only ids are read",
    ),
    (ALLOW + ALLOW.removeprefix("rules:\n"), "p.yaml:3:3: 'a' is already given at p.yaml:2:3; choose another name"),
    (ALLOW + "rules: []", "p.yaml:3:1: key 'rules' stands twice in the file; keep one"),
    (
        ALLOW + "groups: {on: {usergroup: oncall}}",
        "p.yaml:3:26: 'oncall' is not a user group's id (S…); names can change, so only ids are read",
    ),
    (
        ALLOW + "groups: {on: {usergroup: S0AAA, users: [U0AAA]}}",
        "p.yaml:3:14: group 'on' must have either `usergroup: S…` or `users: [U…]`",
    ),
    (
        ALLOW + "groups: {anyone: {users: [U0AAA]}}",
        "p.yaml:3:18: 'anyone' cannot name a group; use small letters, digits, - and _",
    ),
    (
        instance("instance_id: x"),
        "p.yaml:4:9: instance 'prod' has no region; expected one of cn-shanghai, cn-beijing, cn-shenzhen, "
        "ap-southeast-1, ap-northeast-1, us-west-1, us-east-1, eu-central-1",
    ),
    (instance("region: cn-shangai"), "p.yaml:4:18: region cannot be 'cn-shangai'; did you mean 'cn-shanghai'?"),
    (instance("region: mars"), f"p.yaml:4:18: region cannot be 'mars'; expected one of {REGIONS}"),
    (
        instance("region: x, endpoint: 'http://iot.example'"),
        "p.yaml:4:31: endpoint must be an https:// address (http:// only for this machine)",
    ),
    (
        instance("region: cn-shanghai, credentials: s3cret/KEY"),
        "p.yaml:4:44: credentials must be the prefix of environment variables, such as PROD",
    ),
    (
        instance("region: cn-shanghai, signature: v2"),
        "p.yaml:4:42: signature cannot be 'v2'; expected one of v1, v3",
    ),
    (
        ALLOW + "instances:\n  a: {region: cn-shanghai}\n  b: {region: cn-shanghai, account: x}\n",
        "p.yaml:4:6: instance 'a' has no account; with several, each needs one",
    ),
    (
        "rules: &r\n- {name: a, allow: [reads], who: [anyone]}\ngroups: *r\n",
        "p.yaml:1:8: this is used again by an alias (*name), which is not read; write it out each time",
    ),
    (b"rules:\n- {name: \xff}\n", "p.yaml:2:1: this is not UTF-8 text; save the file as UTF-8"),
    ("a: b\n---\nc: d\n", "p.yaml:2:1: there is more than one document (---) in this file; split it into files"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_what_is_wrong_is_said_with_its_place_and_the_mend(text: str | bytes, said: str) -> None:
    assert said in complaints(text)


def test_every_complaint_is_made_at_once() -> None:
    text = rule("alow: [reads]") + "- {name: b, deny: [job.cancle], note: ''}\n"
    assert len(complaints(text, other="rulez: []")) == 4


@pytest.mark.parametrize("text", ["rules:\n\t- a", "rules: [", "rules: }", "{", "rules: @x", "a: 'b"])
def test_what_is_no_yaml_is_said_with_its_place(text: str) -> None:
    [said] = complaints(text)
    assert said.startswith("p.yaml:")
    assert "Traceback" not in said


def test_a_name_in_two_files_is_said_with_both_places() -> None:
    assert complaints(ALLOW, q=ALLOW) == ["q.yaml:2:3: 'a' is already given at p.yaml:2:3; choose another name"]


def test_a_file_of_aliases_of_aliases_ends_at_once() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for name, last in zip("bcdefghijk", "abcdefghij", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n"
    assert "alias" in complaints(bomb)[0]


def test_a_deep_file_is_refused_and_not_followed() -> None:
    assert complaints("rules: " + "[" * 5000)


def test_words_that_yaml_would_take_for_something_else_stay_words() -> None:
    text = "\ufeffgroups: {no: {users: [U0AAA]}, on: {users: [U0AAB]}}\n" + rule(
        "allow: [reads], who: [no, on], note: 22:00"
    )
    policy = load({"p.yaml": text.encode()}, operations=KNOWN)
    assert policy.rules[0].note == "22:00"
    assert policy.rules[0].who is not None
    assert policy.rules[0].who.users == {"U0AAA", "U0AAB"}


def test_a_rule_is_taken_as_it_is_meant() -> None:
    text = instance("region: cn-shanghai").replace(
        ALLOW, ALLOW + "- {name: b, deny: [changes], when: {touches: [QUEUED], devices: {more_than: 5, at_most: 9}}}\n"
    )
    policy = load({"p.yaml": text.encode()}, operations=KNOWN)
    second = policy.rules[1]
    assert second.operations == {"job.cancel", "job.halt"}
    assert (second.touches, second.devices) == ({Touch.QUEUED}, Span(6, 9))


def test_the_digest_follows_the_content() -> None:
    def digest(text: str) -> str:
        return load({"p.yaml": text.encode()}, operations=KNOWN).digest

    assert digest(ALLOW) == digest(ALLOW) != digest(ALLOW + "# a comment\n")


@pytest.mark.parametrize(
    "folder", [ROOT / "policies", ROOT / "bot" / "sandbox" / "policies"], ids=["policies", "sandbox"]
)
def test_the_shipped_folders_load(folder: Path) -> None:
    policy = load(read_folder(folder), operations=KNOWN)
    assert policy.usergroups == {"S0614TZAA", "S0614TZR7"}
    assert set(policy.instances) == {"prod-shanghai", "staging-singapore"}


def test_tests_of_the_policy_are_left_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x")
    (tmp_path / "a_test.yaml").write_text("x")
    (tmp_path / "notes.md").write_text("x")
    assert list(read_folder(tmp_path)) == ["a.yaml"]


def test_a_folder_that_is_missing_or_empty_is_said(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match="there is no such folder"):
        read_folder(tmp_path / "none")
    with pytest.raises(PolicyInvalid, match=r"there is no \*\.yaml file"):
        read_folder(tmp_path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(PolicyInvalid, match="larger than 1 MiB"):
        read_folder(tmp_path)


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_bytes_load_or_are_complained_about(content: str | bytes) -> None:
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    said: tuple[str, ...] = ()
    try:
        load({"p.yaml": raw}, operations=KNOWN)
    except PolicyInvalid as error:
        said = error.complaints
    assert said  # so short a text holds no whole rule
