"""The fake Slack's rules for blocks: one refused block per rule, with the place and the limit in the complaint."""

from __future__ import annotations

from typing import Any

import pytest
from slack_sdk.models.blocks import Block

from bot.sandbox.slack_blocks import complaints, with_ids

Json = dict[str, Any]


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text}


def button(**changes: Any) -> Json:
    return {"type": "button", "text": plain("Stop"), "action_id": "stop", **changes}


def actions(*elements: Json, **changes: Any) -> Json:
    return {"type": "actions", "elements": list(elements), **changes}


def section(**changes: Any) -> Json:
    return {"type": "section", "text": mrkdwn("words"), **changes}


CONFIRM = {"title": plain("Stop?"), "text": mrkdwn("*Now*"), "confirm": plain("Yes"), "deny": plain("No")}

GOOD: list[Json] = [
    section(fields=[mrkdwn("*a*"), plain("b")], accessory=button(action_id="more"), block_id="s"),
    {"type": "header", "text": plain("A rollout")},
    {"type": "context", "elements": [mrkdwn("since 03:12"), plain("x")]},
    {"type": "divider"},
    actions(button(style="danger", value="0" * 32, confirm=CONFIRM), button(action_id="b", url="https://example.com")),
    {"type": "image", "image_url": "https://example.com/a.png", "alt_text": "a chart"},
    {
        "type": "rich_text",
        "elements": [
            {"type": "rich_text_section", "elements": [{"type": "text", "text": "x", "style": {"bold": True}}]},
            {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": "aliyun iot"}]},
            {
                "type": "rich_text_list",
                "style": "bullet",
                "elements": [{"type": "rich_text_section", "elements": [{"type": "user", "user_id": "U1"}]}],
            },
        ],
    },
]


def test_good_blocks_are_taken_and_the_official_models_take_them_too() -> None:
    assert complaints(GOOD) == ()
    for block in Block.parse_all(GOOD):
        assert block.to_dict()["type"]


REFUSED: list[tuple[Any, str]] = [
    ({"type": "nonsense"}, "unsupported type: nonsense"),
    ("words", "unsupported type: None"),
    ({"type": "section"}, "must define either text or fields [json-pointer:/blocks/0]"),
    (section(text="words"), "unsupported type: None"),
    (section(colour="red"), "invalid additional property: colour [json-pointer:/blocks/0]"),
    (section(text=mrkdwn("x" * 3001)), "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"),
    (section(text=mrkdwn("")), "must be more than 0 characters [json-pointer:/blocks/0/text/text]"),
    (section(text=mrkdwn("x") | {"emoji": True}), "invalid additional property: emoji"),
    (section(fields=[mrkdwn("x")] * 11), "no more than 10 items allowed [json-pointer:/blocks/0/fields]"),
    (section(fields=[mrkdwn("x" * 2001)]), "must be less than 2001 characters"),
    (section(fields=[]), "no less than 1 items allowed"),
    (section(block_id="x" * 256), "must be less than 256 characters [json-pointer:/blocks/0/block_id]"),
    (section(expand="yes"), "must be a boolean"),
    ({"type": "header", "text": mrkdwn("x")}, "unsupported type: mrkdwn (allowed here: plain_text)"),
    ({"type": "header", "text": plain("x" * 151)}, "must be less than 151 characters"),
    ({"type": "header"}, "missing required field: text [json-pointer:/blocks/0]"),
    ({"type": "header", "text": plain("x"), "level": 5}, "must be a whole number from 1 to 4"),
    ({"type": "context", "elements": [mrkdwn("x")] * 11}, "no more than 10 items allowed"),
    ({"type": "context", "elements": "x"}, "must be an array"),
    (actions(), "no less than 1 items allowed"),
    (actions(*[button(action_id=str(at)) for at in range(26)]), "no more than 25 items allowed"),
    (actions({"type": "button", "action_id": "a"}), "missing required field: text"),
    (actions(button(text=mrkdwn("x"))), "unsupported type: mrkdwn"),
    (actions(button(text=plain("x" * 76))), "must be less than 76 characters [json-pointer:/blocks/0/elements/0/text"),
    (actions(button(value="x" * 2001)), "must be less than 2001 characters [json-pointer:/blocks/0/elements/0/value]"),
    (actions(button(value=5)), "must be a string"),
    (actions(button(style="default")), "must be one of primary, danger"),
    (actions(button(url="x" * 3001)), "must be less than 3001 characters"),
    (actions(button(confirm=CONFIRM | {"title": plain("x" * 101)})), "must be less than 101 characters"),
    (actions(button(confirm={"title": plain("x")})), "missing required field: confirm"),
    (actions({"type": "static_select", "action_id": "a"}), "unsupported type: static_select"),
    (actions(button(), button()), "`action_id` must be unique in a message: stop"),
    ({"type": "image", "image_url": "https://example.com/a.png"}, "missing required field: alt_text"),
    ({"type": "rich_text", "elements": [{"type": "text", "text": "x"}]}, "unsupported type: text"),
]


@pytest.mark.parametrize(("block", "complaint"), REFUSED)
def test_a_block_outside_the_rules_is_refused_with_its_place(block: Any, complaint: str) -> None:
    assert any(complaint in one for one in complaints([block])), complaints([block])


def test_a_message_holds_at_most_50_blocks() -> None:
    assert complaints([{"type": "divider"}] * 50) == ()
    assert complaints([{"type": "divider"}] * 51) == ("no more than 50 items allowed [json-pointer:/blocks]",)


def test_block_ids_are_unique_in_a_message() -> None:
    repeated = [section(block_id="a"), section(block_id="a")]
    assert complaints(repeated) == ("`block_id` must be unique in a message: a [json-pointer:/blocks]",)


def test_ids_that_were_not_given_are_made_up_as_slack_does() -> None:
    kept = with_ids([actions({"type": "button", "text": plain("x")}), section(accessory=button())], stem="s")
    assert kept[0]["block_id"] != kept[1]["block_id"]
    assert kept[0]["elements"][0]["action_id"]
    assert kept[1]["accessory"]["action_id"] == "stop"
