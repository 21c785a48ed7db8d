"""Payloads as Slack really sends them become deliveries; strange ones become none, and never an error."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slack_sdk.signature import SignatureVerifier

from bot.exchange import Ask, Choice, Click, Delivery, Pick, ReplyTo, Resume
from bot.model import Notice, Place
from bot.ops import KNOWN
from bot.slack.gate import Admitted, Gate, Identity, Kind
from bot.slack.payloads import ActionId, asked, clicked
from tests.values import AT

COMMAND = {
    "token": "xxx",
    "team_id": "T111",
    "team_domain": "subdomain",
    "channel_id": "C111",
    "channel_name": "random",
    "user_id": "U111",
    "user_name": "someone",
    "command": "/ota",
    "text": "cancel J1 because it bricks",
    "api_app_id": "A111",
    "response_url": "https://hooks.slack.com/commands/T111/111/xxx",
    "trigger_id": "111.222.xxx",
}
IN_THREAD: dict[str, Any] = {
    "type": "block_actions",
    "user": {"id": "U111", "username": "someone", "name": "someone", "team_id": "T111"},
    "api_app_id": "A111",
    "token": "xxx",
    "container": {
        "type": "message",
        "message_ts": "1693635296.000500",
        "thread_ts": "1693616242.466609",
        "channel_id": "C111",
        "is_ephemeral": False,
    },
    "trigger_id": "111.222.xxx",
    "team": {"id": "T111", "domain": "xxx"},
    "channel": {"id": "C111", "name": "random"},
    "response_url": "https://hooks.slack.com/actions/T111/111/xxx",
    "actions": [
        {
            "action_id": "proposal.confirm",
            "block_id": "block_1",
            "text": {"type": "plain_text", "text": "Cancel", "emoji": True},
            "value": "0" * 32,
            "type": "button",
            "action_ts": "1606455407.603639",
        }
    ],
}
GATE = Gate(Identity("T111", "A111"), signing_secret=None)


def admitted(body: dict[str, Any]) -> Admitted:
    verdict = GATE.admit_socket(body)
    assert isinstance(verdict, Admitted)
    return verdict


def test_a_command_becomes_an_ask_with_its_sender_its_place_and_a_way_to_answer() -> None:
    made = asked(admitted(COMMAND), KNOWN, delivery_id="d1", now=AT)
    reply_to = ReplyTo("U111", Place("C111"), "https://hooks.slack.com/commands/T111/111/xxx")
    assert made == Delivery("d1", "command:111.222.xxx", reply_to, AT, Ask("job.cancel", "J1", reason="it bricks"))


def test_a_direct_message_is_no_channel() -> None:
    made = asked(admitted(COMMAND | {"channel_id": "D111"}), KNOWN, delivery_id="d1", now=AT)
    assert isinstance(made, Delivery)
    assert made.reply_to.place == Place(None)


def test_a_command_to_resume_is_written_down_like_any_other() -> None:
    made = asked(admitted(COMMAND | {"text": "resume 1a2b3c4d because safe"}), KNOWN, delivery_id="d1", now=AT)
    assert isinstance(made, Delivery)
    assert made.content == Resume("1a2b3c4d", "safe")


@pytest.mark.parametrize("action_id", ["ask.pick", "ask.pick:0", "ask.pick:17"])
def test_a_picked_instance_becomes_a_pick_with_the_delivery_of_the_ask(action_id: str) -> None:
    picked = {"action_id": action_id, "value": "0f" * 16 + " prod-shanghai", "type": "button"}
    in_ephemeral = IN_THREAD | {
        "container": {"type": "message", "channel_id": "C111", "is_ephemeral": True},
        "actions": [picked],
    }
    made = clicked(admitted(in_ephemeral), delivery_id="d2", now=AT)
    assert made is not None
    assert made.content == Pick("0f" * 16, "prod-shanghai")
    assert made.reply_to == ReplyTo("U111", Place("C111"), "https://hooks.slack.com/actions/T111/111/xxx")


@pytest.mark.parametrize("value", ["", " ", "d1", "d1 ", " prod-shanghai"])
def test_a_pick_without_an_ask_or_an_instance_is_none_of_ours(value: str) -> None:
    body = IN_THREAD | {"actions": [{"action_id": "ask.pick:0", "value": value}]}
    assert clicked(admitted(body), delivery_id="d1", now=AT) is None


def test_a_command_that_cannot_be_read_becomes_an_answer() -> None:
    assert isinstance(asked(admitted(COMMAND | {"text": "cancle J1"}), KNOWN, delivery_id="d1", now=AT), Notice)


@pytest.mark.parametrize(
    ("action_id", "choice"), [("proposal.confirm", Choice.CONFIRM), ("proposal.dismiss", Choice.DISMISS)]
)
def test_a_click_in_a_thread_becomes_an_answer_to_its_offer(action_id: str, choice: Choice) -> None:
    body = IN_THREAD | {"actions": [IN_THREAD["actions"][0] | {"action_id": action_id}]}
    made = clicked(admitted(body), delivery_id="d1", now=AT)
    assert made is not None
    assert made.content == Click(choice, "0" * 32)
    assert made.reply_to.place == Place("C111", "1693616242.466609")


@pytest.mark.parametrize(
    "actions",
    [
        None,
        [],
        "x",
        [None],
        [{}],
        [{"action_id": "other", "value": "1"}],
        [{"action_id": "proposal.confirm"}],
        [{"action_id": "proposal.confirm", "value": 7}],
    ],
)
def test_a_click_on_something_else_is_none_of_ours(actions: object) -> None:
    assert clicked(admitted(IN_THREAD | {"actions": actions}), delivery_id="d1", now=AT) is None


def test_the_ids_on_the_wire_are_those_that_others_depend_on() -> None:
    assert {each.value for each in ActionId} == {"proposal.confirm", "proposal.dismiss", "ask.pick"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine says nothing of what is tested
@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*IN_THREAD, *COMMAND), _JSON)))
def test_no_payload_makes_the_translation_stumble(bent: dict[str, Any]) -> None:
    json.dumps(bent)
    for kind in Kind:
        assert isinstance(asked(Admitted(kind, COMMAND | bent, "k"), KNOWN, delivery_id="d", now=AT), Delivery | Notice)
        assert isinstance(clicked(Admitted(kind, IN_THREAD | bent, "k"), delivery_id="d", now=AT), Delivery | None)


SAMPLES = sorted(Path(os.environ.get("OTABRAKE_TEST_SAMPLES", "none")).glob("*"))


@pytest.mark.skipif(not SAMPLES, reason="no real payloads: OTABRAKE_TEST_SAMPLES names no folder of them")
@pytest.mark.parametrize(
    "path", [path for path in SAMPLES if path.suffix in (".json", ".form")], ids=lambda path: path.name
)
def test_payloads_that_slack_really_sent_go_through_gate_and_translation(path: Path) -> None:
    content_type = "application/json" if path.suffix == ".json" else "application/x-www-form-urlencoded"
    secret, raw = "s", path.read_bytes().strip()
    gate = Gate(Identity("T111", None, "E111"), signing_secret=secret)
    signature = SignatureVerifier(secret).generate_signature(timestamp="100", body=raw)
    headers = {
        "content-type": content_type,
        "x-slack-request-timestamp": "100",
        "x-slack-signature": signature or "",
    }
    verdict = gate.admit_http(headers, raw, now=100)
    if isinstance(verdict, Admitted):
        assert isinstance(asked(verdict, KNOWN, delivery_id="d", now=AT), Delivery | Notice)
        assert clicked(verdict, delivery_id="d", now=AT) is None
    else:
        assert verdict.why in ("another team", "another app")
