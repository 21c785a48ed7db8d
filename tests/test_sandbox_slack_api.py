"""The fake Slack's Web API refuses what Slack refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from bot.sandbox.slack import FakeSlack, create_slack_app
from bot.sandbox.slack_api import DEFAULT_SCOPES
from bot.sandbox.workspace import Workspace, load_workspace

INCIDENT = "C0INCIDENT"
BOT = {"Authorization": "Bearer xoxb-1"}
APP = {"Authorization": "Bearer xapp-1"}


def fake(scopes: frozenset[str] = DEFAULT_SCOPES) -> Starlette:
    return create_slack_app(
        load_workspace(),
        signing_secret="s",
        bot_token="xoxb-1",
        app_token="xapp-1",
        now=lambda: 1_712_345_678.9,
        scopes=scopes,
    )


@dataclass
class Caller:
    client: httpx.AsyncClient
    slack: FakeSlack

    @property
    def workspace(self) -> Workspace:
        return self.slack.workspace

    async def __call__(self, method: str, headers: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
        answer = await self.client.post(f"/api/{method}", json=arguments, headers=BOT if headers is None else headers)
        return answer.json()

    async def post(self, text: str, **arguments: Any) -> dict[str, Any]:
        return await self("chat.postMessage", channel=INCIDENT, text=text, **arguments)


@pytest.fixture
async def call(request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    app = fake(getattr(request, "param", DEFAULT_SCOPES))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://slack") as client:
        yield Caller(client, app.state.slack)


@pytest.mark.parametrize(
    ("method", "headers", "arguments", "error"),
    [
        ("auth.test", {}, {}, "not_authed"),
        ("auth.test", {"Authorization": "Bearer xoxb-other"}, {}, "invalid_auth"),
        ("auth.test", APP, {}, "not_allowed_token_type"),
        ("apps.connections.open", BOT, {}, "not_allowed_token_type"),
        ("chat.nonsense", BOT, {}, "unknown_method"),
        ("chat.postMessage", BOT, {"text": "x"}, "invalid_arguments"),
        ("chat.postMessage", BOT, {"channel": "C0NOWHERE1", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", BOT, {"channel": "C0PRIVATE1", "text": "x"}, "channel_not_found"),
        ("chat.postMessage", BOT, {"channel": "C0NEWINC01", "text": "x"}, "not_in_channel"),
        ("chat.postMessage", BOT, {"channel": "C0ARCHIVE1", "text": "x"}, "is_archived"),
        ("chat.postMessage", BOT, {"channel": INCIDENT}, "no_text"),
        ("chat.postMessage", BOT, {"channel": INCIDENT, "text": "x" * 40_001}, "msg_too_long"),
        ("chat.postMessage", BOT, {"channel": INCIDENT, "text": "x", "thread_ts": "1.2"}, "message_not_found"),
        ("chat.postMessage", BOT, {"channel": INCIDENT, "text": "x", "blocks": "{"}, "invalid_blocks_format"),
        ("chat.postMessage", BOT, {"channel": INCIDENT, "text": 5}, "invalid_arguments"),
        ("chat.postEphemeral", BOT, {"channel": INCIDENT, "text": "x", "user": "W0OUTSIDE1"}, "user_not_in_channel"),
        ("chat.update", BOT, {"channel": INCIDENT, "ts": "1.2", "text": "x"}, "message_not_found"),
        ("users.info", BOT, {"user": "U0NOBODY01"}, "user_not_found"),
        ("usergroups.users.list", BOT, {"usergroup": "S0NONE"}, "no_such_subteam"),
        ("conversations.info", BOT, {"channel": "C0PRIVATE1"}, "channel_not_found"),
    ],
)
async def test_a_wrong_call_gets_slacks_error(
    call: Caller, method: str, headers: dict[str, str], arguments: dict[str, Any], error: str
) -> None:
    assert (await call(method, headers, **arguments))["error"] == error


async def test_an_unknown_argument_is_refused_by_name(call: Caller) -> None:
    answer = await call.post("x", colour="red")
    assert answer["error"] == "invalid_arguments"
    assert "colour" in answer["response_metadata"]["messages"][0]


@pytest.mark.parametrize("call", [DEFAULT_SCOPES - {"usergroups:read"}], indirect=True)
async def test_a_missing_scope_is_named_with_those_there_are(call: Caller) -> None:
    answer = await call("usergroups.list")
    assert (answer["error"], answer["needed"]) == ("missing_scope", "usergroups:read")
    assert "chat:write" in answer["provided"].split(",")


@pytest.mark.parametrize("call", [DEFAULT_SCOPES | {"chat:write.public"}], indirect=True)
async def test_with_the_public_scope_a_public_channel_needs_no_invitation(call: Caller) -> None:
    assert (await call("chat.postMessage", channel="C0NEWINC01", text="x"))["ok"] is True


async def test_an_invitation_lets_the_bot_write(call: Caller) -> None:
    call.workspace.invite("C0NEWINC01", "U0OTABRAKE")
    assert (await call("chat.postMessage", channel="C0NEWINC01", text="x"))["ok"] is True


@pytest.mark.parametrize(
    "send",
    [
        {"json": {"channel": INCIDENT, "text": "x", "unfurl_links": False, "team_id": "T0SANDBOX1"}, "headers": BOT},
        {"data": {"channel": INCIDENT, "text": "x", "unfurl_links": "false", "token": "xoxb-1"}},
        {"params": {"channel": INCIDENT, "text": "x", "unfurl_links": "0", "token": "xoxb-1"}},
    ],
    ids=["json", "form", "query"],
)
async def test_arguments_may_come_as_json_form_or_query(call: Caller, send: dict[str, Any]) -> None:
    assert (await call.client.post("/api/chat.postMessage", **send)).json()["ok"] is True


@pytest.mark.parametrize(("body", "error"), [("{", "invalid_json"), ("[]", "json_not_object")])
async def test_a_broken_body_is_refused(call: Caller, body: str, error: str) -> None:
    headers = BOT | {"Content-Type": "application/json"}
    assert (await call.client.post("/api/auth.test", content=body, headers=headers)).json()["error"] == error


async def test_timestamps_rise_also_while_the_clock_stands(call: Caller) -> None:
    stamps = [(await call.post("x"))["ts"] for _ in range(3)]
    assert stamps == ["1712345678.000100", "1712345678.000200", "1712345678.000300"]


async def test_a_reply_is_seen_in_its_thread_and_a_broadcast_in_the_channel_too(call: Caller) -> None:
    root = (await call.post("root"))["ts"]
    quiet = (await call.post("quiet", thread_ts=root))["ts"]
    await call.post("loud", thread_ts=root, reply_broadcast=True)
    assert [one.text for one in call.workspace.messages(INCIDENT)] == ["root", "loud"]
    assert [one.text for one in call.workspace.messages(INCIDENT, root)] == ["root", "quiet", "loud"]
    assert (await call.post("x", thread_ts=quiet))["error"] == "cannot_reply_to_message"
    seen = (await call.client.get("/_sandbox/messages", params={"channel": INCIDENT})).json()["messages"]
    assert seen[0]["reply_count"] == 2
    assert seen[1]["subtype"] == "thread_broadcast"


SECTION = {"type": "section", "text": {"type": "mrkdwn", "text": "hello"}}


async def test_an_update_with_text_alone_takes_the_blocks_away(call: Caller) -> None:
    ts = (await call.post("x", blocks=[SECTION]))["ts"]
    kept = await call("chat.update", channel=INCIDENT, ts=ts, text="y", blocks=[SECTION])
    assert "edited" not in kept["message"]
    gone = await call("chat.update", channel=INCIDENT, ts=ts, text="z")
    assert "blocks" not in gone["message"]
    assert gone["message"]["edited"]["user"] == "U0OTABRAKE"


async def test_an_update_takes_at_most_4000_characters_and_only_the_bots_own_message(call: Caller) -> None:
    ts = (await call.post("x" * 5000))["ts"]
    assert (await call("chat.update", channel=INCIDENT, ts=ts, text="y" * 4001))["error"] == "msg_too_long"
    told = {"user": "U0ONCALLA1", "channel": INCIDENT, "text": "hi"}
    await call.client.post("/_sandbox/mention", json=told)
    theirs = call.workspace.messages(INCIDENT)[-1].ts
    assert (await call("chat.update", channel=INCIDENT, ts=theirs, text="y"))["error"] == "cant_update_message"


async def test_an_ephemeral_is_seen_by_one_person_and_cannot_be_updated(call: Caller) -> None:
    answer = await call("chat.postEphemeral", channel=INCIDENT, user="U0ONCALLA1", text="psst")
    assert [one.text for one in call.workspace.ephemerals("U0ONCALLA1")] == ["psst"]
    assert call.workspace.messages(INCIDENT) == ()
    updated = await call("chat.update", channel=INCIDENT, ts=answer["message_ts"], text="y")
    assert updated["error"] == "message_not_found"


async def test_a_lost_answer_has_taken_effect(call: Caller) -> None:
    fault = {"method": "chat.postMessage", "status": 500, "is_carried_out": True}
    await call.client.post("/_sandbox/faults", json=fault)
    assert (await call.post("was it sent?"))["ok"] is False
    assert [one.text for one in call.workspace.messages(INCIDENT)] == ["was it sent?"]


async def test_a_fault_lasts_as_often_as_it_was_told_or_until_it_is_cleared(call: Caller) -> None:
    await call.client.post("/_sandbox/faults", json={"method": "*", "error": "fatal_error", "times": 2})
    assert [(await call("auth.test"))["ok"] for _ in range(3)] == [False, False, True]
    await call.client.post("/_sandbox/faults", json={"method": "auth.test", "times": 9})
    assert (await call.client.post("/_sandbox/faults", json={"clear": True})).json()["faults"] == 0
    assert (await call("auth.test"))["ok"] is True


async def test_a_fault_with_a_wrong_word_is_refused(call: Caller) -> None:
    assert (await call.client.post("/_sandbox/faults", json={"method": "*", "colour": 1})).status_code == 400


@pytest.mark.parametrize("wrong", [{"team_id": "T0OTHER"}, {"bot_user": "U0ONCALLA1"}])
def test_a_fake_that_does_not_fit_its_workspace_is_not_made(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="the workspace"):
        create_slack_app(load_workspace(), signing_secret="s", bot_token="b", app_token="a", now=lambda: 0.0, **wrong)


async def test_the_page_comes_from_this_origin_alone(call: Caller) -> None:
    page = await call.client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    loaded = [await call.client.get(path) for path in ("/page.css", "/page.js", "/node.js", "/files.js")]
    assert [one.status_code for one in loaded] == [200, 200, 200, 200]
    assert "innerHTML" not in page.text + "".join(one.text for one in loaded)
    assert "//" not in page.text.replace("</", "")


async def test_the_page_sees_threads_and_what_its_person_alone_sees(call: Caller) -> None:
    root = (await call.post("root"))["ts"]
    await call.post("reply", thread_ts=root)
    await call("chat.postEphemeral", channel=INCIDENT, user="U0ONCALLA1", text="psst", thread_ts=root)
    asked = {"channel": INCIDENT, "user": "U0ONCALLA1"}
    seen = (await call.client.get("/_sandbox/conversation", params=asked)).json()
    assert [one["text"] for one in seen["messages"][0]["replies"]] == ["reply", "psst"]
    again = await call.client.get("/_sandbox/conversation", params=asked | {"version": seen["version"]})
    assert again.status_code == 204
    other = await call.client.get("/_sandbox/conversation", params={"channel": INCIDENT, "user": "U0ONCALLB2"})
    assert "psst" not in json.dumps(other.json())


async def test_there_are_no_modals_yet_and_it_says_so(call: Caller) -> None:
    assert (await call.client.post("/_sandbox/submit", json={})).status_code == 501
    assert (await call.client.get("/_sandbox/views?user=U0ONCALLA1")).json()["views"] == []
    assert (await call.client.get("/_sandbox/home?user=U0ONCALLA1")).json()["home"] is None
    assert "/ota cancel" in (await call.client.get("/_sandbox/hints")).json()["hints"][0]
