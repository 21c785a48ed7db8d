"""The fake Slack against a foreign Bolt app, which knows nothing of this project: over HTTP and over Socket Mode."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import pytest
import uvicorn
from slack_bolt.adapter.asgi.async_handler import AsyncSlackRequestHandler
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.sandbox.slack import FakeSlack, create_slack_app
from bot.sandbox.workspace import load_workspace

SECRET, BOT_TOKEN, APP_TOKEN = "a signing secret", "xoxb-1", "xapp-1"
INCIDENT, ON_CALL = "C0INCIDENT", "U0ONCALLA1"


class Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@dataclass
class World:
    slack: FakeSlack
    bolt: AsyncApp
    person: httpx.AsyncClient
    web: AsyncWebClient

    async def types(self, text: str, **more: Any) -> dict[str, Any]:
        told = {"user": ON_CALL, "channel": INCIDENT, "text": text, **more}
        return (await self.person.post("/_sandbox/command", json=told)).json()

    def said(self, thread: str | None = None) -> list[str]:
        return [one.text for one in self.slack.workspace.messages(INCIDENT, thread)]

    def shown_alone(self, user: str = ON_CALL) -> list[str]:
        return [one.text for one in self.slack.workspace.ephemerals(user)]


def foreign_app(web: AsyncWebClient) -> AsyncApp:
    """What a newcomer writes after reading Bolt's first page."""
    app = AsyncApp(client=web, signing_secret=SECRET)

    @app.command("/hello")
    async def hello(ack: Any, command: Any, client: Any) -> None:
        await ack(f"Hello <@{command['user_id']}>: {command['text']}")
        button = {
            "type": "button",
            "text": {"type": "plain_text", "text": "Press"},
            "action_id": "press",
            "value": "opaque",
        }
        await client.chat_postMessage(
            channel=command["channel_id"], text="A card", blocks=[{"type": "actions", "elements": [button]}]
        )

    @app.command("/loud")
    async def loud(ack: Any) -> None:
        await ack(text="Everybody listen", response_type="in_channel")

    @app.action("press")
    async def press(ack: Any, body: Any, client: Any, respond: Any) -> None:
        await ack()
        await client.chat_update(
            channel=body["channel"]["id"], ts=body["message"]["ts"], text=f"Pressed by {body['user']['id']}"
        )
        await respond("You pressed it.", response_type="ephemeral", replace_original=False)

    @app.event("app_mention")
    async def mention(event: Any, say: Any) -> None:
        await say("I heard you", thread_ts=event["ts"])

    @app.shortcut("stop")
    async def stop(ack: Any, shortcut: Any, respond: Any) -> None:
        await ack()
        await respond(f"About {shortcut['message']['text']}")

    return app


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A fake Slack and a foreign app on free ports, over HTTP or, if the test asks so, over Socket Mode."""
    fake = create_slack_app(
        load_workspace(), signing_secret=SECRET, bot_token=BOT_TOKEN, app_token=APP_TOKEN, now=time.time
    )
    slack: FakeSlack = fake.state.slack
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(served(fake))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        person = await stack.enter_async_context(httpx.AsyncClient(base_url=url))
        web = AsyncWebClient(token=BOT_TOKEN, base_url=f"{url}/api/", session=session)
        bolt = foreign_app(web)
        if getattr(request, "param", "http") == "socket":
            app_web = AsyncWebClient(token=APP_TOKEN, base_url=f"{url}/api/")
            handler = AsyncSocketModeHandler(bolt, APP_TOKEN, web_client=app_web)
            await handler.connect_async()
            stack.push_async_callback(handler.close_async)
            await until(lambda: bool(slack.sockets))
        else:
            bolt_url = await stack.enter_async_context(served(AsyncSlackRequestHandler(bolt, path="/slack/events")))
            slack.deliver_to = f"{bolt_url}/slack/events"
        yield World(slack, bolt, person, web)


async def until(is_so: Callable[[], bool]) -> None:
    """Lets the other side work until something is so; the test's time limit ends a wait in vain."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 (two servers in one loop: there is no event to wait for)
            await asyncio.sleep(0.005)


both_roads = pytest.mark.parametrize("world", ["http", "socket"], indirect=True)


@both_roads
async def test_a_foreign_app_answers_a_command_posts_buttons_and_updates_them_on_a_click(world: World) -> None:
    answer = await world.types("/hello there")
    assert (answer["status"], answer["error"]) == (200, None)
    assert world.shown_alone() == [f"Hello <@{ON_CALL}>: there"]
    await until(lambda: world.said() == ["A card"])
    card = world.slack.workspace.messages(INCIDENT)[0]
    click = {"user": ON_CALL, "channel": INCIDENT, "ts": card.ts, "action_id": "press"}
    clicked = (await world.person.post("/_sandbox/click", json=click)).json()
    assert (clicked["status"], clicked["error"]) == (200, None)
    await until(lambda: "You pressed it." in world.shown_alone())
    assert world.said() == [f"Pressed by {ON_CALL}"]
    assert world.slack.workspace.messages(INCIDENT)[0].blocks == ()


@both_roads
async def test_a_loud_reply_shows_the_typed_command_too(world: World) -> None:
    await world.types("/loud now")
    assert world.said() == ["/loud now", "Everybody listen"]


@both_roads
async def test_a_mention_in_a_thread_is_heard_and_answered_in_it(world: World) -> None:
    told = {"user": ON_CALL, "channel": INCIDENT, "text": "are you there"}
    assert (await world.person.post("/_sandbox/mention", json=told)).json()["error"] is None
    root = world.slack.workspace.messages(INCIDENT)[0]
    await until(lambda: "I heard you" in world.said(root.ts))


@both_roads
async def test_a_message_shortcut_brings_its_message(world: World) -> None:
    posted = await world.web.chat_postMessage(channel=INCIDENT, text="job 7glPHmaDYLAYMD1HHutT02")
    told = {"user": ON_CALL, "channel": INCIDENT, "ts": posted["ts"], "callback_id": "stop"}
    await world.person.post("/_sandbox/shortcut", json=told)
    await until(lambda: world.shown_alone() == ["About job 7glPHmaDYLAYMD1HHutT02"])


async def test_an_unknown_command_is_a_failed_dispatch_that_the_person_sees(world: World) -> None:
    answer = await world.types("/nobody knows this")
    assert (answer["status"], answer["error"]) == (404, "dispatch_failed")
    assert world.shown_alone() == ['/nobody failed with the error "dispatch_failed"']


@pytest.mark.parametrize("world", ["socket"], indirect=True)
async def test_an_app_that_is_told_to_refresh_connects_anew(world: World) -> None:
    gone = await world.person.post("/_sandbox/faults", json={"disconnect": "refresh_requested"})
    assert gone.json()["disconnected"] == 1
    await until(lambda: bool(world.slack.sockets))
    assert (await world.types("/hello again"))["error"] is None


async def test_the_official_client_reads_people_groups_and_channels(world: World) -> None:
    assert (await world.web.auth_test())["bot_id"] == "B0OTABRAKE"
    assert (await world.web.users_info(user="U0GUEST0001"))["user"]["is_restricted"] is True
    assert (await world.web.users_info(user="W0OUTSIDE1"))["user"]["team_id"] == "T0ELSEWHER"
    groups = await world.web.usergroups_list(include_users=True)
    assert {group["id"] for group in groups["usergroups"]} == {"S0614TZAA", "S0614TZR7"}
    users = (await world.web.usergroups_users_list(usergroup="S0614TZAA"))["users"]
    assert users == ["U0ONCALLA1", "U0ONCALLB2", "U0RELEASE1"]
    assert (await world.web.conversations_info(channel="C0SHARED01"))["channel"]["is_ext_shared"] is True


async def test_a_rate_limit_reaches_the_official_client_with_its_waiting_time(world: World) -> None:
    await world.person.post(
        "/_sandbox/faults", json={"method": "chat.postMessage", "error": "ratelimited", "retry_after": 7}
    )
    with pytest.raises(SlackApiError) as caught:
        await world.web.chat_postMessage(channel=INCIDENT, text="one")
    assert (caught.value.response.status_code, caught.value.response.headers["Retry-After"]) == (429, "7")
    await world.web.chat_postMessage(channel=INCIDENT, text="two")
    assert world.said() == ["two"]
