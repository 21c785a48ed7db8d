"""What people see: complete by its text alone, within Slack's limits, and no text of others in it can act."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from bot.exchange import Post, PostKind
from bot.model import JobKind, Notice, Outcome, OutcomeCode
from bot.ops.jobs import CANCEL, HALT
from bot.proposals import Call, CallAnswer, Proposal, State
from bot.slack import views
from bot.slack.payloads import ActionId
from bot.slack.views import Message
from tests.values import AT, REPLY_TO, counts, intent, job, offer, preview, proposal

OFFERED = proposal(state=State.OFFERED, offer=offer())
FOLLOWED = proposal(
    state=State.FOLLOWING,
    offer=offer(),
    confirmed_by="U0ONCALLB2",
    approved_at=AT,
    baseline=counts(QUEUED=212),
    progress=counts(CANCELED=200, QUEUED=12),
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


def ended(code: OutcomeCode, text: str = "Stopped 212.") -> Proposal:
    return replace(FOLLOWED, state=State.FINISHED, outcome=Outcome(code, Notice(text, ("a line",))))


def messages(text: str) -> Iterator[Message]:
    """Every view, with `text` wherever somebody else's text can stand."""
    theirs = job(
        job_id=text, firmware=text, product=text, dest_version=text, src_versions=(text, text), description=text
    )
    shown = preview(job=theirs)
    made = replace(OFFERED, reason=text, requester=text, target=replace(OFFERED.target, job=text, instance=text))
    made = replace(
        made, offer=offer(preview=shown), reply_to=replace(REPLY_TO, user_id=text), confirmed_by=text, approved_at=AT
    )
    notice = Notice(text, (text, text), text, text)
    yield views.card(made, CANCEL)
    yield views.card(replace(made, state=State.FINISHED, outcome=Outcome(OutcomeCode.REFUSED_BY_CLOUD, notice)), HALT)
    yield views.card(replace(made, calls=(Call(0, 1, intent(), CallAnswer.ACCEPTED, text),)), CANCEL)
    yield views.ask_for_yes(made, HALT)
    yield views.no_buttons(made, CANCEL)
    yield views.no_buttons(replace(made, state=State.APPROVED), CANCEL)
    yield views.line(notice)
    yield views.broadcast(notice, made, CANCEL)
    yield views.reply(Post(PostKind.REPLY, "d1", notice, REPLY_TO))
    yield views.reply(Post(PostKind.REPLY, "d1", notice, REPLY_TO, replace(shown, touches=frozenset())))


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
    assert len(message.blocks) <= 50
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
