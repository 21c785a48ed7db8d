"""What the fake Slack delivers, how it is signed, and what becomes of an app's answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from slack_sdk.signature import SignatureVerifier
from starlette.requests import Request
from starlette.responses import Response

from bot.sandbox.slack import FakeSlack, create_slack_app
from bot.sandbox.slack_delivery import signature
from bot.sandbox.workspace import Message, load_workspace
from tests.conftest import Clock

SECRET, INCIDENT, ON_CALL = "a signing secret", "C0INCIDENT", "U0ONCALLA1"

COMMAND_KEYS = {
    "token", "team_id", "team_domain", "channel_id", "channel_name", "user_id", "user_name", "command", "text",
    "api_app_id", "is_enterprise_install", "response_url", "trigger_id",
}  # fmt: skip
CLICK_KEYS = {
    "type", "user", "api_app_id", "token", "container", "trigger_id", "team", "enterprise", "is_enterprise_install",
    "channel", "message", "state", "response_url", "actions",
}  # fmt: skip
ACTION_KEYS = {"action_id", "block_id", "text", "value", "type", "action_ts"}
EVENT_KEYS = {
    "token", "team_id", "api_app_id", "event", "type", "event_id", "event_time", "authorizations",
    "is_ext_shared_channel", "event_context",
}  # fmt: skip


@dataclass
class Recorder:
    """An app that keeps what it was sent and answers what it was told to."""

    requests: list[tuple[httpx.Headers, bytes]] = field(default_factory=list)
    answer: Response | None = field(default_factory=lambda: Response(""))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        self.requests.append((httpx.Headers(request.headers.raw), await request.body()))
        if self.answer is None:
            await asyncio.Event().wait()
        else:
            await self.answer(scope, receive, send)

    def form(self, place: int = -1) -> dict[str, str]:
        return dict(parse_qsl(self.requests[place][1].decode(), keep_blank_values=True))

    def payload(self, place: int = -1) -> dict[str, Any]:
        return json.loads(self.form(place)["payload"])


@dataclass
class World:
    slack: FakeSlack
    app: Recorder
    client: httpx.AsyncClient
    clock: Clock

    async def does(self, gesture: str, **told: Any) -> httpx.Response:
        told = {"user": ON_CALL, "channel": INCIDENT, **told}
        return await self.client.post(f"/_sandbox/{gesture}", json=told)

    def card(self, *, seen_by: str | None = None, thread_ts: str | None = None, channel: str = INCIDENT) -> str:
        button = {
            "type": "button",
            "action_id": "stop",
            "value": "0af7",
            "text": {"type": "plain_text", "text": "Stop"},
        }
        ts = self.slack.workspace.mint_ts(self.clock().timestamp())
        block = {"type": "actions", "block_id": "b", "elements": [button]}
        message = Message(
            channel=channel, ts=ts, user="U0OTABRAKE", bot_id="B0OTABRAKE", text="card", blocks=(block,),
            seen_by=seen_by, thread_ts=thread_ts,
        )  # fmt: skip
        self.slack.workspace.say(message)
        return ts

    def alone(self) -> list[str]:
        return [one.text for one in self.slack.workspace.ephemerals(ON_CALL)]

    def said(self) -> list[str]:
        return [one.text for one in self.slack.workspace.messages(INCIDENT)]

    async def respond(self, **reply: Any) -> tuple[int, str]:
        source = self.app.form()
        url = source.get("response_url") or json.loads(source["payload"])["response_url"]
        answer = await self.client.post(url, json=reply)
        return answer.status_code, answer.text


@pytest.fixture
async def world(clock: Clock, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    app = Recorder()
    fake = create_slack_app(
        load_workspace(),
        signing_secret=SECRET,
        bot_token="xoxb-1",
        app_token="xapp-1",
        deliver_to="http://bot/slack/events",
        now=lambda: clock().timestamp(),
        ack_seconds=getattr(request, "param", 3.0),
        transport=httpx.ASGITransport(app),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(fake), base_url="http://slack:8080") as client:
        yield World(fake.state.slack, app, client, clock)
    await fake.state.slack.courier.aclose()


def test_the_signature_is_that_of_slacks_published_vector() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    expected = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
    assert signature("8f742231b10e8888abcd99yyyzzz85a5", timestamp="1531420618", body=body) == expected


@pytest.mark.parametrize("gesture", ["command", "mention", "click", "shortcut"])
async def test_every_delivery_is_signed_so_that_slacks_own_verifier_takes_it(world: World, gesture: str) -> None:
    await world.does(gesture, text="x", ts=world.card(), action_id="stop", callback_id="c")
    headers, body = world.app.requests[0]
    now = world.clock().timestamp()
    verifier = SignatureVerifier(SECRET, clock=type("At", (), {"now": lambda self: now})())
    assert verifier.is_valid_request(body, dict(headers))
    assert not verifier.is_valid_request(body + b"x", dict(headers))


async def test_a_command_brings_slacks_fields_and_escapes_what_was_typed(world: World) -> None:
    answer = await world.does("command", text="cancel J1 because @oncall-b & #general <x> @firmware-oncall")
    assert answer.json()["ok"] is True
    form = world.app.form()
    assert form.keys() == COMMAND_KEYS
    assert (form["command"], form["user_id"], form["team_id"]) == ("/ota", ON_CALL, "T0SANDBOX1")
    assert form["channel_name"] == "firmware-incidents"
    assert form["text"] == (
        "cancel J1 because <@U0ONCALLB2> &amp; <#C0GENERAL1|general> &lt;x&gt; <!subteam^S0614TZR7>"
    )
    assert form["response_url"].startswith("http://slack:8080/response/")


@pytest.mark.parametrize("typed", ["help", "/ota help", "  /ota   help "])
async def test_the_leading_command_may_be_typed_or_not(world: World, typed: str) -> None:
    await world.does("command", text=typed)
    assert (world.app.form()["command"], world.app.form()["text"]) == ("/ota", "help")


@pytest.mark.parametrize(("channel", "name"), [("C0PRIVATE1", "privategroup"), ("D0ONCALLA1", "directmessage")])
async def test_a_channel_that_is_not_public_does_not_tell_its_name(world: World, channel: str, name: str) -> None:
    await world.does("command", text="help", channel=channel)
    assert world.app.form()["channel_name"] == name


async def test_a_click_in_a_thread_brings_slacks_fields(world: World) -> None:
    root = world.card()
    ts = world.card(thread_ts=root)
    await world.does("click", ts=ts, action_id="stop")
    payload = world.app.payload()
    assert payload.keys() == CLICK_KEYS
    assert payload["user"] == {
        "id": ON_CALL, "username": "oncall-a", "name": "oncall-a", "team_id": "T0SANDBOX1",
    }  # fmt: skip
    assert payload["container"] == {
        "type": "message", "message_ts": ts, "channel_id": INCIDENT, "is_ephemeral": False, "thread_ts": root,
    }  # fmt: skip
    assert payload["message"]["thread_ts"] == root
    assert payload["message"]["blocks"][0]["elements"][0]["value"] == "0af7"
    assert payload["actions"][0].keys() >= ACTION_KEYS
    assert payload["actions"][0]["value"] == "0af7"


async def test_a_click_on_an_ephemeral_brings_no_message(world: World) -> None:
    await world.does("click", ts=world.card(seen_by=ON_CALL), action_id="stop")
    assert world.app.payload().keys() == CLICK_KEYS - {"message"}
    assert world.app.payload()["container"]["is_ephemeral"] is True


async def test_a_click_from_a_shared_channel_comes_from_the_other_team(world: World) -> None:
    ts = world.card(channel="C0SHARED01")
    await world.does("click", user="W0OUTSIDE1", channel="C0SHARED01", ts=ts, action_id="stop")
    assert world.app.payload()["user"]["team_id"] == world.app.payload()["team"]["id"] == "T0ELSEWHER"


async def test_a_mention_brings_the_event_wrapper(world: World) -> None:
    root = world.card()
    await world.does("mention", text="cancel J1", thread=root)
    payload = json.loads(world.app.requests[0][1])
    assert payload.keys() == EVENT_KEYS
    assert payload["event"]["thread_ts"] == root
    assert payload["event"]["text"] == "<@U0OTABRAKE> cancel J1"


async def test_copies_are_the_same_bytes_with_the_same_signature(world: World) -> None:
    answer = await world.does("command", text="help", copies=2)
    assert len(answer.json()["copies"]) == 2
    first, second = world.app.requests
    assert first[1] == second[1]
    assert first[0]["x-slack-signature"] == second[0]["x-slack-signature"]


@pytest.mark.parametrize(
    ("gesture", "told", "sentence"),
    [
        ("command", {"text": "x", "user": "U0NOBODY01"}, "nobody with the id"),
        ("command", {"text": "x", "channel": "C0NOWHERE1"}, "no channel with the id"),
        ("command", {"text": "x", "user": "U0FORMER01"}, "is deactivated"),
        ("command", {"text": "x", "user": "U0OTHERBOT"}, "is a bot"),
        ("command", {"text": "x", "channel": "C0ARCHIVE1"}, "is archived"),
        ("command", {"text": "x", "user": "W0OUTSIDE1"}, "is not in #firmware-incidents"),
        ("command", {"text": "x", "user": "W0OUTSIDE1", "channel": "C0SHARED01"}, "belongs to another workspace"),
        ("command", {"text": "x", "thread": "1.2"}, "do not work in threads"),
        ("command", {}, "Missing, or not text: text"),
        ("command", {"text": "x", "copies": 0}, "`copies` is a whole number"),
        ("click", {"ts": "1.2", "action_id": "stop"}, "sees no message 1.2"),
        ("mention", {"text": "x", "thread": "1.2"}, "There is no message 1.2"),
    ],
)
async def test_what_nobody_could_do_is_refused_with_a_sentence(
    world: World, gesture: str, told: dict[str, Any], sentence: str
) -> None:
    answer = await world.does(gesture, **told)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert world.app.requests == []


async def test_a_button_that_is_not_there_cannot_be_clicked(world: World) -> None:
    answer = await world.does("click", ts=world.card(), action_id="go")
    assert (answer.status_code, "buttons there: stop" in answer.json()["error"]) == (400, True)


async def test_somebody_elses_ephemeral_cannot_be_clicked(world: World) -> None:
    answer = await world.does("click", ts=world.card(seen_by="U0ONCALLB2"), action_id="stop")
    assert answer.status_code == 400


async def test_a_mention_where_the_bot_is_not_is_not_heard(world: World) -> None:
    assert (await world.does("mention", text="x", channel="C0NEWINC01")).json()["copies"] == []


@pytest.mark.parametrize("world", [0.02], indirect=True)
async def test_an_app_that_does_not_answer_in_time_is_an_operation_timeout(world: World) -> None:
    world.app.answer = None
    assert (await world.does("command", text="x")).json()["error"] == "operation_timeout"
    assert (await world.does("click", ts=world.card(), action_id="stop")).json()["error"] == "operation_timeout"
    assert world.alone()[0] == '/ota failed with the error "operation_timeout"'
    assert 'the click failed with the error "operation_timeout"' in world.alone()[1]


async def test_an_app_that_answers_badly_or_is_not_there_is_a_failed_dispatch(world: World) -> None:
    world.app.answer = Response("", 500)
    answer = (await world.does("command", text="x")).json()
    assert (answer["status"], answer["error"]) == (500, "dispatch_failed")
    world.slack.deliver_to = None
    assert (await world.does("command", text="x")).json()["error"] == "dispatch_failed"
    assert world.alone() == ['/ota failed with the error "dispatch_failed"'] * 2


@pytest.mark.parametrize(
    ("body", "alone", "said"),
    [
        ("", [], []),
        ("plain words", ["plain words"], []),
        ('{"text": "json words"}', ["json words"], []),
        ('{"response_type": "in_channel", "text": "loud"}', [], ["/ota x", "loud"]),
        ('{"response_type": "in_channel"}', [], ["/ota x"]),
        ('{"blocks": [{"type": "nonsense"}]}', ['/ota failed with the error "invalid_blocks"'], []),
        ('{"colour": "red"}', ['/ota failed with the error "invalid_payload"'], []),
    ],
)
async def test_the_body_of_an_acknowledgement_becomes_a_message(
    world: World, body: str, alone: list[str], said: list[str]
) -> None:
    world.app.answer = Response(body)
    await world.does("command", text="x")
    assert (world.alone(), world.said()) == (alone, said)


async def test_a_response_url_works_five_times(world: World) -> None:
    await world.does("command", text="x")
    for _ in range(5):
        assert await world.respond(text="again") == (200, "ok")
    assert await world.respond(text="again") == (404, '{"ok": false, "error": "used_url"}')
    assert world.alone() == ["again"] * 5


async def test_a_response_url_works_for_thirty_minutes(world: World) -> None:
    await world.does("command", text="x")
    world.clock.pass_by(1800)
    assert await world.respond(text="just in time") == (200, "ok")
    world.clock.pass_by(1)
    assert await world.respond(text="too late") == (404, '{"ok": false, "error": "expired_url"}')


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ({}, "no_text"),
        ({"text": "x", "colour": "red"}, "invalid_payload"),
        ({"text": "x", "thread_ts": "1.2"}, "invalid_payload"),
        ({"blocks": [{"type": "nonsense"}]}, "invalid_blocks"),
    ],
)
async def test_a_reply_outside_the_rules_is_refused_and_uses_nothing_up(
    world: World, reply: dict[str, Any], error: str
) -> None:
    await world.does("command", text="x")
    for _ in range(6):
        status, text = await world.respond(**reply)
        assert (status, json.loads(text)["error"]) == (400, error)
    assert (await world.respond(text="fine"))[0] == 200


async def test_an_unknown_response_url_is_not_found(world: World) -> None:
    assert (await world.client.post("/response/none", json={"text": "x"})).status_code == 404


async def test_a_click_may_replace_or_delete_its_message_and_an_ephemeral_stays_one(world: World) -> None:
    await world.does("click", ts=world.card(), action_id="stop")
    await world.respond(text="replaced", replace_original=True)
    assert world.said() == ["replaced"]
    await world.respond(delete_original=True)
    assert world.said() == []
    await world.does("click", ts=world.card(seen_by=ON_CALL), action_id="stop")
    await world.respond(text="still private", replace_original=True, response_type="in_channel")
    assert (world.alone(), world.said()) == (["still private"], [])
