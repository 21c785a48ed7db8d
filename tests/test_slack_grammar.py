"""What keyboards and Slack really send is read as what was meant; what cannot be is answered with the right line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.exchange import Ask
from bot.model import Notice
from bot.operations import Operations
from bot.ops.jobs import OPERATIONS
from bot.slack.grammar import REASON_LENGTH, parse

KNOWN = Operations.of(OPERATIONS)
JOB = "7glPHmaDYLAYMD1HHutT02"


def ask(text: str) -> Ask:
    parsed = parse(text, KNOWN)
    assert isinstance(parsed, Ask), parsed
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
    ],
)
def test_what_was_typed_is_read_as_what_was_meant(text: str, expected: Ask) -> None:
    assert ask(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cancle X1", "There is no /ota cancle. Did you mean cancel? Nothing was done.\n/ota cancel X1"),
        ("frobnicate", "There is no /ota frobnicate. Nothing was done.\nI know: status, cancel, halt, help."),
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
    ],
)
def test_what_cannot_be_read_is_answered_with_what_to_type(text: str, said: str) -> None:
    assert notice(text).startswith(said)


@pytest.mark.parametrize("text", ["", "help", "  HELP "])
def test_help_names_every_operation(text: str) -> None:
    said = notice(text)
    assert all(f"/ota {operation.usage}" in said for operation in OPERATIONS)


def test_help_on_one_shows_its_flags_and_examples() -> None:
    said = notice("help cancel")
    assert "--in-progress: " in said
    assert "/ota cancel 7glPHmaDYLAYMD1HHutT02 because" in said


def test_a_long_reason_is_cut() -> None:
    assert len(ask(f"cancel {JOB} because {'x' * 5000}").reason or "") == REASON_LENGTH


@given(st.text(max_size=300))
def test_any_text_is_read_or_answered(text: str) -> None:
    for typed in (text, f"cancel {text}", f"cancel {JOB} {text}", f"cancel {JOB} because {text}"):
        assert isinstance(parse(typed, KNOWN), Ask | Notice)
