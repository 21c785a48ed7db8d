"""What keyboards and Slack really send is read as what was meant; what cannot be is answered with the right line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.exchange import Ask, Resume
from bot.model import Notice
from bot.operations import Operation
from bot.ops import KNOWN
from bot.slack.grammar import DEVICES_MOST, REASON_LENGTH, parse

JOB = "7glPHmaDYLAYMD1HHutT02"
PRODUCT = "a1Gateway01"


def ask(text: str) -> Ask:
    parsed = parse(text, KNOWN)
    assert isinstance(parsed, Ask), parsed
    return parsed


def resume(text: str) -> Resume:
    parsed = parse(text, KNOWN)
    assert isinstance(parsed, Resume), parsed
    return parsed


def notice(text: str) -> str:
    parsed = parse(text, KNOWN)
    assert isinstance(parsed, Notice), parsed
    return "\n".join((parsed.text, *parsed.lines))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"cancel {JOB}", Ask("job.cancel", JOB)),
        (f"  CANCEL\u00a0{JOB}  ", Ask("job.cancel", JOB)),
        (f"halt {JOB} on prod-shanghai", Ask("job.halt", JOB, "prod-shanghai")),
        (f"halt on prod-shanghai {JOB}", Ask("job.halt", JOB, "prod-shanghai")),
        (f"cancel `{JOB}` —queued", Ask("job.cancel", JOB, params=frozenset({"queued"}))),
        (f"cancel {JOB} –in-progress", Ask("job.cancel", JOB, params=frozenset({"in_progress"}))),
        (f"cancel {JOB} --In_Progress", Ask("job.cancel", JOB, params=frozenset({"in_progress"}))),
        (f"cancel “{JOB}” --dry-run", Ask("job.cancel", JOB, is_dry_run=True)),
        (f"cancel {JOB} because 4.2.1 bricks gateways", Ask("job.cancel", JOB, reason="4.2.1 bricks gateways")),
        (f"cancel {JOB} BECAUSE “it bricks — on A &amp; B”", Ask("job.cancel", JOB, reason="it bricks — on A & B")),
        (
            f"cancel {JOB} because <@U1|ann> said <https://x.y|this> --queued",
            Ask("job.cancel", JOB, reason="ann said this --queued"),
        ),
        (f"cancel {JOB} because", Ask("job.cancel", JOB)),
        ("status abc****", Ask("job.show", "abc****")),
        (f"rate {JOB} 10", Ask("job.rate", JOB, params=frozenset({"per_minute=10"}))),
        (f"rate {JOB} on prod-shanghai 1,000", Ask("job.rate", JOB, "prod-shanghai", frozenset({"per_minute=1000"}))),
        (f"tasks {JOB}", Ask("job.tasks", JOB)),
        (f"tasks {JOB} failed", Ask("job.tasks", JOB, params=frozenset({"failed"}))),
        (f"tasks {JOB} In Progress", Ask("job.tasks", JOB, params=frozenset({"in_progress"}))),
        (f"tasks {JOB} in_progress", Ask("job.tasks", JOB, params=frozenset({"in_progress"}))),
        (f"tasks {JOB} cancelled", Ask("job.tasks", JOB, params=frozenset({"canceled"}))),
        (f"tasks {JOB} --queued --failed", Ask("job.tasks", JOB, params=frozenset({"queued", "failed"}))),
        (f"retry {JOB} --limit 10", Ask("task.retry", JOB, params=frozenset({"limit=10"}))),
        (f"retry {JOB} —limit=10 —canceled", Ask("task.retry", JOB, params=frozenset({"limit=10", "cancelled"}))),
        (f"retry {JOB} --limit=“1,000”", Ask("task.retry", JOB, params=frozenset({"limit=1000"}))),
        (f"retry {JOB} --limit 5 --limit 7", Ask("task.retry", JOB, params=frozenset({"limit=7"}))),
        ("halt firmware 4.2.1 because it bricks", Ask("firmware.halt", reason="it bricks", firmware="4.2.1")),
        ("`HALT` Firmware “4.2.1” --queued", Ask("firmware.halt", params=frozenset({"queued"}), firmware="4.2.1")),
        ("halt firmware 4.2.1 on prod-shanghai", Ask("firmware.halt", instance="prod-shanghai", firmware="4.2.1")),
        (
            f"cancel device {PRODUCT} gw-1 gw_2@site:3.a gw-1",
            Ask("device.cancel", product=PRODUCT, devices=("gw-1", "gw_2@site:3.a")),
        ),
        (
            f"cancel device {PRODUCT} gw-1, gw-2,gw-3",
            Ask("device.cancel", product=PRODUCT, devices=("gw-1", "gw-2", "gw-3")),
        ),
        (
            f"cancel device {PRODUCT} <mailto:gw@site.cn|gw@site.cn> gw#2",
            Ask("device.cancel", product=PRODUCT, devices=("gw@site.cn", "gw#2")),
        ),
        (f"device {PRODUCT} gw-sh-00042", Ask("device.show", product=PRODUCT, devices=("gw-sh-00042",))),
        ("jobs", Ask("job.list")),
        ("jobs 4.2.1", Ask("job.list", word="4.2.1")),
        ("jobs on prod-shanghai", Ask("job.list", instance="prod-shanghai")),
        (f"firmware {PRODUCT}", Ask("firmware.list", word=PRODUCT)),
    ],
)
def test_what_was_typed_is_read_as_what_was_meant(text: str, expected: Ask) -> None:
    assert ask(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cancle X1", "There is no /ota cancle. Did you mean cancel? Nothing was done.\n/ota cancel X1"),
        ("frobnicate", "There is no /ota frobnicate. Nothing was done.\nI know: status, jobs, tasks, "),
        ("cancel", "Which job? Nothing was done.\n/ota cancel <job>"),
        (
            "cancel a b",
            "I can't tell what 'b' means. If it is the reason, say so; nothing was done.\n/ota cancel a because b",
        ),
        (
            "halt a becuase it bricks",
            "I can't tell what 'becuase it bricks' means. If it is the reason, say so; nothing was done.\n"
            "/ota halt a because it bricks",
        ),
        ("stop X1", "There is no /ota stop. Which of these do you mean? Nothing was done.\n/ota cancel X1\n"),
        ("help canel", "There is no /ota canel. Did you mean cancel? Nothing was done."),
        ("cancel X1 --quued", "There is no --quued here. Did you mean --queued? Nothing was done."),
        ("status X1 --dry-run", "There is no --dry-run here. Nothing was done."),
        ("cancel X1 on", "After on comes the name of an instance. Nothing was done."),
        ("cancel <!channel>", "!channel is not a name that the cloud or the policy uses. Nothing was done."),
        ("cancel X1;reboot", "X1;reboot is not a name that the cloud or the policy uses. Nothing was done."),
        (
            "cancel X1 --quued because it bricks",
            "There is no --quued here. Did you mean --queued? Nothing was done.\n"
            "/ota cancel X1 --queued because it bricks\n",
        ),
        (
            "cancel X1 --queued=yes",
            "There is no --queued=yes here. Did you mean --queued? Nothing was done.\n/ota cancel X1 --queued\n",
        ),
        (
            "halt firmwre 4.2.1",
            "There is no /ota halt firmwre. Did you mean halt firmware? Nothing was done.\n/ota halt firmware 4.2.1",
        ),
        (
            "firmware halt 4.2.1",
            "There is no /ota firmware halt. Did you mean halt firmware? Nothing was done.\n/ota halt firmware 4.2.1",
        ),
        (
            "device cancel P gw-1 because wet",
            "There is no /ota device cancel. Did you mean cancel device? Nothing was done.\n"
            "/ota cancel device P gw-1 because wet",
        ),
        (
            "cancle device P gw-1",
            "There is no /ota cancle. Did you mean cancel device? Nothing was done.\n/ota cancel device P gw-1",
        ),
        ("halt firmware", "Which firmware? Its id, or its version. Nothing was done.\n/ota halt firmware <id|version>"),
        (
            "halt firmware a b",
            "I can't tell what 'b' means. If it is the reason, say so; nothing was done.\n"
            "/ota halt firmware a because b",
        ),
        ("cancel device", "Which product, and which devices? Nothing was done.\n/ota cancel device <product>"),
        ("cancel device P", "Which product, and which devices? Nothing was done."),
        ("device P gw!1", "gw!1 is not a name that the cloud or the policy uses. Nothing was done."),
        ("device P/Q gw-1", "P/Q is not a name that the cloud or the policy uses. Nothing was done."),
        ("cancel X1 on a/b", "a/b is not a name that the cloud or the policy uses. Nothing was done."),
        ("jobs a b", "I can't tell what 'b' means. Nothing was done.\n/ota jobs a\n"),
        ("tasks X1 faild", "There is no faild here. Did you mean failed? Nothing was done.\n/ota tasks X1 failed\n"),
        (
            "tasks X1 zzz",
            "There is no zzz here. Nothing was done.\n"
            "/ota tasks <job> [<state>] [on <instance>]\nYou typed: /ota tasks X1 zzz",
        ),
        ("resume", "After resume comes the id of a change"),
        ("resume abc", "After resume comes the id of a change"),
        ("resume 12345678 90", "After resume comes the id of a change"),
        ("help resume", "/ota resume <id> [because …]"),
        ("help halt firmware", "/ota halt firmware <id|version>"),
    ],
)
def test_what_cannot_be_read_is_answered_with_what_to_type(text: str, said: str) -> None:
    assert notice(text).startswith(said)


@pytest.mark.parametrize("typed", ["", "x", "9", "10001", "10.5", "-10", "1,00", "1e3", "99999999999999999999"])
def test_a_number_out_of_its_bounds_is_answered_with_the_bounds(typed: str) -> None:
    said = notice(f"rate {JOB} {typed}")
    if not typed.startswith("-"):
        bounds = "After the job comes a whole number from 10 to 10,000: how many devices are told per minute"
        assert said.startswith(bounds)
    assert "/ota rate <job> <devices per minute>" in said


@pytest.mark.parametrize("typed", ["--limit", "--limit=", "--limit 0", "--limit 1001", "--limit=x", "--limit --failed"])
def test_a_value_out_of_its_bounds_is_answered_with_the_bounds_and_what_was_typed(typed: str) -> None:
    said = notice(f"retry {JOB} {typed}")
    assert said.startswith("--limit takes a whole number from 1 to 1,000")
    assert f"You typed: /ota retry {JOB} {typed}" in said


def test_a_stop_that_is_no_command_names_every_stop_and_nothing_else() -> None:
    said = notice("stop X1 because it bricks")
    for verb in ("cancel", "halt", "halt firmware", "cancel device"):
        assert f"\n/ota {verb} X1 because it bricks\n" in said
    assert "/ota rate" not in said
    assert "/ota retry" not in said


def test_as_many_devices_as_may_be_named_are_read_and_more_are_answered_with_lines_to_type() -> None:
    names = [f"gw-sh-{number:05}" for number in range(DEVICES_MOST + 1)]
    assert ask(f"cancel device {PRODUCT} {' '.join(names[:DEVICES_MOST])}").devices == tuple(names[:DEVICES_MOST])
    said = notice(f"cancel device {PRODUCT} {' '.join(names)}")
    assert said.startswith("At most 50 devices at once, and these are 51. Nothing was done.")
    assert f"/ota cancel device {PRODUCT} gw-sh-00050\n" in said
    assert all(name in said for name in names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resume 1a2b3c4d", Resume("1a2b3c4d")),
        ("RESUME `1A2B3C4D` because the rest is safe", Resume("1a2b3c4d", "the rest is safe")),
        (f"resume {'f' * 32}", Resume("f" * 32)),
    ],
)
def test_what_is_left_of_a_change_is_asked_for_by_its_id(text: str, expected: Resume) -> None:
    assert resume(text) == expected


@pytest.mark.parametrize("text", ["", "help", "  HELP "])
def test_help_names_every_operation(text: str) -> None:
    said = notice(text)
    assert all(f"/ota {operation.usage}" in said for operation in KNOWN.by_name.values())
    assert "/ota resume <id>" in said


@pytest.mark.parametrize("operation", KNOWN.by_name.values(), ids=lambda operation: operation.name)
def test_every_example_of_the_help_is_read_as_its_operation(operation: Operation) -> None:
    assert [ask(example).operation for example in operation.examples] == [operation.name] * len(operation.examples)


def test_help_on_one_shows_its_flags_and_examples() -> None:
    said = notice("help cancel")
    assert "--in-progress: " in said
    assert "/ota cancel 7glPHmaDYLAYMD1HHutT02 because" in said


def test_a_long_reason_is_cut() -> None:
    assert len(ask(f"cancel {JOB} because {'x' * 5000}").reason or "") == REASON_LENGTH


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read_or_answered(text: str) -> None:
    for typed in (text, f"{JOB} {text}", f"{JOB} because {text}", f"{JOB} --limit {text}"):
        for verb in (*KNOWN.verbs(), "resume", "help", "stop", ""):
            assert isinstance(parse(f"{verb} {typed}", KNOWN), Ask | Resume | Notice)
