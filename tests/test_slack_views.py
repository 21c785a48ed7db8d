"""What people see: complete by its text alone, within Slack's limits, and no text of others in it can act."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from bot.exchange import Post, PostKind
from bot.model import (
    JobKind,
    JobSettings,
    JobState,
    Notice,
    Outcome,
    OutcomeCode,
    Preview,
    Target,
    Task,
    TaskState,
    Touch,
)
from bot.operations import Operation
from bot.ops.devices import CANCEL as CANCEL_DEVICE
from bot.ops.devices import RETRY
from bot.ops.firmware import HALT as HALT_FIRMWARE
from bot.ops.jobs import CANCEL, HALT, RATE
from bot.proposals import Call, CallAnswer, Proposal, State
from bot.sandbox.slack_blocks import complaints
from bot.slack import views
from bot.slack.payloads import ActionId
from bot.slack.views import PICKS_MOST, Message
from tests.values import AT, REPLY_TO, TARGET, counts, intent, job, offer, part, preview, proposal

OFFERED = proposal(state=State.OFFERED, offer=offer())
FOLLOWED = proposal(
    state=State.FOLLOWING,
    offer=offer(),
    confirmed_by="U0ONCALLB2",
    approved_at=AT,
    called=preview(counts=counts(QUEUED=212)),
    progress={TARGET.job: counts(CANCELED=200, QUEUED=12)},
    followed_from=AT,
    follow_until=AT + timedelta(minutes=15),
    calls=(Call(0, 1, intent(), CallAnswer.ACCEPTED, "8F2A-RID"),),
    steps_done=1,
)
HOSTILE = [
    "<!channel> <!here> <@U0VICTIM01> <#C1|x>",
    "<https://evil.example|https://bank.example>",
    "`*_~>&amp;&lt;!channel&gt;",
    "```\n# header\n> quote",
    "\u202egnp.exe\u200b",
    "x" * 10_000,
    "",
    " \n\t ",
]


STOP = frozenset({Touch.QUEUED, Touch.NOTIFIED, Touch.CONFIRM, Touch.IN_PROGRESS})


def ended(code: OutcomeCode, text: str = "Stopped 212.") -> Proposal:
    return replace(FOLLOWED, state=State.FINISHED, outcome=Outcome(code, Notice(text, ("a line",))))


def asked(operation: Operation, shown: Preview, *params: str, target: Target | None = None) -> Proposal:
    """A change that waits for a yes to this preview."""
    target = target or shown.target
    made = offer(preview=shown)
    return replace(OFFERED, operation=operation.name, params=frozenset(params), target=target, offer=made)


def tasks(*devices: str, **bent: Any) -> tuple[Task, ...]:
    made = [Task(f"t-{device}", device, TaskState.FAILED, TARGET.job) for device in devices]
    return tuple(replace(task, **bent) for task in made)


def rollouts(count: int, **bent: Any) -> Preview:
    """A preview of so many batches of one firmware."""
    parts = [part(job=job(job_id=f"J{number}"), **bent) for number in range(count)]
    return preview(*parts, target=Target("prod-shanghai", firmware="fw-421", product="a1Gateway01"))


def retried(count: int) -> Proposal:
    named = part(tasks=tasks(*(f"gw-{number}" for number in range(count))), touches=frozenset())
    return asked(RETRY, preview(named, target=TARGET), "cancelled", f"limit={count}")


def rated() -> Proposal:
    settings = JobSettings(per_minute=500, timeout_minutes=60, tags=(("line", "a"),))
    return asked(RATE, preview(job=job(settings=settings), touches=frozenset()), "per_minute=10")


def cancelled_devices(*devices: str) -> Proposal:
    target = Target("prod-shanghai", product="a1Gateway01", devices=devices)
    numbers = counts(IN_PROGRESS=len(devices))
    named = part(tasks=tasks(*devices, state=TaskState.IN_PROGRESS), touches=STOP, counts=numbers)
    return asked(CANCEL_DEVICE, preview(named, target=target))


def messages(text: str) -> Iterator[Message]:
    """Every view, with `text` wherever somebody else's text can stand."""
    theirs = job(
        job_id=text, firmware=text, product=text, dest_version=text, src_versions=(text, text), description=text
    )
    numbers = replace(counts(QUEUED=3, FAILED=2), failures={text: 2})
    named = tasks(text, state=TaskState.FAILED)
    batch = part(job=theirs, counts=numbers)
    named_batch = part(job=theirs, counts=numbers, tasks=named, touches=frozenset())
    target = Target(text, job=text, firmware=text, product=text, devices=(text, text))
    for shown in (preview(batch), preview(*[batch] * 60), preview(named_batch), preview(*[named_batch] * 2)):
        made = replace(OFFERED, reason=text, requester=text, target=replace(target, devices=()))
        to = replace(REPLY_TO, user_id=text)
        made = replace(made, offer=offer(preview=shown), reply_to=to, confirmed_by=text, approved_at=AT)
        yield from _of_a_proposal(made, text)
        yield from _of_a_proposal(replace(made, target=target), text)
        looked_at = preview(*(replace(each, touches=frozenset(), tasks=()) for each in shown.parts))
        notice = Notice(text, (text, text), text, text)
        yield views.reply(Post(PostKind.REPLY, text or "d1", notice, REPLY_TO, looked_at, picks=(text or "i",) * 60))
    yield views.reply(Post(PostKind.REPLY, "d1", notice, REPLY_TO))
    yield views.line(notice)


def _of_a_proposal(made: Proposal, text: str) -> Iterator[Message]:
    notice = Notice(text, (text,) * 30, text, text)
    assert made.offer is not None
    moved = {each.job.job_id: counts(CANCELED=3) for each in made.offer.preview.parts}
    followed = replace(made, state=State.FOLLOWING, called=made.offer.preview, progress=moved, follow_until=AT)
    over = replace(followed, state=State.FINISHED, outcome=Outcome(OutcomeCode.REFUSED_BY_CLOUD, notice))
    called = replace(made, calls=(Call(0, 1, intent(), CallAnswer.ACCEPTED, text),))
    for operation in (CANCEL, HALT, RATE, HALT_FIRMWARE, CANCEL_DEVICE, RETRY):
        for each in (made, called, followed, over):
            yield views.card(each, operation)
        yield views.ask_for_yes(made, operation)
        yield views.no_buttons(made, operation)
        yield views.no_buttons(replace(made, state=State.APPROVED), operation)
        yield views.broadcast(notice, made, operation)
        yield views.no_progress(made, operation)
        yield views.progress(replace(made, state=State.FOLLOWING), operation)
        yield views.progress(followed, operation)
        yield views.progress(over, operation)


def marked_up(message: Message) -> str:
    """All the text of a message that Slack reads as markup."""

    def texts(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if value.get("type") == "mrkdwn":
                yield value["text"]
            for inner in value.values():
                yield from texts(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                yield from texts(inner)

    return "\n".join([message.text, *texts(list(message.blocks))])


_OURS = re.compile(r"<@[UW][A-Z0-9]+>|<!date\^\d+\^\{time_secs\}\|[0-9:]+ UTC>")


def assert_harmless(message: Message) -> None:
    assert not re.search(r"[<>]", _OURS.sub("", marked_up(message)))


def assert_within_limits(message: Message) -> None:
    assert 0 < len(message.text) <= 4000
    assert list(complaints(list(message.blocks))) == []
    blocks = json.loads(json.dumps(list(message.blocks)))
    for block, parsed in zip(blocks, Block.parse_all(blocks), strict=True):
        assert parsed is not None
        parsed.validate_json()
        assert block["type"] == parsed.type
    for text in re.findall(r'"text": "((?:[^"\\]|\\.)*)"', json.dumps(blocks)):
        assert text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_can_do_nothing_anywhere(text: str) -> None:
    for message in messages(text):
        assert_harmless(message)
        assert_within_limits(message)


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=400))
def test_any_text_can_do_nothing_anywhere(text: str) -> None:
    for message in messages(text):
        assert_harmless(message)
        assert_within_limits(message)


@pytest.mark.parametrize("state", State)
def test_a_card_says_its_state_in_words_and_has_no_buttons(state: State) -> None:
    finished = Outcome(OutcomeCode.DISMISSED, Notice("Dismissed.")) if state is State.FINISHED else None
    card = views.card(replace(FOLLOWED, state=state, outcome=finished), CANCEL)
    assert "Cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai" in card.text
    assert "button" not in json.dumps(card.blocks)


@pytest.mark.parametrize("code", OutcomeCode)
def test_a_card_says_every_outcome_in_words(code: OutcomeCode) -> None:
    assert (
        code.value.split("_")[0] in views.card(ended(code), CANCEL).text.lower() or code is OutcomeCode.UNKNOWN_OUTCOME
    )


def test_the_text_alone_says_what_where_how_many_and_why() -> None:
    text = views.card(OFFERED, CANCEL).text
    for fact in ("≈212 queued", "≈30 notified", "≈12 in progress", "4.2.1", "a1Gateway01", "4.2.1 bricks gateways"):
        assert fact in text


def test_an_unknown_number_is_called_unknown_and_never_zero() -> None:
    unknown = offer(preview=preview(counts=counts(QUEUED=None, NOTIFIED=3)))
    card = views.card(replace(OFFERED, offer=unknown), CANCEL)
    assert "unknown number queued" in card.text
    assert "≈0 queued" not in card.text


def test_the_card_of_a_followed_call_shows_before_and_now_and_the_request_id() -> None:
    shown = json.dumps(views.card(FOLLOWED, CANCEL).blocks, ensure_ascii=False)
    assert "Before the call → now: queued 212 → 12 · cancelled 0 → 200" in shown
    assert "8F2A-RID" in shown


def test_cancelling_a_dynamic_rollout_says_that_it_needs_a_second_step() -> None:
    dynamic = offer(preview=preview(job=job(kind=JobKind.DYNAMIC)))
    assert "/ota halt" in views.card(replace(OFFERED, offer=dynamic), CANCEL).text
    assert "No new devices will be matched" in views.card(replace(OFFERED, offer=dynamic), HALT).text


def test_the_buttons_hold_the_offers_id_and_nothing_else() -> None:
    buttons = views.ask_for_yes(OFFERED, CANCEL).blocks[-1]["elements"]
    assert [(each["action_id"], each["value"]) for each in buttons] == [
        (ActionId.CONFIRM, "0" * 32),
        (ActionId.DISMISS, "0" * 32),
    ]


def test_times_are_shown_in_the_readers_zone() -> None:
    expires = int((AT + timedelta(minutes=15)).timestamp())
    assert f"<!date^{expires}^{{time_secs}}|03:27:00 UTC>" in views.ask_for_yes(OFFERED, CANCEL).text


def test_a_command_to_copy_stands_alone() -> None:
    message = views.reply(
        Post(PostKind.REPLY, "d1", Notice("No.", command="aliyun iot CancelOTATaskByJob --JobId 'x'"))
    )
    assert message.blocks[1]["elements"][0]["type"] == "rich_text_preformatted"
    assert "aliyun iot CancelOTATaskByJob --JobId 'x'" in message.text


@pytest.mark.parametrize(
    ("waiting", "operation", "title", "asks", "label", "style"),
    [
        (
            OFFERED,
            CANCEL,
            "Cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai",
            "Cancel rollout 7glPHmaDYLAYMD1HHutT02? This asks the cloud to cancel the tasks that are unconfirmed, "
            "queued and notified.",
            "Cancel ≈242 tasks",
            "danger",
        ),
        (
            asked(HALT, preview(job=job(kind=JobKind.DYNAMIC))),
            HALT,
            "Halt 7glPHmaDYLAYMD1HHutT02 on prod-shanghai",
            "Halt rollout 7glPHmaDYLAYMD1HHutT02? This asks the cloud to end the strategy, so that no new devices are "
            "matched, and to cancel the tasks that are unconfirmed, queued and notified.",
            "Halt ≈242 tasks",
            "danger",
        ),
        (
            asked(HALT_FIRMWARE, rollouts(3)),
            HALT_FIRMWARE,
            "Halt firmware fw-421 on prod-shanghai",
            "Halt 3 rollouts: J0, J1, J2? This asks the cloud to cancel their tasks that are unconfirmed, queued and "
            "notified.",
            "Halt 3 rollouts",
            "danger",
        ),
        (
            cancelled_devices("gw-1", "gw-2"),
            CANCEL_DEVICE,
            "Cancel device gw-1 and 1 more on prod-shanghai",
            "Cancel every open task of 2 devices: gw-1, gw-2? By name the cloud spares none: devices in progress are "
            "asked to stop too, which may leave them half flashed.",
            "Cancel ≈2 tasks",
            "danger",
        ),
        (
            retried(10),
            RETRY,
            "Retry 7glPHmaDYLAYMD1HHutT02 on prod-shanghai",
            "Run 10 tasks of rollout 7glPHmaDYLAYMD1HHutT02 again? 10 devices will be flashed again.",
            "Retry 10 tasks",
            "danger",
        ),
        (
            rated(),
            RATE,
            "Rate 7glPHmaDYLAYMD1HHutT02 on prod-shanghai to 10 per minute",
            "Change the rate of rollout 7glPHmaDYLAYMD1HHutT02? Devices told per minute: 500 → 10.",
            "Set 10 a minute",
            None,
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Operation) else "",
)
def test_title_question_and_button_say_what_a_yes_does(
    waiting: Proposal, operation: Operation, title: str, asks: str, label: str, style: str | None
) -> None:
    shown = views.ask_for_yes(waiting, operation)
    yes = shown.blocks[-1]["elements"][0]
    assert views.card(waiting, operation).text.startswith(f"✋ waiting for a yes: {title}.")
    assert shown.blocks[0]["text"]["text"] == asks
    assert shown.text.startswith(asks)
    assert (yes["text"]["text"], yes.get("style")) == (label, style)


def test_many_rollouts_are_named_up_to_a_few_and_counted() -> None:
    asks = views.ask_for_yes(asked(HALT_FIRMWARE, rollouts(7)), HALT_FIRMWARE).text
    assert "Halt 7 rollouts: J0, J1, J2, J3, J4 and 2 more?" in asks


def test_strategies_of_several_rollouts_are_counted_in_the_question() -> None:
    shown = preview(
        part(job=job(job_id="J0", kind=JobKind.DYNAMIC)), part(job=job(job_id="J1")), target=rollouts(1).target
    )
    asks = views.ask_for_yes(asked(HALT_FIRMWARE, shown), HALT_FIRMWARE).text
    assert "to end 1 strategy, so that no new devices are matched, and to cancel their tasks" in asks


def test_a_single_task_is_no_plural() -> None:
    shown = views.ask_for_yes(retried(1), RETRY)
    assert "Run 1 task of rollout" in shown.text
    assert shown.blocks[-1]["elements"][0]["text"]["text"] == "Retry 1 task"


def test_the_card_of_several_rollouts_tells_how_the_devices_of_each_moved() -> None:
    shown = rollouts(2, counts=counts(QUEUED=10))
    moved = {"J0": counts(CANCELED=10), "J1": counts(QUEUED=4, CANCELED=6)}
    followed = replace(
        asked(HALT_FIRMWARE, shown), state=State.FOLLOWING, called=shown, progress=moved, confirmed_by="U0ONCALLA1"
    )
    text = views.card(followed, HALT_FIRMWARE).text
    assert "• J0: queued 10 → 0 · cancelled 0 → 10" in text
    assert "• J1: queued 10 → 4 · cancelled 0 → 6" in text


def test_lists_that_are_too_long_are_cut_with_a_count() -> None:
    lines = tuple(f"• rollout {number} {'x' * 60}" for number in range(100))
    shown = views.line(Notice("Stopped.", lines))
    for text in (shown.text, shown.blocks[0]["text"]["text"]):
        kept = [line for line in text.splitlines() if line.startswith("•")]
        assert text.endswith(f"… and {100 - len(kept)} more lines")
        assert all(line in lines for line in kept)


def test_a_card_keeps_outcome_and_reason_in_its_text_however_much_there_is_to_say() -> None:
    shown = rollouts(40)
    over = Outcome(OutcomeCode.PARTLY_STOPPED, Notice("Partly stopped: stopped 9.", ("x" * 900,) * 30))
    text = views.card(replace(asked(HALT_FIRMWARE, shown), state=State.FINISHED, outcome=over), HALT_FIRMWARE).text
    assert "Partly stopped: stopped 9." in text
    assert "Because: 4.2.1 bricks gateways" in text


def test_progress_says_state_numbers_share_as_of_and_until_when() -> None:
    until, as_of = AT + timedelta(minutes=15), int(AT.timestamp())
    shown = views.progress(FOLLOWED, CANCEL)
    for text in (
        "watching the devices: Cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai.",
        "94 % of ≈212 asked to stop no longer move; up to 12 still do.",
        "queued 212 → 12 · cancelled 0 → 200",
        f"As of <!date^{as_of}^{{time_secs}}|03:12:00 UTC>.",
        f"I watch until <!date^{int(until.timestamp())}^{{time_secs}}|03:27:00 UTC> at the latest.",
    ):
        assert text in shown.text


def test_progress_is_never_rounded_up_to_all() -> None:
    almost = replace(
        FOLLOWED,
        called=preview(counts=counts(QUEUED=100_000)),
        progress={TARGET.job: counts(QUEUED=1, CANCELED=99_999)},
    )
    assert "99 % of ≈100,000 asked to stop no longer move; up to 1 still do." in views.progress(almost, CANCEL).text


@pytest.mark.parametrize("before", [counts(QUEUED=None), counts(QUEUED=5)])
def test_progress_with_a_number_that_is_not_known_claims_no_share(before: Any) -> None:
    now = counts(QUEUED=None, CANCELED=2)
    shown = views.progress(replace(FOLLOWED, called=preview(counts=before), progress={TARGET.job: now}), CANCEL)
    assert "How many of those asked to stop still move: unknown" in shown.text
    assert "%" not in shown.text


def test_progress_before_the_first_reading_says_that_there_is_none() -> None:
    shown = views.progress(replace(FOLLOWED, progress={}), CANCEL)
    assert "No reading of the devices yet." in shown.text
    assert "As of" not in shown.text


def test_progress_that_is_over_says_so_and_points_to_the_last_line() -> None:
    shown = views.progress(ended(OutcomeCode.STOPPED), CANCEL)
    assert "🛑 stopped: Cancel" in shown.text
    assert "I no longer watch: the line in this thread that the channel sees too says how it ended." in shown.text
    assert "I watch until" not in shown.text


def test_progress_as_of_is_the_oldest_of_its_readings() -> None:
    shown = rollouts(2)
    moved = {"J0": counts(at=AT + timedelta(seconds=50)), "J1": counts(at=AT + timedelta(seconds=9))}
    followed = replace(asked(HALT_FIRMWARE, shown), state=State.FOLLOWING, called=shown, progress=moved)
    assert "|03:12:09 UTC>" in views.progress(followed, HALT_FIRMWARE).text


def test_the_message_that_becomes_progress_claims_nothing_before_it_does() -> None:
    text = views.no_progress(FOLLOWED, CANCEL).text
    assert text == "Cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai: how the devices move is told here."


def test_a_reply_shows_the_numbers_and_the_top_reasons_of_a_rollout_that_is_looked_at() -> None:
    numbers = replace(counts(QUEUED=5, FAILED=3), failures={"flash write": 2, "no space": 1})
    looked_at = preview(counts=numbers, touches=frozenset())
    text = views.reply(Post(PostKind.REPLY, "d1", Notice("Rollout J is in progress."), REPLY_TO, looked_at)).text
    for line in ("Queued: 5", "Notified: 0", "Failed because: flash write (2×), no space (1×)"):
        assert line in text.splitlines()


def test_a_reply_says_no_line_twice() -> None:
    numbers = replace(counts(FAILED=2), failures={"flash write": 2})
    notice = Notice("Rollout J is in progress.", ("Failed because: flash write (2×)",))
    shown = views.reply(Post(PostKind.REPLY, "d1", notice, REPLY_TO, preview(counts=numbers, touches=frozenset())))
    assert shown.text.count("flash write") == 1


def test_a_reply_about_several_rollouts_tells_the_numbers_of_each() -> None:
    looked_at = preview(
        part(job=job(job_id="J0"), counts=counts(QUEUED=5), touches=frozenset()),
        part(job=job(job_id="J1", state=JobState.PLANNED), counts=counts(FAILED=None), touches=frozenset()),
    )
    lines = views.reply(Post(PostKind.REPLY, "d1", Notice("Two."), REPLY_TO, looked_at)).text.splitlines()
    assert [line.partition(" · ")[0] for line in lines] == ["Two.", "J0", "Queued: 5", "J1", "Failed: unknown"]


def test_the_numbers_of_a_change_are_told_by_its_own_lines_alone() -> None:
    shown = views.reply(Post(PostKind.REPLY, "d1", Notice("Dry run."), REPLY_TO, preview()))
    assert shown.text == "Dry run."


def test_an_answer_that_asks_which_instance_is_meant_has_a_button_for_each() -> None:
    post = Post(PostKind.REPLY, "0f" * 16, Notice("Which instance?"), REPLY_TO, picks=("prod-shanghai", "prod-tokyo"))
    shown = views.reply(post)
    buttons = shown.blocks[-1]["elements"]
    assert [(each["action_id"], each["value"], each["text"]["text"]) for each in buttons] == [
        ("ask.pick:0", f"{'0f' * 16} prod-shanghai", "prod-shanghai"),
        ("ask.pick:1", f"{'0f' * 16} prod-tokyo", "prod-tokyo"),
    ]
    assert "prod-shanghai, prod-tokyo" in shown.text


def test_more_instances_than_buttons_are_counted() -> None:
    names = tuple(f"i{number}" for number in range(PICKS_MOST + 7))
    shown = views.reply(Post(PostKind.REPLY, "d1", Notice("Which?"), REPLY_TO, picks=names))
    buttons = [each for block in shown.blocks if block["type"] == "actions" for each in block["elements"]]
    assert len(buttons) == PICKS_MOST
    assert "… and 7 more" in json.dumps(shown.blocks[-1], ensure_ascii=False)
