"""What a policy folder's files mean, and the exact complaint about each thing that can be wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import PolicyInvalid
from bot.model import Instance, Requirements, Touch
from bot.operations import Kind
from bot.policy.load import Policy, load
from bot.policy.nodes import MOST_BYTES
from bot.policy.rules import Bounds, Group, RuleKind
from tests.policies import BASE, OPERATIONS, policy

RULE = "rules:\n  - {name: x, allow: [reads], who: [anyone]}\n"
NO_RULE = "there is no rule here, so nobody may do anything"


def complaints(content: str | bytes, *, base: str | None = None, file: str = "x.yaml") -> list[str]:
    """What is said about one file, beside a base that is right."""
    files = {} if base is None else {"base.yaml": base.encode()}
    files[file] = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(PolicyInvalid) as caught:
        load(files, operations=OPERATIONS)
    return list(caught.value.complaints)


def test_everything_that_can_be_written_is_understood() -> None:
    loaded = policy(
        "name: a, allow: [reads], who: [iot-team, U0SOMEBODY]",
        "name: b, deny: [job.*], except: [release-managers], where: {products: [a1*], channels: [C0X]}, note: no",
        "name: c, require: {confirm: click, reason: true}, for: [changes], when: {touches: [IN_PROGRESS], "
        "devices: {more_than: 500, at_most: 900}}",
    )
    a, b, c = loaded.rules
    reads = set(OPERATIONS.names(Kind.READ))
    on_jobs = {name for name in OPERATIONS.names() if name.startswith("job.")} | {"firmware.halt"}
    assert (a.kind, a.operations, a.who) == (RuleKind.ALLOW, reads, ("iot-team", "U0SOMEBODY"))
    assert (b.kind, b.excepted, b.products, b.channels) == (RuleKind.DENY, ("release-managers",), ("a1*",), ("C0X",))
    assert (b.note, b.source, b.operations) == ("no", "rules.yaml:3", on_jobs)
    assert c.requires == Requirements(reason=True)
    assert (c.touches, c.devices) == ({Touch.IN_PROGRESS}, Bounds(501, 901))
    assert loaded.groups["release-managers"] == Group("release-managers", users=frozenset({"U0RELEASE1", "W0RELEASE2"}))
    assert loaded.instances["prod-shanghai"] == Instance(
        "prod-shanghai", "cn-shanghai", account="prod", channel="C0INCIDENT"
    )


def test_people_at_terminals_are_a_group_of_their_own_and_part_of_the_digest() -> None:
    def with_members(people: str) -> Policy:
        base = BASE.replace("instances:", f"  terminal: {{terminal: [{people}]}}\ninstances:")
        return policy("name: x, allow: [reads], who: [terminal]", base=base)

    odd = "alice@ops1, root@ops-2, 'CORP\\bob@ops1', bob@corp.example@ops1"
    loaded = with_members(odd)
    assert loaded.groups["terminal"] == Group(
        "terminal", terminal=frozenset({"alice@ops1", "root@ops-2", "CORP\\bob@ops1", "bob@corp.example@ops1"})
    )
    assert loaded.usergroups == frozenset()
    assert with_members(", ".join(reversed(odd.split(", ")))).digest == loaded.digest
    assert with_members("alice@ops2").digest != loaded.digest


def test_only_the_user_groups_that_rules_use_are_needed_for_a_decision() -> None:
    assert policy("name: x, allow: [reads], who: [release-managers]").usergroups == frozenset()
    assert policy(
        "name: x, allow: [reads], who: [iot-team]", "name: y, deny: [reads], except: [firmware-oncall]"
    ).usergroups == {"S0614TZAA", "S0614TZR7"}


@pytest.mark.parametrize("word", ["NO", "22:00", "0o17", "1e3", "null", "~", "yes", "2026-01-01"])
def test_words_are_words_whatever_they_look_like(word: str) -> None:
    rule = policy(f"name: {word}, allow: [reads], who: [anyone], where: {{products: [{word}]}}, note: {word}").rules[0]
    assert (rule.name, rule.products, rule.note) == (word, (word,), word)


def test_the_digest_is_of_the_content_and_of_nothing_else() -> None:
    one, other = "name: a, allow: [reads], who: [anyone]", "name: b, allow: [changes], who: [iot-team, anyone]"
    digest = policy(one, other).digest
    assert len(digest) == 64
    assert policy(other.replace("iot-team, anyone", "anyone, iot-team"), one).digest == digest
    merged = f"# one file\n{BASE}rules:\n- {{{one}}}\n- {{{other}}}\n"
    assert load({"all.yml": merged.encode()}, operations=OPERATIONS).digest == digest
    assert policy(one, f"{other}, note: told").digest != digest
    assert policy(one, other, base=BASE.replace("account: prod", "account: prod2")).digest != digest
    assert policy(one, other, base=BASE.replace("U0RELEASE1", "U0RELEASE9")).digest != digest


def test_files_are_merged_and_tests_and_other_files_are_left_out() -> None:
    files = {
        "a.yaml": BASE.encode(),
        "b.yml": RULE.encode(),
        "empty.yaml": b"# nothing yet\n",
        "policy_test.yaml": b"cases: []",
        "policy_test.yml": b"cases: []",
        ".hidden.yaml": b"x: 1",
        "README.md": b"# no",
    }
    assert [rule.name for rule in load(files, operations=OPERATIONS).rules] == ["x"]


def test_a_byte_order_mark_and_windows_line_ends_are_accepted() -> None:
    content = b"\xef\xbb\xbf" + RULE.replace("\n", "\r\n").encode()
    assert len(load({"x.yaml": content}, operations=OPERATIONS).rules) == 1


def test_a_folded_note_becomes_one_line() -> None:
    content = f"{BASE}rules:\n- name: x\n  allow: [reads]\n  who: [anyone]\n  note: >\n    ask a\n    release manager\n"
    assert load({"x.yaml": content.encode()}, operations=OPERATIONS).rules[0].note == "ask a release manager"


def test_an_instance_at_an_endpoint_of_its_own_may_be_in_any_region() -> None:
    for endpoint in (
        "https://iot.example.com",
        "https://10.0.0.1:8443",
        "http://127.0.0.1:9",
        "http://[::1]:9",
        "i.cn",
    ):
        written = f'{RULE}instances: {{a: {{region: cn-mars, endpoint: "{endpoint}"}}}}'
        assert load({"x.yaml": written.encode()}, operations=OPERATIONS).instances["a"].endpoint == endpoint


def corpus() -> Iterator[tuple[str, list[str]]]:
    text = (Path(__file__).parent / "policy_complaints.txt").read_text()
    for case in text.split("\n\n")[1:]:
        lines = case.strip("\n").split("\n")
        written = [line for line in lines if not line.startswith("=> ")]
        yield "\n".join(written) + "\n", [line[3:] for line in lines[len(written) :]]


CORPUS = list(corpus())


def test_the_corpus_is_large_and_every_case_of_it_is_complained_about() -> None:
    assert len(CORPUS) >= 80
    assert all(expected for _, expected in CORPUS)


@pytest.mark.parametrize(("content", "expected"), CORPUS, ids=[each for each, _ in CORPUS])
def test_a_broken_policy_gets_exactly_its_complaints(content: str, expected: list[str]) -> None:
    base = BASE if content.startswith("rules:\n- ") else None
    assert complaints(content, base=base) == [f"x.yaml:{line}" for line in expected]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", f"1:1: {NO_RULE}; expected rules: with at least one allow, as in policies/README.md"),
        (b"# nothing\n", f"1:1: {NO_RULE}; expected rules: with at least one allow, as in policies/README.md"),
        (b"rules:\n\t- {name: a}", "2:1: a tab; expected spaces: YAML does not admit tabs here"),
        (b"a: \x07", "1:4: a character that YAML does not admit (U+0007); expected printable text"),
        (b"rules:\n  - \xff\xfe", "2:5: the file is not UTF-8 text; expected the file saved as UTF-8"),
        ("rules: []".encode("utf-16"), "1:1: the file is not UTF-8 text; expected the file saved as UTF-8"),
        (b"[" * 100, "1:17: nesting deeper than any policy needs; expected at most 16 levels"),
        (b"{a: " * 100, "1:65: nesting deeper than any policy needs; expected at most 16 levels"),
        (
            b"#" * (MOST_BYTES + 1),
            "1:1: the file is larger than 1 MiB; expected smaller files; rules may stand in several",
        ),
    ],
    ids=["empty", "comment", "tab", "bell", "latin", "utf-16", "deep list", "deep mapping", "huge"],
)
def test_a_file_that_is_no_policy_text_gets_its_complaint(content: bytes, expected: str) -> None:
    assert complaints(content) == [f"x.yaml:{expected}"]


@pytest.mark.parametrize("content", [b"[" * 300_000, b"{a: " * 100_000], ids=["list", "mapping"])
def test_however_deep_it_is_nested_it_is_refused_in_the_same_words(content: bytes) -> None:
    [complaint] = complaints(content)
    assert complaint.endswith("nesting deeper than any policy needs; expected at most 16 levels")


def test_every_complaint_about_every_file_is_told_at_once_in_their_order() -> None:
    files = {
        "b.yaml": b"rules:\n- {name: x, alow: [read], who: [team]}\n- {name: y, deny: []}\n",
        "a.yaml": b"instances: {a: {region: mars}}\nextra: 1\n",
    }
    with pytest.raises(PolicyInvalid) as caught:
        load(files, operations=OPERATIONS)
    assert [complaint.split(";")[0] for complaint in caught.value.complaints] == [
        'a.yaml:1:25: region is "mars"',
        'a.yaml:2:1: unknown key "extra" in the file',
        'b.yaml:2:13: unknown key "alow" in a rule',
        'b.yaml:2:20: unknown operation "read"',
        'b.yaml:2:33: "team" is neither a group of this policy nor a user\'s id',
        "b.yaml:3:19: deny is an empty list",
    ]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("rule", "rules: [{name: same, allow: [reads], who: [anyone]}]"),
        ("group", "groups: {same: {users: [U0A]}}"),
        ("instance", "instances: {same: {region: cn-shanghai, account: a}}"),
    ],
)
def test_a_name_given_in_two_files_names_both_places(kind: str, content: str) -> None:
    found = complaints(content, base=content, file="more.yaml")
    column = content.index("same") + 1 if kind != "rule" else content.index("name") + 1
    said = f'more.yaml:1:{column}: the {kind} "same" stands at base.yaml:1:{column} already; expected a name of its own'
    assert said in found


def test_what_an_unreadable_file_may_declare_is_not_missed_elsewhere() -> None:
    found = complaints("groups: [*]\n", base="rules: [{name: a, allow: [reads], who: [a-group]}]")
    assert len(found) == 1
    assert found[0].startswith("x.yaml:1:11: ")


def test_no_files_at_all_is_no_policy() -> None:
    with pytest.raises(PolicyInvalid, match=NO_RULE):
        load({}, operations=OPERATIONS)


def test_a_key_or_a_login_is_never_repeated_in_a_complaint() -> None:
    secret = "LTAI5tAbCdEf"
    for key in ("credentials", "endpoint"):
        value = secret if key == "credentials" else f"https://u:{secret}@h"
        found = complaints(f"{RULE}instances: {{a: {{region: cn-shanghai, {key}: '{value}'}}}}")
        assert found
        assert secret not in "".join(found)


def test_a_file_of_aliases_of_aliases_is_refused_at_the_first() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{name}: &{name} [*{last}, *{last}]\n" for last, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert len(complaints(bomb)) == 1


def test_a_file_of_nothing_but_mistakes_is_answered_in_time() -> None:
    content = "rules:\n" + "".join(f"- {{nam{n}: x, alow{n}: [read{n}]}}\n" for n in range(15_000))
    assert len(complaints(content)) > 15_000


@given(st.text(max_size=200) | st.text("ab:-[]{}*&!#'\"\n\t @%|>,", max_size=200))
def test_any_text_is_a_policy_or_gets_complaints_with_places(text: str) -> None:
    _load_or_complain(text.encode("utf-8", errors="surrogatepass"))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_get_complaints_with_places(content: bytes) -> None:
    _load_or_complain(content)


def _load_or_complain(content: bytes) -> None:
    try:
        load({"x.yaml": content}, operations=OPERATIONS)
    except PolicyInvalid as error:
        for complaint in error.complaints:
            file, line, column, *_ = complaint.split(":")
            assert (file, line.isdigit(), column.isdigit()) == ("x.yaml", True, True)
            assert complaint.isprintable()
